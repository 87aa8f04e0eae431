"""Ovis: tokens are expected rows of the table, however they are computed; published weights say the same here as there."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForImageTextToText, Ovis2Config, Ovis2ForConditionalGeneration, Siglip2VisionConfig

from argus.core.errors import RecipeError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.features import VisualFeatures
from argus.model.ovis2 import compose_ovis2
from argus.training.options import StageOptions
from argus.training.parts import set_trainable
from argus.training.stage import train_stage
from tests.model.test_load import language
from tests.model.tiny import LANGUAGE, SMALL, TOWERS, chat, tiny, tokenizer


def ovis(**options: Any) -> Any:
    torch.manual_seed(0)
    return build("connector", "ovis", {"vocabulary": 20, **options}, vision_width=6, text_width=5).eval()


def features(rows: int = 2, columns: int = 3, batch: int = 2) -> VisualFeatures:
    torch.manual_seed(1)
    return VisualFeatures(torch.randn(batch, rows * columns, 6), (rows, columns))


@torch.no_grad()
def test_tokens_are_expected_rows_of_the_table() -> None:
    """e = sum_k p_k E_k, with p = softmax(LN(W z)) on the first K - I words and nothing on the indicators."""
    connector, seen = ovis(framed=False), features()
    p = connector.probabilities(seen.tokens)  # (B, N, 18)
    logits = seen.tokens @ connector.head.weight.T
    logits = (logits - logits.mean(-1, keepdim=True)) / (logits.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(p, logits.softmax(-1))
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 6))
    expected = sum(p[..., k, None] * connector.table.weight[k] for k in range(18))
    torch.testing.assert_close(connector(seen), expected, rtol=1e-5, atol=1e-5)
    connector.table.weight[18:] = math.inf  # nobody looks there
    torch.testing.assert_close(connector(seen), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_integers_and_one_hot_weights_name_the_same_rows() -> None:
    connector, words = ovis(), torch.tensor([[0, 7, 19]])
    one_hot = torch.nn.functional.one_hot(words, 20).float()
    assert torch.equal(connector.embed(words), connector.table.weight[words])
    assert torch.equal(connector.embed(one_hot), connector.embed(words))


@torch.no_grad()
def test_indicators_stand_around_a_tile() -> None:
    """576 patches of CLIP ViT-L/14 at 336 px become 578 tokens; windows of three by three make 81 of SigLIP's 729."""
    connector, seen = ovis(), features()
    out = connector(seen)
    assert torch.equal(out[:, 0], connector.table.weight[18].expand(2, 5))
    assert torch.equal(out[:, -1], connector.table.weight[19].expand(2, 5))
    assert torch.equal(out[:, 1:-1], ovis(framed=False)(seen))
    assert math.prod(connector.tokens((24, 24))) == 578
    assert ovis(stride=3, framed=False).tokens((27, 27)) == (9, 9)
    assert ovis(stride=3, framed=False).tokens((28, 26)) == (10, 9)
    with pytest.raises(RecipeError, match="a frame needs two"):
        ovis(indicators=1)


@torch.no_grad()
def test_windows_are_neighbours_padded_with_zeros() -> None:
    connector, seen = ovis(stride=2, framed=False), features(3, 5)
    found = connector.windows(seen)  # 2 x 3 windows of 2 x 2 patches
    grid = torch.zeros(2, 4, 6, 6)
    grid[:, :3, :5] = seen.tokens.view(2, 3, 5, 6)
    for row in range(2):
        for column in range(3):
            window = grid[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(2, -1)
            assert torch.equal(found[:, row * 3 + column], window)
    assert connector(seen).shape == (2, 6, 5)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(t))])
        return out


@pytest.mark.parametrize("tokenize", ["softmax", "st_argmax"])
def test_chunks_change_neither_tokens_nor_gradients(tokenize: str) -> None:
    whole, parts, seen = ovis(tokenize=tokenize), ovis(tokenize=tokenize, chunk=5), features()
    torch.testing.assert_close(whole(seen), parts(seen))
    for connector in (whole, parts):
        connector(seen).square().sum().backward()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_memory_grows_with_the_chunk_and_not_with_all_tokens() -> None:
    seen = features(8, 8, 4)  # 256 tokens
    for chunk, expected in ((256, 256 * 998), (16, 16 * 998)):
        connector = ovis(vocabulary=1000, chunk=chunk, framed=False).train()
        with Largest() as largest:
            connector(seen).sum().backward()
        assert largest.size == expected


