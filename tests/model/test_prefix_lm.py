"""An encoder-decoder in a composed model: the encoder reads pictures and prompt, the decoder writes, as in transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import BartConfig, BartForConditionalGeneration, DynamicCache

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.int8 import quantised
from argus.model.load import load
from tests.model.seq2seq import IDS, KINDS, SIZES, VIT, composed, saved, seq2seq
from tests.model.test_composed import encode, picture
from tests.model.tiny import tokenizer

PROMPTS = torch.tensor([[0, 0, 0, 9, 41, 17, 120], [88, 7, 64, 200, 31, 5, 6]])
ANSWERS = torch.tensor([[33, 19, 70, 150, 2], [8, 91, 2, -1, -1]])


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each prompt without its padding, its answer behind it, then padding: ids, mask and labels (2, S)."""
    whole = [torch.cat([p[p != 0], a[a >= 0]]) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    learned = [torch.cat([torch.full_like(p[p != 0], -100), a[a >= 0]]) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
    return ids, (ids != 0).long(), torch.nn.utils.rnn.pad_sequence(learned, batch_first=True, padding_value=-100)


def expected(kind: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the labelled tokens (n, V), in reading order, and the loss, by transformers."""
    labels = ANSWERS.masked_fill(ANSWERS < 0, -100)
    output = seq2seq(kind).to(dtype)(PROMPTS, attention_mask=(PROMPTS != 0).long(), labels=labels)
    return output.logits[labels != -100], output.loss


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_picture_it_is_the_model_of_transformers(kind: str, tmp_path: Path) -> None:
    """Logits and loss of given answers, prompts of different lengths in a batch, padded behind their answers or in front."""
    model, _ = composed(tmp_path, kind)
    logits, loss = expected(kind)
    ids, mask, labels = rows()
    for shift in (0, 3):
        padded = [F.pad(x, (shift, 0), value=v) for x, v in ((ids, 0), (mask, 0), (labels, -100))]
        output = model(padded[0], attention_mask=padded[1], labels=padded[2])
        found = output.logits[:, :-1][padded[2][:, 1:] != -100]
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))
        torch.testing.assert_close(output.loss, loss)
    assert model.config.text_config.scale == (32**-0.5 if kind in ("t5", "umt5") else 1)
    assert model.config.tie_word_embeddings == (kind != "flan_t5")


@torch.no_grad()
def test_in_half_precision_too(tmp_path: Path) -> None:
    model, _ = composed(tmp_path)
    ids, mask, labels = rows()
    found = model.bfloat16()(ids, attention_mask=mask, labels=labels).logits[:, :-1][labels[:, 1:] != -100]
    torch.testing.assert_close(found, expected("t5", torch.bfloat16)[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["t5", "flan_t5"])
@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"do_sample": True}, {"use_cache": False}, {"num_beams": 2, "num_return_sequences": 2}], ids=str
)
def test_it_generates_what_transformers_generates(kind: str, how: dict[str, Any], tmp_path: Path) -> None:
    model, _ = composed(tmp_path, kind)
    asked = {"attention_mask": (PROMPTS != 0).long(), "max_new_tokens": 7, "min_new_tokens": 3, "do_sample": False, **how}
    plain = seq2seq(kind)
    torch.manual_seed(0)
    wanted = plain.generate(PROMPTS, **asked)
    torch.manual_seed(0)
    found = model.generate(PROMPTS, **asked)
    assert torch.equal(found[:, PROMPTS.shape[1] :], wanted[:, 1:])
    assert len(set(wanted.flatten().tolist())) > 3  # it said something


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "matmul"])
def test_every_kernel_adds_the_positions(kernel: str, tmp_path: Path) -> None:
    model, _ = composed(tmp_path)
    model.model.language_model.set_attn_implementation(kernel)
    ids, mask, labels = rows()
    found = model(ids, attention_mask=mask, labels=labels).logits[:, :-1][labels[:, 1:] != -100]
    torch.testing.assert_close(found, expected("t5")[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_picture_is_read_by_the_encoder_in_both_directions(tmp_path: Path) -> None:
    """A prompt's first state knows the picture behind it, as does the answer; the answer reaches no state of the prompt."""
    model, processor = composed(tmp_path)
    inputs = processor(images=[picture(0)], text=["red <image> blue"], return_tensors="pt")
    other = {
        **inputs,
        "pixel_values": processor(images=[picture(1)], text=["red <image> blue"], return_tensors="pt").pixel_values,
    }
    first, second = (model.model(**x, use_cache=False).last_hidden_state for x in (inputs, other))
    assert ((first - second).abs().amax(-1) > 1e-4).all()
    ids = torch.cat([inputs["input_ids"], torch.tensor([[40, 50]])], 1)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), ids[:, -2:]], 1)
    answered = model.model(ids, inputs["pixel_values"], labels=labels).last_hidden_state
    torch.testing.assert_close(answered[:, :-2], first)


