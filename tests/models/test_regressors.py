"""Small regressors: what their recipes say, and that training is seeded and helps."""

import copy

import pytest
import torch

from smpcore import attribute
from smpcore.models.regressors import POOLINGS, STORED, Recipe, regressor, stored, train

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


def test_a_penalty_is_added_at_every_step():
    seen = []

    def penalty(model, step):
        seen.append(step)
        return 10 * sum(part.square().sum() for part in model.parameters())

    recipe = Recipe("gelu", "blur", steps=20, channels=2, size=8)
    small, plain = (sum(float(part.square().sum().detach()) for part in train(recipe, penalty=each).model.parameters())
                    for each in (penalty, None))
    assert seen == list(range(20))
    assert small < plain
    with pytest.raises(ValueError, match="penalty = 5: it must be a function, or None"):
        train(recipe, penalty=5)


def test_what_a_blur_keeps():
    """A constant stays, and a stripe pattern of the grid's own period is averaged away."""
    flat, stripes = torch.ones(1, 2, 6, 6), torch.tensor([1.0, -1.0]).repeat(3).expand(1, 2, 6, 6)
    torch.testing.assert_close(POOLINGS["blur"]()(flat), flat[..., :3, :3])
    torch.testing.assert_close(POOLINGS["blur"]()(stripes)[..., 1:], torch.zeros(1, 2, 3, 2))


def test_curves_are_float64_and_leave_the_model_as_it_is():
    trained = train(Recipe("tanh", "stride", steps=0, channels=2))
    curves, spacing = trained.curves(201)
    assert curves.shape == (2, 201)
    assert curves.dtype == torch.float64
    assert spacing == pytest.approx(2 * torch.pi / 200)
    assert next(trained.model.parameters()).dtype == torch.float32
    assert trained.recipe.answers(torch.zeros(1, dtype=torch.float64)).shape == (1, 2)


def test_shipped_networks_do_their_task_and_others_are_not_shipped():
    assert stored(Recipe(steps=299)) is None
    errors = {}
    for recipe in STORED:
        network = stored(recipe)
        assert network.recipe == recipe
        assert network.before > 0.9
        errors.setdefault(recipe.steps, []).append(network.test_error)
    # 1 is what a constant gets; 150 steps are half of a training.
    assert max(errors[300]) < 0.4
    assert sum(errors[150]) / 5 > sum(errors[300][:5]) / 5


def test_a_stopped_training_has_a_larger_error_and_no_less_smp():
    recipe, stopped = Recipe(steps=300), []

    def look(model, step):
        if step == 150:
            stopped.append(copy.deepcopy(model).eval())
        return torch.zeros(())

    whole = train(recipe, penalty=look)
    times = torch.linspace(0, 2 * torch.pi, 301, dtype=torch.float64)
    found = [attribute(model, recipe.path(), times) for model in (*stopped, whole.model)]
    error = [float((each.values - recipe.answers(times)).square().mean().sqrt()) for each in found]
    assert error[0] > error[1]
    # Notebook 07 has 0.99 to 1.11 for five seeds; rounding differs from processor to processor, and the SMP with it.
    assert 0.7 < float(found[0].total.mean() / found[1].total.mean()) < 1.4


def test_shipped_networks_are_what_training_gives():
    recipe = STORED[-1]
    # Rounding differs from processor to processor, which 150 steps turn into per cents.
    assert train(recipe).test_error == pytest.approx(stored(recipe).test_error, rel=0.5)
