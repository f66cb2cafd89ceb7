"""Models that others wrote: a ResNet, a ConvNeXt and a transformer at 224×224, with random weights."""

import json
import subprocess
import sys

import pytest
import torch
from waiting import LONG

pytest.importorskip("transformers", reason="the extra 'architectures' is not installed")

from smpcore import attribute, trace_line
from smpcore.experiments.architectures import ARCHITECTURES, build, logits
from smpcore.paths import line

# In a process of its own, whose largest resident memory is this measurement's and torch's alone. VmHWM starts
# anew with a program; ru_maxrss starts at what its parent had.
_RESNET = """
import json, re, torch
from smpcore import attribute
from smpcore.experiments.architectures import build, logits
from smpcore.paths import line
torch.set_num_threads(1)
draw = torch.Generator().manual_seed(1)
start, end = (torch.randn(3, 224, 224, generator=draw).double() for _ in range(2))
seen = attribute(build("resnet"), line(start, end), torch.linspace(0, 1, 5).double(), outputs=logits)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024
print(json.dumps({"peak": peak, "total": seen.total.tolist(), "layers": [
    [layer.name, layer.kind, layer.units, layer.switches, layer.smp.tolist()] for layer in seen.layers]}))
"""


@pytest.fixture(scope="module")
def resnet():
    if not sys.platform.startswith("linux"):
        pytest.skip("reads its memory from /proc")
    done = subprocess.run([sys.executable, "-c", _RESNET], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_resnet_has_its_stem_pool_and_every_relu(resnet):
    """One in the stem and two in each of the eight blocks, and the 3/2 pool of the stem, which halves 112."""
    kinds = [kind for _, kind, *_ in resnet["layers"]]
    assert kinds.count("relu") == 17
    assert kinds.count("max pool") == 1
    name, kind, units, switches, smp = resnet["layers"][1]
    assert (name, kind, units) == ("resnet.embedder.pooler:max_pool2d", "max pool", 64 * 56 * 56)
    assert switches > 0
    assert min(smp) > 0


def test_resnet_layers_add_up(resnet):
    added = torch.tensor([smp for *_, smp in resnet["layers"]]).sum(0)
    torch.testing.assert_close(added, torch.tensor(resnet["total"]))


def test_resnet_within_four_gibibytes(resnet):
    assert resnet["peak"] < 4 * 2**30


@pytest.mark.parametrize(("name", "changes"), [
    # Half the width of ConvNeXt-T, for its 7×7 convolutions are slow on a CPU.
    ("convnext", {"depths": [1, 1, 1, 1], "hidden_sizes": [48, 96, 192, 384]}),
    ("vit", {}),
])
def test_smooth_architectures_have_no_switch_at_all(name, changes):
    draw = torch.Generator().manual_seed(1)
    start, end = (torch.randn(3, 224, 224, generator=draw).double() for _ in range(2))
    seen = attribute(build(name, **changes), line(start, end), torch.linspace(0, 1, 3).double(), outputs=logits)
    assert sum(layer.switches for layer in seen.layers) == 0
    assert seen.total.tolist() == [0.0, 0.0]
    assert seen.value_jumps.tolist() == [0.0, 0.0]
    # Not zero because nothing moved: the logits have slopes.
    assert seen.slopes.abs().min() > 0


def test_small_resnet_layer_by_layer_and_exactly():
    """The same code, small enough to trace: the exact SMP, kink by kink, is what the layers add up to.

    401 samples: over the draws 0 to 5 the two differed by at most 0.8%.
    """
    model = build("resnet", depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8)
    draw = torch.Generator().manual_seed(2)
    start, end = (torch.randn(3, 24, 24, generator=draw).double() for _ in range(2))
    exact = trace_line(model, start, end, outputs=logits)
    assert exact.certified
    assert len(exact.times) > 400
    seen = attribute(model, line(start, end), torch.linspace(0, 1, 401).double(), outputs=logits)
    torch.testing.assert_close(seen.total, exact.smp, rtol=0.02, atol=0)
    assert set(exact.layers) <= {layer.name for layer in seen.layers}


def test_the_models_are_left_as_they_were():
    for name in ARCHITECTURES:
        model = build(name)
        assert not model.training
        assert next(model.parameters()).dtype == torch.float32


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="'alexnet' is not known: use one of resnet, convnext, vit"):
        build("alexnet")


def test_missing_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'smpcore\[architectures\]'"):
        build("vit")
