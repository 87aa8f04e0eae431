"""Models with a decoding method attached: answers are decoded with it, options are compared under it, costs are refused."""

from __future__ import annotations

import pytest
import torch

import argus
from argus.core.errors import UnsupportedError
from argus.evaluation.engine import evaluate
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.methods.decoding.contrastive import combine
from argus.model.load import load
from tests.runner.tiny import tiny_model


def test_options_are_compared_under_the_contrast(model, processor, questions):
    """log softmax of (1 + alpha) z - alpha z', summed over an option's tokens; z' from a prompt without any visual token."""
    with argus.attach(model, "damro", tokens=0, alpha=1.5):
        scores = LocalModel(model, processor).score(questions, mean=False)
    for question, row in zip(questions, scores, strict=True):
        if not question.images:
            continue
        for option, score in zip(question.sample.options, row, strict=True):
            turn = {"role": "assistant", "content": [{"type": "text", "text": option}]}
            texts = [
                processor.apply_chat_template(question.sample.chat(), tokenize=False, add_generation_prompt=True),
                processor.apply_chat_template([*question.sample.chat(), turn], tokenize=False),
            ]
            asked, whole = (processor(text=[t], images=question.images, return_tensors="pt") for t in texts)
            start, ids = asked.input_ids.shape[1], whole.input_ids
            text = ids[ids != model.config.image_token_id][None]
            with torch.no_grad():
                seen = model(**whole).logits[0, start - 1 : -1]
                blind = model(input_ids=text).logits[0, -1 - len(seen) : -1]
            logp = combine(seen, blind, 1.5, 0).log_softmax(-1)
            assert score == pytest.approx(float(logp.gather(1, ids[0, start:, None]).sum()), abs=1e-3)


def test_no_contrast_gives_the_models_own_scores_and_answers(model, processor, questions):
    plain = LocalModel(model, processor)
    scores, answers = plain.score(questions, mean=False), plain.generate(questions, 6)
    with argus.attach(model, "damro", alpha=0.0, beta=0.0) as attachment:
        local = LocalModel(model, processor, attachment)
        assert not local.shares  # the second branch reads each question's whole prompt
        for a, b in zip(scores, local.score(questions, mean=False), strict=True):
            assert a == pytest.approx(b, abs=1e-4)
        assert local.generate(questions, 6) == answers


def test_an_evaluation_decodes_with_it_and_refuses_costs():
    model, processor = load(str(tiny_model()))
    scenario = {"world/objects": {"questions": 1, "size": 32, "families": ["caption"]}}
    options = {"scenario": scenario, "inferencer": {"generate": {"max_new_tokens": 8}}, "samples": 6}
    with argus.attach(model, "damro", tokens=2) as attachment:
        asked = EvaluationOptions(**options, metrics=["chair"])
        result = evaluate(model, processor, asked, attachment=attachment, progress=False)
        assert result.answered == 6
        assert {"all", "recall"} <= result.measurements["chair"].keys()
        with pytest.raises(UnsupportedError, match="'damro' runs a second branch"):
            evaluate(model, processor, EvaluationOptions(**options, metrics=["ttft_ms"]), attachment=attachment, progress=False)
