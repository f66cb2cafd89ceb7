"""Arguments that make no sense, one at a time: each public function answers with a sentence that names the argument.

A function stands in `CALLS` with arguments that it takes; every one of them is then replaced by every value that its
kind excludes. The functions of the metric, of signals and of paths have tables of their own.
"""

import contextlib
import inspect
import json
import math
import re
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import smpcore
from smpcore import device, forensics, models, paths, smoothing
from smpcore.experiments import benchmarks, results, run_files
from smpcore.forensics import classifier
from smpcore.forensics.features import FEATURES
from smpcore.models import regressors

NAN, PACKAGE = float("nan"), str(Path(smpcore.__file__).parent)
LINE = torch.zeros(1, 8, 8).double(), torch.ones(1, 8, 8).double()
SMALL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 1)).double()
TIMES = torch.linspace(0, 1, 5, dtype=torch.float64)
ROW = np.zeros(len(FEATURES))
CURVE = np.sin(np.linspace(0, 6, 2001))
JUDGED = classifier.Judged(np.array([0.2, 0.8]), np.array([0, 1]), np.arange(2), np.zeros(2), np.array(["clean"] * 2))
RUN = results.Run("02_relu", {"seed": 0, "samples": 5}, torch.device("cpu"), Path("/nowhere/at/all"))

WITHIN_ITSELF = []
WITHIN_ITSELF.append(WITHIN_ITSELF)

# By kind: what an argument of that kind cannot be.
COUNT = (0, -1, 1.5, NAN, "3", None, True, [3], 2**63)
SEED = (-1, 0.5, NAN, "3", None, True, 2**63)
CHOICE = ("x", "", 5, None, ["relu"], NAN, True)
FUNCTION = (5, None, "f", [abs])
FLOATING = ("float64", None, 5, torch.int64, float)
SHAPE = (0, (), (3, 8), (1, 8), (1, 0, 8), (1, 8.0, 8), "abc", None, NAN, (1, 8, -8))
TENSOR = (None, 5, "x", [0.0, 1.0], torch.tensor(1.0), torch.zeros(2, 2).double())
POSITIVE = (0.0, -1.0, NAN, math.inf, "1", None, [1.0])
PROBABILITY = (-0.1, 1.1, NAN, "0.9", None, True)
MODULE = (None, 5, "model", nn.ReLU, [nn.ReLU()])

