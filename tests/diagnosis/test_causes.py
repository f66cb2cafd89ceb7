"""Causes of jerk that were planted are found, and shares add up to what is seen."""

import pytest
import torch
from planted import PLANTED, RATE, TIMES, blob, network
from torch import nn

from smpcore import diagnosis, models, paths
from smpcore.metric import acceleration_error, slope_variation

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def verdicts():
    """The causes named, and the first sentences, by what was planted: ten seeds each."""
    found = {}
    for name, make in PLANTED.items():
        for seed in range(10):
            torch.manual_seed(seed)
            found.setdefault(name, []).append(diagnosis.why(*make(seed), TIMES))
    return found


def test_planted_causes_are_named(verdicts):
    right = {name: sum(one.cause == name for one in found) for name, found in verdicts.items() if name != "motion"}
    print(right)
    assert sum(right.values()) >= 36
    assert len(right) == 4
    for name, found in verdicts.items():
        words = diagnosis.CAUSES[name][0]
        assert all(words in one.sentence for one in found if one.cause == name)


def test_no_layer_is_blamed_where_nothing_jerks(verdicts):
    for one in verdicts["motion"]:
        assert one.cause == "motion"
        assert not any(part.layer in one.sentence for part in one.parts)
        assert "relax" not in one.advice


def test_what_is_not_the_network_is_said_to_be_none_of_it(verdicts):
    for name in ("decoding", "input", "not repeatable"):
        assert all("not your network" in one.advice for one in verdicts[name] if one.cause == name)
    assert all("argmax" in one.sentence for one in verdicts["decoding"])
    assert all("pool" in one.sentence or "relu" in one.sentence for one in verdicts["kinks"])
    assert all("expect −" in one.advice for one in verdicts["kinks"])


def test_shares_add_up_to_the_roughness_seen(verdicts):
    for found in verdicts.values():
        for one in found:
            assert sum(one.shares.values()) == pytest.approx(1, abs=1e-12)
            assert one.shares["motion"] + sum(part.share for part in one.parts) == pytest.approx(1, abs=1e-9)
            seen = slope_variation(one.values.T.contiguous(), 1 / RATE).sum()
            assert one.roughness == pytest.approx(float(seen), rel=1e-9)


def test_linear_operations_add_nothing():
    """All that a linear network's output does is its input's: nothing is left for anything else."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 49, 2)).double()
    jittered = PLANTED["input"](0)[1]
    found = diagnosis.why(model, jittered, TIMES)
    assert found.cause == "input"
    assert [part.cause for part in found.parts if abs(part.share) > 1e-9] == ["input"]
    smooth = found.values.diff(n=2, dim=0) - diagnosis.causes.smooth_course(found.values.diff(n=2, dim=0))
    assert found.acceleration_error == pytest.approx(float(smooth.abs().mean()) * RATE**2)
    truth = torch.zeros_like(found.values).T.contiguous()
    # Hardly any of it is motion, so that it is nearly the acceleration itself.
    whole = acceleration_error(found.values.T.contiguous(), truth, 1 / RATE).mean()
    assert found.acceleration_error == pytest.approx(float(whole), rel=0.05)


class Rounded(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.round(20 * self.inner(x)) / 20


class Sharp(nn.Module):
    """One bend, too sharp for thirty frames a second."""

    def forward(self, x):
        return nn.functional.softplus(x, beta=2000.0)


class InPlace(nn.Module):
    """ReLU in place, features first: (channels, frames)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(1, 16), nn.Linear(16, 1)

    def forward(self, x):
        y = self.first(x).T.contiguous()
        return self.last(y.relu_().T)


class Counted(nn.Module):
    """Its answer is found outside of torch."""

    def forward(self, x):
        return torch.as_tensor(10 * x.numpy().round(1)) / 10


def sway(t):
    return torch.sin(t)[:, None]


