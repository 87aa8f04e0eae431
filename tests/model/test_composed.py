"""A composed model is a Hugging Face model: saving, generating, batching, tuning work as on any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from argus.core.errors import DataError, ModelError
from argus.model.load import load
from tests.model.tiny import LANGUAGE, TOWERS, chat, tiny


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def encode(processor: Any, texts: list[str], pictures: list[Image.Image], **kwargs: Any) -> Any:
    prompts = [processor.apply_chat_template(chat(t), tokenize=False, add_generation_prompt=True) for t in texts]
    return processor(images=pictures, text=prompts, return_tensors="pt", padding=True, **kwargs)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("language", LANGUAGE)
def test_any_tower_meets_any_language_model_and_round_trips(tmp_path: Path, tower: str, language: str) -> None:
    model, processor = tiny(tower, language)
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with torch.no_grad():
        before = model(**inputs).logits
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    again, processor_again = load(str(tmp_path))
    inputs_again = encode(processor_again, ["What colour?"], [picture(0)])
    for name, value in inputs.items():
        assert torch.equal(value, inputs_again[name]), name
    with torch.no_grad():
        assert torch.equal(before, again(**inputs_again).logits)
    tied = again.lm_head.weight is again.get_input_embeddings().weight
    assert tied == bool(LANGUAGE[language].get("tie_word_embeddings", False))


def test_the_auto_classes_know_it(tmp_path: Path) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is type(model)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(processor)


def test_pipeline(tmp_path: Path) -> None:
    """From a model in hand and from its folder: the same answer as `generate` gives."""
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    messages = chat("What colour is the star?")
    messages[0]["content"][0]["image"] = picture(1)
    answers = [
        pipe(text=messages, generate_kwargs={"max_new_tokens": 4, "do_sample": False})[0]["generated_text"][-1]["content"]
        for pipe in (
            pipeline("image-text-to-text", model=model, processor=processor),
            pipeline("image-text-to-text", model=str(tmp_path)),
        )
    ]
    inputs = encode(processor, ["What colour is the star?"], [picture(1)])
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answers == [processor.decode(ids, skip_special_tokens=True)] * 2


@pytest.mark.parametrize("settings", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 3, "do_sample": False}])
def test_generate_in_a_left_padded_batch_equals_one_by_one(settings: dict[str, Any]) -> None:
    model, processor = tiny()
    texts = ["What colour is the star?", "How many?"]
    pictures = [picture(0), picture(1)]
    batch = encode(processor, texts, pictures)
    assert (batch["attention_mask"][1, 0], batch["attention_mask"][0, 0]) == (0, 1)
    torch.manual_seed(0)
    together = model.generate(**batch, max_new_tokens=6, min_new_tokens=6, **settings)[:, batch["input_ids"].shape[1] :]
    if settings.get("do_sample"):
        assert together.shape == (2, 6)
        return
    for index in range(2):
        one = encode(processor, texts[index : index + 1], pictures[index : index + 1])
        alone = model.generate(**one, max_new_tokens=6, min_new_tokens=6, **settings)[:, one["input_ids"].shape[1] :]
        assert torch.equal(together[index], alone[0])


def test_cached_decoding_equals_recomputing() -> None:
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    tokens = torch.tensor([[5, 9, 20]])
    with torch.no_grad():
        whole = model(torch.cat([inputs["input_ids"], tokens], 1), pixel_values=inputs["pixel_values"]).logits[:, -3:]
        first = model(**inputs, use_cache=True)
        steps, cache = [], first.past_key_values
        for i in range(3):
            output = model(tokens[:, i : i + 1], past_key_values=cache, use_cache=True)
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-4)


def test_features_computed_before_give_the_same_logits() -> None:
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"])
        a = model(**inputs).logits
        b = model(inputs["input_ids"], image_features=features).logits
    assert torch.equal(a, b)


def test_generation_takes_features_computed_before() -> None:
    """Once they were handed over again at every step; with beams each prompt has its own."""
    model, processor = tiny()
    inputs = encode(processor, ["What colour?", "How many?"], [picture(0), picture(1)])
    rest = {k: v for k, v in inputs.items() if k != "pixel_values"}
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"])
    for more in ({}, {"num_beams": 3}):
        settings = {"max_new_tokens": 5, "do_sample": False, **more}
        assert torch.equal(model.generate(**inputs, **settings), model.generate(**rest, image_features=features, **settings))


def test_chunked_prefill_gives_the_same_answer() -> None:
    """A chunk of 7 tokens cuts the picture's 16 in three."""
    model, processor = tiny()
    inputs = encode(processor, ["What colour?", "How many things?"], [picture(0), picture(1)])
    settings = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **settings), model.generate(**inputs, **settings, prefill_chunk_size=7))


