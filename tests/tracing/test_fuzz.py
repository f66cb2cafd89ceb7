"""Random networks, measured in three ways that must agree."""

import fuzz
import pytest
import torch

pytestmark = pytest.mark.numeric


def test_fuzz_trace_attribution_and_brute_force():
    said = []
    failed, errors = fuzz.run(200, report=said.append)
    assert failed == 0, "\n".join(said)
    assert len(errors) >= 50
    assert torch.tensor(errors).abs().mean() < 0.02, said[-1]


def test_fuzz_branches_gates_groups_views_and_bounds():
    said = []
    failed, errors = fuzz.run(150, report=said.append, every=3, composed=True)
    assert failed == 0, "\n".join(said)
    assert torch.tensor(errors).abs().mean() < 0.02, said[-1]
    assert "0 refused" not in said[-1]


def test_the_fuzzer_prints_a_script_that_reproduces_a_disagreement(monkeypatch):
    said = []
    monkeypatch.setattr(fuzz, "EXACT", -1.0)
    failed, _ = fuzz.run(1, first=3, report=said.append, every=2)
    assert failed == 1
    names: dict = {}
    exec(said[1].replace("print(", "trace = ("), names)
    assert names["trace"].certified
