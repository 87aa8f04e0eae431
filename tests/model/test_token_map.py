"""The token map, before the model and inside its layers: prefill, chunks, decoding, beams, padding."""

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from argus.model.token_map import ANSWER, PAD, PROMPT, SPECIAL, TEXT, VISUAL, TokenMap, chunk_map, token_map
from tests.model.tiny import chat, tiny

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def batch_of(processor: Any, questions: list[str], pictures: list[int]) -> Any:
    """A left-padded batch, `pictures[i]` pictures in prompt i."""
    texts = [
        processor.apply_chat_template(chat(q, n), tokenize=False, add_generation_prompt=True)
        for q, n in zip(questions, pictures, strict=True)
    ]
    shown = [Image.new("RGB", (32, 32), (40 * i, 90, 20)) for i in range(sum(pictures))]
    return processor(images=shown, text=texts, return_tensors="pt", padding=True)


def same(a: TokenMap, b: TokenMap) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in TokenMap.__slots__)


def test_the_map_knows_picture_tile_and_cell() -> None:
    i = 3
    ids = torch.tensor([[0, 5, i, i, i, i, i, i, 6], [7, i, i, 8, i, i, i, i, 9]])
    mask = torch.tensor([[0] + [1] * 8, [1] * 9])
    found = token_map(ids, i, [(2, 3), (1, 2), (2, 2)], attention_mask=mask)
    assert found.kind.tolist() == [[PAD, TEXT, *[VISUAL] * 6, TEXT], [TEXT, VISUAL, VISUAL, TEXT, *[VISUAL] * 4, TEXT]]
    assert found.row[0].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, -1]
    assert found.column[0].tolist() == [-1, -1, 0, 1, 2, 0, 1, 2, -1]
    assert found.image[1].tolist() == [-1, 0, 0, -1, 1, 1, 1, 1, -1]
    assert found.column[1].tolist() == [-1, 0, 1, -1, 0, 1, 0, 1, -1]
    two_tiles = token_map(ids[:1], i, (1, 3), tiles=[2])
    assert two_tiles.tile[0].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, -1]
    assert two_tiles.image[0].tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, -1]
    with pytest.raises(ValueError, match="12 placeholders"):
        token_map(ids, i, [(2, 3)])


def test_the_map_grows_and_slices() -> None:
    found = token_map(torch.tensor([[5, 3, 3, 6]]), 3, (1, 2))
    longer = found.extend(2)
    assert len(longer) == 6
    assert longer.kind[0].tolist() == [TEXT, VISUAL, VISUAL, TEXT, TEXT, TEXT]
    assert longer.role[0, -1] == ANSWER
    assert longer.slice(1, 3).visual.all()
    assert longer.select(torch.tensor([0, 0])).kind.shape == (2, 6)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 20])
def test_a_map_made_in_chunks_is_the_map_made_at_once(size: int) -> None:
    """Rows have their pictures in different places, so every cut falls inside some picture."""
    i = 3
    ids = torch.tensor([[5, *[i] * 6, 7, *[i] * 6, 9, 9, 9], [*[i] * 6, 5, 6, 7, 8, 9, *[i] * 6]])
    whole = token_map(ids, i, (2, 3))
    made: TokenMap | None = None
    for start in range(0, ids.shape[1], size):
        chunk = chunk_map(ids[:, start : start + size] == i, (2, 3), made)
        made = chunk if made is None else made.join(chunk)
    assert made is not None
    assert same(made, whole)


def test_layers_can_read_the_map_through_prefill_chunks_and_decoding() -> None:
    model, processor = tiny()
    lengths: list[tuple[int, int]] = []

    def read(module: Any, args: Any, kwargs: Any) -> None:
        known = model.model.token_map
        lengths.append((len(known), int(known.visual.sum())))

    hook = model.model.language_model.layers[1].register_forward_pre_hook(read, with_kwargs=True)
    prompt = processor.apply_chat_template(chat("What colour?"), tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (32, 32), "red")], text=prompt, return_tensors="pt")
    size = inputs["input_ids"].shape[1]
    model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert lengths == [(size, 16), (size + 1, 16), (size + 2, 16)]
    lengths.clear()
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model(inputs["input_ids"][:, :-4], pixel_values=inputs["pixel_values"], past_key_values=cache, use_cache=True)
        model(inputs["input_ids"][:, -4:], past_key_values=cache, use_cache=True)
    assert lengths == [(size - 4, 16), (size, 16)]
    hook.remove()