def test_embeddings_instead_of_ids() -> None:
    """As in LLaVA, placeholders are recognised by their embedding; or by the processor's types."""
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    types = inputs.pop("mm_token_type_ids")
    embeds, pixels = model.get_input_embeddings()(inputs["input_ids"]), inputs["pixel_values"]
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(model(inputs_embeds=embeds, pixel_values=pixels).logits, expected)
        other = embeds.masked_fill(types[..., None] == 1, 0)
        assert torch.equal(model(inputs_embeds=other, pixel_values=pixels, mm_token_type_ids=types).logits, expected)
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(model.generate(inputs_embeds=embeds, pixel_values=pixels, max_new_tokens=3, do_sample=False), answer)


@pytest.mark.parametrize("counts", [(2, 2), (2, 0, 1)])
def test_several_pictures_per_prompt_keep_their_order_in_beams(counts: tuple[int, ...]) -> None:
    """Beams repeat a prompt's pictures as a group; repeating each picture gave the second beam the wrong ones."""
    model, processor = tiny()
    prompts = [processor.apply_chat_template(chat("Same?", n), tokenize=False, add_generation_prompt=True) for n in counts]
    pictures = [picture(i) for i in range(sum(counts))]
    inputs = processor(images=pictures, text=prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits[:, -1].repeat_interleave(2, 0)
    out = model.generate(
        **inputs, num_return_sequences=2, do_sample=True, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
    )
    torch.testing.assert_close(out.logits[0], expected, rtol=1e-4, atol=1e-4)
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
    together = model.generate(**inputs, **beams)[:, -5:]
    for index, count in enumerate(counts):
        start = sum(counts[:index])
        one = processor(images=pictures[start : start + count] or None, text=prompts[index], return_tensors="pt")
        one = {k: v[None] if v.ndim == 1 else v for k, v in one.items()}
        assert torch.equal(model.generate(**one, **beams)[0, -5:], together[index])


def test_several_pictures_and_none_in_one_batch() -> None:
    model, processor = tiny()
    prompts = [processor.apply_chat_template(chat("Same?", n), tokenize=False, add_generation_prompt=True) for n in (2, 0, 1)]
    inputs = processor(images=[picture(i) for i in range(3)], text=prompts, return_tensors="pt", padding=True)
    assert (inputs["mm_token_type_ids"].sum(1) == torch.tensor([32, 0, 16])).all()
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        alone = model(**processor(text=prompts[1:2], return_tensors="pt")).logits[:, -1]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_a_wrong_number_of_visual_tokens_names_both_counts() -> None:
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with pytest.raises(ModelError, match=r"hold 16 image tokens, but the pictures give 32 visual tokens"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})


def test_placeholders_need_a_picture() -> None:
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with pytest.raises(ModelError, match=r"hold 16 image tokens, .* 0 visual tokens .no picture was given"):
        model(inputs["input_ids"])
    with pytest.raises(ValueError, match="only one of pixel_values, image_features"):
        model(**inputs, image_features=model.get_image_features(inputs["pixel_values"]))


