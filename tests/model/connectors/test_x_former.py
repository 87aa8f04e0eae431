"""X-Former: the plain Q-Former at its start, the fusion written out, any pair of towers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.comm import CommConfig
from argus.model.features import VisualFeatures
from tests.model.connectors.test_qformer import SIZES
from tests.model.seq2seq import VIT
from tests.model.seq2seq import composed as composed_of_t5
from tests.model.tiny import LANGUAGE, TOWERS, tokenizer

DECODER = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "patch": 8}


def x_former(**options: Any) -> Any:
    torch.manual_seed(0)
    spec = {**SIZES, "contrastive_width": 10, **options}
    return build("connector", "x_former", spec, vision_width=14, text_width=6, grid=(3, 4)).eval()


def pair(contrastive: str = "vit", reconstructive: str = "mae") -> CommConfig:
    towers = [TOWERS[contrastive], TOWERS[reconstructive]]
    return CommConfig(towers, [{"merge": "select", "align": 0}] * 2)


def composed(config: CommConfig, text: str = "llama", connector: Any = None, **options: Any) -> ArgusForConditionalGeneration:
    words = len(tokenizer())
    ids = {"vocab_size": words, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    spec = connector or {"x_former": {**SIZES, "contrastive_width": 32, "dropout": 0.0, **options}}
    torch.manual_seed(0)
    return ArgusForConditionalGeneration(ArgusConfig(config, {**LANGUAGE[text], **ids}, connector=spec, image_token_id=3)).eval()


@torch.no_grad()
def test_with_closed_gates_it_is_the_plain_qformer() -> None:
    ours, plain = x_former(identity_start=True), None
    features = VisualFeatures(torch.randn(2, 12, 14), (3, 4))
    plain = build("connector", "qformer", {**SIZES, "through": None}, vision_width=10, text_width=6).eval()
    plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k in plain.state_dict()})
    expected = plain(VisualFeatures(features.tokens[..., :10], (3, 4)))
    assert torch.equal(ours(features), expected)
    for gate in ours.absorb:
        gate.gate.fill_(0.5)
    assert not torch.allclose(ours(features), expected, atol=1e-3)


@torch.no_grad()
def test_gates_stay_closed_in_a_composed_model() -> None:
    model = composed(pair(), identity_start=True)
    assert [gate.gate.tolist() for gate in model.model.multi_modal_projector.absorb] == [[0, 0]]


@torch.no_grad()
def test_the_fusion_is_attention_and_feed_forward() -> None:
    """Z' = FFN(Z + Attn(Z, M')), written out with torch's own attention."""
    block = x_former().absorb[0]
    z, m = torch.randn(2, 3, 16), torch.randn(2, 12, 16)
    attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    attention.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
    attention.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
    attention.out_proj.load_state_dict(block.out.state_dict())
    seen = z + attention(block.norm_x(z), block.norm_y(m), block.norm_y(m))[0]
    expected = seen + block.feed[2](F.gelu(block.feed[0](block.norm(seen))))
    torch.testing.assert_close(block(z, m), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("towers", "text"), [(("vit", "mae"), "llama"), (("clip", "dinov2"), "qwen2"), (("siglip", "mae"), "gpt_neox")]
)
@torch.no_grad()
def test_any_two_towers_any_language_model_and_saving(towers: tuple[str, str], text: str, tmp_path: Path) -> None:
    model = composed(pair(*towers), text)
    prompt = torch.tensor([[1, 3, 3, 3, 7, 8], [0, 1, 3, 3, 3, 9]])
    inputs = {"input_ids": prompt, "attention_mask": (prompt != 0).long(), "pixel_values": torch.randn(2, 3, 32, 32)}
    logits = model(**inputs).logits
    alone = model(prompt[1:, 1:], pixel_values=inputs["pixel_values"][1:]).logits
    torch.testing.assert_close(logits[1, 1:], alone[0], rtol=1e-4, atol=1e-4)
    said = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, logits)
    assert torch.equal(again.generate(**inputs, max_new_tokens=3, do_sample=False), said)
    assert model.bfloat16()(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()}).logits.isfinite().all()


