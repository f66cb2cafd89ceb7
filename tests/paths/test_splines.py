"""Paths through inputs of one's own: the spline that they are said to be, and how few inputs they hold at once."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from smpcore import attribute, models, paths

pytestmark = pytest.mark.numeric

INPUTS = torch.randn(150, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TIMES = torch.rand(150, generator=torch.Generator().manual_seed(1), dtype=torch.float64).add(0.1).cumsum(0)


def moments(path, count=400):
    """Times within all of a path's knots, at random."""
    share = torch.rand(count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.lerp(*torch.tensor(path.knots[[0, -1]]), share)


@pytest.mark.parametrize("count", [4, 5, 40, 150])
def test_it_is_the_spline_that_scipy_gives(count):
    path = paths.through(INPUTS[:count], TIMES[:count])
    known, t = CubicSpline(TIMES[:count], INPUTS[:count]), moments(path)
    # Inputs more than 32 away are left out: 2^-32 of them at worst, 1e-18 where times are even.
    np.testing.assert_allclose(path(t), known(t), atol=1e-9)
    np.testing.assert_allclose(path.slope(t), known(t, 1), atol=1e-9)
    np.testing.assert_allclose(path(TIMES[:count]), INPUTS[:count], atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 40, 150])
def test_a_periodic_one_comes_back_smoothly(count):
    path = paths.through(INPUTS[:count], periodic=True)
    known = CubicSpline(np.arange(count + 1), torch.cat([INPUTS[:count], INPUTS[:1]]), bc_type="periodic")
    t = 3 * moments(path) - count
    np.testing.assert_allclose(path(t), known(t), atol=1e-12)
    np.testing.assert_allclose(path.slope(t), known(t, 1), atol=1e-12)


def test_two_and_three_inputs_have_a_path_as_well():
    a, b, c = INPUTS[:3]
    assert torch.allclose(paths.through([a, b])(torch.tensor([0.25])), (0.75 * a + 0.25 * b).float()[None], atol=1e-6)
    through = paths.through([a, b, c])
    assert torch.allclose(through(torch.arange(3.0).double()), INPUTS[:3])


def test_times_in_any_order_and_none():
    path = paths.through(INPUTS)
    t = moments(path)
    order = t.argsort()
    torch.testing.assert_close(path(t)[order], path(t[order]), rtol=0, atol=1e-12)  # sums in another order
    assert path(t[:0]).shape == (0, 2, 3)


class Counted:
    """Inputs that say how many of them were loaded."""

    def __init__(self):
        self.loaded = []

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, n):
        self.loaded.append(n)
        return INPUTS[n]


def test_inputs_are_loaded_when_they_are_needed_and_few_are_kept():
    counted = Counted()
    path = paths.through(counted)
    assert counted.loaded == []
    start, all_of_it = torch.linspace(0, 5, 9, dtype=torch.float64), moments(path).sort().values
    assert torch.allclose(path(start), paths.through(INPUTS)(start), atol=1e-12)
    assert max(counted.loaded) <= 64
    assert torch.allclose(path(all_of_it), paths.through(INPUTS)(all_of_it), atol=1e-12)
    assert sorted(counted.loaded) == list(range(150)), "each once, along the path"
    assert len(path._held) <= 97


def test_pictures_and_arrays_in_files(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, 9, 3), dtype=np.uint8)
    for n, one in enumerate(pixels):
        image.fromarray(one).save(tmp_path / f"{n}.png")
    path = paths.through(sorted(tmp_path.glob("*.png")))
    found = path(torch.arange(5, dtype=torch.float64))
    np.testing.assert_allclose(found.permute(0, 2, 3, 1) * 255, pixels, atol=1e-9)
    np.save(tmp_path / "states.npy", INPUTS)
    path = paths.through(np.load(tmp_path / "states.npy", mmap_mode="r"))
    assert torch.allclose(path(TIMES), paths.through(INPUTS)(TIMES), atol=1e-12)


@pytest.mark.parametrize(("inputs", "settings", "error", "says"), [
    (5, {}, TypeError, r"inputs has to be a tensor \(N, \*input_shape\) or a sequence of inputs, not a int"),
    ("frames", {}, TypeError, "not a str"),
    ({1, 2}, {}, TypeError, "not a set"),
    (torch.tensor(0.0), {}, TypeError, "inputs has to be a tensor"),
    (INPUTS[:3], {"times": 10**400}, TypeError, r"times has to be \(3,\) numbers, not a int"),
    (INPUTS[:3], {"times": torch.eye(3).to_sparse()}, TypeError, r"times has to be \(3,\) numbers, not a Tensor"),
    (INPUTS[:3], {"periodic": torch.ones(2)}, TypeError, "periodic has to be True or False, not a Tensor"),
    (INPUTS[:1], {}, ValueError, "needs at least two, not 1"),
    (INPUTS[:3], {"times": [0, 1]}, ValueError, r"times has shape \(2,\): 3 inputs need \(3,\)"),
    (INPUTS[:3], {"times": [0, 1, 2], "periodic": True}, ValueError, r"3 inputs and a period need \(4,\)"),
    (INPUTS[:3], {"times": [0, 1, 1]}, ValueError, "times must be finite and increase"),
    (INPUTS[:3], {"times": [0, 1, np.nan]}, ValueError, "times must be finite and increase"),
    ([INPUTS[0], INPUTS[0, 0]], {}, ValueError, r"the inputs differ in shape: inputs\[0\] \(2, 3\), inputs\[1\]"),
    (INPUTS / 0, {}, ValueError, "inputs holds NaN or infinity"),
])
def test_what_is_refused(inputs, settings, error, says):
    with pytest.raises(error, match=says):
        paths.through(inputs, **settings)


@pytest.mark.parametrize(("inputs", "t", "says"), [
    (INPUTS, 149.5, "the path through the inputs goes from t = 0 to 149: t = 149.5 lies beyond"),
    (INPUTS, -1.0, "t = -1 lies beyond"),
    ([np.zeros(3), np.zeros(4)], 0.5, r"the inputs differ in shape: inputs\[0\] \(3,\), inputs\[1\] \(4,\)"),
    ([np.zeros(3), np.full(3, np.nan)], 0.5, r"inputs\[1\] holds NaN or infinity"),
    (["nowhere.png", "nor here.png"], 0.5, "picture = 'nowhere.png': there is no such file"),
])
def test_what_is_refused_on_the_way(inputs, t, says):
    path = paths.through(inputs)
    with pytest.raises(ValueError, match=says):
        path(torch.tensor([t], dtype=torch.float64))


def test_interpolated_frames_of_a_pan_have_the_smp_of_the_pan():
    """The face network along a pan, and along paths through frames of it: what interpolation adds is in the third digit
    behind the point of a per cent at 30 frames per unit of t, and 0.02 per cent at 15."""
    pan = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **models.FACE_INPUT)
    times = torch.linspace(0.2, 0.6, 31, dtype=torch.float64)

    def measured(path):
        return attribute(models.face_network(), path, times, outputs=lambda face: face.landmarks[:, :1]).total.item()

    true = measured(pan)
    for rate in (15, 30):
        frames = torch.arange(-2, 0.9 * rate, dtype=torch.float64) / rate
        assert measured(paths.through(pan(frames), frames)) == pytest.approx(true, rel=1e-3)
    # Two frames per unit of t do not resolve a motion of one radian per unit: the path cuts its corners.
    coarse = torch.arange(-2, 5, dtype=torch.float64) / 2
    assert measured(paths.through(pan(coarse), coarse)) != pytest.approx(true, rel=1e-2)
