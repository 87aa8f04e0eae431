"""Models by reference, and models made of parts: whatever is missing or does not fit is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    Dinov2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipVisionModel,
)

from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.core.reference import reference_models
from argus.model.compose import compose
from argus.model.dual_encoder import DualEncoder
from argus.model.load import load
from tests.model.tiny import BODY, SMALL, TOWERS, tiny, tokenizer

IDS = {"vocab_size": 340, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A composed model in a folder."""
    model, processor = tiny()
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    return tmp_path / "vlm"


def language(folder: Path, kind: str, **options: Any) -> str:
    """A causal language model and its tokenizer in a folder; its table has more rows than the tokenizer has tokens."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**BODY, **IDS, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def rewrite(folder: Path, change: Any) -> None:
    """The folder's weights after `change(weights)`."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_loading_explains_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tiny-vlm").mkdir()
    with pytest.raises(ModelError, match="Did you mean"):
        load(str(tmp_path / "tiny-vml"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path / "tiny-vlm"))
    (tmp_path / "tiny-vlm" / "config.json").write_text("{}")
    (tmp_path / "tiny-vlm" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pickled weights are not read"):
        load(str(tmp_path / "tiny-vlm"))
    with pytest.raises(ModelError, match="no shipped model 'argus/tiny-vml'"):
        load("argus/tiny-vml")


def test_the_hub_out_of_reach_is_explained() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        load("some-owner/some-model-that-is-not-here")


def test_no_weight_stays_random(saved: Path) -> None:
    """A file without the projector's weights once gave a model with random ones."""
    rewrite(saved, lambda w: w.pop("model.multi_modal_projector.linear_1.weight"))
    with pytest.raises(ModelError, match=r"weights are missing \(1\): model.multi_modal_projector.linear_1.weight"):
        load(str(saved))


def test_a_weight_of_another_shape_is_named(saved: Path) -> None:
    rewrite(saved, lambda w: w.update({"model.multi_modal_projector.linear_1.weight": torch.zeros(3, 3)}))
    with pytest.raises(ModelError, match=r"linear_1.weight has shape \(3, 3\), the config says \(48, 32\)"):
        load(str(saved))


def test_a_torn_file_is_named(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="vlm: cannot load"):
        load(str(saved))


def test_a_folder_without_a_processor_says_how_to_save_one(tmp_path: Path) -> None:
    tiny()[0].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer_config.json.*processor.save_pretrained"):
        load(str(tmp_path))


def test_an_unknown_dtype_gives_the_nearest(saved: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'bfloat16'"):
        load(str(saved), dtype="bfloat61")
    assert load(str(saved), dtype="bfloat16")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", sorted(reference_models()))
def test_every_shipped_model_loads(name: str) -> None:
    model, processor = load(name)
    assert not model.training
    assert processor is not None


def test_composing_from_saved_parts_takes_their_weights(tmp_path: Path) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    from transformers import LlamaForCausalLM

    lm = LlamaForCausalLM(model.config.text_config)
    lm.model.load_state_dict(model.model.language_model.state_dict())
    lm.save_pretrained(tmp_path / "lm")
    processor.tokenizer.save_pretrained(tmp_path / "lm")
    made, _ = compose({"language_model": str(tmp_path / "lm"), "encoder": str(tmp_path / "vlm"), "connector": "linear"})
    for a, b in ((made.model.vision_tower, model.model.vision_tower), (made.model.language_model, model.model.language_model)):
        for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
            assert torch.equal(x, y), name
    assert made.lm_head.weight is made.get_input_embeddings().weight


VISION: dict[str, Any] = {
    "clip": lambda: CLIPVisionModel(TOWERS["clip"]),
    "siglip": lambda: SiglipVisionModel(TOWERS["siglip"]),
    "dinov2": lambda: Dinov2Model(TOWERS["dinov2"]),
    "clip with its text tower": lambda: CLIPModel(CLIPConfig(vision_config=TOWERS["clip"].to_dict(), text_config=TEXT)),
}


@pytest.mark.parametrize("name", VISION)
def test_a_vision_model_of_transformers_becomes_the_tower(tmp_path: Path, name: str) -> None:
    """Same pixels, same hidden state, and the normalisation that was saved with it."""
    torch.manual_seed(1)
    vision: PreTrainedModel = VISION[name]().eval()
    vision.save_pretrained(tmp_path / "vision")
    (tmp_path / "vision" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_normalize": True})
    )
    model, processor = compose({"language_model": language(tmp_path / "lm", "llama"), "encoder": str(tmp_path / "vision")})
    pixels = torch.randn(1, 3, 32, 32)
    plain = vision.vision_model if isinstance(vision, CLIPModel) else vision
    with torch.no_grad():
        expected = plain(pixels, output_hidden_states=True).hidden_states[-2]
        found = model.eval().model.encode_images(pixels)
    assert torch.equal(found.tokens, expected[:, 0 if name == "siglip" else 1 :])
    assert processor.image_processor.image_mean == [0.1, 0.2, 0.3]
    model.save_pretrained(tmp_path / "made")
    processor.save_pretrained(tmp_path / "made")
    again, processor = load(str(tmp_path / "made"))
    assert torch.equal(again.model.encode_images(pixels).tokens, found.tokens)
    assert processor.image_processor.image_std == [0.4, 0.5, 0.6]


def test_a_tower_needs_its_blocks_but_not_its_pooler(tmp_path: Path) -> None:
    vision = SiglipVisionModel(TOWERS["siglip"])
    vision.save_pretrained(tmp_path / "vision")
    lm = language(tmp_path / "lm", "llama")
    rewrite(tmp_path / "vision", lambda w: [w.pop(k) for k in [*w] if "head" in k or "post_layernorm" in k])
    compose({"language_model": lm, "encoder": str(tmp_path / "vision")})
    rewrite(tmp_path / "vision", lambda w: w.pop(next(k for k in w if "layers.0.mlp.fc1.weight" in k)))
    with pytest.raises(ModelError, match=r"weights are missing \(1\): .*layers.0.mlp.fc1.weight"):
        compose({"language_model": lm, "encoder": str(tmp_path / "vision")})


KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 24},
    "gpt_neox": {},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 2},
    "phi": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 48},
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_picture_it_is_the_language_model(tmp_path: Path, kind: str) -> None:
    """Every logit, those of the table's spare rows included."""
    place = language(tmp_path, kind, **KINDS[kind])
    model, _ = compose({"language_model": place})
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, load(place)[0](ids).logits)
    assert model.config.text_config.vocab_size == 340


