"""What may be read as a signal, and what is refused, a sentence each."""

import numpy as np
import pytest
import torch

from smpcore import find_kinks, smp

RAMP = np.arange(60.0)


def test_bytes_in_any_order_and_arrays_that_may_not_be_written():
    values = np.abs(RAMP - 30.25)
    locked = values.copy()
    locked.setflags(write=False)
    for given_array in (values.astype(">f8"), locked, values[::-1]):
        found = smp(given_array)
        assert found == smp(values)
        assert found.dtype == np.float64


@pytest.mark.parametrize("values", [
    torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    np.array([0] * 7 + list(range(9))), [0] * 7 + list(range(9)),
])
def test_integers_become_float64(values):
    result = smp(values)
    assert "float64" in str(result.dtype)
    assert float(result) == pytest.approx(1.0)


def test_a_tensor_that_requires_grad_is_read_without_its_graph():
    values = torch.linspace(-1, 1, 50).requires_grad_()
    result = smp(values.relu(), 2 / 49)
    assert not result.requires_grad
    assert float(result) == pytest.approx(1.0, rel=1e-4)


def spoilt(value, index=17):
    values = np.tile(RAMP, (3, 1))
    values[1, index] = value
    return values


BAD = [
    (ValueError, {"signal": spoilt(np.nan)}, r"nan at index \(1, 17\)"),
    (ValueError, {"signal": spoilt(-np.inf)[1]}, "-inf at index 17"),
    (ValueError, {"signal": RAMP[:15]}, "15 samples is too short for lag auto and window 9: at least 16"),
    (ValueError, {"signal": RAMP, "lag": 5}, "60 samples is too short for lag 5 and window 9: at least 84"),
    (ValueError, {"signal": RAMP, "lag": 100}, "too short for lag 100"),
    (ValueError, {"signal": np.zeros(0)}, "0 samples is too short"),
    (ValueError, {"signal": torch.zeros(3, 0)}, "0 samples is too short"),
    (ValueError, {"signal": np.float64(3.0)}, "this is a single number"),
    (ValueError, {"signal": RAMP, "spacing": 0.0}, "spacing = 0.0: the distance between samples has to"),
    (ValueError, {"signal": RAMP, "spacing": -1.0}, "has to be a positive number"),
    (ValueError, {"signal": RAMP, "spacing": 10**400}, "has to be a positive number"),
    (ValueError, {"signal": RAMP, "threshold": 10**400}, "a number of deviations, not negative"),
    (ValueError, {"signal": RAMP, "spacing": float("nan")}, "has to be a positive number"),
    (ValueError, {"signal": RAMP, "spacing": "0.1"}, "has to be a positive number"),
    (ValueError, {"signal": RAMP, "lag": 0}, "lag = 0: 'auto' or a whole number of samples, at least 1"),
    (ValueError, {"signal": RAMP, "lag": 1.5}, "whole number of samples"),
    (ValueError, {"signal": RAMP, "lag": np.array([1, 2])}, "'auto' or a whole number of samples"),
    (ValueError, {"signal": RAMP, "spacing": np.array(1j)}, "has to be a positive number"),
    (ValueError, {"signal": torch.zeros(())}, "this is a single number"),
    (ValueError, {"signal": torch.zeros(60, device="meta")}, "device 'meta' is not supported"),
    (ValueError, {"signal": np.ma.masked_equal(RAMP, 17.0)}, "has masked samples: cut them out"),
    (TypeError, {"signal": [[1.0, 2.0], [3.0]]}, "an array of one shape, and this list is none"),
    (TypeError, {"signal": np.array([None] * 60)}, "not an array of objects"),
    (TypeError, {"signal": torch.eye(60).to_sparse()}, "a dense tensor, not a sparse one"),
    (ValueError, {"signal": abs(RAMP - 30).astype(np.float16), "spacing": 1e-5}, "larger than float16 holds"),
    (ValueError, {"signal": abs(torch.arange(60.0) - 30), "spacing": 1e-40}, "larger than torch.float32 holds"),
    (ValueError, {"signal": abs(RAMP - 30), "spacing": 1e-320}, "larger than float64 holds"),
    (ValueError, {"signal": RAMP, "lag": "long"}, "lag = 'long': 'auto' or a whole number"),
    (ValueError, {"signal": RAMP, "window": 8}, "window = 8: an odd number of samples, at least 7"),
    (ValueError, {"signal": RAMP, "window": 3}, "an odd number of samples, at least 7"),
    (ValueError, {"signal": RAMP, "threshold": -1.0}, "threshold = -1.0: a number of deviations, not neg"),
    (TypeError, {"signal": RAMP * 1j}, "not complex ones: take its real part"),
    (TypeError, {"signal": torch.zeros(60, dtype=torch.complex64)}, "not complex ones"),
    (TypeError, {"signal": RAMP > 30}, "real numbers, a tensor or an array, not booleans"),
    (TypeError, {"signal": torch.arange(60) > 30}, "real numbers, not booleans"),
    (TypeError, {"signal": [True, False] * 30}, "not booleans"),
    (ValueError, {"signal": RAMP, "threshold": float("nan")}, "threshold = nan"),
    (ValueError, {"signal": RAMP, "spacing": True}, "spacing = True"),
    (ValueError, {"signal": RAMP, "spacing": None}, "spacing = None"),
    (ValueError, {"signal": RAMP, "lag": None}, "lag = None"),
    (ValueError, {"signal": RAMP, "window": None}, "window = None"),
    (ValueError, {"signal": RAMP, "window": 9.0}, "window = 9.0"),
    (TypeError, {"signal": "a curve"}, "a tensor or an array, not strings"),
    (TypeError, {"signal": ["1", "2"] * 30}, "a tensor or an array, not strings"),
    (TypeError, {"signal": None}, "a tensor or an array, not NoneType"),
]


@pytest.mark.parametrize("reader", [smp, find_kinks])
@pytest.mark.parametrize(("error", "call", "sentence"), BAD)
def test_bad_input_gets_a_sentence(reader, error, call, sentence):
    call = dict(call)
    signal = call.pop("signal")
    if reader is find_kinks and getattr(signal, "ndim", 1) != 1 and "sparse" not in sentence \
            and not isinstance(signal, np.float64):
        sentence = "reads one signal"
    with pytest.raises(error, match=sentence):
        reader(signal, **call)


def test_just_long_enough():
    places = np.linspace(1, 14, 53)
    found = [float(smp(np.maximum(RAMP[:16] - place, 0))) for place in places]
    # One in ten may lie where so few samples show no background.
    assert np.mean(np.isclose(found, 1.0, rtol=0.03)) > 0.9
    assert smp(np.arange(84.0), lag=5) == pytest.approx(0, abs=1e-9)
    assert float(smp(np.maximum(np.arange(84.0) - 42, 0), lag=5)) == pytest.approx(1.0, rel=1e-9)
