"""EMMA: the mixing matrix written out, a start that is LLaVA exactly, and instructions on their way from prompt to picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPTextConfig

import argus
from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.connectors.base import ConnectorContext
from argus.model.features import VisualFeatures
from argus.model.processor import ArgusProcessor, processor_for
from argus.training.objectives.sft import SFT, SFTOptions
from argus.training.parts import set_trainable
from tests.model.tiny import LANGUAGE, TOWERS, chat, tokenizer

TEXT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def emma(view: str = "square", connector: str = "emma", **options: Any) -> tuple[ArgusForConditionalGeneration, ArgusProcessor]:
    """A random model whose text tower reads 12 ids, and its processor."""
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = CLIPTextConfig(**TEXT, max_position_embeddings=12, **ids)
    given = {"text_length": 12, **options} if connector == "emma" else options
    torch.manual_seed(0)
    config = ArgusConfig(
        TOWERS["vit"].to_dict(),
        {**LANGUAGE["llama"], **ids},
        connector={connector: given},
        view={view: {}},
        image_token_id=3,
        instruction_config=text if connector == "emma" else None,
    )
    model = ArgusForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "infusion" not in name:
                parameter.mul_(4)
    return model, processor_for(model.model, words)


def trained(**options: Any) -> tuple[ArgusForConditionalGeneration, ArgusProcessor]:
    """As if it had learned: every column of the mixing matrix counts."""
    model, processor = emma(**options)
    with torch.no_grad():
        model.model.multi_modal_projector.image_text_infusion.weight.add_(torch.randn(16, 28), alpha=0.3)
    return model, processor


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def inputs(processor: Any, *questions: str, pictures: int = 1) -> Any:
    """Prompts about the same picture."""
    texts = [processor.apply_chat_template(chat(q, pictures), tokenize=False, add_generation_prompt=True) for q in questions]
    return processor([picture()] * len(questions) * pictures, texts, padding=True, return_tensors="pt")


def test_trained_weights_at_the_papers_size() -> None:
    """768 * 1024 + 1024 and 653 * 576 + 576, beside the projector."""
    with torch.device("meta"):
        connector = build("connector", "emma", vision_width=1024, text_width=8, grid=(24, 24), instruction_width=768)
    new = [p.numel() for n, p in connector.named_parameters() if not n.startswith("linear_")]
    assert sum(new) == 787_456 + 376_704 == 1_164_160


@torch.no_grad()
def test_at_first_it_is_llava_whatever_is_asked() -> None:
    model, processor = emma()
    plain, _ = emma(connector="mlp")
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert {n.split(".")[1] for n in unexpected} == {"instruction_tower", "multi_modal_projector"}
    batch = inputs(processor, "What colour is the star?", "How many things are there?")
    ids = batch.pop("instruction_ids")
    assert not torch.equal(ids[0], ids[1])
    assert torch.equal(model(**batch, instruction_ids=ids).logits, plain(**batch).logits)
    features = model.model.get_image_features(batch["pixel_values"], instruction_ids=ids)
    assert torch.equal(features, plain.model.get_image_features(batch["pixel_values"]))


@torch.no_grad()
@pytest.mark.parametrize(("select", "words"), [("cls_patch", range(12)), ("patch", range(1, 12)), ("cls", range(1))])
def test_fusion_is_the_matrix_over_tokens(select: str, words: range) -> None:
    options = {"text_length": 12, "text_select": select}
    connector = build("connector", "emma", options, vision_width=8, text_width=6, grid=(2, 3), instruction_width=5)
    mix = connector.image_text_infusion
    mix.weight.normal_()
    mix.bias.normal_()
    patches, text = torch.randn(2, 6, 8), torch.randn(2, 12, 5)
    hidden = text[:, list(words)] @ connector.text_projection.weight.T + connector.text_projection.bias
    joined = torch.cat([patches, 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))], 1)
    expected = torch.einsum("ij,bjc->bic", mix.weight, joined) + mix.bias[:, None]
    torch.testing.assert_close(connector.fuse(patches, text), expected, rtol=1e-6, atol=1e-5)
    out = connector(VisualFeatures(patches, (2, 3)), ConnectorContext(instruction=text))
    torch.testing.assert_close(out, connector.project(expected, (2, 3)))


@torch.no_grad()
def test_v3_learns_a_table_beside_a_matrix_that_stays() -> None:
    """From a trained v1: its tokens, plus one vector per patch; no stage can train the matrix or its bias."""
    first, processor = trained()
    third, _ = emma(variant="v3")
    theirs, ours = first.model.multi_modal_projector, third.model.multi_modal_projector
    assert set(theirs.state_dict()) == set(ours.adopt(theirs.state_dict()))
    batch = inputs(processor, "What colour is the star?")
    words = first.model.encode_instruction(batch["instruction_ids"])
    tokens = first.model.encode_images(batch["pixel_values"]).tokens
    assert torch.equal(ours.fuse(tokens, words), theirs.fuse(tokens, words))
    ours.image_table.copy_(torch.randn(16, 32))
    assert torch.equal(ours.fuse(tokens, words), theirs.fuse(tokens, words) + ours.image_table)
    set_trainable(third, ["multi_modal_projector"])
    learned = {n for n, p in ours.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in learned} == {"text_projection", "image_table", "linear_1", "linear_2"}


@torch.no_grad()
def test_another_question_gives_another_picture_unless_text_columns_are_zero() -> None:
    model, processor = trained()
    batch = inputs(processor, "What colour is the star?", "How many things are there?")
    a, b = model.model.get_image_features(batch["pixel_values"], instruction_ids=batch["instruction_ids"])
    assert not torch.allclose(a, b, atol=1e-3)
    model.model.multi_modal_projector.image_text_infusion.weight[:, 16:] = 0
    a, b = model.model.get_image_features(batch["pixel_values"], instruction_ids=batch["instruction_ids"])
    torch.testing.assert_close(a, b)


@torch.no_grad()
def test_text_is_the_towers_next_to_last_layer_without_a_mask() -> None:
    model, processor = emma()
    ids = processor.instruction_ids(["red"])
    states = model.model.instruction_tower(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.equal(model.model.encode_instruction(ids), states[1])
    other = ids.clone()
    other[0, -1] = 5  # padding is read: the tower is causal, so it changes its own position alone
    changed = model.model.encode_instruction(other)
    torch.testing.assert_close(changed[:, :-1], states[1][:, :-1])
    assert not torch.allclose(changed[:, -1], states[1][:, -1])


def test_ids_are_start_text_end_and_zeros() -> None:
    _, processor = emma()
    words = processor.tokenizer("red star", add_special_tokens=False)["input_ids"]
    table = processor.instruction_ids(["red star", "", "green " * 40])
    assert table.shape == (3, 12)
    assert table[0].tolist() == [1, *words, 2, *[0] * (10 - len(words))]
    assert table[1].tolist() == [1, 2, *[0] * 10]
    assert (table[2, 0], table[2, -1]) == (1, 2)  # cut, the end last
    assert (table[2, 1:-1] > 3).all()


def test_the_instruction_is_the_first_line_of_the_question() -> None:
    """What comes behind says how to answer; a colon is part of it."""
    _, processor = emma()
    found = inputs(processor, "Read this: what colour?\nAnswer with one word.")["instruction_ids"]
    assert torch.equal(found, processor.instruction_ids(["Read this: what colour?"]))
    sample = Sample("", [Message("user", [ImagePart(picture()), TextPart("Read this: what colour?\nAnswer with one word.")])])
    assert torch.equal(processor.encode([sample])["instruction_ids"], found)
    text = processor.apply_chat_template(chat("red"), tokenize=False)
    given = processor([picture()], text, instructions=["blue star"], return_tensors="pt")["instruction_ids"]
    assert torch.equal(given, processor.instruction_ids(["blue star"]))


def test_two_pictures_of_one_question_share_its_instruction() -> None:
    _, processor = emma()
    ids = inputs(processor, "Is the star red?", "How many?", pictures=2)["instruction_ids"]
    assert ids.shape == (4, 12)
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(ids[2], ids[3])
    assert not torch.equal(ids[1], ids[2])


@torch.no_grad()
def test_batches_of_different_questions_equal_one_by_one() -> None:
    model, processor = trained()
    questions = ["What colour is the star?", "How many things are there?", ""]
    together = model(**inputs(processor, *questions)).logits[:, -1]
    for question, expected in zip(questions, together, strict=True):
        torch.testing.assert_close(model(**inputs(processor, question)).logits[0, -1], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_tiles_all_get_the_instruction() -> None:
    model, processor = trained(view="internvl")
    text = processor.apply_chat_template(chat("Is the star red?"), tokenize=False, add_generation_prompt=True)
    batch = processor([picture(size=(64, 32))], text, return_tensors="pt")
    tiles = len(batch["pixel_values"])
    assert tiles > 1
    assert torch.equal(batch["instruction_ids"], processor.instruction_ids(["Is the star red?"] * tiles))
    assert model(**batch).logits.isfinite().all()


@torch.no_grad()
def test_generation_goes_on_as_the_full_pass_says() -> None:
    model, processor = trained()
    batch = inputs(processor, "What colour is the star?", "How many?")
    said = model.generate(**batch, max_new_tokens=3, do_sample=False)
    length = batch["input_ids"].shape[1]
    more = said[:, length : length + 2]
    known = {**batch, "input_ids": said[:, : length + 2], "attention_mask": torch.cat([batch["attention_mask"], more > -1], 1)}
    known.pop("mm_token_type_ids")
    alive = said[:, length + 1] != 2  # a row that has ended is filled up
    assert torch.equal(model(**known).logits[:, -1].argmax(-1)[alive], said[alive, -1])
    assert torch.equal(model.generate(**batch, max_new_tokens=3, num_beams=2, do_sample=False)[:, :length], batch["input_ids"])


def test_stage_one_reaches_fusion_and_projector_alone() -> None:
    model, processor = trained()
    assert set(set_trainable(model, ["multi_modal_projector"])) == {"multi_modal_projector"}
    batch = inputs(processor, "What colour is the star?")
    model(**batch, labels=batch["input_ids"]).loss.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {f"model.multi_modal_projector.{n}" for n, _ in model.model.multi_modal_projector.named_parameters()}


def sample(*turns: tuple[str, str]) -> Sample:
    messages = []
    for index, (asked, answer) in enumerate(turns):
        messages.append(Message("user", [*([ImagePart(picture())] if not index else []), TextPart(asked)]))
        messages.append(Message("assistant", [TextPart(answer)]))
    return Sample("s", messages)


def test_in_training_each_question_has_its_own_row_and_picture() -> None:
    """Two questions of one picture are learned as if they were of two."""
    model, processor = trained()
    sft = SFT(SFTOptions())
    sft.bind(model, processor)
    both = sft.collate([sample(("What colour is the star?", "red"), ("How many things are there?", "2"))])
    apart = sft.collate([sample(("What colour is the star?", "red")), sample(("How many things are there?", "2"))])
    assert both["input_ids"].shape[0] == len(both["pixel_values"]) == len(both["instruction_ids"]) == 2
    assert torch.equal(both["instruction_ids"], apart["instruction_ids"])
    assert torch.equal(sft.loss(model, both)[0], sft.loss(model, apart)[0])
    packed = SFT(SFTOptions(packing=512))
    packed.bind(model, processor)
    batch = packed.collate([sample(("red", "red"), ("How many things are there?", "2"))])
    assert batch["input_ids"].shape[0] == 1
    torch.testing.assert_close(
        batch["instruction_ids"], processor.instruction_ids(["How many things are there?", "red"])
    )  # longest first, as the row holds them


@torch.no_grad()
def test_evaluation_asks_each_question_of_its_own_picture() -> None:
    model, processor = trained()
    local = LocalModel(model, processor)
    assert not local.shares
    assert LocalModel(*emma(connector="mlp")).shares
    asked = [
        Question("p", Sample(str(n), [Message("user", [ImagePart(picture()), TextPart(q)])], "red", ["red", "blue"]), [picture()])
        for n, q in enumerate(["What colour is the star?", "How many things are there?"])
    ]
    together = local.score(asked, mean=False)
    for question, scores in zip(asked, together, strict=True):
        assert scores == pytest.approx(local.score([question], mean=False)[0], abs=1e-4)
        batch = processor.encode([question.sample])
        first = processor.tokenizer(" red", add_special_tokens=False)["input_ids"]
        logits = model(**batch).logits[0, -1].log_softmax(-1)
        assert len(first) > 1 or logits[first[0]] >= scores[0] - 1e-4


@torch.no_grad()
def test_a_squares_mean_behind_the_projector_is_the_bottleneck() -> None:
    model, processor = trained(pool=2)
    batch = inputs(processor, "What colour is the star?")
    assert (batch["input_ids"] == 3).sum() == 4
    whole, _ = trained()
    whole.load_state_dict(model.state_dict())
    fine = whole.model.get_image_features(batch["pixel_values"], instruction_ids=batch["instruction_ids"])  # (1, 16, D)
    coarse = model.model.get_image_features(batch["pixel_values"], instruction_ids=batch["instruction_ids"])
    torch.testing.assert_close(coarse, fine.view(1, 2, 2, 2, 2, -1).mean((2, 4)).flatten(1, 2))


@torch.no_grad()
def test_saving_and_loading(tmp_path: Path) -> None:
    model, processor = trained()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    batch = inputs(processor, "What colour is the star?")
    found = inputs(reader, "What colour is the star?")
    assert reader.depends_on_question
    assert torch.equal(found["instruction_ids"], batch["instruction_ids"])
    assert torch.equal(again(**found).logits, model(**batch).logits)


@torch.no_grad()
def test_bf16_and_reduction_behind_it() -> None:
    model, processor = trained()
    batch = inputs(processor, "What colour is the star?")
    plain = model(**batch).logits
    with argus.attach(model, "fastervlm", keep=1.0):
        assert torch.equal(model(**batch).logits, plain)
    half = model.bfloat16()(**{**batch, "pixel_values": batch["pixel_values"].bfloat16()}).logits
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1 * float(plain.std()) + 0.1)


def test_refusals() -> None:
    with pytest.raises(UnsupportedError, match="needs the text tower"):
        build("connector", "emma", vision_width=8, text_width=6, grid=(2, 3), instruction_width=None)
    with pytest.raises(UnsupportedError, match="reads 77 tokens of the instruction, and the text tower knows positions for 12"):
        emma(text_length=77)
    with pytest.raises(UnsupportedError, match="reads layer 3 of the text tower, which has 2 blocks"):
        emma(text_layer=3)
    model, processor = emma()
    batch = inputs(processor, "red")
    with pytest.raises(ModelError, match="depend on the instruction"):
        model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"])
    with pytest.raises(UnsupportedError, match=r"mixes 16 patches .* has 4"):
        model.model.get_image_features(torch.randn(1, 3, 16, 16), instruction_ids=batch["instruction_ids"])
    plain, _ = emma(connector="mlp")
    with pytest.raises(UnsupportedError, match="'mlp' reads no instruction"):
        plain.model.get_image_features(batch["pixel_values"], instruction_ids=batch["instruction_ids"])


@torch.no_grad()
def test_composed_of_the_shipped_parts_it_starts_as_tiny_vlm() -> None:
    parts = {"language_model": "argus/tiny-vlm", "encoder": "argus/tiny-clip", "connector_weights": "argus/tiny-vlm"}
    model, processor = compose({**parts, "connector": {"emma": {}}})
    base, _ = argus.load("argus/tiny-vlm")
    batch = processor([picture()], "User: <image>\nWhat colour is the star?\nAssistant:", return_tensors="pt")
    assert batch["instruction_ids"].shape == (1, 77)
    found = model.eval()(**batch).logits
    batch.pop("instruction_ids")
    assert torch.equal(found, base(**batch).logits)
