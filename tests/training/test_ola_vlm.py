"""OLA-VLM: the losses written out, what a resampler reads, who learns, and that nothing of it is needed afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.model.backbones.fusion import check_view
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.load import load
from argus.model.processor import processor_for
from argus.model.token_map import PAD, TASK, TEXT, VISUAL
from argus.training.data import StageData
from argus.training.objectives.ola_vlm import reading
from argus.training.options import DataOptions, StageOptions
from argus.training.stage import train_stage
from tests.model.tiny import LANGUAGE, TOWERS, tokenizer

DATA: dict[str, Any] = {
    "world": {"objects": 1.0},
    "domains": {"objects": {"min_objects": 2, "max_objects": 3, "piled": 0.5}},
    "size": 32,
    "questions": 3,
    "families": ["existence", "colour"],
}
VIEW = {"task_tokens": {"tokens": 2, "rows": 16}}
TEACHERS = {
    "depth": {"truth": "depth"},
    "seg": {"truth": "segmentation"},
    "gen": {"encoder": "argus/tiny-clip", "pooled": True},
}
TAUGHT = {"teachers": TEACHERS, "layers": {"depth": [1], "seg": [1, 2], "gen": [2]}}
STAGE = {"data": DATA, "steps": 3, "batch_size": 4, "log_every": 1, "save_every": 100, "precision": "fp32"}


def made(view: Any = None) -> tuple[ArgusForConditionalGeneration, Any]:
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = ArgusConfig(TOWERS["vit"].to_dict(), {**LANGUAGE["llama"], **ids}, image_token_id=3, view=view or VIEW)
    model = ArgusForConditionalGeneration(config)
    return model, processor_for(model.model, words)


def bound(model: Any, processor: Any, name: str = "ola_vlm", **options: Any) -> Any:
    torch.manual_seed(1)
    objective = build("objective", name, options)
    objective.bind(model, processor)
    return objective


def items(count: int = 4) -> list[Any]:
    data = StageData(DataOptions.model_validate(DATA), 100)
    return [data[i] for i in range(count)]


def shown(name: str, pictures: int, seed: int = 0) -> Sample:
    """A conversation from a file, about so many pictures."""
    random = np.random.default_rng(seed)
    parts = [ImagePart(Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8))) for _ in range(pictures)]
    return Sample(name, [Message("user", [*parts, TextPart("How many?")]), Message("assistant", [TextPart("2")])])


@pytest.mark.parametrize("options", [{}, {**TAUGHT, "weights": {"depth": 0, "seg": 0, "gen": 0}}])
def test_without_auxiliary_losses_it_is_sft_exactly(options: dict[str, Any]) -> None:
    model, processor = made()
    objective, plain = bound(model, processor, **options), bound(model, processor, "sft")
    batch = objective.collate(items())
    assert batch.keys() == plain.collate(items()).keys()
    assert objective.techniques() == {}
    found, expected = (one.loss(model, batch)[0] for one in (objective, plain))
    assert torch.equal(found, expected)


def test_without_task_tokens_the_model_is_the_plain_one() -> None:
    (model, processor), (plain, usual) = made(), made({"square": {}})
    batch = bound(plain, usual, "sft").collate(items())
    assert processor.image_token_count() == usual.image_token_count() + 6
    assert [n for n, _ in model.named_parameters() if "task_" in n] == [
        f"model.image_assembly.task_{name}" for name in ("gen", "depth", "seg")
    ]
    # Heads with latents of their own leave the model as it is, and what it answers.
    objective = bound(plain, usual, **TAUGHT, cells=16)
    taught = objective.collate(items())
    assert torch.equal(objective.states(plain, taught), bound(plain, usual, "sft").states(plain, batch))
    assert all(objective.loss(plain, taught)[1][task] > 0 for task in TEACHERS)


def test_tokens_are_means_of_groups_of_rows() -> None:
    model, processor = made()
    picture = Image.new("RGB", (32, 32))
    features = model.get_image_features(**processor.image_processor(picture))
    assembly = model.model.image_assembly
    gen, depth, seg = (assembly.task_rows(name) for name in ("gen", "depth", "seg"))
    assert (gen.shape, depth.shape) == ((2, 48), (16, 48))
    expected = torch.stack([gen[0], gen[1], depth[:8].mean(0), depth[8:].mean(0), seg[:8].mean(0), seg[8:].mean(0)])
    torch.testing.assert_close(features[0][-6:], expected)
    assert float(depth.detach().std()) == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_a_tasks_loss_is_smooth_l1_and_contrast() -> None:
    """The files' pictures are unknown to the truths, which leave them out; the tower knows them."""
    model, processor = made()
    objective = bound(model, processor, **TAUGHT)
    batch = objective.collate([*items(3), shown("file", 1)])
    total, parts = objective.loss(model, batch)
    states = objective.run(model, batch, output_hidden_states=True).hidden_states
    expected = float(bound(model, processor, "sft").loss(model, batch)[0])
    for task, layers in TAUGHT["layers"].items():
        target = objective.teachers[task].targets(batch[f"teacher_{task}"]).double().numpy()
        many = 4 if task == "gen" else 3
        assert batch[f"known_{task}"].tolist() == [True] * 3 + [many == 4]
        sums = 0.0
        for made_, _ in zip(objective.predictions(task, model.model, states, batch), layers, strict=True):
            a, b = made_.double().numpy()[:many], target[:many]
            gap = np.abs(a - b)
            smooth = np.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean()
            flat = [x.reshape(many, -1) / np.linalg.norm(x.reshape(many, -1), axis=1, keepdims=True) for x in (a, b)]
            logits = flat[0] @ flat[1].T * np.exp(2.0)
            chosen = np.log(np.exp(logits).sum(1)) - np.diag(logits)
            sums += smooth + 0.3 * chosen.mean()
        assert float(parts[task]) == pytest.approx(sums, rel=1e-4)
        assert sums > 0
        expected += 0.5 * sums
    assert float(total) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_texts_alone_have_no_auxiliary_loss() -> None:
    model, processor = made()
    objective = bound(model, processor, **TAUGHT)
    total, parts = objective.loss(model, objective.collate([shown("a", 0), shown("b", 0)]))
    assert [float(parts[task]) for task in TEACHERS] == [0.0] * 3
    assert torch.equal(total, bound(model, processor, "sft").loss(model, objective.collate([shown("a", 0), shown("b", 0)]))[0])
    # A picture that no truth knows: 0 as well.
    parts = objective.loss(model, objective.collate([shown("a", 1)]))[1]
    assert [float(parts[task]) for task in ("depth", "seg")] == [0.0] * 2


