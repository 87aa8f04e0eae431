"""8-bit weights: a model loaded that way answers about as before, in less memory, with techniques and norms on it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import argus
from argus.core.errors import UnsupportedError
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.int8 import quantised
from argus.model.load import load
from argus.model.processor import processor_for
from tests.model.tiny import LANGUAGE, TOWERS, tiny, tokenizer


def inputs(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    count = model.model.visual_grid()
    ids = torch.tensor([[1, *[3] * (count[0] * count[1]), 7, 8]])
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, 32, 32)}


@pytest.mark.parametrize("norms", [False, True])
@torch.no_grad()
def test_an_8_bit_model_answers_about_as_before(norms: bool, tmp_path: Path) -> None:
    model, processor = tiny()
    if norms:
        config = ArgusConfig(
            TOWERS["vit"].to_dict(),
            {**LANGUAGE["llama"], "vocab_size": len(tokenizer())},
            backbone={"attention_norms": {}},
            image_token_id=3,
        )
        model = ArgusForConditionalGeneration(config).eval()
        processor = processor_for(model.model, tokenizer())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    small, _ = load(str(tmp_path), dtype="int8")
    given = inputs(model)
    expected, found = model(**given).logits, small(**given).logits
    assert not torch.equal(found, expected)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.98
    assert not [m for m in small.model.language_model.modules() if isinstance(m, torch.nn.Linear)]
    assert isinstance(small.lm_head, torch.nn.Linear)
    assert small.generate(**given, max_new_tokens=3).shape[0] == 1
    with argus.attach(small, "random", keep=0.5):
        assert not torch.equal(small(**given).logits, found)


def test_where_it_cannot_work_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny()
    with pytest.raises(UnsupportedError, match="starts from float32"):
        quantised(model.bfloat16())
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    with pytest.raises(UnsupportedError, match=r"no 8-bit kernels\. Use dtype bfloat16"):
        quantised(model.float())
