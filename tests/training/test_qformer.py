"""Q-Former pre-training: each part against its formula, who learns, and what reconstruction needs."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F
from transformers import ViTMAEForPreTraining

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.comm import CommConfig
from argus.model.processor import processor_for
from argus.training.data import StageData
from argus.training.objectives.mae import masked_states, patches, reconstruction_loss
from argus.training.objectives.qformer import pairs, similarity
from argus.training.options import DataOptions, StageOptions
from argus.training.stage import train_stage
from tests.model.connectors.test_qformer import SIZES
from tests.model.connectors.test_x_former import DECODER, pair
from tests.model.tiny import LANGUAGE, TOWERS, tokenizer
from tests.training.two_processes import join, leave

DATA: dict[str, Any] = {"world": {"objects": 1.0}, "domains": {"objects": {"max_objects": 1}}, "size": 32}
BASE = {"data": DATA, "steps": 4, "batch_size": 4, "log_every": 2, "save_every": 100, "precision": "fp32", "learning_rate": 0.003}


def made(connector: str = "x_former", tower: Any = None, **options: Any) -> tuple[ArgusForConditionalGeneration, Any]:
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    spec: dict[str, Any] = {**SIZES, "words": len(words), "max_length": 64, "dropout": 0.0}
    if connector == "x_former":
        spec.update(contrastive_width=32, decoder=DECODER)
    torch.manual_seed(0)
    config = ArgusConfig(
        tower or (pair() if connector == "x_former" else TOWERS["vit"].to_dict()),
        {**LANGUAGE["llama"], **ids},
        connector={connector: {**spec, **options}},
        image_token_id=3,
    )
    model = ArgusForConditionalGeneration(config)
    return model, processor_for(model.model, words)


def lesson(model: Any, processor: Any, count: int = 4, **options: Any) -> tuple[Any, dict[str, Any]]:
    objective = build("objective", "qformer", options)
    objective.bind(model, processor)
    data = StageData(DataOptions.model_validate(DATA), 100, questions=False)
    return objective, objective.collate([data[i] for i in range(count)])


@pytest.mark.parametrize("connector", ["qformer", "x_former"])
@torch.no_grad()
def test_contrast_is_over_the_nearest_query(connector: str) -> None:
    model, processor = made(connector)
    objective, batch = lesson(model.eval(), processor)
    batch["text"] = torch.arange(4)
    _, parts = objective.loss(model, batch)
    projector = model.model.multi_modal_projector
    features = model.model.encode_images(batch["pixel_values"])
    z = projector.fused(projector.qformer(projector.picture(features)), features)  # no text: none may leak in
    scores = torch.zeros(4, 4)
    for j in range(4):
        row = {"ids": batch["input_ids"][j : j + 1], "mask": batch["attention_mask"][j : j + 1]}
        _, text = projector.qformer.with_text(projector.picture(features)[:1], **row, sight="separate")
        t = F.normalize(projector.qformer.text.read(text[0, 0]), dim=-1)
        for i in range(4):
            scores[i, j] = max(float(F.normalize(projector.qformer.text.look(q), dim=-1) @ t) for q in z[i])
    scores = scores / 0.07
    by_hand = -(scores.log_softmax(1).diagonal().mean() + scores.log_softmax(0).diagonal().mean()) / 2
    torch.testing.assert_close(parts["contrast"], by_hand, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_similarities_are_those_of_float32_whatever_the_states_are() -> None:
    torch.manual_seed(0)
    looks, reads, temperature = torch.randn(3, 5, 64).bfloat16(), torch.randn(4, 64).bfloat16(), torch.tensor(0.07)
    expected = similarity(looks.float(), reads.float(), temperature)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity(looks, reads, temperature), expected)


def contrast_alone(first: int, count: int) -> tuple[Any, torch.Tensor, dict[str, torch.Tensor]]:
    """A model, and the contrast of some pictures of one order with their texts."""
    model, processor = made("qformer")
    objective, _ = lesson(model.eval(), processor, match=0.0, generate=0.0)
    data = StageData(DataOptions.model_validate(DATA), 100, questions=False)
    loss, parts = objective.loss(model, objective.collate([data[i] for i in range(first, first + count)]))
    return model, loss, parts


def share(rank: int, folder: str) -> None:
    """What one of two processes computes of a batch of eight: loss and gradients, averaged as DDP does."""
    join(rank, folder)
    model, loss, parts = contrast_alone(4 * rank, 4)
    leave(rank, folder, model, loss, parts["retrieval"])


def test_two_processes_contrast_their_pairs_with_those_of_both(tmp_path: Path) -> None:
    model, loss, parts = contrast_alone(0, 8)
    loss.backward()
    multiprocessing.spawn(share, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found.pop("loss"), loss.detach())
        torch.testing.assert_close(found.pop("retrieval"), parts["retrieval"])
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_generation_is_the_next_word_of_each_text() -> None:
    model, processor = made("qformer")
    objective, batch = lesson(model.eval(), processor)
    _, parts = objective.loss(model, batch)
    projector = model.model.multi_modal_projector
    picture = projector.picture(model.model.encode_images(batch["pixel_values"]))
    total, count = 0.0, 0
    for i, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        ids = batch["input_ids"][i : i + 1, :length]
        assert ids[0, 0] == 1
        for end in range(1, length):  # one word at a time, from what stands before it
            prefix = ids[:, :end]
            _, text = projector.qformer.with_text(picture[i : i + 1], prefix, torch.ones_like(prefix), "causal")
            total -= float(projector.qformer.text.predictions(text[0, -1]).log_softmax(-1)[ids[0, end]])
            count += 1
    assert parts["generate"].item() == pytest.approx(total / count, rel=1e-4)


def test_wrong_partners_are_drawn_by_similarity_and_never_equal() -> None:
    torch.manual_seed(0)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True  # two pictures of one text
    likely = torch.zeros(4, 4)
    likely[2, 0] = 50.0  # picture 2 and text 0 look alike
    pictures, texts, right = pairs(likely, same)
    assert torch.equal(same[pictures, texts], right.bool())
    assert right.tolist() == [1] * 4 + [0] * 8
    assert texts[4 + 2] == 0
    assert pictures[8] == 2
    assert pairs(likely, torch.ones(4, 4, dtype=torch.bool))[2].tolist() == [1] * 4


def test_matching_is_the_mean_of_the_queries_logits() -> None:
    model, processor = made("qformer")
    objective, batch = lesson(model.eval(), processor)
    torch.manual_seed(3)
    with torch.no_grad():
        _, parts = objective.loss(model, batch)
    torch.manual_seed(3)
    projector, ids, mask = model.model.multi_modal_projector, batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        picture = projector.picture(model.model.encode_images(batch["pixel_values"]))
        branch = projector.qformer.text
        queries, text = projector.qformer.with_text(picture, ids, mask, "separate")
        looks, reads = F.normalize(branch.look(queries), dim=-1), F.normalize(branch.read(text[:, 0]), dim=-1)
        scores = torch.einsum("iqe,je->ijq", looks, reads).max(-1).values / branch.temperature
        losses = []
        for i, j, right in zip(*(t.tolist() for t in pairs(scores, batch["text"][:, None] == batch["text"])), strict=True):
            queries, _ = projector.qformer.with_text(picture[i : i + 1], ids[j : j + 1], mask[j : j + 1], "joint")
            logits = torch.stack([branch.match(q) for q in queries[0]]).mean(0)
            losses.append(-logits.log_softmax(-1)[right])
    torch.testing.assert_close(parts["match"], torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reconstruction_counts_hidden_patches_alone() -> None:
    """MAE's loss, once more in numpy; perturbing what is shown changes nothing."""
    torch.manual_seed(0)
    pixels, hidden = torch.randn(2, 3, 32, 32), (torch.rand(2, 16) > 0.4).float()
    guess = torch.randn(2, 16, 192)
    found = reconstruction_loss(guess, pixels, hidden, 8)
    total, array = 0.0, pixels.numpy().astype(np.float64)
    for b in range(2):
        for n in range(16):
            if hidden[b, n]:
                row, column = divmod(n, 4)
                patch = array[b, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].transpose(1, 2, 0).ravel()
                patch = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6)
                total += ((guess[b, n].double().numpy() - patch) ** 2).mean()
    assert found.item() == pytest.approx(total / hidden.sum().item(), rel=1e-5)
    changed = guess + torch.randn(2, 16, 192) * (1 - hidden)[..., None]
    assert reconstruction_loss(changed, pixels, hidden, 8) == found
    assert torch.equal(patches(pixels, 8), ViTMAEForPreTraining(TOWERS["mae"]).patchify(pixels))