# Function, arguments that it takes, and for each name the values that it refuses.
CALLS = [
    (device.resolve, {"device": "cpu", "dtype": torch.float64},
     {"device": (5, None, "gpu", ["cpu"]), "dtype": ("x", 5)}),
    (device.describe, {"device": torch.device("cpu")}, {"device": ("cpu", None, 5)}),
    (lambda **words: list(device.chunks(**words)), {"work": lambda a, b: 0, "count": 3, "size": 2, "overlap": 0},
     {"work": FUNCTION, "count": (-1, 1.5, None, "3"), "size": (-1, 1.5, None, "3"), "overlap": (-1, 1.5, None, "3")}),
    (models.mlp, {"inputs": 3, "outputs": 1, "width": 4, "depth": 1, "activation": "relu", "initialise": "he",
                  "seed": 0, "dtype": torch.float64},
     {"inputs": (0, (), (3, 0), 1.5, NAN, "3", None, True), "outputs": COUNT, "width": COUNT, "depth": COUNT,
      "activation": (*CHOICE, lambda: 5), "initialise": CHOICE, "seed": SEED, "dtype": FLOATING}),
    (models.cnn, {"shape": (1, 8, 8), "outputs": 1, "channels": 2, "depth": 1, "kernel": 3, "activation": "relu",
                  "pooling": "max", "pool": 2, "stride": 2, "padding_mode": "zeros", "hidden": (4,), "initialise": "he",
                  "seed": 0, "dtype": torch.float64},
     {"shape": SHAPE, "outputs": COUNT, "channels": (0, (), (2, 0), 1.5, "2", None, True), "depth": COUNT,
      "kernel": (*COUNT, 2), "activation": (*CHOICE, lambda: 5), "pooling": [one for one in CHOICE if one is not None],
      "pool": COUNT, "stride": [one for one in COUNT if one is not None], "padding_mode": CHOICE,
      "hidden": (0, (0,), (1.5,), "ab", None), "initialise": CHOICE, "seed": SEED, "dtype": FLOATING}),
    (models.he_initialise, {"model": nn.Linear(2, 2), "seed": 0}, {"model": (*MODULE, nn.ReLU()), "seed": SEED}),
    (models.face_network, {"weights": None}, {"weights": (5, [1], NAN, "nowhere.lz4")}),
    (models.load_model, {"name": "smpcore.models:reference_cnn"}, {"name": (5, None, "x", "", ":", ["a:b"])}),
    (models.load_path, {"name": "smpcore.models:reference_line"}, {"name": (5, None, "x", "", ":", ["a:b"])}),
    (models.check_fit, {"model": SMALL, "path": paths.line(*LINE), "times": TIMES, "outputs": [0]},
     {"model": MODULE, "path": FUNCTION, "times": TENSOR[:-1],
      "outputs": (5, "all", [0.5], [True], [1], [0, 0], {0: 1})}),
    (regressors.Recipe, {"activation": "relu", "pooling": "max", "task": "position", "channels": 2, "size": 8,
                         "steps": 0, "batch": 1, "seed": 0},
     {"activation": CHOICE, "pooling": CHOICE, "task": CHOICE, "channels": COUNT, "size": (*COUNT, 7), "steps": SEED,
      "batch": COUNT, "seed": SEED}),
    (regressors.regressor, {"recipe": regressors.Recipe(size=8)}, {"recipe": (None, "relu", {}, 5)}),
    (regressors.train, {"recipe": regressors.Recipe(size=8, steps=0), "device": "cpu"},
     {"recipe": (None, "relu", {}), "device": ("gpu", 5, None)}),
    (regressors.train(regressors.Recipe(size=8, steps=0)).curves, {"samples": 5, "chunk": 5},
     {"samples": (*COUNT, 1), "chunk": COUNT}),
    (benchmarks.in_turns, {"work": {"a": int}, "repeats": 1},
     {"work": (None, [int], {"a": 5}, int), "repeats": COUNT[:-1]}),
    (benchmarks.sampled_slopes, {"model": SMALL, "start": LINE[0], "end": LINE[1], "samples": 3, "chunk": 2},
     {"model": (*MODULE, nn.Sequential(nn.GELU())), "start": TENSOR[:4], "end": TENSOR, "samples": (*COUNT, 1),
      "chunk": COUNT}),
    (benchmarks.transform_line, {"model": SMALL, "start": LINE[0], "end": LINE[1], "parts": 1},
     {"model": (*MODULE, nn.Sequential(nn.GELU()), nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)),
                nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="circular"))),
      "start": TENSOR[:4], "end": TENSOR, "parts": COUNT}),
    (benchmarks.forward_pass, {"model": SMALL, "path": paths.line(*LINE), "times": TIMES, "chunk": 2},
     {"model": FUNCTION, "path": FUNCTION, "times": TENSOR, "chunk": COUNT}),
    (benchmarks.scipy_composition, {"values": CURVE[None], "spacing": 0.1, "window": 9, "threshold": 5.0},
     {"values": (None, CURVE, CURVE[None, :3], "x", CURVE[None] > 0), "spacing": POSITIVE, "window": COUNT[:-1],
      "threshold": POSITIVE}),
    (benchmarks.rms_error, {"readings": [1.0], "truths": [1.0]},
     {"readings": ([], [1.0, 2.0], "x", None, [NAN], 5), "truths": ([], [0.0], "x", None, [NAN], 5)}),
    (benchmarks.samples_needed, {"samples": [1, 2], "errors": [0.5, 0.1], "target": 0.01},
     {"samples": ([], [1], [2, 1], [1, 1], "ab", None, [1, NAN]), "errors": ([], [1], [0.5, 0.0], "ab", None, [1, NAN]),
      "target": (0.0, -1.0, NAN, math.inf, "x", None, [1.0])}),
    (benchmarks.peak_bytes, {"call": int}, {"call": FUNCTION}),
    (smoothing.relax, {"model": SMALL, "calibration": torch.stack(LINE), "layers": ["1:relu"],
                       "sharpness": {"pool": 1.0}, "refit": True},
     {"model": MODULE, "calibration": (*TENSOR, LINE[0] * NAN), "layers": (5, ["2:relu"], [5], "x"),
      "sharpness": (5, None, {"pool": 0}, {"pool": "x"}, {"pool": True}, {"pools": 1.0}, [1.0]),
      "refit": (None, 5, "x")}),
    (smoothing.curvature_penalty, {"model": SMALL, "inputs": torch.stack(LINE), "direction": torch.stack(LINE),
                                   "step": 0.1},
     {"model": FUNCTION, "inputs": TENSOR, "direction": TENSOR, "step": POSITIVE}),
    (smoothing.expected_smp, {"model": SMALL, "x0": torch.stack(LINE), "x1": torch.stack(LINE)},
     {"model": FUNCTION, "x0": TENSOR, "x1": TENSOR}),
    (results.start, {"notebook": "02_relu", "seed": 0, "device": "cpu", "output_dir": "x", "size": 5},
     {"notebook": (5, None, "", "..", "../x", "a\0"), "seed": SEED, "device": ("gpu", 5, None), "output_dir": (5, None),
      "size": (10**400, "\ud800", object(), [[object()]], WITHIN_ITSELF, torch.eye(2).to_sparse())}),
    (RUN.save, {"results": {"smp": 1.0}, "rows": [{"x": 1}], "meanings": {"smp": "of it"}},
     {"results": (True, None, [1.0], {"smp": True}, {"smp": 10**400}, {"smp": "1"}, {"smp": None}),
      "rows": (True, {}, "x", [3], [{"x": object()}], [{"x": "\ud800"}], [{"x": WITHIN_ITSELF}]),
      "meanings": (True, [1], {"spm": "x"}, {"smp": 5j})}),
    (results.load, {"folder": "."}, {"folder": (None, 5, [None], True)}),
    (forensics.features, {"signal": CURVE}, {"signal": (None, "x", CURVE[:50], [CURVE, CURVE])}),
    (forensics.report, {"signal": CURVE, "spacing": 1.0, "confidence": 0.9},
     {"signal": (None, "x", CURVE[:50]), "spacing": POSITIVE, "confidence": (*PROBABILITY, 0.5, 1)}),
    (forensics.verdict, {"kinked": 0.6, "rows": ROW[None], "confidence": 0.9},
     {"kinked": PROBABILITY, "rows": (None, "x", ROW, ROW[None, :3], ROW[None] * NAN, []), "confidence": PROBABILITY}),
    (forensics.probability_kinked, {"row": ROW}, {"row": (None, "x", ROW[:3], ROW[None], ROW * NAN)}),
    (forensics.degrade, {"curve": CURVE, "condition": "clean", "seed": 0},
     {"curve": (None, 5, CURVE[None], CURVE * NAN, CURVE * 0), "condition": CHOICE, "seed": SEED}),
    (forensics.table, {"bank": forensics.bank()[:30], "head": "kinked", "conditions": ("clean",)},
     {"bank": (None, 5, [], [5], {}), "head": CHOICE, "conditions": (["x"], [5])}),
    (forensics.cross_validate, {"bank": forensics.bank()[:30], "head": "kinked", "folds": 2},
     {"bank": (None, []), "head": CHOICE, "folds": (*COUNT[:-1], 1)}),
    (forensics.auc, {"judged": JUDGED, "draws": 2},
     {"judged": (None, 5, JUDGED._replace(truth=np.ones(2)), JUDGED._replace(probability=np.full(2, NAN))),
      "draws": (*COUNT[:-1], 1)}),
    (forensics.averaged, {"judged": JUDGED}, {"judged": (None, 5)}),
    (forensics.recipes, {"seeds": 1}, {"seeds": SEED[:-1]}),
]
CASES = [(function, good, name, bad) for function, good, refused in CALLS for name, values in refused.items()
         for bad in values]
