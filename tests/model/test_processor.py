"""Text and pictures to tensors: counts, offsets, labels."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from argus.core.errors import DataError, UnsupportedError
from argus.core.sample import ImagePart, Message, Sample, TextPart
from tests.model.tiny import chat, tiny


def sample(name: str, question: str, answer: str | None, pictures: int = 1) -> Sample:
    shown = [ImagePart(Image.new("RGB", (40, 24), (50 * i, 0, 0))) for i in range(pictures)]
    messages = [Message("user", [*shown, TextPart(question)])]
    return Sample(name, messages + ([Message("assistant", [TextPart(answer)])] if answer else []))


def test_pixels_are_normalised_as_written() -> None:
    _, processor = tiny()
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    array[..., 0] = 255
    out = processor.image_processor([Image.fromarray(array)])["pixel_values"]
    # (1 - 0.5) / 0.25 = 2 and (0 - 0.5) / 0.25 = -2
    assert out.shape == (1, 3, 32, 32)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([2.0, -2.0, -2.0]))


def test_one_function_counts_a_pictures_tokens() -> None:
    model, processor = tiny()
    pixels = processor.image_processor([Image.new("RGB", (50, 20))])["pixel_values"]
    with torch.no_grad():
        assert processor.image_token_count(50, 20) == model.get_image_features(pixels).shape[1] == 16
    inputs = processor(images=[Image.new("RGB", (50, 20))], text="<image> red", return_tensors="pt")
    assert int(inputs["mm_token_type_ids"].sum()) == 16


@pytest.mark.parametrize("side", ["left", "right"])
def test_assistant_masks_are_what_the_assistant_said(side: str) -> None:
    """The template marks it; the mask holds behind pictures that became 16 tokens, and in padded batches."""
    _, processor = tiny()
    chats: list[Any] = [
        [*chat("How many?", 2), {"role": "assistant", "content": "3"}],
        [*chat("What colour is the star?"), {"role": "assistant", "content": [{"type": "text", "text": "blue"}]}],
    ]
    for conversation in chats:
        for part in conversation[0]["content"]:
            if part["type"] == "image":
                part["image"] = Image.new("RGB", (32, 32))
    out = processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        processor_kwargs={"padding": True, "padding_side": side},
    )
    said = [
        processor.tokenizer.decode(ids[torch.as_tensor(m).bool()])
        for ids, m in zip(out["input_ids"], out["assistant_masks"], strict=True)
    ]
    assert said == [" 3</s>", " blue</s>"]
    assert out["pixel_values"].shape == (3, 3, 32, 32)


def test_samples_with_answers_give_labels() -> None:
    model, processor = tiny()
    batch = processor.encode([sample("a", "How many?", "3", 2), sample("b", "What colour is the star?", "blue")])
    said = [processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert said == [" 3</s>", " blue</s>"]
    assert torch.isfinite(model(**batch).loss)


def test_samples_with_questions_are_prompted() -> None:
    model, processor = tiny()
    buffer = io.BytesIO()
    Image.new("RGB", (40, 24), (0, 0, 0)).save(buffer, "PNG")
    encoded = sample("a", "How many?", None)
    encoded.messages[0].content[0] = ImagePart(buffer.getvalue())  # encoded bytes are read as a decoded picture is
    batch = processor.encode([sample("a", "How many?", None), encoded, sample("c", "Yes or no?", None, 0)])
    assert torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])
    assert processor.tokenizer.decode(batch["input_ids"][0]).endswith("How many?\nAssistant:")
    assert "labels" not in batch
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 3


def test_samples_of_both_kinds_do_not_mix() -> None:
    _, processor = tiny()
    with pytest.raises(DataError, match="cannot share a batch"):
        processor.encode([sample("a", "How many?", "3"), sample("b", "How many?", None)])


def test_a_torn_picture_names_its_sample() -> None:
    _, processor = tiny()
    torn = sample("row 7", "How many?", None)
    torn.messages[0].content[0] = ImagePart(b"no picture")
    with pytest.raises(DataError, match="row 7"):
        processor.encode([torn])


def test_a_user_cannot_write_a_picture() -> None:
    """With control tokens in user text sanitised, `<image>` in a question is plain text."""
    _, processor = tiny()
    messages = chat("what does <image> mean?")
    messages[0]["content"][0]["image"] = Image.new("RGB", (32, 32))
    out = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", sanitize_control_tokens=True
    )
    assert int((out["input_ids"] == processor.image_token_id).sum()) == 16
    with pytest.raises(DataError, match="show 2 pictures"):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")


def test_videos_are_refused() -> None:
    _, processor = tiny()
    with pytest.raises(UnsupportedError, match="not videos"):
        processor(text="hi", videos=[np.zeros((2, 8, 8, 3))])


def test_floats_are_no_picture() -> None:
    _, processor = tiny()
    with pytest.raises(DataError, match="uint8 array"):
        processor(images=[np.zeros((32, 32, 3))], text="<image>")