@torch.no_grad()
def test_hidden_patches_are_not_seen() -> None:
    model, _ = made()
    pair, pixels = model.eval().model.vision_tower, torch.randn(2, 3, 32, 32)
    tower = pair.towers[1]
    torch.manual_seed(5)
    shown, hidden, restore = masked_states(pair, pixels, 0.5)
    assert shown.shape == (2, 8, 32)
    assert hidden.sum(1).tolist() == [8, 8]
    assert torch.equal((restore >= 8).float(), hidden)
    mask = hidden.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.manual_seed(5)
    again, _, _ = masked_states(pair, pixels + 10 * mask, 0.5)
    torch.testing.assert_close(again, shown)
    assert tower.tower.config.mask_ratio == 0  # outside, the tower sees everything
    assert tower(pixels).tokens.shape == (2, 16, 32)


@pytest.mark.parametrize("branch", [{"merge": "select", "align": 0}, {"merge": "select", "layers": [1]}, {"layers": [1, 2]}])
@pytest.mark.parametrize("final_norm", [False, True])
@torch.no_grad()
def test_visible_patches_are_read_where_those_of_whole_pictures_are(branch: dict[str, Any], final_norm: bool) -> None:
    """With nothing hidden, what pre-training reads is what the connector is given afterwards, in another order."""
    autoencoder = copy.deepcopy(TOWERS["mae"])
    autoencoder.final_norm = final_norm
    model, _ = made(tower=CommConfig([TOWERS["vit"], autoencoder], [{"merge": "select", "align": 0}, branch]))
    both, pixels = model.eval().model.vision_tower, torch.randn(2, 3, 32, 32)
    shown, _, restore = masked_states(both, both.normalised(pixels, 1), 0.0)
    found = shown.gather(1, restore[..., None].expand_as(shown))
    torch.testing.assert_close(found, both(pixels).tokens[..., 32:])