def test_one_word_per_patch_has_the_softmaxs_gradient() -> None:
    hard, soft, seen = ovis(tokenize="st_argmax", framed=False), ovis(framed=False), features()
    out = hard(seen)
    chosen = soft.probabilities(seen.tokens).argmax(-1)
    torch.testing.assert_close(out, hard.table.weight[chosen])
    towards = torch.randn_like(out)
    (out * towards).sum().backward()
    (soft(seen) * towards).sum().backward()
    torch.testing.assert_close(hard.head.weight.grad, soft.head.weight.grad)
    drawn = ovis(tokenize="gumbel_argmax", framed=False)
    with torch.no_grad():
        torch.testing.assert_close(drawn(seen), out)  # no noise outside training
        rows = torch.cdist(drawn.train()(seen).flatten(0, 1), drawn.table.weight).min(-1)
    assert rows.values.max() < 1e-3


def test_the_entropy_of_the_choice_is_kept_for_the_log() -> None:
    connector, seen = ovis(framed=False), features()
    connector(seen)
    assert connector.statistics() == {}
    connector.train()(seen)
    p = connector.probabilities(seen.tokens).detach()
    expected = -(p * p.log()).sum(-1).mean() / math.log(18)
    torch.testing.assert_close(connector.statistics()["entropy"], expected)


def test_sizes_of_the_paper() -> None:
    """CLIP ViT-L (1024) and Llama-3-8B (4096): a head of 134 M and a table of 537 M numbers."""
    with torch.device("meta"):
        connector = build("connector", "ovis", vision_width=1024, text_width=4096)
    head, table = connector.head.weight.numel(), connector.table.weight.numel()
    assert (head, table) == (1024 * 131070, 131072 * 4096)
    assert sum(p.numel() for p in connector.parameters()) / 1e6 == pytest.approx(134.2 + 536.9, rel=0.01)


@pytest.mark.parametrize(("tower", "text"), [("clip", "llama"), ("siglip", "qwen2"), ("vit", "gpt_neox")])
@torch.no_grad()
def test_any_tower_and_language_model_batches_and_saving(tower: str, text: str, tmp_path: Path) -> None:
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    connector = {"ovis": {"vocabulary": 20}}
    config = ArgusConfig(TOWERS[tower].to_dict(), {**LANGUAGE[text], **ids}, connector=connector, image_token_id=3)
    torch.manual_seed(0)
    model = ArgusForConditionalGeneration(config).eval()
    prompt = torch.tensor([[1, *[3] * 18, 7, 8], [0, 1, *[3] * 18, 9]])
    inputs = {"input_ids": prompt, "attention_mask": (prompt != 0).long(), "pixel_values": torch.randn(2, 3, 32, 32)}
    both = model(**inputs).logits
    alone = model(prompt[1:, 1:], pixel_values=inputs["pixel_values"][1:]).logits
    torch.testing.assert_close(both[1, 1:], alone[0], rtol=1e-4, atol=1e-4)
    said = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, both)
    assert torch.equal(again.generate(**inputs, max_new_tokens=3, do_sample=False), said)
    assert model.bfloat16()(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()}).logits.isfinite().all()


