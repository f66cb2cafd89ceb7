"""Every public function on a GPU gives what it gives on the CPU; what has a test of its own kind is not repeated here.

Each case runs on the CPU twice as well, so that a case which is itself wrong shows on every machine.
"""

import functools
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import smpcore
from smpcore import (
    attribute,
    diagnosis,
    find_kinks,
    forensics,
    metric,
    models,
    paths,
    propagation,
    signals,
    smoothing,
    smp,
    trace_line,
    tracing,
)
from smpcore.experiments.architectures import ARCHITECTURES
from smpcore.experiments.benchmarks import forward_pass, sampled_slopes, transform_line
from smpcore.models import cnn, mlp, reference_cnn, reference_line
from smpcore.models import regressors as training
from smpcore.paths import blob, circle, line
from smpcore.propagation.closed_forms import crossing_variance as crossings

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here")
ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]


def tensor(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(device, samples=101, end=1.0):
    return torch.linspace(0, end, samples, dtype=torch.float64).to(device)


def kinked(device):
    grid = times("cpu", 4001, 20.0)
    smooth = signals.gaussian_process("rbf", 4001, 20.0, length_scale=0.5, seed=0)
    return (smooth.values + signals.hinge_signals(grid, 20, seed=1).values)[0].to(device)


def short_line(device):
    start, end = reference_line()
    return start.to(device), (start + 0.1 * (end - start)).to(device)


def attributed(model, path, grid, **options):
    found = attribute(model, path, grid, **options)
    return [found.total, found.value_jumps, found.values, found.slopes, *[layer.smp for layer in found.layers]]


def predicted(device, **options):
    model = cnn((1, 8, 8), channels=4, depth=2, padding_mode="circular").to(device)
    found = propagation.predict_network(model, circle((1, 8, 8), seed=0), times(device, 17, 6.28), **options)
    return [found.total, *[layer.smp for layer in found.layers]]


def with_weights_in_units(device, pool=nn.AvgPool2d, **options):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.PReLU(3), pool(2), nn.Conv2d(3, 2, 2), nn.PReLU(), nn.Flatten(),
                          nn.Linear(8, 1))
    for place, weight in enumerate(model.parameters()):
        weight.data = 0.3 * tensor(*weight.shape, seed=place)
    found = propagation.predict_network(model.to(device), circle((1, 8, 8), seed=0), times(device, 17, 6.28), **options)
    return [found.total, *[layer.smp for layer in found.layers]]