@torch.no_grad()
def test_as_many_tokens_as_queries_and_both_towers_count() -> None:
    connector, tokens = x_former(), torch.randn(1, 12, 14)
    out = connector(VisualFeatures(tokens, (3, 4)))
    assert out.shape == (1, 3, 6)
    assert connector(VisualFeatures(torch.randn(1, 40, 14), (5, 8))).shape == (1, 3, 6)
    for channels in (slice(0, 10), slice(10, 14)):
        changed = tokens.clone()
        changed[..., channels] += torch.randn(12, channels.stop - channels.start)
        assert not torch.allclose(connector(VisualFeatures(changed, (3, 4))), out, atol=1e-4)


@torch.no_grad()
def test_both_towers_side_by_side_are_a_plain_qformer_over_their_channels() -> None:
    """The paper's concatenation: the same pair of encoders, and queries that read all channels at once."""
    model = composed(pair(), connector={"qformer": {**SIZES, "through": None}})
    connector, pixels = model.model.multi_modal_projector, torch.randn(1, 3, 32, 32)
    both = model.model.vision_tower
    side_by_side = torch.cat([one(both.normalised(pixels, i)).tokens for i, one in enumerate(both.towers)], -1)  # (1, 16, 64)
    expected = connector(VisualFeatures(side_by_side, (4, 4)))
    torch.testing.assert_close(model.model.get_image_features(pixels), expected)
    assert expected.shape == (1, SIZES["queries"], 48)


def test_an_encoder_decoder_reads_its_32_tokens_and_the_loss_trains_it_alone(tmp_path: Path) -> None:
    """Stage 2 with a T5: 32 tokens whatever the grid, the decoder's answer, gradients in the connector and nowhere else."""
    towers = [{"encoder": {"vit": VIT}}, {"encoder": {"transformers": {**VIT, "model_type": "vit_mae"}}}]
    spec = {**SIZES, "queries": 32, "contrastive_width": 16, "dropout": 0.0, "identity_start": False}
    comm = {"towers": [{**tower, "merge": "select", "align": 0} for tower in towers]}
    model, processor = composed_of_t5(tmp_path, connector={"x_former": spec}, encoder={"comm": comm})
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    inputs = processor(pictures, ["red <image> blue", "<image>"], padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == processor.image_token_id).sum(1).tolist() == [32, 32]
    assert model.get_image_features(inputs["pixel_values"]).shape == (2, 32, 32)
    said = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, num_beams=2)
    assert said.shape[1] == inputs["input_ids"].shape[1] + 3
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    ids = F.pad(inputs["input_ids"], (0, 2), value=40)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - 2, -100)
    mask = F.pad(inputs["attention_mask"], (0, 2), value=1)
    model(ids, attention_mask=mask, labels=labels, pixel_values=inputs["pixel_values"]).loss.backward()
    parts = {name.partition(".")[0] for name, p in model.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert parts == {"multi_modal_projector"}


def test_a_single_tower_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="leave none for a masked autoencoder"):
        x_former(contrastive_width=14)
    with pytest.raises(UnsupportedError, match="no decoder"):
        x_former().decode(torch.zeros(1, 2, 16), torch.arange(12)[None])


def test_sizes_of_the_paper() -> None:
    """Beside the Q-Former's 188 M (30,522 words): maps of 1408 and 1280 channels to 768, and four readings of BERT's size."""
    spec: dict[str, Any] = {"words": 30522, "decoder": {}}
    with torch.device("meta"):
        both = build("connector", "x_former", spec, vision_width=1408 + 1280, text_width=2560, grid=(16, 16))
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in both.named_children()}
    reading = 4 * 768 * 769 + 2 * 768 * 3072 + 3072 + 768 + 6 * 768 + 2
    assert count["qformer"] == pytest.approx(188, rel=0.01)
    assert count["enrich"] == count["absorb"] == count["tell"] == count["restore"] == reading / 1e6
    assert count["semantic"] + count["detail"] == pytest.approx((1409 + 1281) * 768 / 1e6)
    assert both.tokens((16, 16)) == (1, 32)
