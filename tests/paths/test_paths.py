"""Paths: smooth, correctly differentiated, and where they are said to be."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad

from smpcore import paths, smp

pytestmark = pytest.mark.numeric

RNG = np.random.default_rng(0)
NOISE = RNG.uniform(size=(60, 70, 3))  # the roughest picture there is: every pixel its own
GREY = (RNG.uniform(size=(40, 40)) * 255).astype(np.uint8)
A, B, C = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
           for seed in range(3))
BOX = [10.5, 8.0, 52.5, 50.0]


def nod(t):
    return torch.stack([3 * torch.cos(t), 0.5 * t], dim=1)


# name, path, shape of one input
CASES = [
    ("line", paths.line(A, B, 2 * math.pi), (2, 3, 4)),
    ("circle", paths.circle((2, 3, 4)), (2, 3, 4)),
    ("circle of a number", paths.circle(5, radius=2.0, seed=3), (5,)),
    ("circle through inputs", paths.circle_through(A, B, C), (2, 3, 4)),
    ("pan", paths.picture(NOISE, BOX, size=14, pan=(4, 3)), (3, 14, 14)),
    ("pan off the edge", paths.picture(NOISE, [0, 0, 42, 42], size=14, pan=(40, 30)), (3, 14, 14)),
    ("zoom", paths.picture(NOISE, BOX, size=14, zoom=1.3), (3, 14, 14)),
    ("turn", paths.picture(NOISE, BOX, size=14, turn=0.4), (3, 14, 14)),
    ("all three", paths.picture(NOISE, BOX, size=(12, 9), pan=(4, 3), zoom=1.2, turn=0.4), (3, 12, 9)),
    ("motion of one's own", paths.picture(NOISE, BOX, size=14, pan=nod, zoom=torch.exp), (3, 14, 14)),
    ("grey, enlarged", paths.picture(GREY, [10, 10, 16, 16], size=12, pan=(2, 1)), (1, 12, 12)),
    ("area", paths.picture(NOISE, BOX, size=14, pan=(4, 3), prefilter="area"), (3, 14, 14)),
    ("no prefilter", paths.picture(NOISE, BOX, size=14, pan=(4, 3), prefilter="none"), (3, 14, 14)),
    ("strongly shrunk", paths.picture(NOISE, size=6, pan=(4, 3)), (3, 6, 6)),
    ("through inputs", paths.through([A, B, C, A + B, B - C, A - C, 2 * A, C]), (2, 3, 4)),
    ("through inputs again and again", paths.through([A, B, C], [0.0, 1.1, 2.05, 2.8], periodic=True), (2, 3, 4)),
    ("blob", paths.blob(), (1, 32, 32)),
    ("ellipsoid", paths.ellipsoid(), (1, 32, 32)),
]
every_path = pytest.mark.parametrize(("path", "shape"), [case[1:] for case in CASES],
                                     ids=[case[0] for case in CASES])


def with_slope(path, t):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(path(forward_ad.make_dual(t, torch.ones_like(t))))


@every_path
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_shape_and_type_follow_the_times(path, shape, dtype):
    t = torch.linspace(0, 2, 5, dtype=dtype)
    x = path(t)
    assert x.shape == (5, *shape)
    assert x.dtype == dtype
    assert torch.isfinite(x).all()
    assert torch.allclose(x.double(), path(t.double()), atol=2e-4), "float32 and float64 are one path"


@every_path
def test_the_tangent_is_the_finite_difference(path, shape):
    t = torch.linspace(0.1, 3, 7, dtype=torch.float64)
    step = 1e-4
    _, slope = with_slope(path, t)
    near, far = path(t + step) - path(t - step), path(t + 2 * step) - path(t - 2 * step)
    difference = (8 * near - far) / (12 * step)
    # The rule's own error is step⁴ f⁽⁵⁾/30 where f is smooth; at a knot of the spline, where f''' jumps by an
    # amount of order (speed/pixel)³, step² f'''/3. Rounding adds 1e-16/step.
    scale = slope.abs().max() + 1
    assert (slope - difference).abs().max() < 2e-6 * scale


@every_path
def test_pieces_of_the_times_give_the_same(path, shape):
    t = torch.linspace(0, 6, 11, dtype=torch.float64)
    whole = path(t)
    # A matrix product of 4 rows may add up in another order than one of 11 does: rounding of some 70 terms.
    rounding = 70 * torch.finfo(torch.float64).eps * whole.abs().max().item()
    torch.testing.assert_close(torch.cat([path(t[:4]), path(t[4:])]), whole, rtol=0, atol=rounding)


def largest_change_of_slope(path, count):
    """The largest difference of slopes between neighbours of ``count`` samples on 0.1 of time."""
    t = 2.0 + torch.linspace(0, 0.1, count, dtype=torch.float64)
    slopes = torch.cat([with_slope(path, part)[1].flatten(1)[:, :200] for part in t.split(100)])
    return slopes.diff(dim=0).abs().max().item()


@every_path
def test_it_adds_no_kink(path, shape):
    """Slopes at spacing h differ by h x'' where x is smooth, by the jump where it is not: quartering h must
    quarter the largest difference."""
    assert largest_change_of_slope(path, 1_001) < 0.27 * largest_change_of_slope(path, 251) + 1e-9


def test_the_test_above_sees_a_kink():
    def bent(t):
        return torch.abs(t - 2.03003)[:, None]

    assert largest_change_of_slope(bent, 1_001) == largest_change_of_slope(bent, 251) == 2


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_smp_of_the_pixels_is_zero(turn):
    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], size=48, pan=(16, 10), turn=turn)
    path = dataclasses.replace(path, size=(6, 6))  # 36 points of the same moving, filtered picture
    share = []
    for count in (4_001, 16_001):
        t = torch.linspace(0, 2 * math.pi, count, dtype=torch.float64)
        pixels = torch.cat([path(part).flatten(1) for part in t.split(500)]).T.contiguous()
        second = pixels.diff(n=2, dim=1).abs().sum(1) / (t[1] - t[0])
        assert second.mean() > 5, "the picture moves: its slopes change by this much in all"
        share.append((smp(pixels, t[1] - t[0]).mean() / second.mean()).item())
    # What a spline's third derivative leaves (it steps at every knot) falls at least as fast as the spacing.
    assert share[1] < 1e-3
    assert share[1] < share[0] / 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@every_path
def test_the_gpu_gives_the_same(path, shape):
    t = torch.linspace(0, 6, 11, dtype=torch.float64)
    there = path(t.cuda())
    assert there.is_cuda
    assert torch.allclose(there.cpu(), path(t), atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_picture_travels_to_the_gpu_once():
    path = paths.picture(NOISE, BOX, size=14, pan=(4, 3))
    t = torch.linspace(0, 6, 11, dtype=torch.float64, device="cuda")
    path(t)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        path(t)
    assert not [event for event in profile.events() if "HtoD" in event.name]


def test_a_line_is_straight_and_ends_where_it_should():
    path = paths.line(A, B, 4.0)
    x = path(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64))
    assert torch.allclose(x, torch.stack([A, 0.75 * A + 0.25 * B, B]))


def test_a_circle_has_mean_square_one_and_unit_speed():
    x, slope = with_slope(paths.circle((3, 8, 8), seed=5), torch.linspace(0, 6, 9, dtype=torch.float64))
    assert torch.allclose(x.flatten(1).square().mean(1), torch.ones(9, dtype=torch.float64))
    assert torch.allclose(slope.flatten(1).square().mean(1), torch.ones(9, dtype=torch.float64))
    assert torch.allclose((x * slope).flatten(1).sum(1), torch.zeros(9, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("order", [(A, B, C), (A, C, B), (C, A, B)])
def test_a_circle_meets_its_inputs_in_order(order):
    path = paths.circle_through(*order)
    t = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
    x = path(t)
    distance = torch.stack([(x - point).flatten(1).norm(dim=1) for point in order])
    nearest = distance[:, :-1].argmin(1)
    assert distance.min(1).values.max() < 1e-3
    assert nearest[0] == 0
    assert nearest[0] < nearest[1] < nearest[2]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_a_circle_through_inputs_of_any_size(size):
    t = torch.linspace(0, 6, 5, dtype=torch.float64)
    scaled = paths.circle_through(*(size * point.double() for point in (A, B, C)))(t) / size
    torch.testing.assert_close(scaled, paths.circle_through(A, B, C)(t))


def test_a_resting_crop_reads_the_picture_itself():
    path = paths.picture(NOISE, [10, 20, 24, 30], size=(10, 14), mean=0.5, std=2.0)
    x = path(torch.zeros(1, dtype=torch.float64))[0]
    there = (torch.from_numpy(NOISE[20:30, 10:24]).permute(2, 0, 1) - 0.5) / 2
    assert torch.allclose(x, there, atol=1e-12), "a spline passes through its knots"


def test_a_crop_over_the_edge_reads_the_mirror_image():
    path = paths.picture(NOISE, [0, 0, 10, 10], size=10,
                         pan=lambda t: 0 * t[:, None] + torch.tensor([-4.0, 0.0], dtype=t.dtype))
    x = path(torch.zeros(1, dtype=torch.float64))[0]
    assert torch.allclose(x[0, 0, :4], torch.from_numpy(NOISE[0, [4, 3, 2, 1], 0]), atol=1e-12)


def test_zoom_magnifies_and_turn_is_clockwise():
    ramp = np.tile(np.linspace(0, 1, 60), (60, 1))  # brighter to the right
    start = torch.zeros(1, dtype=torch.float64)
    spread = {zoom: (lambda x: x[0, 0, 0, -1] - x[0, 0, 0, 0])(
        paths.picture(ramp, [20, 20, 40, 40], size=20, zoom=lambda t, zoom=zoom: zoom + 0 * t)(start))
        for zoom in (1.0, 2.0)}
    assert torch.isclose(spread[1.0], 2 * spread[2.0], rtol=1e-3)
    turned = paths.picture(ramp, [20, 20, 40, 40], size=20, turn=lambda t: math.pi / 2 + 0 * t)(start)[0, 0]
    # The crop, turned clockwise by a quarter, has its own "right" where the picture has "down".
    assert torch.allclose(turned[:, 0], turned[:, -1], atol=1e-6)
    assert turned[0, 0] > turned[-1, 0]


def test_points_of_the_crop_are_found_in_the_picture():
    column, row = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    place = np.stack([column, row, 0 * row], axis=2)  # each pixel holds its own coordinates
    path = paths.picture(place, [20, 15, 60, 45], size=(30, 40), pan=(4, 3), zoom=1.1, turn=0.2)
    t = torch.tensor([0.3, 1.0], dtype=torch.float64)
    centres = torch.tensor([[10.5 / 40, 7.5 / 30], [25.5 / 40, 20.5 / 30]], dtype=torch.float64)
    there = path.to_picture(t, centres)
    x = path(t)
    seen = torch.stack([x[:, :2, 7, 10], x[:, :2, 20, 25]], dim=1)
    # The mirrored edges bend the ramp of coordinates, which dies out within a few pixels of the edge.
    assert torch.allclose(there, seen, atol=1e-3)


def test_a_prefilter_removes_what_the_crop_cannot_show():
    stripes = np.tile(np.arange(64) % 2, (64, 1)).astype(float)
    t = torch.linspace(0, 6, 50, dtype=torch.float64)
    spread = {kind: paths.picture(stripes, [8, 8, 56, 56], size=12, pan=(3, 0), prefilter=kind)(t).std()
              for kind in ("gaussian", "area", "none")}
    assert spread["none"] > 0.3
    assert spread["gaussian"] < 0.01
    assert spread["area"] < 0.01


@pytest.mark.parametrize(("channels", "source", "shape"), [
    (None, NOISE, (3, 60, 70)), (1, NOISE, (1, 60, 70)), (3, GREY, (3, 40, 40)), (None, GREY, (1, 40, 40)),
    (None, np.dstack([NOISE, NOISE[:, :, :1]]), (3, 60, 70)), (None, torch.from_numpy(GREY), (1, 40, 40)),
    (None, "grace_hopper.jpg", (3, 600, 512)),
])
def test_pictures_become_channels_first(channels, source, shape):
    pixels = paths.load_picture(source, channels)
    assert pixels.shape == shape
    assert pixels.dtype == torch.float64
    assert 0 <= pixels.min() < pixels.max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_files_are_read_in_every_common_mode(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    if mode == "I;16":
        picture = image.fromarray(GREY.astype(np.uint16) * 257)
    else:
        picture = image.fromarray(GREY).convert(mode)
    file = tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png")
    picture.save(file)
    pixels = paths.load_picture(file, channels=1)
    if mode != "1":
        assert torch.allclose(pixels[0], torch.from_numpy(GREY / 255), atol=0.02)
    assert pixels.shape == (1, 40, 40)


def test_a_phones_photograph_is_turned_upright(tmp_path):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(GREY[:20])
    exif = picture.getexif()
    exif[0x0112] = 6  # "turn by a quarter to show"
    picture.save(tmp_path / "phone.png", exif=exif)
    assert paths.load_picture(tmp_path / "phone.png").shape == (1, 40, 20)


def test_scenes_say_what_they_show():
    t = torch.linspace(0, 6, 40, dtype=torch.float64)
    path = paths.blob()
    x = path(t)[:, 0]
    grid = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    mass = x.sum((1, 2))
    seen = torch.stack([(x.sum(1) * grid).sum(1) / mass, (x.sum(2) * grid).sum(1) / mass], dim=1)
    # The long axis' tail is cut off at the picture's edge where the blob comes within 1.5 deviations of it.
    assert (seen - path.position(t)).abs().max() < 0.03
    assert torch.equal(paths.render_blobs(path.position(t), path.angle(t)), path(t))
    ellipsoid = paths.ellipsoid()
    assert torch.equal(paths.render_ellipsoids(ellipsoid.angles(t)), ellipsoid(t))
    half = paths.render_ellipsoids(ellipsoid.angles(t) + torch.tensor([math.pi, 0.0], dtype=torch.float64))
    assert torch.allclose(half, ellipsoid(t), atol=1e-9), "half a turn shows the same body"
    assert 0 < ellipsoid(t).min() < 0.05 < 0.5 < ellipsoid(t).max() < 1


BAD = [
    (lambda: paths.line(A, B[0]), ValueError, r"differ in shape: start \(2, 3, 4\), end \(3, 4\)"),
    (lambda: paths.line(A, B * math.nan), ValueError, "end holds NaN"),
    (lambda: paths.line(A, B, 0), ValueError, "length = 0"),
    (lambda: paths.circle(1), ValueError, "at least two input values"),
    (lambda: paths.circle(4, radius=-1), ValueError, "radius = -1"),
    (lambda: paths.circle_through(A, B, 2 * B - A), ValueError, "lie on one line"),
    (lambda: paths.line(A, B)([0.0, 1.0]), TypeError, "floating torch tensor.*not list"),
    (lambda: paths.blob()(torch.arange(3)), TypeError, "not a tensor of torch.int64"),
    (lambda: paths.circle(4)(torch.zeros(2, 2)), ValueError, r"shape \(P,\), not \(2, 2\)"),
    (lambda: paths.load_picture("no such file.png"), ValueError, "picture = 'no such file.png': there is no"),
    (lambda: paths.load_picture("/nowhere/grace_hopper.jpg"), ValueError, "there is no such file"),
    (lambda: paths.load_picture(""), ValueError, "picture = ''"),
    (lambda: paths.load_picture("membrane.dat"), ValueError, "picture = 'membrane.dat': it cannot be read"),
    (lambda: paths.load_picture(np.zeros((5, 5, 2))), ValueError, r"picture = an array of shape \(5, 5, 2\)"),
    (lambda: paths.load_picture(None), ValueError, "picture = an array of shape"),
    (lambda: paths.load_picture(np.zeros((3, 9))), ValueError, "under 4 pixels"),
    (lambda: paths.load_picture(np.full((9, 9), np.inf)), ValueError, "NaN or infinity"),
    (lambda: paths.load_picture(GREY, channels=2), ValueError, "channels = 2"),
    (lambda: paths.picture(GREY, [1, 2, 3]), ValueError, r"box = \[1, 2, 3\]: it must be four numbers"),
    (lambda: paths.picture(GREY, "1234"), ValueError, "box = '1234': it must be four numbers"),
    (lambda: paths.picture(GREY, 7), ValueError, "box = 7: it must be four numbers"),
    (lambda: paths.picture(GREY, [1, 2, 3, "4"]), ValueError, "it must be four numbers"),
    (lambda: paths.picture(GREY, [1, 2, 3, math.nan]), ValueError, "it must be four numbers"),
    (lambda: paths.picture(GREY, [9, 2, 3, 4]), ValueError, "left < right and top < bottom"),
    (lambda: paths.picture(GREY, [0, 0, 41, 40]), ValueError, "leaves the picture, 40 pixels wide and 40"),
    (lambda: paths.picture(GREY, size=(4, 4, 4)), ValueError, r"size = \(4, 4, 4\)"),
    (lambda: paths.picture(GREY, size=0), ValueError, r"size = \(0, 0\)"),
    (lambda: paths.picture(GREY, std=0), ValueError, "std positive"),
    (lambda: paths.picture(GREY, pan=3), ValueError, "pan = 3: it must be two finite numbers"),
    (lambda: paths.picture(GREY, pan=(1, "2")), ValueError, "pan = "),
    (lambda: paths.picture(GREY, zoom=0), ValueError, "zoom = 0"),
    (lambda: paths.picture(GREY, turn="half"), ValueError, "turn = 'half'"),
    (lambda: paths.picture(GREY, prefilter="box"), ValueError, "prefilter = 'box'"),
    (lambda: paths.render_blobs(torch.zeros(3, 2), torch.zeros(4)), ValueError, "one row for each picture"),
    (lambda: paths.render_ellipsoids(torch.zeros(3)), ValueError, "one row for each picture"),
    (lambda: paths.blob(size=1)(torch.zeros(1)), ValueError, "size = 1"),
    (lambda: paths.ellipsoid(axes=(1, 1, 0))(torch.zeros(1)), ValueError, "axes = "),
]


T = torch.linspace(0, 1, 3, dtype=torch.float64)


def bad(call, says, *values, kind=ValueError):
    return [(lambda value=value: call(value), kind, says) for value in values]


BAD += [
    *bad(lambda v: paths.line(A, v), "end has to be an input, a tensor", None, "x", {"a": 1}, kind=TypeError),
    *bad(lambda v: paths.line(v, v), "start holds complex numbers", A + 1j, kind=TypeError),
    *bad(lambda v: paths.line(v, v), "start is sparse, or without numbers", A.to_sparse(), A.to("meta"),
         kind=TypeError),
    *bad(lambda v: paths.circle_through(v, v, v), "lie on one line", A),
    *bad(lambda v: paths.line(A, B, v), "length = ", math.nan, math.inf, -1.0, None, "1", True, 10**400, 1e-320),
    *bad(lambda v: paths.circle(v), "shape = .* at least two input values and at most 268,435,456",
         2.5, None, "ab", 0, -3, (2, -3), (2, 0), (2.0, 3), True, 10**12, (10**6, 10**6)),
    *bad(lambda v: paths.circle(4, radius=v), "radius = ", 0, math.nan, math.inf, "1", [1.0]),
    *bad(lambda v: paths.circle(4, seed=v), "seed = .*: a whole number", math.nan, None, "1", 1.5, 2**70),
    *bad(lambda v: paths.circle_through(A, B, v), "third has to be", None, "x", kind=TypeError),
    *bad(lambda v: paths.circle_through(A, B, v), "third holds NaN|differ in shape", A * math.inf, A[0]),
    *bad(lambda v: paths.circle(4).slope(v), "times of a path", None, [0.0], torch.arange(3), kind=TypeError),
    *bad(lambda v: paths.line(A, B).slope(v), r"shape \(P,\)", torch.zeros(2, 2)),
    *bad(lambda v: paths.load_picture(v), "picture = ", 3.5, b"abc", GREY + 1j, [["a"]], "~nobody-here/a.png", {},
         "a" * 5000),
    *bad(lambda v: paths.load_picture(GREY, v), "channels = ", True, 1.0, "1", [1], 4, GREY),
    *bad(lambda v: paths.picture(GREY, size=v), "size = .*whole numbers of pixels",
         2.5, None, "ab", True, (3, None), (4, 4.0), -1, 10**9),
    *bad(lambda v: paths.picture(GREY, mean=v), "mean = ", math.nan, None, "0"),
    *bad(lambda v: paths.picture(GREY, std=v), "std = ", -1, 1e-320, math.nan, math.inf, None, "1"),
    *bad(lambda v: paths.picture(GREY, pan=v), "pan = ", math.nan, None, (1, math.nan), (1, 2, 3), "12"),
    *bad(lambda v: paths.picture(GREY, zoom=v), "zoom = ", -1, math.nan, None, "2", True),
    *bad(lambda v: paths.picture(GREY, turn=v), "turn = ", math.inf, None, True),
    *bad(lambda v: paths.picture(GREY, prefilter=v), "prefilter = ", None, 3, ["area"], np.array(["area", "none"])),
    *bad(lambda v: paths.picture(GREY, pan=v)(T), r"pan\(t\) gives .* a tensor \(3, 2\)", torch.sin, lambda t: 1.0),
    *bad(lambda v: paths.picture(GREY, zoom=v)(T), r"zoom\(t\) gives .* a tensor \(3,\)", lambda t: t[:, None]),
    *bad(lambda v: paths.picture(GREY, turn=v)(T), r"turn\(t\) gives .* a tensor \(3,\)", lambda t: None),
    *bad(lambda v: paths.picture(GREY).to_picture(T, v), "points has to be a tensor",
         [[0.5, 0.5]], None, torch.zeros(4, 3), torch.zeros(2), torch.zeros(2, 4, 2)),
    *bad(lambda v: paths.picture(GREY).to_picture(v, torch.zeros(4, 2)), "times of a path", None, kind=TypeError),
    *bad(lambda v: paths.render_blobs(v, T), "position is a floating torch tensor", None, [[1.0, 2.0]],
         torch.zeros(3, 2, dtype=torch.int64), kind=TypeError),
    *bad(lambda v: paths.render_blobs(torch.zeros(3, 2), v), "angle is a floating torch tensor", None, 0.5,
         kind=TypeError),
    *bad(lambda v: paths.render_blobs(v, T), "one row for each picture", torch.zeros(()), torch.zeros(3, 3)),
    *bad(lambda v: paths.render_ellipsoids(v), "angles is a floating torch tensor", None, "x", kind=TypeError),
    *bad(lambda v: paths.render_ellipsoids(torch.zeros(3, 2), light=v), "light = ", (0, 0, 0), (1e-320, 0, 0), (1, 2),
         None, math.nan),
    *[row for make in (paths.blob, paths.ellipsoid) for row in (
        *bad(lambda v, make=make: make(size=v), "size = .*from 2 to 16384", 0, 2.5, None, "32", True, (4, 4), 10**9),
        *bad(lambda v, make=make: make(axes=v), "axes = .* numbers are needed, each positive",
             0.1, None, (0.1, 0.2, 0.3, 0.4), (0.1, math.nan), (math.inf, 1, 1), "abc", (1e-200,) * 2, (1e-200,) * 3),
        *bad(lambda v, make=make: make(reach=v), "reach = ", 0.1, None, (1, math.nan), (1, 2, 3)))],
    *bad(lambda v: paths.blob(turns=v), "turns = ", math.nan, None, "1"),
]


@pytest.mark.parametrize(("call", "kind", "says"), BAD)
def test_what_bad_input_gets(call, kind, says):
    with pytest.raises(kind, match=says):
        call()
