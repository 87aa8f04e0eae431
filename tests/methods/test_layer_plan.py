"""The contract that reducers build on: own schedules, own choices, soft masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.attach import Attachment
from argus.methods.reduction.base import Reducer, ReducerOptions, Score, Step
from argus.methods.reduction.scores import LayerAttention
from argus.methods.reduction.selectors import TopK
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, llava, llava_inputs, single


class Nothing(Score):
    """For reducers that choose without scores."""

    def __call__(self, step: Step) -> Tensor:
        return step.tokens.cell * 0.0


class Pyramid(Reducer):
    """A table of shares per layer, ranked by text attention in the layer before."""

    def __init__(self, table: dict[int, float], rows: Any = "text") -> None:
        super().__init__(ReducerOptions())
        self.table, self.score = table, LayerAttention(rows)

    def layers(self, depth: int) -> Sequence[int]:
        return tuple(self.table)

    def keep(self, step: Step) -> Tensor:
        return TopK(self.table[step.layer])(self.score(step), step.tokens, step.present)


class Exit(Reducer):
    """All visual tokens of an item leave where its text says so: here, by the sign of one feature."""

    def __init__(self, layer: int, apply: str = "drop") -> None:
        super().__init__(ReducerOptions(apply=apply))  # type: ignore[arg-type]
        self.layer, self.score, self.features = layer, Nothing(), torch.empty(0)

    def layers(self, depth: int) -> Sequence[int]:
        return (self.layer,)

    def keep(self, step: Step) -> Tensor:
        text = step.text()
        self.features = (step.hidden * text[..., None]).sum(1) / text.sum(1, keepdim=True)  # (B, D)
        stays = torch.arange(len(text)) % 2 == 1
        return stays[step.tokens.item]


class Gate(Reducer):
    """A soft mask with one learned number."""

    def __init__(self, gate: Tensor) -> None:
        super().__init__(ReducerOptions())
        self.gate, self.score = gate, Nothing()

    def layers(self, depth: int) -> Sequence[int]:
        return (1,)

    def keep(self, step: Step) -> Tensor:
        return torch.ones_like(step.present)

    def bias(self, step: Step) -> Tensor:
        return self.gate.sigmoid().log().expand(len(step.tokens))


def test_table_of_layers(models: dict[str, Any], family: str) -> None:
    """Survivors are nested, counts follow the table, logits equal the sequence cut by hand."""
    model, inputs = models[family], FAMILIES[family].inputs([1], [6])
    with torch.no_grad():
        attachment = Attachment(model, "pyramid", Pyramid({1: 0.5, 2: 0.5}))
        logits = model(**inputs).logits[0]
        attachment.detach()
    crops = len(attachment.kept) // 2
    for first, second in zip(attachment.kept[:crops], attachment.kept[crops:], strict=True):
        assert (first.layer, second.layer) == (1, 2)
        assert second.before == len(first.indices)
        assert len(second.indices) == int(len(first.indices) * 0.5 + 0.5)
        assert set(second.indices.tolist()) < set(first.indices.tolist())
    expected, columns = logits_with(model, inputs, columns_gone(attachment, inputs, model))
    torch.testing.assert_close(logits[columns], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", ["last", "text", "visual"])
def test_rows_of_attention_equal_maps(family: str, rows: str) -> None:
    """What a score reads, in a padded batch whose items differ."""
    model, eager = FAMILIES[family].model(), FAMILIES[family].model("eager")
    inputs = FAMILIES[family].inputs([1, 2], [6, 3])
    reducer = Pyramid({2: 0.5}, rows)
    read: list[Tensor] = []
    score = reducer.score
    reducer.score = _Spy(score, read)
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True).attentions[1].mean(1)  # (B, S, S)
        attachment = Attachment(model, "pyramid", reducer)
        model(**inputs)
        attachment.detach()
    tokens = anatomy(model).visual_tokens(inputs)
    visual, real = tokens.mask(*inputs["input_ids"].shape), inputs["attention_mask"].bool()
    for item in range(2):
        first = int(visual[item].nonzero()[0])
        shown = anatomy(model).visual_mask(inputs["input_ids"])[item]  # line breaks are no text
        text = [c for c in range(first, visual.shape[1]) if real[item, c] and not shown[c]]
        chosen = {"last": [visual.shape[1] - 1], "text": text, "visual": visual[item].nonzero().flatten().tolist()}[rows]
        expected = maps[item, chosen].mean(0)[tokens.column[tokens.item == item]]
        torch.testing.assert_close(read[0][tokens.item == item], expected, atol=1e-5, rtol=0)


class _Spy(Score):
    def __init__(self, inner: Score, read: list[Tensor]) -> None:
        self.inner, self.read, self.attention = inner, read, inner.attention

    def __call__(self, step: Step) -> Tensor:
        self.read.append(self.inner(step))
        return self.read[-1]


@pytest.mark.parametrize("apply", ["drop", "mask"])
def test_all_tokens_of_some_items_leave(models: dict[str, Any], family: str, apply: str) -> None:
    """Item 0 loses its picture before layer 2, item 1 keeps it; both go on in one batch, text keeps its positions."""
    model, inputs = models[family], FAMILIES[family].inputs([1, 1], [6, 6])
    reducer = Exit(2, apply)
    attachment = Attachment(model, "exit", reducer)
    with torch.no_grad():
        logits = model(**inputs).logits
        states = model(**inputs, output_hidden_states=True).hidden_states
    attachment.detach()
    assert [c.kept for c in attachment.counts] == [0, attachment.counts[1].total]
    visual = anatomy(model).visual_mask(inputs["input_ids"])
    text = inputs["attention_mask"].bool() & ~visual & (visual.cumsum(1) > 0)
    mean = torch.stack([states[2][i, text[i]].mean(0) for i in range(2)])
    torch.testing.assert_close(reducer.features, mean, atol=1e-5, rtol=1e-4)
    for item, gone in ((0, set(visual[0].nonzero().flatten().tolist())), (1, set())):
        real = inputs["attention_mask"][item].bool()
        alone = single(inputs, item, family, [1, 1])
        pad = int((~real).sum())
        expected, columns = logits_with(model, alone, {2: {c - pad for c in gone}})
        torch.testing.assert_close(logits[item, real][columns], expected, atol=2e-5, rtol=1e-4)


def test_soft_mask(family: str) -> None:
    """An open gate changes nothing, a shut one equals dropping, and its gradient is that of the loss."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [6, 3])
    real = inputs["attention_mask"].bool() & ~anatomy(model).visual_mask(inputs["input_ids"])

    def logits(reducer: Reducer) -> Tensor:
        attachment = Attachment(model, "gate", reducer)
        try:
            return model(**inputs, use_cache=False).logits[real]
        finally:
            attachment.detach()

    with torch.no_grad():
        base = model(**inputs, use_cache=False).logits[real]
        torch.testing.assert_close(logits(Gate(torch.tensor(30.0))), base, atol=1e-5, rtol=1e-4)
        shut = logits(Gate(torch.tensor(-60.0)))
        torch.testing.assert_close(shut, logits(_All()), atol=1e-4, rtol=1e-4)
    gate = torch.tensor(0.3, requires_grad=True)
    logits(Gate(gate)).square().mean().backward()
    with torch.no_grad():
        step = 1e-2
        up, down = (logits(Gate(torch.tensor(0.3 + d))).square().mean() for d in (step, -step))
    assert float(gate.grad) == pytest.approx(float((up - down) / (2 * step)), rel=0.05)  # type: ignore[arg-type]
    attachment = Attachment(model, "gate", Gate(torch.tensor(0.0)))
    with pytest.raises(UnsupportedError, match="use_cache=False"):
        model(**inputs, use_cache=True)
    attachment.detach()