def test_one_picture_has_no_contrast() -> None:
    model, processor = made()
    objective = bound(model, processor, **TAUGHT)
    target = torch.randn(1, 16, 64)
    made_ = torch.randn(1, 16, 64, requires_grad=True)
    loss = objective.distance("depth", made_, target)
    assert torch.equal(loss, torch.nn.functional.smooth_l1_loss(made_, target))
    loss.backward()
    assert objective.parts.scales["depth"].grad == 0


@torch.no_grad()
def test_embeddings_are_compared_in_float32_under_bf16() -> None:
    model, processor = made()
    objective = bound(model, processor, **TAUGHT)
    torch.manual_seed(0)
    made_, target = torch.randn(3, 16, 64), torch.randn(3, 16, 64)
    expected = objective.distance("depth", made_, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(objective.distance("depth", made_, target), expected)


@pytest.mark.parametrize("packing", [0, 200])
@pytest.mark.parametrize("text", [True, False])
def test_a_resampler_reads_system_picture_its_tokens_and_text(packing: int, text: bool) -> None:
    """Counted by a loop; two pictures of one sample are read apart, several samples of a row as well."""
    model, processor = made()
    objective = bound(model, processor, **TAUGHT, packing=packing, text=text)
    batch = objective.collate([shown("a", 2), shown("b", 1), shown("c", 0), *items(1)])
    objective.run(model, batch)
    known, sample = model.model.token_map, batch["sample"]
    assert known is not None
    row, readable, own = reading(known, sample, objective.spans["depth"], text=text)
    assert len(row) == 4
    number = 0
    for r in range(len(sample)):
        for image in range(int(known.image[r].max()) + 1):
            mine = (known.image[r] == image).nonzero().flatten().tolist()
            of, end = int(sample[r, mine[0]]), mine[-1]
            counts = dict.fromkeys(("words", "visual", "tasks"), 0)
            for place in range(sample.shape[1]):
                kind = int(known.kind[r, place])
                word = kind not in (VISUAL, TASK, PAD) and int(sample[r, place]) == of and (text or place <= end)
                visual = place in mine and kind == VISUAL
                task = place in mine and kind == TASK and int(known.column[r, place]) in (2, 3)  # behind two of generation
                counts["words"] += word
                counts["visual"] += visual
                counts["tasks"] += task
                assert bool(readable[number, place]) == (word or visual or task)
                assert bool(own[number, place]) == task
            assert int(readable[number].sum()) == counts["words"] + 16 + 2
            assert (counts["visual"], counts["tasks"]) == (16, 2)
            number += 1
    assert number == 4


@torch.no_grad()
def test_tokens_of_other_tasks_do_not_reach_a_head() -> None:
    model, processor = made()
    objective = bound(model, processor, **TAUGHT)
    batch = objective.collate(items(2))
    states = objective.run(model, batch, output_hidden_states=True).hidden_states
    row, _, own = reading(model.model.token_map, batch["sample"], objective.spans["seg"], text=True)
    moved = list(states)
    for layer in range(len(moved)):
        moved[layer] = moved[layer].clone()
        moved[layer][row[:, None].expand_as(own)[own], own.nonzero()[:, 1]] += 3.0

    def same(task: str) -> bool:
        a, b = (objective.predictions(task, model.model, s, batch) for s in (states, moved))
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    assert (same("depth"), same("gen"), same("seg")) == (True, True, False)


def test_gradients_reach_the_layers_up_to_the_taught_one() -> None:
    model, processor = made()
    objective = bound(model, processor, teachers={"depth": TEACHERS["depth"]}, layers={"depth": [1]})
    batch = objective.collate(items(2))
    output = objective.run(model, batch, output_hidden_states=True)
    target = batch["teacher_depth"]
    made_ = objective.predictions("depth", model.model, output.hidden_states, batch)[0]
    objective.distance("depth", made_, target).backward()
    first, second = model.model.language_model.layers
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in second.parameters())
    assert model.model.image_assembly.task_depth.grad is not None
    assert model.model.multi_modal_projector.linear_1.weight.grad.any()