def test_beams_see_a_map_of_their_own_rows() -> None:
    model, processor = tiny()
    prompt = processor.apply_chat_template(chat("What colour?"), tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (32, 32), "red")], text=prompt, return_tensors="pt")
    model.generate(**inputs, num_beams=3, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert model.model.token_map.kind.shape == (3, inputs["input_ids"].shape[1] + 2)
    assert (model.model.token_map.visual.sum(1) == 16).all()


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"prefill_chunk_size": 5}, {"use_cache": False}])
def test_generated_positions_are_answers_and_padding_is_padding(more: dict[str, Any]) -> None:
    model, processor = tiny()
    inputs = batch_of(processor, ["What colour is the star?", "How many?"], [1, 2])
    mask, size = inputs["attention_mask"], inputs["input_ids"].shape[1]
    model.generate(**inputs, **GREEDY, **more)
    found = model.model.token_map.select(torch.tensor([0, -1]))  # of beams, the first of the first and the last of the last
    assert len(found) == size + 3  # the last token is never read
    assert torch.equal(found.role, torch.tensor([[PROMPT] * size + [ANSWER] * 3] * 2))
    assert torch.equal(found.kind[:, :size] == PAD, mask == 0)
    assert torch.equal(found.visual[:, :size], inputs["mm_token_type_ids"] == 1)
    assert found.image[1][found.visual[1]].tolist() == [0] * 16 + [1] * 16
    assert found.row[0][found.visual[0]].tolist() == [r for r in range(4) for _ in range(4)]
    assert (found.kind[torch.arange(2), mask.argmax(1)] == SPECIAL).all()  # the sequence's first token
    assert model.model.prompt_length is None  # forgotten when generation ends


def test_a_static_cache_knows_its_padding() -> None:
    """Its mask is made before the model sees it; the padding token tells."""
    model, processor = tiny()
    inputs = batch_of(processor, ["What colour is the star?", "How many?"], [1, 1])
    expected = model.generate(**inputs, **GREEDY)
    plain_map = model.model.token_map
    assert torch.equal(model.generate(**inputs, **GREEDY, cache_implementation="static", disable_compile=True), expected)
    assert torch.equal(model.model.token_map.kind[:, :-3], plain_map.kind[:, :-3])


def test_the_processor_says_the_same_before_the_model_runs() -> None:
    model, processor = tiny()
    inputs = batch_of(processor, ["What colour is the star?", "How many?"], [2, 1])
    model(**inputs)
    assert same(processor.token_map(inputs), model.model.token_map)


def test_labels_mark_the_answer() -> None:
    model, processor = tiny()
    inputs = batch_of(processor, ["How many?"], [1])
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    model(**inputs, labels=labels)
    assert model.model.token_map.role[0].tolist() == [PROMPT] * (labels.shape[1] - 2) + [ANSWER] * 2


def test_words_alone_leave_no_picture_of_the_last_call() -> None:
    model, processor = tiny()
    model(**batch_of(processor, ["How many?"], [1]))
    model(inputs_embeds=torch.randn(1, 3, 48))
    assert model.model.token_map.kind.tolist() == [[TEXT] * 3]


def test_a_cache_that_was_filled_elsewhere_keeps_the_map_aligned() -> None:
    """The map is as long as the sequence even if the model has not seen its beginning."""
    model, _ = tiny()
    cache = DynamicCache(config=model.config.text_config)
    model.model.language_model(torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    model(torch.tensor([[8, 9]]), past_key_values=cache, use_cache=True)
    assert len(model.model.token_map) == 5


def test_a_prefix_serves_several_continuations() -> None:
    model, processor = tiny()
    inputs = batch_of(processor, ["How many?"], [1])
    cache = model(**inputs, use_cache=True).past_key_values
    cache.batch_repeat_interleave(3)
    model(torch.tensor([[5, 6], [7, 8], [9, 9]]), past_key_values=cache, use_cache=True)
    assert model.model.token_map.kind.shape == (3, inputs["input_ids"].shape[1] + 2)
    assert model.model.token_map.visual.sum(1).tolist() == [16, 16, 16]


def test_the_placeholder_as_a_word_is_text() -> None:
    """A model may say the placeholder's word; without a picture that is no visual token."""
    model, processor = tiny()
    inputs = batch_of(processor, ["How many?"], [1])
    cache = model(**inputs, use_cache=True).past_key_values
    model(torch.tensor([[3]]), past_key_values=cache, use_cache=True)
    assert model.model.token_map.kind[0, -1] == TEXT
