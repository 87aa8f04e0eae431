"""Muon steps the hidden matrices in orthogonal directions, AdamW the rest; together they save, load and follow one schedule."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from argus.training.optimizers import Together, matrices, optimizer
from argus.training.options import StageOptions
from argus.training.stage import train_stage
from tests.model.tiny import tiny
from tests.training.test_stage import options


def settings(**changes: Any) -> StageOptions:
    return options(optimizer="muon", **changes)


def names(model: nn.Module, parameters: list[Any]) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is other for other in parameters)}


def test_matrices_are_the_hidden_linear_layers() -> None:
    model, _ = tiny()
    found = names(model, list(matrices(model)))
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert found == linear - {"lm_head.weight"}
    assert not any("embed" in name for name in found)


def test_each_parameter_that_learns_is_stepped_by_one_of_them() -> None:
    model, _ = tiny()
    for parameter in model.model.vision_tower.parameters():
        parameter.requires_grad_(False)
    both = optimizer(model, settings(learning_rates={"multi_modal_projector": 0.01}))
    assert isinstance(both, Together)
    assert [type(part).__name__ for part in both.parts] == ["Muon", "AdamW"]
    stepped = [p for group in both.param_groups for p in group["params"]]
    assert len(stepped) == len({id(p) for p in stepped})
    assert names(model, stepped) == {name for name, p in model.named_parameters() if p.requires_grad}
    rates = {name: g["lr"] for g in both.param_groups for name in names(model, g["params"])}
    assert all((rate == 0.01) == ("multi_modal_projector" in name) for name, rate in rates.items())


def test_steps_are_orthogonal_and_as_large_as_adamws() -> None:
    """From zero momentum a step is -0.2 sqrt(max(m, n)) lr U V^T, where G = U S V^T: all of its singular values are alike."""
    torch.manual_seed(0)
    layer = nn.Linear(24, 48, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(48, 24) @ torch.diag(torch.logspace(0, -1, 24))
    u, _, v = torch.linalg.svd(layer.weight.grad, full_matrices=False)
    optimizer(layer, settings(learning_rate=0.1, weight_decay=0.0)).step()
    step = (layer.weight.detach() - before) / -0.1
    values = torch.linalg.svdvals(step) / (0.2 * 48**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.98
    assert float(step.pow(2).mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_saved_states_give_the_same_next_step() -> None:
    torch.manual_seed(0)
    ends = []
    grads = [[torch.randn(8, 8), torch.randn(8)] for _ in range(3)]
    for saved in (False, True):
        layer = nn.Linear(8, 8)
        nn.init.ones_(layer.weight)
        nn.init.ones_(layer.bias)
        both = optimizer(layer, settings())
        for number, (w, b) in enumerate(grads):
            layer.weight.grad, layer.bias.grad = w.clone(), b.clone()
            if saved and number == 2:
                state = both.state_dict()
                both = optimizer(layer, settings())
                both.load_state_dict(state)
            both.step()
        ends.append(torch.cat([layer.weight.detach().flatten(), layer.bias.detach()]))
    assert torch.equal(*ends)


def test_a_schedule_reaches_both_also_after_loading() -> None:
    layer = nn.Linear(4, 4)
    both = optimizer(layer, settings(learning_rate=1.0))
    both.load_state_dict(both.state_dict())
    schedule = torch.optim.lr_scheduler.LambdaLR(both, lambda step: 1 / (1 + step))
    layer.weight.grad, layer.bias.grad = torch.ones(4, 4), torch.ones(4)
    both.step()
    schedule.step()
    assert [part.param_groups[0]["lr"] for part in both.parts] == [0.5, 0.5]


def test_a_stage_resumes_with_muon(tmp_path: Path) -> None:
    ends = []
    for name in ("whole", "halves"):
        model, processor = tiny()
        given = settings(schedule="constant", warmup=0.0)
        if name == "halves":
            with pytest.raises(KeyboardInterrupt):
                train_stage(model, processor, given, tmp_path / name, on_step=stop)
            model, processor = tiny()
        result = train_stage(model, processor, given, tmp_path / name)
        assert result.steps == 6
        ends.append(model.lm_head.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def stop(step: int) -> None:
    if step == 5:  # behind the checkpoint of step 4
        raise KeyboardInterrupt


def test_sharded_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="muon needs whole matrices"):
        settings(fsdp=True)