def test_stages_teach_and_then_tune_without_heads_and_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made()
    learns = ["multi_modal_projector", "image_assembly", "ola_vlm"]
    first = StageOptions.model_validate({**STAGE, "objective": {"ola_vlm": TAUGHT}, "train": learns})
    rows = model.model.image_assembly.task_depth.detach().clone()
    result = train_stage(model, processor, first, tmp_path / "distil")
    assert set(result.trainable) == set(learns)
    assert all(entry[task] > 0 for entry in result.log for task in TEACHERS)
    assert (tmp_path / "distil" / "techniques" / "ola_vlm.safetensors").exists()
    taught: Tensor = model.model.image_assembly.task_depth.detach().clone()
    assert not torch.equal(taught, rows)

    monkeypatch.setattr("argus.training.teachers.load_tower", None)  # from here on no teacher is needed
    second = StageOptions.model_validate({**STAGE, "objective": "sft", "train": ["multi_modal_projector", "language_model"]})
    result = train_stage(model, processor, second, tmp_path / "tune")
    assert set(result.trainable) == {"multi_modal_projector", "language_model"}
    assert torch.equal(model.model.image_assembly.task_depth, taught)
    again, processor_again = load(str(tmp_path / "tune" / "model"))
    assert torch.equal(again.model.image_assembly.task_depth, taught)  # type: ignore[attr-defined]
    with torch.no_grad():
        inputs = processor_again(images=Image.new("RGB", (32, 32)), text="User: <image>\nHow many?", return_tensors="pt")
        torch.testing.assert_close(again(**inputs).logits, model.eval()(**inputs).logits, rtol=1e-4, atol=1e-4)
        assert int((again.model.token_map.kind == TASK).sum()) == 6  # type: ignore[attr-defined]
        assert int((again.model.token_map.kind == TEXT).sum()) > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", [{"task_tokens": {"view": "anyres", "tokens": 2, "rows": 16}}, {"internvl": {"max_tiles": 4}}])