def test_outputs_are_those_of_transformers() -> None:
    model, processor = tiny()
    model.set_attn_implementation("eager")
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with torch.no_grad():
        full = model(**inputs, output_hidden_states=True, output_attentions=True)
        last = model(**inputs, logits_to_keep=1)
        rows = model(**inputs, logits_to_keep=inputs["mm_token_type_ids"].bool())
        plain = model(**inputs, return_dict=False)
    assert (len(full.hidden_states), len(full.attentions)) == (3, 2)
    torch.testing.assert_close(last.logits, full.logits[:, -1:])
    torch.testing.assert_close(rows.logits, full.logits[inputs["mm_token_type_ids"].bool()])
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], full.logits)


@pytest.mark.parametrize("kind", ["sdpa", "eager", "matmul"])
def test_attention_implementations_agree(tmp_path: Path, kind: str) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load(str(tmp_path), attn_implementation=kind)
    assert again.model.language_model.config._attn_implementation == kind
    inputs = encode(processor, ["What colour?", "How many things?"], [picture(0), picture(1)])
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits[:, -1], model(**inputs).logits[:, -1], rtol=1e-3, atol=1e-4)


def test_markers_and_pictures_must_match() -> None:
    _, processor = tiny()
    with pytest.raises(DataError, match=r"show 1 pictures .*, but 2 were given"):
        processor(images=[picture(0), picture(1)], text="<image>\nhi", return_tensors="pt")


def test_a_picture_is_never_cut() -> None:
    _, processor = tiny()
    with pytest.raises(DataError, match="pictures are never cut"):
        processor(images=[picture(0)], text="<image>\nhi", max_length=10, truncation=True)
    row = processor(images=[picture(0)], text="<image>\nhow many things are there", max_length=18, truncation=True)["input_ids"][
        0
    ]
    assert len(row) == 18


def test_labels_give_the_next_token_loss() -> None:
    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    logp = output.logits[:, :-1].log_softmax(-1)
    expected = -logp.gather(-1, inputs["input_ids"][:, 1:, None])[:, -3:, 0].mean()
    torch.testing.assert_close(output.loss, expected)


def test_training_computes_the_learned_rows_alone() -> None:
    """No logits of questions and pictures; loss and gradients are those of the full logits."""
    model, processor = tiny()
    inputs = encode(processor, ["What colour is the star?", "How many?"], [picture(0), picture(1)])
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    labels[1, -2] = -100
    sizes: list[torch.Size] = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape))
    grads = []
    for training in (False, True):
        model.train(training)
        model.zero_grad()
        output = model(**inputs, labels=labels)
        output.loss.backward()
        grads.append([output.loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    hook.remove()
    assert output.logits is None
    assert sizes == [(2, inputs["input_ids"].shape[1], 300), (5, 300)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    per_item = model(**inputs, labels=labels, num_items_in_batch=torch.tensor(10)).loss
    torch.testing.assert_close(per_item, output.loss * 5 / 10)


def test_bf16_and_gradient_checkpointing_train() -> None:
    model, processor = tiny()
    model = model.to(torch.bfloat16).train()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    plain = model(**inputs, labels=inputs["input_ids"]).loss
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad is not None


def test_lora_starts_as_the_base_model_and_merges() -> None:
    from peft import LoraConfig, get_peft_model

    model, processor = tiny()
    inputs = encode(processor, ["What colour?"], [picture(0)])
    with torch.no_grad():
        base = model(**inputs).logits
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        assert torch.equal(tuned(**inputs).logits, base)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        changed = tuned(**inputs).logits
        assert not torch.allclose(changed, base)
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, changed, rtol=1e-3, atol=1e-3)


def test_trl_sft_trainer_takes_a_step(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    model, processor = tiny()
    rows = [
        {
            "images": [picture(i)],
            "messages": [*chat("What colour is the star?"), {"role": "assistant", "content": [{"type": "text", "text": "red"}]}],
        }
        for i in range(4)
    ]
    config = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, max_length=None, report_to=[], use_cpu=True,
        bf16=False, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    before = model.lm_head.weight.detach().clone()
    trainer = trl.SFTTrainer(model=model, args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=processor)
    loss = trainer.train().training_loss
    assert np.isfinite(loss)
    assert not torch.equal(before, model.lm_head.weight)