def test_encoders_get_no_gradient_and_a_second_stage_trains_the_connector(tmp_path: Path) -> None:
    model, processor = made()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    stage = {**BASE, "objective": {"qformer": {"reconstruct": 1.0}}, "train": ["multi_modal_projector"], "freeze": ["decoder"]}
    result = train_stage(model, processor, StageOptions.model_validate(stage), tmp_path / "one")
    assert {"contrast", "match", "generate", "reconstruct", "retrieval"} <= result.log[-1].keys()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert all(".multi_modal_projector." in k and ".decoder." not in k for k in changed)
    unused = ("project.weight", "project.bias")  # those into the language model come later
    inner = {k.split("multi_modal_projector.")[1] for k in before if ".multi_modal_projector." in k and ".decoder." not in k}
    assert not [k for k in inner if f"model.multi_modal_projector.{k}" not in changed and k not in unused and "key.bias" not in k]
    after = {k: v.clone() for k, v in model.state_dict().items()}
    stage = {**BASE, "objective": "sft", "data": {**DATA, "questions": 2}, "train": ["multi_modal_projector"]}
    train_stage(model, processor, StageOptions.model_validate(stage), tmp_path / "two")
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, after[k])}
    assert changed
    assert all(".multi_modal_projector." in k for k in changed)


def test_the_masked_autoencoder_can_be_trained_first(tmp_path: Path) -> None:
    model, processor = made()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    stage = {**BASE, "objective": "mae", "train": ["tower", "detail", "decoder"], "steps": 40, "batch_size": 8, "log_every": 10}
    result = train_stage(model, processor, StageOptions.model_validate(stage), tmp_path)
    assert result.log[-1]["reconstruction"] < result.log[0]["reconstruction"]
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert all("vision_tower.towers.1" in k or ".detail." in k or ".decoder." in k for k in changed)


@pytest.mark.parametrize("paired", [False, True])
def test_a_masked_autoencoder_learns_beside_a_connector_without_decoder(paired: bool, tmp_path: Path) -> None:
    tower = pair() if paired else TOWERS["mae"]
    model, processor = made("qformer", tower=tower)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    place = "towers.1" if paired else "vision_tower"
    stage = {**BASE, "objective": {"mae": {"decoder": DECODER}}, "train": [place, "mae"], "steps": 40, "log_every": 10}
    result = train_stage(model, processor, StageOptions.model_validate({**stage, "batch_size": 8}), tmp_path)
    assert result.log[-1]["reconstruction"] < result.log[0]["reconstruction"]
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(f"{place}." in k for k in changed)
    assert (tmp_path / "techniques" / "mae.safetensors").exists()
    wrong = build("objective", "mae", {"decoder": {**DECODER, "patch": 16}})
    with pytest.raises(UnsupportedError, match="patches of one size"):
        wrong.bind(model, processor)


def test_reconstruction_passes_the_queries() -> None:
    """Patches that are all alike but for their picture's colour: what is shown says nothing, so only the queries can tell."""
    torch.manual_seed(0)
    model, _ = made(fusion=1)
    connector = model.model.multi_modal_projector
    colour = torch.randn(32, 1, 16)
    shown, restore = torch.zeros(32, 8, 16), torch.arange(16).expand(32, 16)
    target = colour.repeat(1, 16, 12)
    optimiser = torch.optim.Adam(connector.parameters(), lr=0.01)
    for _ in range(60):
        loss = (connector.reconstruct(shown, colour.expand(-1, 3, -1), restore) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        without = (connector.reconstruct(shown, torch.zeros(32, 3, 16), restore) - target).square().mean()
    assert without > 1.5 * loss


def test_what_cannot_be_pretrained_is_said() -> None:
    model, processor = made("qformer")
    with pytest.raises(UnsupportedError, match="needs a masked autoencoder"):
        lesson(model, processor, reconstruct=1.0)
    model, processor = made("qformer", words=0)
    with pytest.raises(UnsupportedError, match="no text branch"):
        lesson(model, processor)
    model, processor = made("qformer", words=7)
    with pytest.raises(UnsupportedError, match="knows 7 words"):
        lesson(model, processor)
    model, processor = made(decoder=None)
    with pytest.raises(UnsupportedError, match="needs the decoder"):
        lesson(model, processor, reconstruct=1.0)
    towers = CommConfig([TOWERS["vit"], TOWERS["dinov2"]], [{"merge": "select", "align": 0}] * 2)
    model, processor = made(tower=towers)
    with pytest.raises(UnsupportedError, match="needs a masked autoencoder"):
        lesson(model, processor, reconstruct=1.0)
