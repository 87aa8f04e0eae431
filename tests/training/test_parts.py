"""Which parts learn, and at which rate."""

import pytest
import torch
from torch import nn

from argus.core.errors import RecipeError
from argus.training.parts import parameter_groups, set_trainable


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {"vision_tower": nn.Linear(2, 3), "multi_modal_projector": nn.Linear(3, 4), "language_model": nn.LayerNorm(4)}
        )
        self.lm_head = nn.Linear(4, 5, bias=False)


def test_only_the_named_parts_learn() -> None:
    toy = Toy()
    counts = set_trainable(toy, train=["multi_modal_projector"])
    assert counts == {"multi_modal_projector": 3 * 4 + 4}
    assert [n for n, p in toy.named_parameters() if p.requires_grad] == [
        "model.multi_modal_projector.weight",
        "model.multi_modal_projector.bias",
    ]


def test_freezing_is_taken_from_what_learns() -> None:
    counts = set_trainable(Toy(), freeze=["vision_tower"])
    assert set(counts) == {"multi_modal_projector", "language_model", "lm_head"}


def test_an_unknown_part_gives_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'vision_tower'"):
        set_trainable(Toy(), train=["vision_towr"])


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(RecipeError, match="nothing is left to train"):
        set_trainable(Toy(), train=["lm_head"], freeze=["lm_head"])


def test_rates_per_part_and_no_decay_on_vectors() -> None:
    toy = Toy()
    set_trainable(toy)
    groups = parameter_groups(toy, 1e-3, {"vision_tower": 1e-4}, 0.05)
    found = {(g["lr"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    # vision_tower: 2 x 3 weight with decay, 3 biases without; the others at the base rate.
    assert found == {(1e-4, 0.05): 6, (1e-4, 0.0): 3, (1e-3, 0.05): 12 + 20, (1e-3, 0.0): 4 + 8}


def test_a_parameter_of_the_model_itself_is_a_part() -> None:
    """A dual encoder's temperature belongs to no module."""
    toy = Toy()
    toy.register_parameter("logit_scale", nn.Parameter(torch.zeros(())))
    counts = set_trainable(toy, freeze=["logit_scale"])
    assert not toy.logit_scale.requires_grad
    assert "logit_scale" not in counts