# What a function calls an argument in its sentence, where that is not the argument's own name.
ALSO_CALLED = {"name": ("model =", "path ="), "weights": ("SHA", "onet", "weights"), "device": ("device",),
               "signal": ("signal", "curve", "samples", "features"), "size": ("size", "parameter size"),
               "truths": ("truth",), "readings": ("reading",), "errors": ("error",), "samples": ("sizes", "samples"),
               "rows": ("rows", "row"), "results": ("result",)}


def refused(function, good, name, bad):
    """The sentence with which a value is refused; an error of another kind, or from elsewhere, is no refusal."""
    with pytest.raises((TypeError, ValueError)) as caught:
        function(**{**good, name: bad})
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].filename.startswith(PACKAGE), f"raised by {frames[-1].filename}: {caught.value}"
    return str(caught.value)


@pytest.mark.parametrize(("function", "good", "name", "bad"), CASES, ids=lambda each: getattr(each, "__name__", None)
                         if callable(each) else re.sub(" at 0x[0-9a-f]+", "", repr(each))[:30])
def test_an_argument_that_makes_no_sense_is_named(function, good, name, bad):
    said = refused(function, good, name, bad)
    assert any(word in said for word in ALSO_CALLED.get(name, (name,))), said
    assert len(said) > 20
    assert len(said) < 600


@pytest.mark.parametrize(("function", "good"), [call[:2] for call in CALLS if call[0] != RUN.save])
def test_the_arguments_that_are_replaced_are_taken(function, good):
    if function is models.load_path:
        assert callable(function(**good))
    else:
        known = inspect.signature(function).parameters.values()
        function(**good)
        assert set(good) <= {each.name for each in known} or any(each.kind is each.VAR_KEYWORD for each in known)


ANYTHING = st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
                     st.lists(st.integers(max_value=64), max_size=3), st.complex_numbers(), st.integers(max_value=0))


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["outputs", "channels", "depth", "kernel", "pool", "padding_mode", "dtype", "seed"]),
       bad=ANYTHING)
def test_whatever_a_network_is_given_it_is_built_or_refused(name, bad):
    good = next(call[1] for call in CALLS if call[0] is models.cnn)
    built = None
    with contextlib.suppress(TypeError, ValueError):
        built = models.cnn(**{**good, name: bad})
    if built is None:
        assert name in refused(models.cnn, good, name, bad)
    else:
        assert built(torch.zeros(1, 1, 8, 8, dtype=built[0].weight.dtype)).shape == (1, 1)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)))


@settings(max_examples=100, deadline=None)
@given(value=PLAIN)
def test_what_is_plain_is_read_back_as_it_was(value):
    try:
        run_files.need_plain(value, "it")
    except ValueError:
        return
    assert json.loads(json.dumps(value, allow_nan=False).encode().decode()) == value