def test_a_new_word_for_pictures_takes_a_spare_row(tmp_path: Path) -> None:
    """A tokenizer without `<image>` gets it; a table with rows to spare was once cut to the tokenizer's length."""
    place = language(tmp_path, "llama")
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "red", "star"])}
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<pad>",
    )
    words.save_pretrained(place)
    model, processor = compose({"language_model": place})
    assert model.config.image_token_id == processor.image_token_id == 5
    assert model.config.text_config.vocab_size == 340
    assert torch.equal(model.get_input_embeddings().weight, load(place)[0].get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("granite", {"logits_scaling": 3.0}, "changes its logits behind the head"),
        ("gemma2", {"final_logit_softcapping": 5.0, "head_dim": 24, "num_key_value_heads": 1}, "changes its logits"),
        ("mamba", {}, "no KV cache"),
    ],
)
def test_a_language_model_that_would_be_changed_is_refused(tmp_path: Path, kind: str, options: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'{kind}'.*{message}|head of '{kind}' {message}"):
        compose({"language_model": language(tmp_path, kind, **options)})


def test_a_language_model_with_new_weights_is_composed_in_place() -> None:
    words = {"vocabulary": 300, "scenes": 2, "domains": {"objects": {}}}
    model, processor = compose({"language_model": {"causal_lm": {"model_type": "llama", **BODY}, "tokenizer": words}})
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    with pytest.raises(RecipeError, match="needs one of"):
        compose({"language_model": {"model_type": "llama", **BODY}})


@torch.no_grad()
def test_the_language_model_of_a_multimodal_model_is_taken_out_of_it(saved: Path) -> None:
    whole, words = load(str(saved))
    model, processor = compose({"language_model": str(saved), "connector": "linear"})
    ids = torch.tensor([[1, 5, 9, 7]])
    torch.testing.assert_close(model.eval()(ids).logits, whole(ids).logits)
    assert len(processor.tokenizer) == len(words.tokenizer)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"language_model": "x", "encodr": "y"}, "Did you mean 'encoder'"),
        ({"view": "square"}, "needs one of"),
    ],
)
def test_compose_explains_wrong_parts(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        compose(spec)


def test_a_stored_tower_is_read_at_the_layer_that_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vision = Dinov2Model(TOWERS["dinov2"]).eval()
    vision.save_pretrained(tmp_path / "vision")
    lm, pixels = language(tmp_path / "lm", "llama"), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = vision(pixels, output_hidden_states=True).hidden_states
        for layer in (-3, -2, 1):
            stored = {"transformers": {"from": str(tmp_path / "vision"), "feature_layer": layer}}
            model, processor = compose({"language_model": lm, "encoder": stored})
            assert torch.equal(model.eval().model.encode_images(pixels).tokens, expected[layer][:, 1:])
            model.save_pretrained(tmp_path / "made")
            processor.save_pretrained(tmp_path / "made")
            again, _ = load(str(tmp_path / "made"))
            assert torch.equal(again.model.encode_images(pixels).tokens, expected[layer][:, 1:])
    with pytest.raises(RecipeError, match="give either 'from'"):
        compose({"language_model": lm, "encoder": {"transformers": {}}})
    with pytest.raises(RecipeError, match="leave out hidden_size"):
        compose({"language_model": lm, "encoder": {"transformers": {"from": str(tmp_path / "vision"), "hidden_size": 8}}})


def test_a_dual_encoder_takes_any_encoder(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path / "words")
    (tmp_path / "words" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "words" / "model.safetensors")
    vision = Dinov2Model(TOWERS["dinov2"]).eval()
    vision.save_pretrained(tmp_path / "vision")
    pixels = torch.randn(2, 3, 32, 32)
    encoders: list[Any] = [{"vit": {"image_size": 32}}, {"transformers": {**SMALL, "model_type": "siglip_vision_model"}}]
    for encoder in (*encoders, str(tmp_path / "vision")):
        spec = {"encoder": encoder, "text_config": {**TEXT, "max_position_embeddings": 16}, "projection_dim": 8}
        model, _ = compose({"dual_encoder": spec, "tokenizer": str(tmp_path / "words")})
        out = model.eval()(pixels, torch.ones(2, 4, dtype=torch.long))
        assert out.image_embeds.shape == out.text_embeds.shape == (2, 8)
        assert out.dense_logits["colour"].shape[:2] == (2, 16)
        model.save_pretrained(tmp_path / "dual")
        again = DualEncoder.from_pretrained(tmp_path / "dual").eval()
        assert torch.equal(again(pixels).image_embeds, out.image_embeds)
    with torch.no_grad():
        expected = vision(pixels, output_hidden_states=True)
    torch.testing.assert_close(out.features.tokens, expected.hidden_states[-2][:, 1:])  # the stored weights
    torch.testing.assert_close(out.features.pooled, expected.last_hidden_state[:, 0])