@pytest.mark.parametrize(("stride", "framed"), [(1, True), (2, True), (2, False)])
@torch.no_grad()
def test_pictures_of_any_shape_over_a_tower_of_native_resolution(stride: int, framed: bool) -> None:
    """As the later models read SigLIP 2: the grid is the picture's own, and so is the number of visual words."""
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {key: value for key, value in SMALL.items() if key != "image_size"}
    tower = Siglip2VisionConfig(intermediate_size=48, num_patches=16, **sizes)
    connector = {"ovis": {"vocabulary": 20, "stride": stride, "framed": framed}}
    torch.manual_seed(0)
    config = ArgusConfig(tower.to_dict(), {**LANGUAGE["qwen2"], **ids}, connector=connector, image_token_id=3)
    model = ArgusForConditionalGeneration(config).eval()
    projector = model.model.multi_modal_projector
    for rows, columns in ((4, 4), (2, 7), (5, 1)):
        pixels = torch.randn(2, 3, 8 * rows, 8 * columns)
        seen = model.model.encode_images(pixels)
        assert seen.grid == (rows, columns)
        tokens = projector(seen)
        count = math.ceil(rows / stride) * math.ceil(columns / stride) + 2 * framed
        assert math.prod(projector.tokens((rows, columns))) == tokens.shape[1] == count
        p = projector.probabilities(projector.windows(seen))
        inner = tokens[:, 1:-1] if framed else tokens
        torch.testing.assert_close(inner, p @ projector.table.weight[:18], rtol=1e-4, atol=1e-5)
        prompt = torch.tensor([[1, *[3] * count, 7, 8], [1, *[3] * count, 7, 9]])
        alone = model(prompt[1:], pixel_values=pixels[1:]).logits
        torch.testing.assert_close(model(prompt, pixel_values=pixels).logits[1:], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_standardised_start_does_not_see_what_all_patches_share(tmp_path: Path) -> None:
    spec = {"language_model": language(tmp_path / "lm", "llama"), "standardise": 2}
    spec["connector"] = {"ovis": {"vocabulary": 20, "framed": False}}
    spec["encoder"] = {"vit": {"hidden_size": 32, "num_attention_heads": 2, "image_size": 32}}
    model, processor = compose(spec)
    projector, grid = model.model.multi_modal_projector, processor.grid
    assert grid == [4, 4]
    text = processor.apply_chat_template(chat("red?"), add_generation_prompt=True)
    pixels = processor.image_processor(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy())["pixel_values"]
    tokens = model.model.encode_images(pixels).tokens
    assert text.count("<image>") == 1
    shared = tokens.mean((0, 1))
    seen, blind = projector.head(tokens), projector.head(shared)
    assert blind.norm() < seen.norm(dim=-1).mean()


def test_the_connector_as_a_part_is_its_head_and_its_table() -> None:
    config = ArgusConfig(TOWERS["vit"].to_dict(), {**LANGUAGE["llama"], "vocab_size": 64}, connector={"ovis": {"vocabulary": 20}})
    model = ArgusForConditionalGeneration(config)
    set_trainable(model, ["multi_modal_projector"])
    learned = {n.removeprefix("model.") for n, p in model.named_parameters() if p.requires_grad}
    parts = ("head.weight", "norm.weight", "norm.bias", "table.weight")
    assert learned == {f"multi_modal_projector.{part}" for part in parts}


def test_a_stage_logs_the_entropy(tmp_path: Path) -> None:
    model, processor = tiny()
    projector = build("connector", "ovis", {"vocabulary": 20, "framed": False}, vision_width=32, text_width=48)
    model.model.multi_modal_projector = projector
    data = {"world": {"objects": 1.0}, "size": 32, "questions": 2, "families": ["colour"]}
    stage = {"objective": "sft", "data": data, "steps": 2, "batch_size": 2, "log_every": 1, "precision": "fp32"}
    result = train_stage(model, processor, StageOptions.model_validate(stage), tmp_path)
    assert 0.5 < result.log[-1]["entropy"] < 1


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_published_weights_agree(stride: int, tmp_path: Path) -> None:
    """A checkpoint as transformers saves it: the same visual tokens and the same logits, to 1e-5."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
    config = Ovis2Config(
        vision_config={**vision, "patch_size": 8, "vocab_size": 40, "hidden_stride": stride},
        text_config={**LANGUAGE["qwen2"], "vocab_size": 64},
        hidden_size=48,
        vocab_size=64,
        image_token_id=3,
        visual_indicator_token_ids=[50, 51, 52, 53, 54],
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Ovis2ForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
    model.save_pretrained(tmp_path)
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    ours = compose_ovis2(theirs)
    pixels = torch.randn(2, 3, 32, 32)
    tokens = theirs.get_image_features(pixels).pooler_output
    torch.testing.assert_close(ours.get_image_features(pixels), tokens, rtol=1e-5, atol=1e-5)
    prompt = torch.tensor([[5, 50, *[3] * tokens.shape[1], 54, 7, 8]] * 2)
    expected = theirs(prompt, pixel_values=pixels).logits
    torch.testing.assert_close(ours(prompt, pixel_values=pixels).logits, expected, rtol=1e-5, atol=1e-5)
