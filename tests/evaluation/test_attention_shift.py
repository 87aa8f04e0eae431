"""Attention shift: curves of constructed maps have the correlation that they are made to have, and so have questions' curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.methods.reduction import diagnostics
from argus.methods.reduction.diagnostics import AttentionCurves, attention_curves
from argus.model.load import load
from tests.methods.families import FAMILIES
from tests.runner.tiny import tiny_model

ASKED = EvaluationOptions(
    scenario={"world/objects": {"size": 32, "questions": 1}}, inferencer="attention", metrics=["attention_shift"], samples=6
)


def curves_of(monkeypatch: pytest.MonkeyPatch, weight: Tensor) -> AttentionCurves:
    """Curves of a model whose every layer attends to key column c with weight[c], as far as the causal mask lets it."""
    inputs = FAMILIES["llava"].inputs([1], [7])
    size = inputs["input_ids"].shape[1]
    causal = weight[:size].expand(size, size).tril()
    maps = (causal / causal.sum(1, keepdim=True))[None, None]  # (1, 1, S, S), rows sum up to 1

    def blocks(call: Any) -> Any:
        for start in (0, size // 2):  # rows come in blocks
            stop = size // 2 if start == 0 else size
            yield range(start, stop), maps[:, :, start:stop]

    monkeypatch.setattr(diagnostics, "attention_row_blocks", blocks)
    return attention_curves(FAMILIES["llava"].model(), inputs)


def test_attention_that_grows_with_the_column_has_correlation_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = curves_of(monkeypatch, torch.arange(1.0, 200)).correlation()
    assert found["last"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert found["text"].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_attention_that_falls_has_minus_one_and_flat_attention_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert curves_of(monkeypatch, torch.arange(200.0, 1, -1)).correlation()["last"].tolist() == pytest.approx([-1.0] * 3)
    flat = curves_of(monkeypatch, torch.ones(200))
    assert flat.correlation()["last"].tolist() == [0.0] * 3
    # a flat map shows the shift that is the causal mask's own: late rows of the picture spread their attention thinner
    torch.testing.assert_close(flat.last, flat.last[:, :1].expand_as(flat.last))
    assert flat.correlation()["image"].tolist() == pytest.approx([-1.0] * 3)


def row(last: Any, encoder: Any, picture: str) -> Row:
    return Row({"last": np.asarray(last).tolist(), "encoder": np.asarray(encoder).tolist()}, ["all"], picture)


def test_the_number_is_of_the_mean_curve() -> None:
    """Spearman of the mean, not the mean of Spearman: two falling curves outweigh nothing against one steep rise."""
    metric: Any = build("metric", "attention_shift")
    falling, steep = np.array([4.0, 3, 2, 1]), np.array([0.0, 10, 20, 30])
    rows = [row([falling, falling], falling, "a"), row([falling, falling], falling, "a"), row([steep, falling], falling, "b")]
    found = metric.over_all(rows)
    assert {name: m.value for name, m in found.items()} == {"all": 1.0, "layer 0": 1.0, "layer 1": -1.0, "encoder": -1.0}
    assert found["all"].n == 3
    assert (found["encoder"].low, found["encoder"].high) == (-1.0, -1.0)  # the same whichever pictures are drawn
    assert found["all"].low < found["all"].value  # without the second picture it falls


def test_random_curves_equal_scipy() -> None:
    metric: Any = build("metric", "attention_shift")
    generator = np.random.default_rng(0)
    last, encoder = generator.random((40, 3, 25)), generator.random((40, 25))
    found = metric.over_all([row(one, cls, str(i // 2)) for i, (one, cls) in enumerate(zip(last, encoder, strict=True))])
    for name, curve in (("all", last.mean((0, 1))), ("layer 2", last[:, 2].mean(0)), ("encoder", encoder.mean(0))):
        assert found[name].value == pytest.approx(spearmanr(curve, range(25)).statistic)
        assert found[name].low < found[name].high
    assert abs(found["encoder"].value) < 0.5  # nothing but noise


def test_questions_give_the_curves_of_their_prompts() -> None:
    """The mean over questions, from the records; the diagnostic's own curves on the first of them."""
    model, processor = load(str(tiny_model()))
    records = MemoryRecords()
    result = evaluate(model, processor, ASKED, run_part=records, progress=False)
    told = [r["notes"]["attention_shift"] for r in records.records() if r["kind"] == "answer"]
    assert len(told) == 6
    last = np.array([t["last"] for t in told])
    assert last.shape == (6, 2, 16)
    measured = result.measurements["attention_shift"]
    assert measured["all"].value == pytest.approx(spearmanr(last.mean((0, 1)), range(16)).statistic)
    assert set(measured) == {"all", "layer 0", "layer 1", "encoder"}


def test_a_model_with_a_technique_is_left_out() -> None:
    model, processor = load(str(tiny_model()))
    with argus.attach(model, "fastervlm", keep=0.25) as attachment:
        result = evaluate(model, processor, ASKED, attachment=attachment, progress=False)
    assert sum(result.skipped.values()) == result.asked == 6
    assert result.measurements["attention_shift"]["all"].n == 0


def test_what_cannot_be_averaged_is_refused() -> None:
    metric: Any = build("metric", "attention_shift")
    with pytest.raises(UnsupportedError, match="different sizes"):
        metric.over_all([row([[1, 2]], [1, 2], "a"), row([[1, 2, 3]], [1, 2, 3], "b")])
    with pytest.raises(UnsupportedError, match="inferencer `attention`"):
        metric.score(None, Answer("yes"))