def tied(device):
    """Overlapping windows, units that share a kink, value jumps: what is grouped before it is added."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU6(), nn.MaxPool2d(3, 1), nn.Hardshrink(0.2), nn.Flatten(),
                          nn.Linear(3 * 16, 2))
    for place, weight in enumerate(model.parameters()):
        weight.data = 0.3 * tensor(*weight.shape, seed=place)
    return attributed(model.double().to(device), line(tensor(1, 8, 8).to(device), tensor(1, 8, 8, seed=9).to(device)),
                      times(device))


def covariances(device):
    return [matrix.to(device) for matrix in signals.picture_covariances(2, 2)]


def traced(device):
    found = trace_line(reference_cnn().to(device), *short_line(device))
    assert found.certified
    return [found.times, found.jumps, found.smp]


def gaussian_statistics(device):
    value, slope = (tensor(4, 4, seed=seed).to(device) for seed in (1, 2))
    return propagation.Statistics.exact(torch.zeros(4, dtype=torch.float64, device=device), value @ value.T,
                                        slope @ slope.T, 5.0)


def maximum_of_two(device):
    def draw(count, seed):
        return tensor(count, 20, 2, seed=seed).to(device), tensor(count, 20, 2, seed=seed + 1000).to(device)
    found = propagation.simulated_spread(draw, 20)
    return [found.mean, found.std]


def by_name(device):
    model = models.load_model("smpcore.models:reference_cnn").to(device)
    path = models.load_path("smpcore.models:reference_line")
    models.check_fit(model, path, times(device), [0])
    return [model.double()(path(times(device, 5)))]


def untrained(device):
    recipe = training.Recipe(size=8, channels=2)
    return training.Trained(recipe, training.regressor(recipe).to(device), 0.0, 0.0)


def relaxed(device):
    """With the trained readout's movement, and the new network's answers."""
    model = cnn((1, 8, 8), 2, channels=4, depth=2, pooling="max").double().to(device)
    x = tensor(64, 1, 8, 8).to(device)
    found = smoothing.relax(model, x)
    assert found.report()
    return [found.moved, found.model(x)]


def penalised(device):
    model = mlp(6, 2, width=16, depth=2, activation="gelu").double().to(device)
    penalty = smoothing.curvature_penalty(model, tensor(9, 6).to(device), tensor(9, 6, seed=1).to(device), 0.05)
    return [penalty, *torch.autograd.grad(penalty, list(model.parameters())[:1])]


def soft_pool(dimensions):
    pool = getattr(smoothing, f"LogSumExpPool{dimensions}d")
    return lambda d: [pool(3, 2.0, 2, 1, ceil_mode=True).double().to(d)(tensor(2, 3, *[6] * dimensions).to(d))]


def face(device):
    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], **models.FACE_INPUT)
    return [models.face_network().double().to(device)(path(times(device, 2))).landmarks]


def boxes(device):
    return torch.tensor([[165, 125, 375, 335], [170, 127, 370, 330]], dtype=torch.float64, device=device)


def sibling(build):
    def case(device):
        path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], **build().picture_input)
        return list(build().double().to(device)(path(times(device, 2))))
    return case


def diagnosed(device):
    path = paths.through(blob(size=8)(times("cpu", 40)).to(device) + 0.1 * tensor(40, 1, 8, 8).to(device),
                         times("cpu", 40))
    found = diagnosis.why(cnn((1, 8, 8), 2, channels=4, depth=2, pooling="max").to(device), path, times(device, 40))
    return [found.roughness, *found.shares.values(), found.attribution.total.to(device)]


# Each by the name of what it calls, as far as the first space or comma.
def varied(device):
    model = mlp(3, 1, width=8, depth=2).double().to(device)
    ball = tracing.Ball(torch.zeros(3, dtype=torch.float64, device=device), 1.0)
    box = tracing.Box(*(torch.full((3,), end, dtype=torch.float64, device=device) for end in (-1.0, 1.0)))
    return [torch.tensor(tracing.total_variation(model, region, lines=20).value) for region in (ball, box)]


def planed(device):
    found = tracing.trace_plane(mlp(3, 1, width=8, depth=2).double().to(device),
                                *(tensor(3, seed=seed).to(device) for seed in range(3)), lines=5)
    return [found.points, found.jumps]


CASES = {
    "smp of a kinked signal": lambda d: [smp(kinked(d), 0.005)],
    "smp at a lag": lambda d: [smp(kinked(d), 0.005, lag=3)],
    "jump_share": lambda d: [metric.jump_share(kinked(d).round(decimals=1))],
    "slope_variation": lambda d: [metric.slope_variation(kinked(d), 0.005, 0.02)],
    "acceleration_error": lambda d: [metric.acceleration_error(kinked(d), kinked(d).flip(0), 0.005)],
    "mean_jerk": lambda d: [metric.mean_jerk(kinked(d), 0.005)],
    "log_dimensionless_jerk": lambda d: [metric.log_dimensionless_jerk(kinked(d), 0.005)],
    "find_kinks": lambda d: [*find_kinks(kinked(d), 0.005)],
    "attribute, reference network": lambda d: attributed(
        reference_cnn().to(d), line(*short_line(d)), times(d), outputs=[0]),
    "attribute, in small chunks": lambda d: attributed(reference_cnn().to(d), line(*short_line(d)), times(d), chunk=7),
    "attribute, what switches together": tied,
    "attribute, a moving picture": lambda d: attributed(
        cnn((1, 16, 16), 2, channels=4, depth=2, pooling="max").to(d), blob(size=16), times(d)),
    "attribute, many outputs": lambda d: attributed(mlp(6, 5, width=16, depth=2).to(d), circle(6), times(d)),
    "trace_line": traced,
    "integrated_gradients": lambda d: [tracing.integrated_gradients(reference_cnn().to(d), *short_line(d))],
    "Ball": varied, "Box": varied, "total_variation": varied,
    "trace_plane": planed,
    "transform_line": lambda d: [transform_line(reference_cnn().to(d), *short_line(d)).times],
    "forward_pass": lambda d: [forward_pass(reference_cnn().to(d), line(*short_line(d)), times(d))],
    "sampled_slopes": lambda d: [sampled_slopes(reference_cnn().double().to(d), *short_line(d), 33)],
    "linear_smp": lambda d: [propagation.linear_smp(tensor(3, 5).to(d), tensor(5, seed=1).abs().to(d))],
    "shared_linear_smp": lambda d: [propagation.shared_linear_smp(tensor(3, 5).to(d), tensor(7, 5, seed=1).to(d))],
    "random_linear_smp": lambda d: [propagation.random_linear_smp(0.7, tensor(7, 5).to(d))],
    "two_slope_smp": lambda d: [propagation.two_slope_smp(
        tensor(4).to(d), tensor(4, seed=1).exp().to(d), tensor(4, seed=2).exp().to(d), 3.0, 0.5, (1.0, 0.2))],
    "two_slope_smp_std": lambda d: [propagation.two_slope_smp_std(torch.exp(-2 * times(d, 801, 8.0) ** 2), 0.01)],
    "max_pool_smp": lambda d: [propagation.max_pool_smp(*covariances(d), 5.0)],
    "max_pool_smp_estimate": lambda d: [*propagation.max_pool_smp_estimate(*covariances(d), 5.0)][:1],
    "maximum_smp": lambda d: [propagation.maximum_smp(tensor(3, 50, 4).to(d), tensor(3, 50, 4, seed=1).to(d))],
    "convex_unit_smp": lambda d: [propagation.convex_unit_smp(
        lambda x: x.amax(-1), *covariances(d), 5.0, points=512)[0]],
    "predict_network": predicted,
    "predict_network, measured": lambda d: predicted(d, moments="measured", reference=circle((1, 8, 8), seed=5)),
    "predict_network, weights in units": with_weights_in_units,
    "predict_network, measured, weights in units": lambda d: with_weights_in_units(
        d, nn.MaxPool2d, moments="measured", reference=circle((1, 8, 8), seed=5)),
    "two_slope_spread": lambda d: list(propagation.two_slope_spread(torch.exp(-2 * times(d, 801, 8.0) ** 2), 0.01))[:2],
    "simulated_spread": maximum_of_two,
    "crossing_pairs": lambda d: [crossings.crossing_pairs(torch.exp(-2 * times(d, 801, 8.0) ** 2), 0.01)],
    "propagate": lambda d: [propagation.propagate(nn.ReLU(), gaussian_statistics(d)).smp],
    "Residual": lambda d: [propagation.Residual(nn.Tanh())(tensor(3).to(d))],
    "forensics.report": lambda d: [forensics.report(kinked(d), 0.005).kinked, forensics.report(kinked(d), 0.005).smp],
    "regressor": lambda d: [training.regressor(training.Recipe(size=8)).double().to(d)(blob(size=8)(times(d, 5)))],
    "Trained.curves": lambda d: [untrained(d).curves(17)[0].to(d)],
    "he_initialise": lambda d: list(models.he_initialise(mlp(6, 1, width=16, depth=2).double().to(d), 3).parameters()),
    "mlp": lambda d: [mlp(6, 1, width=16, depth=2).double().to(d)(circle(6)(times(d)))],
    "cnn": lambda d: [cnn((1, 8, 8), channels=4, depth=1).double().to(d)(circle((1, 8, 8))(times(d, 5)))],
    "reference_cnn": lambda d: [reference_cnn().double().to(d)(line(*short_line(d))(times(d, 5)))],
    "reference_line": short_line,
    "face_network": face,
    "refine_network": sibling(models.refine_network), "proposal_network": sibling(models.proposal_network),
    "face_pipeline": lambda d: [models.face_pipeline().to(d)(boxes(d))],
    "why": diagnosed,
    "load_model": by_name, "load_path": by_name, "check_fit": by_name,
    "relax": relaxed, "curvature_penalty": penalised,
    "expected_smp": lambda d: [smoothing.expected_smp(
        cnn((1, 8, 8), 2, channels=4, depth=2, pooling="max").double().to(d), tensor(9, 1, 8, 8).to(d),
        tensor(9, 1, 8, 8, seed=1).to(d))],
    **{f"LogSumExpPool{dimensions}d": soft_pool(dimensions) for dimensions in (1, 2, 3)},
    "line": lambda d: [line(tensor(3).to(d), tensor(3, seed=1).to(d))(times(d))],
    "circle": lambda d: [circle(6)(times(d))],
    "through": lambda d: [paths.through(tensor(5, 2, 3).to(d))(times(d, end=4.0)),
                          paths.through(tensor(5, 2, 3).to(d), periodic=True).slope(times(d, end=9.0))],
    "circle_through": lambda d: [paths.circle_through(*(tensor(3, seed=seed).to(d) for seed in range(3)))(times(d))],
    "blob": lambda d: [blob(size=8)(times(d)), blob(size=8).position(times(d)), blob(size=8).angle(times(d))],
    "ellipsoid": lambda d: [paths.ellipsoid(size=8)(times(d)), paths.ellipsoid(size=8).angles(times(d))],
    "render_blobs": lambda d: [paths.render_blobs(tensor(3, 2).to(d), tensor(3).to(d), size=8)],
    "render_ellipsoids": lambda d: [paths.render_ellipsoids(tensor(3, 2).to(d), size=8)],
    "picture": lambda d: [paths.picture("grace_hopper.jpg", [165, 125, 375, 335], size=8)(times(d, 3))],
    "gaussian_process": lambda d: [signals.gaussian_process("matern52", 101, 5.0, seed=3, device=d).values],
    "hinges": lambda d: [*signals.hinges(times(d), tensor(3, 4).abs().to(d), tensor(3, 4, seed=1).to(d))],
    "hinge_signals": lambda d: [signals.hinge_signals(times(d), 5, seed=2).values],
    "moving_pictures": lambda d: [signals.moving_pictures(21, 3.0, height=4, width=4, device=d).values],
}


# What has no case, and why.
RESULTS = "is what a function gives back, whose case reads it"
ELSEWHERE = {
    **dict.fromkeys(["Attribution", "LayerSmp", "LineKinks", "Kinks", "LineTrace", "Report", "Face", "Trained",
                     "LayerPrediction", "NetworkPrediction", "MaxPoolSmp", "Spread", "Statistics", "BlobPath",
                     "CirclePath", "EllipsoidPath", "LinePath", "PicturePath", "HingeSignals", "PictureSignals",
                     "Signals", "FaceNetwork", "RefineNetwork", "ProposalNetwork", "FacePipeline", "Candidate",
                     "SplinePath", "PlaneTrace", "TotalVariation", "Diagnosis", "CurveDiagnosis", "Part", "Recipe",
                     "Relaxed", "Suggestion", "ValueJumpWarning"], RESULTS),
    **dict.fromkeys(["Hinge", "Hinges", "Selection", "Steps", "Unit", "canonical", "entry", "units.describe",
                     "units.adaptive_windows", "units.arguments", "units.windows", "moves", "in_place", "switching",
                     "unfollowed"],
                    "is asked of single operations inside every case of attribute"),
    **dict.fromkeys(["arguments.*"], "checks arguments, wherever they are"),
    **dict.fromkeys(["SamplingWarning", "ValueJumpWarning"], "is a warning"),
    "PathWithSlope": "is a form that paths may have",
    **dict.fromkeys(["in_turns", "peak_bytes"], "watches work on any device"),
    **dict.fromkeys(["rms_error", "samples_needed", "auc", "averaged", "cross_validate", "degrade", "table", "bank",
                     "recipes", "probability_kinked", "verdict", "scipy_composition", "forensics.features",
                     "diagnose_curve", "read_curve"], "works on the host"),
    **dict.fromkeys(["autocovariance", "slope_variance", "picture_covariances"], "is the input of other cases"),
    **dict.fromkeys(["Run", "start", "load", "load_picture", "carried_weights"], "reads or writes files"),
    **dict.fromkeys(["plotting.*", "draw_course", "draw_shares", "write_page"], "draws"),
    **dict.fromkeys(["inspection.*"], "is asked of whole models inside every case of attribute"),
    **dict.fromkeys(["train", "make_bank"], "trains in single precision: a test of its own below"),
}


def offered():
    """(room, name) of every callable that a room of the package offers."""
    found = set()
    for room in pkgutil.iter_modules(smpcore.__path__):
        loaded = importlib.import_module(f"smpcore.{room.name}")
        found |= {(room.name, name) for name in getattr(loaded, "__all__", []) if callable(getattr(loaded, name))}
    return sorted(found)


@pytest.mark.parametrize(("module", "name"), offered())
def test_every_public_callable_has_a_case_or_a_reason(module, name):
    cases = {case.split(",")[0].split(" ")[0] for case in CASES} | ELSEWHERE.keys()
    assert {name, f"{module}.{name}", f"{module}.*"} & cases


def test_no_reason_outlives_what_it_is_for():
    names = {name for _, name in offered()} | {"*"}
    assert {each.split(".")[-1] for each in ELSEWHERE} <= names


@functools.cache
def on_the_cpu(name):
    return [torch.as_tensor(each).detach() for each in CASES[name]("cpu")]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_a_device_gives_what_the_cpu_gives(name, device):
    """Sums are taken in another order there: float64 agrees to some 1e-12 of the largest, and 1e-9 is allowed."""
    here, there = on_the_cpu(name), [torch.as_tensor(each).detach() for each in CASES[name](device)]
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert other.device.type == device or other.dim() == 0
        largest = float(one.abs().max()) if one.numel() else 0.0
        torch.testing.assert_close(other.cpu(), one, rtol=1e-9, atol=1e-9 * largest)


@pytest.mark.parametrize("device", DEVICES)
def test_training_gives_what_it_gives_on_the_cpu(device):
    """In single precision, and for a few steps: rounding grows with each."""
    recipe = training.Recipe(size=8, channels=2, steps=5)
    here, there = (training.train(recipe, device=where) for where in ("cpu", device))
    assert next(there.model.parameters()).device.type == device
    assert there.test_error == pytest.approx(here.test_error, rel=1e-3)
    assert here.test_error != here.before


@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_is_near_double(device):
    """Rounding moves a switch across a sample now and then; each of 2,470 kinks is 0.04% of the whole on average,
    and a dozen of them are allowed."""
    model = reference_cnn().to(device)
    path = line(*(point.to(device) for point in reference_line()))
    double, single = (attribute(model, path, times(device, 201), dtype=kind) for kind in (torch.float64, torch.float32))
    assert single.total.dtype == torch.float32
    torch.testing.assert_close(single.total.double(), double.total, rtol=5e-3, atol=0)
    largest = float(double.slopes.abs().max())
    torch.testing.assert_close(single.slopes.double(), double.slopes, rtol=0, atol=1e-4 * largest)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_image_models_on_a_gpu(name):
    pytest.importorskip("transformers", reason="the extra 'architectures' is not installed")
    from smpcore.experiments.architectures import build, logits
    ends = [tensor(3, 224, 224, seed=seed) for seed in (1, 2)]
    here = attribute(build(name), line(*ends), times("cpu", 3), outputs=logits)
    there = attribute(build(name).cuda(), line(*[each.cuda() for each in ends]), times("cuda", 3), outputs=logits)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@needs_gpu
def test_memory_of_a_gpu_is_given_back():
    model, path = reference_cnn().cuda(), line(*(point.cuda() for point in reference_line()))
    attribute(model, path, times("cuda", 65))
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        attribute(model, path, times("cuda", 65))
    assert torch.cuda.memory_allocated() <= before + 2**16


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_on_a_gpu(notebook, tmp_path):
    """With their claims asserted, as they are on the CPU."""
    done = subprocess.run([sys.executable, "ci/run.py", "--here", notebook, "-p", "device", "cuda", "--output",
                           str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list(tmp_path.rglob(f"{notebook}.json"))
