"""The Q-Former: its masks, BLIP-2's numbers, and a bridge of as many tokens as it has queries."""

from typing import Any

import pytest
import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from argus.core.errors import RecipeError
from argus.core.registry import build
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.connectors.querying import QFormer, QFormerOptions, visible
from argus.model.features import VisualFeatures
from argus.training.parts import set_trainable
from tests.model.tiny import LANGUAGE, TOWERS, tokenizer

SIZES: dict[str, Any] = {"queries": 3, "width": 16, "layers": 3, "heads": 2, "hidden": 24, "max_length": 12, "contrast": 8}


def former(**options: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(QFormerOptions(**{**SIZES, "words": 20, **options}), 10).eval()


def test_masks_are_the_tables_of_the_three_tasks() -> None:
    """Two queries and a text of three words, of which the last is padding."""
    mask = torch.tensor([[1, 1, 0]])
    tables = {
        "separate": ["11000", "11000", "00110", "00110", "00111"],
        "joint": ["11110", "11110", "11110", "11110", "11111"],
        "causal": ["11000", "11000", "11100", "11110", "11111"],
    }
    for sight, rows in tables.items():
        expected = torch.tensor([[int(cell) for cell in row] for row in rows]).bool()
        assert torch.equal(visible(2, mask, sight)[0], expected), sight  # type: ignore[arg-type]


@torch.no_grad()
def test_text_reaches_queries_only_where_it_may() -> None:
    model, picture = former(), torch.randn(2, 7, 10)
    ids, mask = torch.randint(0, 20, (2, 4)), torch.ones(2, 4, dtype=torch.long)
    other = (ids + 1) % 20
    alone = model(picture)
    for sight in ("separate", "causal"):
        for told in (ids, other):
            queries, _ = model.with_text(picture, told, mask, sight)  # type: ignore[arg-type]
            torch.testing.assert_close(queries, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.with_text(picture, ids, mask, "joint")[0], alone, atol=1e-3)
    blind = torch.randn(2, 7, 10)  # separate text knows no picture, causal text does
    for sight, equal in (("separate", True), ("causal", False)):
        a, b = (model.with_text(p, ids, mask, sight)[1] for p in (picture, blind))  # type: ignore[arg-type]
        assert torch.allclose(a, b, atol=1e-5) == equal
    later = ids.clone()
    later[:, 2:] = other[:, 2:]
    a, b = (model.with_text(picture, told, mask, "causal")[1] for told in (ids, later))
    torch.testing.assert_close(a[:, :2], b[:, :2], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_of_a_text_changes_nothing() -> None:
    model, picture, ids = former(), torch.randn(1, 7, 10), torch.tensor([[1, 5, 6]])
    longer, mask = torch.tensor([[1, 5, 6, 9, 9]]), torch.tensor([[1, 1, 1, 0, 0]])
    for sight in ("separate", "joint", "causal"):
        queries, text = model.with_text(picture, ids, torch.ones_like(ids), sight)  # type: ignore[arg-type]
        padded, told = model.with_text(picture, longer, mask, sight)  # type: ignore[arg-type]
        torch.testing.assert_close(padded, queries, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(told[:, :3], text, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_blip2s_weights_give_blip2s_numbers() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**sizes, "num_hidden_layers": 1, "hidden_size": 10, "image_size": 16, "patch_size": 8}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 12, "encoder_hidden_size": 10, "use_qformer_text_input": True}
    config = Blip2Config(
        vision_config=vision, qformer_config={**text, "pad_token_id": None}, num_query_tokens=3, image_text_hidden_size=8
    )
    torch.manual_seed(0)
    theirs, ours = Blip2ForImageTextRetrieval(config).eval(), former()
    assert ours.text is not None
    theirs.query_tokens.normal_()
    ours.queries.copy_(theirs.query_tokens)
    ours.former.load_state_dict(theirs.qformer.state_dict())
    ours.text.embeddings.load_state_dict(theirs.embeddings.state_dict())
    ours.text.look.load_state_dict(theirs.vision_projection.state_dict())
    ours.text.read.load_state_dict(theirs.text_projection.state_dict())
    ours.text.match.load_state_dict(theirs.itm_head.state_dict())
    pixels, ids = torch.randn(2, 3, 16, 16), torch.randint(0, 20, (2, 4))
    picture, mask = theirs.vision_model(pixels).last_hidden_state, torch.ones(2, 4, dtype=torch.long)
    inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
    queries, words = ours.with_text(picture, ids, mask, "separate")
    looks = torch.nn.functional.normalize(ours.text.look(queries), dim=-1)
    reads = torch.nn.functional.normalize(ours.text.read(words[:, 0]), dim=-1)
    expected = theirs(**inputs).logits_per_image
    torch.testing.assert_close(torch.einsum("iqe,je->ijq", looks, reads).max(-1).values, expected, rtol=1e-5, atol=1e-5)
    matched = ours.text.match(ours.with_text(picture, ids, mask, "joint")[0]).mean(1)
    expected = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(matched, expected, rtol=1e-5, atol=1e-5)


def test_sizes_of_blip2() -> None:
    """188 M parameters, as the paper says: BERT-base with its words, cross-attention to ViT-g in every second block, heads."""
    with torch.device("meta"):
        model = QFormer(QFormerOptions(words=30523), 1408)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(188, rel=0.01)
    with pytest.raises(RecipeError, match="must divide"):
        build("connector", "qformer", {"heads": 5}, vision_width=8, text_width=8)


def bridge(**options: Any) -> Any:
    torch.manual_seed(0)
    return build("connector", "qformer", {**SIZES, "through": 40, **options}, vision_width=10, text_width=6)


@torch.no_grad()
def test_the_two_matrices_act_as_their_product() -> None:
    connector = bridge().eval()
    features = VisualFeatures(torch.randn(2, 12, 10), (3, 4), prefix=torch.randn(2, 1, 10))
    states = connector.qformer(connector.vision_norm(torch.cat([features.prefix, features.tokens], 1)))
    product = connector.project_2.weight @ connector.project.weight  # (D, W)
    shift = connector.project_2.weight @ connector.project.bias + connector.project_2.bias
    torch.testing.assert_close(connector(features), states @ product.T + shift, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_as_many_tokens_as_queries_at_any_resolution() -> None:
    connector = bridge().eval()
    for rows, columns in ((2, 2), (8, 8), (3, 11)):
        assert connector(VisualFeatures(torch.randn(1, rows * columns, 10), (rows, columns))).shape == (1, 3, 6)
        assert connector.tokens((rows, columns)) == (1, 3)


def test_what_is_frozen_has_no_dropout() -> None:
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = ArgusConfig(TOWERS["vit"].to_dict(), {**LANGUAGE["llama"], **ids}, connector={"qformer": {**SIZES, "dropout": 0.5}})
    model = ArgusForConditionalGeneration(config)
    set_trainable(model, ["project", "project_2"])
    pixels = torch.randn(1, 3, 32, 32)
    model.train()
    assert not model.model.multi_modal_projector.qformer.training
    assert torch.equal(model.get_image_features(pixels), model.get_image_features(pixels))
    set_trainable(model, ["multi_modal_projector"])
    model.train()
    assert not torch.equal(model.get_image_features(pixels), model.get_image_features(pixels))