def test_a_padded_batch_of_pictures_is_each_alone(tmp_path: Path) -> None:
    model, processor = composed(tmp_path)
    texts, pictures = ["What colour is the star?", "How many?"], [picture(0), picture(1)]
    how: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 2, "do_sample": False}
    batch = encode(processor, texts, pictures)
    together = model.generate(**batch, **how)[:, batch["input_ids"].shape[1] :]
    for index in range(2):
        one = encode(processor, texts[index : index + 1], pictures[index : index + 1])
        assert torch.equal(model.generate(**one, **how)[0, one["input_ids"].shape[1] :], together[index])


@torch.no_grad()
def test_the_cache_is_as_long_as_prompt_and_answer(tmp_path: Path) -> None:
    """Passes behind it, of one token or more, give what one pass over prompt and answer gives, in any order of its rows."""
    model, _ = composed(tmp_path)
    said = torch.tensor([[8, 91, 33], [33, 19, 70]])
    ids, mask = torch.cat([PROMPTS, said], 1), (F.pad(PROMPTS, (0, 3), value=1) != 0).long()
    whole = model(ids, attention_mask=mask, labels=F.pad(said, (7, 0), value=-100)).logits[:, 6:]
    output = model(PROMPTS, attention_mask=mask[:, :7])
    cache, logits = output.past_key_values, [output.logits[:, -1:]]
    assert cache.get_seq_length() == 7
    for start, end in ((0, 1), (1, 3)):
        output = model(said[:, start:end], attention_mask=mask[:, : 7 + end], past_key_values=cache)
        logits.append(output.logits)
        assert output.past_key_values.get_seq_length() == 7 + end
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-4)
    cache.crop(-2)
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.batch_repeat_interleave(2)
    found = model(
        said.flip(0).repeat_interleave(2, 0)[:, 1:], attention_mask=mask.flip(0).repeat_interleave(2, 0), past_key_values=cache
    )
    torch.testing.assert_close(found.logits[::2].flip(0), whole[:, 2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_composed_of_again(kind: str, tmp_path: Path) -> None:
    model, processor = composed(tmp_path, kind)
    model.save_pretrained(tmp_path / "made")
    processor.save_pretrained(tmp_path / "made")
    again, processor = load(str(tmp_path / "made"))
    further, _ = compose({"language_model": str(tmp_path / "made"), "encoder": str(tmp_path / "made"), "connector": "linear"})
    inputs = encode(processor, ["What colour?"], [picture(0)])
    words = {"input_ids": PROMPTS, "attention_mask": (PROMPTS != 0).long()}
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
        assert torch.equal(further.eval()(**words).logits, model(**words).logits)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == (kind != "flan_t5")
    assert processor.apply_chat_template([{"role": "user", "content": "red"}], add_generation_prompt=True) == (
        "<s>User: red\nAssistant:</s>"
    )


@pytest.mark.parametrize(
    "connector",
    [
        "linear",
        "mlp",
        {"pool": {"side": 1}},
        {"mqt": {"max_tokens": 4}},
        {"qformer": {"queries": 3, "width": 16, "layers": 2, "heads": 2, "hidden": 24, "through": None}},
        {"ovis": {"vocabulary": 12}},
    ],
    ids=str,
)
def test_every_kind_of_connector_feeds_it_and_learns(connector: Any, tmp_path: Path) -> None:
    """With the language model frozen, the gradient of an answer's loss goes through decoder and encoder to the connector."""
    model, processor = composed(tmp_path, connector=connector)
    inputs = encode(processor, ["What colour?"], [picture(0)])
    assert model.generate(**inputs, max_new_tokens=3, min_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    ids = F.pad(inputs.pop("input_ids"), (0, 2), value=40)
    mask = F.pad(inputs.pop("attention_mask"), (0, 2), value=1)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - 2, -100)
    model(ids, attention_mask=mask, labels=labels, pixel_values=inputs["pixel_values"]).loss.backward()
    learned = [p.grad for p in model.model.multi_modal_projector.parameters() if p.grad is not None]
    assert learned
    assert any(float(g.abs().max()) > 0 for g in learned)
    assert all(p.grad is None for p in model.model.language_model.parameters())


def test_new_weights_of_a_family(tmp_path: Path) -> None:
    new = {"causal_lm": {"model_type": "t5", **SIZES}, "tokenizer": saved(tmp_path)}
    model, processor = compose({"language_model": new, "encoder": {"vit": VIT}})
    assert model.generate(**encode(processor, ["How many?"], [picture(0)]), max_new_tokens=2).shape[0] == 1


def test_recomputed_layers_give_the_same_gradients(tmp_path: Path) -> None:
    model, _ = composed(tmp_path)
    ids, mask, labels = rows()
    model.train()
    found = []
    for again in (False, True):
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        found.append([p.grad.clone() for p in model.model.language_model.parameters()])
    torch.testing.assert_close(found[0], found[1])


@torch.no_grad()
def test_adapters_start_as_the_model_and_eight_bits_are_near_it(tmp_path: Path) -> None:
    model, _ = composed(tmp_path)
    words = {"input_ids": PROMPTS, "attention_mask": (PROMPTS != 0).long(), "logits_to_keep": 1}
    before = model(**words).logits
    adapted = build("tuner", "lora", {}).apply(model)
    assert any("EncDecAttention.q.lora_A" in name for name, _ in adapted.named_parameters())
    torch.testing.assert_close(adapted(**words).logits, before)
    eight = quantised(composed(tmp_path)[0])(**words).logits
    assert 0 < float((eight - before).norm() / before.norm()) < 0.3  # large random weights


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    model, _ = composed(tmp_path)
    ids, mask, _ = rows()
    with pytest.raises(UnsupportedError, match="cannot be packed or branch"):
        model(ids, attention_mask=torch.zeros(2, 1, 10, 10))
    with pytest.raises(UnsupportedError, match="not in pieces"):
        model(ids[:, 4:], attention_mask=mask)
    with pytest.raises(UnsupportedError, match="not in chunks"):
        model.generate(PROMPTS, prefill_chunk_size=3, max_new_tokens=2)
    with pytest.raises(UnsupportedError, match="one answer behind it"):
        model(ids, attention_mask=mask, labels=torch.where(torch.arange(10) % 3 == 2, ids, -100))
    cache = DynamicCache()
    for layer in range(2):
        cache.update(torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 3, 8), layer)
    with pytest.raises(UnsupportedError, match="filled by a causal model"):
        model(ids, past_key_values=cache)
    for technique in ("fastervlm", "fastv", "damro"):
        with pytest.raises(UnsupportedError, match="techniques act in the layers of a decoder"):
            argus.attach(model, technique)
    for backbone in ("attention_norms", {"gated_cross_attention": {"fusion": "cross"}}, "partial_lora"):
        with pytest.raises(UnsupportedError, match="the encoder reads them"):
            compose({"language_model": saved(tmp_path), "encoder": {"vit": VIT}, "backbone": backbone})


def test_other_encoder_decoders_and_bare_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"it is no causal language model.*compose: \{language_model"):
        load(saved(tmp_path))
    bart = BartConfig(vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, **IDS)
    BartForConditionalGeneration(bart).save_pretrained(tmp_path / "bart")
    tokenizer().save_pretrained(tmp_path / "bart")
    with pytest.raises(UnsupportedError, match=r"'bart' .* counts positions from the row's start.*mt5, t5, umt5"):
        compose({"language_model": str(tmp_path / "bart"), "encoder": {"vit": VIT}})