class _All(Exit):
    def __init__(self) -> None:
        super().__init__(1)

    def keep(self, step: Step) -> Tensor:
        return torch.zeros_like(step.present)


def test_attention_before_the_first_layer_is_refused() -> None:
    model = llava()
    hooks = len(model.model._forward_pre_hooks)
    with pytest.raises(UnsupportedError, match="no attention to read in front of layer 0"):
        Attachment(model, "pyramid", Pyramid({0: 0.5}))
    assert len(model.model._forward_pre_hooks) == hooks
    with torch.no_grad():
        model(**llava_inputs([1], [4]))


class Rewritten(Reducer):
    """Half of the visual tokens leave, and text gets, times a number, what a run by itself on the embeddings gives."""

    def __init__(self, layer: int, scale: Tensor) -> None:
        super().__init__(ReducerOptions())
        self.layer, self.scale, self.score, self.select = layer, scale, Nothing(), TopK(0.5)

    def layers(self, depth: int) -> Sequence[int]:
        return (0, self.layer) if self.layer else (0,)

    def keep(self, step: Step) -> Tensor:
        return super().keep(step) if step.layer == self.layer else torch.ones_like(step.present)

    def rewrite(self, step: Step) -> Tensor | None:
        if step.layer == 0:
            self.states = step.alone(step.hidden, position_ids=step.positions).last_hidden_state.detach()
        if step.layer != self.layer:
            return None
        return torch.where(step.text()[..., None], step.hidden + self.scale * self.states, step.hidden)


@pytest.mark.parametrize("layer", [0, 1])
def test_states_are_replaced(family: str, layer: int) -> None:
    """Against the same done by hand in front of the layer; gradients reach what made the states; the cache sees one pass."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [5])
    scale = torch.tensor(0.1, requires_grad=True)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[-1]
    with Attachment(model, "rewritten", Rewritten(layer, scale)) as attachment:
        logits = model(**inputs, use_cache=False).logits[0]
        logits.square().mean().backward()
        with torch.no_grad():
            cache = model(**inputs, use_cache=True).past_key_values
        gone = columns_gone(attachment, inputs, model)
    visual = anatomy(model).visual_mask(inputs["input_ids"])
    text = ~visual & (visual.cumsum(1) > 0)

    def by_hand(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen = states[:, [c for c in range(states.shape[1]) if args[0].shape[1] == states.shape[1] or c not in gone[layer]]]
        here = text[:, [c for c in range(text.shape[1]) if args[0].shape[1] == text.shape[1] or c not in gone[layer]]]
        return (torch.where(here[..., None], args[0] + 0.1 * seen, args[0]), *args[1:])

    hook = anatomy(model).layers[layer].register_forward_pre_hook(by_hand)
    expected, columns = logits_with(model, inputs, gone)
    hook.remove()
    torch.testing.assert_close(logits[columns], expected, atol=5e-5, rtol=1e-4)
    assert scale.grad is not None
    assert scale.grad.abs() > 0
    assert cache.layers[layer].keys.shape[2] == len(columns)
