"""Small regressors: what their recipes say, and that training is seeded and helps."""

import pytest
import torch

from smpcore.experiments.regressors import POOLINGS, Recipe, regressor, train

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(("options", "sentence"), [
    ({"activation": "maxout"}, "activation = 'maxout' is not known: use one of relu"),
    ({"pooling": "median"}, "pooling = 'median' is not known"),
    ({"task": "age"}, "task = 'age' is not known"),
    ({"channels": 0}, "channels = 0: it must be at least 1"),
    ({"size": 7}, "size = 7: it must be at least 8"),
    ({"steps": -1}, "steps = -1: it must be at least 0"),
    ({"batch": 0}, "batch = 0: it must be at least 1"),
    ({"seed": -1}, "seed = -1: it must be at least 0"),
])
def test_refusals(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**options)


@pytest.mark.parametrize(("activation", "pooling", "kinked", "sharp"), [
    ("relu", "average", True, False), ("leaky relu", "stride", True, False), ("tanh", "max", True, False),
    ("tanh", "stride", False, False), ("softplus", "average", False, False),
    ("softplus 20", "average", False, True), ("softplus 20", "max", True, False),
])
def test_what_can_kink(activation, pooling, kinked, sharp):
    recipe = Recipe(activation, pooling)
    assert (recipe.kinked, recipe.sharp) == (kinked, sharp)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", [8, 17])
def test_every_halving_at_every_size(pooling, size):
    assert regressor(Recipe(pooling=pooling, size=size))(torch.rand(3, 1, size, size)).shape == (3, 2)


@pytest.mark.parametrize("task", ["position", "angles"])
def test_training_helps_and_is_seeded(task):
    recipe = Recipe("tanh", "average", task, steps=40, batch=16, channels=4, size=12)
    first, second = train(recipe), train(recipe)
    assert first.test_error < 0.9 * first.before
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_curves_are_float64_and_leave_the_model_as_it_is():
    trained = train(Recipe("tanh", "stride", steps=0, channels=2))
    curves, spacing = trained.curves(201)
    assert curves.shape == (2, 201)
    assert curves.dtype == torch.float64
    assert spacing == pytest.approx(2 * torch.pi / 200)
    assert next(trained.model.parameters()).dtype == torch.float32
    assert trained.recipe.answers(torch.zeros(1, dtype=torch.float64)).shape == (1, 2)