@pytest.mark.parametrize(("model", "cause", "place"), [
    (Rounded(network(0)), "value jumps", "model:round"),
    (Sharp(), "bending", "model:softplus"),
    (InPlace().double(), "kinks", "model:relu"),
    (nn.Hardshrink(0.3), "value jumps", "model:hardshrink"),
    (Counted(), "decoding", "(model "),
])
def test_further_causes_and_their_places(model, cause, place):
    path = blob(0) if isinstance(model, Rounded) else sway
    found = diagnosis.why(model.eval(), path, TIMES)
    assert found.cause == cause
    assert place in found.sentence


def test_a_model_that_attribution_refuses_is_judged_all_the_same(verdicts):
    found = verdicts["decoding"][0]
    assert found.attribution is None
    assert "argmax" in found.refusal
    assert found.suggestion is None
    assert "SMP was not measured: " in str(found)


def test_a_still_output_has_no_jerk():
    found = diagnosis.why(lambda x: 0 * x, sway, TIMES)
    assert found.roughness == 0
    assert found.cause == "motion"
    assert found.parts == []


def test_many_frames_are_looked_at_in_pieces_that_make_no_difference(monkeypatch):
    model, path = PLANTED["kinks"](0)
    whole = diagnosis.why(model, path, TIMES[:60])
    monkeypatch.setattr(diagnosis.causes, "_AT_ONCE", 7)
    pieces = diagnosis.why(model, path, TIMES[:60])
    assert pieces.shares == pytest.approx(whole.shares, abs=1e-9)


def test_everything_as_json_and_as_a_table(verdicts):
    import json

    one = verdicts["kinks"][0]
    told = json.loads(json.dumps(one.to_dict()))
    assert told["sentence"] == one.sentence
    assert sum(told["shares"].values()) == pytest.approx(1)
    assert {row["layer"] for row in told["layers"]} == {layer.name for layer in one.attribution.layers}
    assert one.to_frame()["share"].sum() == pytest.approx(1)
    assert one.sentence in str(one)


@pytest.mark.parametrize(("model", "path", "times", "says"), [
    (nn.Identity(), sway, TIMES[:15], "15 frames: 16 to 4000 evenly spaced ones"),
    (nn.Identity(), sway, torch.cat([TIMES[:20], TIMES[25:40]]), "35 frames: 16 to 4000 evenly spaced ones"),
    (nn.Identity(), 5, TIMES, "'int' object is not callable"),
    (nn.Linear(3, 1), sway, TIMES, "the model does not run on inputs of shape"),
    (nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train(), sway, TIMES, r"call model\.eval\(\) first"),
    (nn.Identity(), lambda t: t.tolist(), TIMES, "the path returns a list: it must return a torch tensor"),
    (lambda x: x / 0, sway, TIMES, "the model's output is not finite at frame 0"),
])
def test_what_is_refused(model, path, times, says):
    with pytest.raises((ValueError, TypeError), match=says):
        diagnosis.why(model, path, times)


def test_a_jittering_box_is_told_from_kinks_however_far_it_is_off():
    """The linearised model alone would not: over two pixels, thousands of units switch for the jitter's sake."""
    def drift(t):
        half, x, y = 105 / 1.1**t, 270 + 16 * t, 230 + 10 * t
        return torch.stack([x - half, y - half, x + half, y + half], 1)

    pipeline, times = models.face_pipeline(stages=("refine",)), TIMES[:31]
    off = torch.randn(31, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert diagnosis.why(pipeline, drift, times, outputs=[0], smp=False).cause == "kinks"
    for pixels in (0.5, 1, 2):
        jittering = paths.through(drift(times) + pixels * off, times)
        assert diagnosis.why(pipeline, jittering, times, outputs=[0], smp=False).cause == "input"


def test_the_face_network_jerks_by_its_poolings():
    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **models.FACE_INPUT)
    found = diagnosis.why(models.face_network(), path, TIMES[:40], outputs=lambda face: face.landmarks[:, :2])
    assert found.cause == "kinks"
    assert found.parts[0].layer == "pool1:max_pool2d"
    assert all("pool" in name for name in found.suggestion.layers[:2])