def test_tiles_and_other_lengths_of_the_prompt_make_no_difference(view: Any) -> None:
    """Targets lie on the heads' grid, not on visual tokens; bf16."""
    model, processor = made(view)
    objective = bound(model, processor, **TAUGHT, cells=16)
    system = Message("system", [TextPart("red green blue")])
    wide = shown("wide", 1)
    wide.messages = [system, *wide.messages]
    wide.messages[1].content[0] = ImagePart(Image.new("RGB", (90, 40)))
    with torch.autocast("cpu", torch.bfloat16):
        total, parts = objective.loss(model, objective.collate([wide, *items(2)]))
    assert torch.isfinite(total)
    assert all(parts[task] > 0 for task in TEACHERS)


def test_a_probe_learns_alone_and_reports_its_cosine(tmp_path: Path) -> None:
    model, processor = made()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"teachers": {"depth": TEACHERS["depth"], "gen": TEACHERS["gen"]}, "cells": 16}
    stage = StageOptions.model_validate(
        {**STAGE, "objective": {"probe": options}, "train": ["probe"], "steps": 12, "learning_rate": 0.01}
    )
    result = train_stage(model, processor, stage, tmp_path)
    assert set(result.trainable) == {"probe"}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for name in ("depth_1", "depth_2", "gen_1", "gen_2"):
        assert result.log[-1][name] > result.log[0][name]

    objective = bound(model, processor, "probe", **options)
    batch = objective.collate(items(2))
    with torch.no_grad():
        told = objective.loss(model, batch)[1]["depth_2"]
        states = objective.run(model, batch, output_hidden_states=True).hidden_states[2]
        row, readable, _ = reading(model.model.token_map, batch["sample"], None, text=False)
        a, b = objective.parts["depth"]["2"](states[row], readable), batch["teacher_depth"]
    cosines = [
        float(a[p, n] @ b[p, n] / a[p, n].norm() / b[p, n].norm())
        for p in range(2)
        for n in range(16)
        if b[p, n].view(4, 4, 4)[..., 0].min() < 0  # some of the cell is no ground
    ]
    assert float(told) == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    model, processor = made()
    with pytest.raises(UnsupportedError, match="has 2"):
        bound(model, processor, teachers={"depth": TEACHERS["depth"]})  # the paper's layers 18 and 20
    with pytest.raises(UnsupportedError, match="a map of 4 x 4 cells"):
        bound(model, processor, teachers={"depth": TEACHERS["gen"]}, layers={"depth": [1]})
    with pytest.raises(RecipeError, match="square number"):
        build("view", "task_tokens", {"rows": 12, "tokens": 3})
    view = build("view", "task_tokens", VIEW["task_tokens"])
    with pytest.raises(UnsupportedError, match="task tokens of view"):
        check_view(view, "task_tokens", "hybrid")
