"""A stage trains, resumes after kill -9 with the same weights, and gives one loss curve on one process and on two."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from argus.core.errors import DataError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.tokenizer import train_tokenizer, world_texts
from argus.training.data import StageData
from argus.training.options import DataOptions, StageOptions
from argus.training.rows import IGNORE
from argus.training.stage import train_stage
from argus.world.domain import DENSE_CLASSES
from tests.model.tiny import LANGUAGE, tiny, tokenizer

DATA = {"world": {"objects": 1.0}, "size": 32, "questions": 3, "families": ["colour", "count"]}
BASE = {"data": DATA, "steps": 6, "batch_size": 4, "log_every": 2, "save_every": 2, "precision": "fp32", "learning_rate": 0.003}


def options(**changes: Any) -> StageOptions:
    return StageOptions.model_validate({"objective": "sft", **BASE, **changes})


def dual() -> tuple[DualEncoder, Any]:
    torch.manual_seed(0)
    words = train_tokenizer(world_texts({"objects": {}}, 50), 400)
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 96,
    }
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32}
    config = DualEncoderConfig(vision, {**text, "vocab_size": len(words)}, 16, DENSE_CLASSES)
    return DualEncoder(config), words


def test_contrastive_stage_learns_and_saves(tmp_path: Path) -> None:
    model, words = dual()
    stage = options(objective={"contrastive": {}}, steps=30, batch_size=8, log_every=10, save_every=100)
    result = train_stage(model, words, stage, tmp_path)
    assert result.samples == 240
    assert result.log[-1]["dense"] < result.log[0]["dense"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    again = DualEncoder.from_pretrained(tmp_path / "model")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(pixels).image_embeds, model.eval()(pixels).image_embeds)


def test_clip_loss_is_the_symmetric_cross_entropy_and_equal_texts_are_positives() -> None:
    model, words = dual()
    objective = build("objective", "contrastive", {"dense": 0.0})
    objective.bind(model, words)
    data = StageData(DataOptions.model_validate(DATA), 100, questions=False)
    batch = objective.collate([data[i] for i in range(4)])
    model.eval()
    loss, parts = objective.loss(model, batch)
    out = model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
    scores = model.logit_scale.exp() * out.image_embeds @ out.text_embeds.T
    by_hand = -(scores.log_softmax(1).diagonal().mean() + scores.log_softmax(0).diagonal().mean()) / 2
    torch.testing.assert_close(loss, by_hand)
    assert set(parts) == {"clip", "retrieval"}
    batch["text"] = torch.zeros(4, dtype=torch.long)  # all texts equal: every pair is a positive
    loss, _ = objective.loss(model, batch)
    torch.testing.assert_close(loss, -(scores.log_softmax(1).mean() + scores.T.log_softmax(1).mean()) / 2 * 1.0)


def test_language_stage(tmp_path: Path) -> None:
    words = train_tokenizer(world_texts({"objects": {}}, 50), 400)
    config = AutoConfig.for_model(**{**LANGUAGE["llama"], "vocab_size": len(words), "pad_token_id": 0})
    model = AutoModelForCausalLM.from_config(config)
    result = train_stage(model, words, options(objective="language", steps=12, log_every=4), tmp_path)
    assert result.log[-1]["loss"] < result.log[0]["loss"]


def test_align_trains_the_connector_alone(tmp_path: Path) -> None:
    model, processor = tiny()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = train_stage(model, processor, options(train=["multi_modal_projector"]), tmp_path)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all("multi_modal_projector" in k for k in changed)
    assert set(result.trainable) == {"multi_modal_projector"}


def test_naming_makes_patches_nameable(tmp_path: Path) -> None:
    """On a random tower the connector still learns to tell ground from things and colours from each other."""
    model, processor = tiny()
    stage = options(objective="naming", train=["multi_modal_projector"], steps=30, batch_size=8, log_every=10, learning_rate=0.01)
    result = train_stage(model, processor, stage, tmp_path)
    assert result.log[-1]["loss"] < 0.8 * result.log[0]["loss"]
    assert result.log[-1]["colour"] > 0.2  # ten colours


def test_lora_trains_few_weights_and_leaves_a_plain_model(tmp_path: Path) -> None:
    model, processor = tiny()
    names = set(model.state_dict())
    before = model.model.language_model.layers[0].self_attn.q_proj.weight.clone()
    result = train_stage(model, processor, options(tuner={"lora": {"r": 2}}, steps=2), tmp_path)
    # per linear layer r (in + out); q 48+48, k and v 48+24, o 48+48, gate and up 48+64, down 64+48: 2 layers
    assert result.trainable == {"tuner": 2 * 2 * (96 + 72 + 72 + 96 + 112 * 3)}
    from safetensors import safe_open

    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        saved = set(file.keys())
        assert saved <= names
        assert not torch.equal(file.get_tensor("model.language_model.layers.0.self_attn.q_proj.weight"), before)


def test_answers_alone_are_labelled_and_decode_to_the_answers() -> None:
    model, processor = tiny()
    objective = build("objective", "sft")
    objective.bind(model, processor)
    picture = StageData(DataOptions.model_validate(DATA), 10)[0][0].pixels
    from PIL import Image

    sample = Sample("a", [
        Message("user", [ImagePart(Image.fromarray(picture)), TextPart("What colour is the star?")]),
        Message("assistant", [TextPart("red")]),
        Message("user", [TextPart("How many things are there?")]),
        Message("assistant", [TextPart("3")]),
    ])  # fmt: skip
    batch = objective.collate([sample])
    kept = batch["labels"][0][batch["labels"][0] != IGNORE]
    assert processor.tokenizer.decode(kept) == " red</s>\n 3</s>\n"
    assert int((batch["input_ids"] == processor.image_token_id).sum()) == 16
    assert set(batch["turn"][0].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("packing", [0, 256])
def test_packed_turns_give_the_loss_of_questions_asked_alone(packing: int) -> None:
    model, processor = tiny()
    objective = build("objective", "sft", {"packing": packing})
    objective.bind(model, processor)
    data = StageData(DataOptions.model_validate(DATA), 10)
    items = [data[i] for i in range(3)]
    batch = objective.collate(items)
    with torch.no_grad():
        loss, _ = objective.loss(model, batch)
    total, count = 0.0, 0
    for drawing, _ in items:
        for question in drawing.questions:
            messages = [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]},
                {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
            ]
            prompt = processor.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
            whole = processor.apply_chat_template(messages, tokenize=False)
            one = processor(images=[drawing.pixels], text=whole, return_tensors="pt")
            start = processor(images=[drawing.pixels], text=prompt, return_tensors="pt")["input_ids"].shape[1]
            with torch.no_grad():
                logp = model(**one).logits[0, start - 1 : -1].log_softmax(-1)
            labels = one["input_ids"][0, start:]
            total -= float(logp.gather(-1, labels[:, None]).sum())
            count += len(labels)
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_conversation_turns_see_each_other() -> None:
    model, processor = tiny()
    objective = build("objective", "sft", {"turns": "conversation"})
    objective.bind(model, processor)
    batch = objective.collate([StageData(DataOptions.model_validate(DATA), 10)[1]])
    assert set(batch["turn"][0].tolist()) == {0}
    real = batch["sample"][0] >= 0
    assert batch["position_ids"][0][real].tolist() == list(range(int(real.sum())))


def test_without_pictures_only_the_words_are_learned() -> None:
    model, processor = tiny()
    objective = build("objective", "sft", {"pictures": False})
    objective.bind(model, processor)
    data = StageData(DataOptions.model_validate(DATA), 100)
    batch = objective.collate([data[0], data[1]])
    assert "pixel_values" not in batch
    assert not (batch["input_ids"] == processor.image_token_id).any()
    shown = build("objective", "sft", {})
    shown.bind(model, processor)
    assert (shown.collate([data[0], data[1]])["labels"] != IGNORE).sum() == (batch["labels"] != IGNORE).sum()
    assert torch.isfinite(objective.loss(model, batch)[0])


def test_a_sample_without_answer_is_refused() -> None:
    model, processor = tiny()
    objective = build("objective", "sft")
    objective.bind(model, processor)
    with pytest.raises(DataError, match="no assistant turn"):
        objective.collate([Sample("a", [Message("user", [TextPart("hi")])])])


def test_objectives_refuse_models_they_cannot_train() -> None:
    model, processor = tiny()
    with pytest.raises(UnsupportedError, match="dual encoder"):
        build("objective", "contrastive").bind(model, processor)
    encoder, words = dual()
    with pytest.raises(UnsupportedError, match="one-dimensional positions"):
        build("objective", "sft").bind(encoder, words)


def test_data_is_the_same_for_any_number_of_processes_and_starts_anywhere() -> None:
    data = StageData(DataOptions.model_validate(DATA), 10)
    later = StageData(DataOptions.model_validate({**DATA, "start": 3}), 10)
    assert (data[5][0].pixels == later[2][0].pixels).all()
    mixed = StageData(DataOptions.model_validate({"world": {"objects": 3.0, "charts": 1.0}, "size": 32}), 4000, questions=False)
    share = sum(mixed[i][1].name == "charts" for i in range(0, 4000, 8)) / 500
    assert share == pytest.approx(0.25, abs=0.06)  # three standard errors of 500 draws


def test_files_are_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    data = StageData(DataOptions.model_validate({**DATA, "files": [str(path)]}), 10)
    assert isinstance(data[1], Sample)
    assert not isinstance(data[0], Sample)
    with pytest.raises(RecipeError, match="does not exist"):
        StageData(DataOptions(files=["no.jsonl"]), 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"data": {}}, "needs data"),
        ({"accumulation": 3}, "must divide"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_accumulation_gives_the_same_weights() -> None:
    weights = []
    for accumulation in (1, 2):
        model, processor = tiny()
        # Questions per picture differ in tokens, so the mean over a batch equals the mean of halves only for equal halves.
        data = {**DATA, "families": ["existence"], "questions": 2}
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            train_stage(
                model, processor, options(data=data, accumulation=accumulation, steps=2, learning_rate=1e-3), Path(folder)
            )
        weights.append(model.lm_head.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=2e-4)


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a process leaves that is killed while it writes: files without the trainer's state, or half of that."""
    model, processor = tiny()
    train_stage(model, processor, options(), tmp_path)
    (tmp_path / "result.json").unlink()
    state = tmp_path / "checkpoints" / "checkpoint-6" / "trainer_state.json"
    state.write_text(state.read_text()[:40])
    half = tmp_path / "checkpoints" / "checkpoint-8"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"torn")
    again, _ = tiny()
    train_stage(again, processor, options(), tmp_path)
    assert "checkpoint-4" in capsys.readouterr().out
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_half_precision_checkpointing_schedule_and_events(tmp_path: Path) -> None:
    plain, processor = tiny()
    expected = train_stage(plain, processor, options(log_every=1), tmp_path / "plain")
    model, _ = tiny()
    half = options(log_every=1, precision="bf16", checkpointing=True, warmup=1 / 3)
    result = train_stage(model, processor, half, tmp_path / "half")
    assert [e["loss"] for e in result.log][:2] == pytest.approx([e["loss"] for e in expected.log][:2], rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    rates = [entry["learning_rate"] for entry in result.log]
    # Two steps up to 0.003, then half a cosine over the four steps that are left.
    assert rates == pytest.approx([0, 0.0015, *(0.0015 * (1 + math.cos(math.pi * k / 4)) for k in range(4))], abs=1e-9)
    assert list((tmp_path / "half").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_each_stage_compiles_anew(tmp_path: Path) -> None:
    """Compiled losses are the plain ones, and a later stage runs compiled too, however much was compiled before."""
    from torch._dynamo.utils import counters

    losses = []
    for number, compiled in enumerate((False, True, True)):
        model, processor = tiny()
        counters.clear()
        with torch._dynamo.config.patch(recompile_limit=1):
            result = train_stage(model, processor, options(compile=compiled, steps=2), tmp_path / str(number))
        losses.append(result.log[0]["loss"])
        assert (counters["stats"]["unique_graphs"] > 0) == compiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[1] == losses[2]


SCRIPT = """
import sys
from pathlib import Path
from tests.model.tiny import tiny
from tests.training.test_stage import options
from argus.training.stage import train_stage
import torch, time
torch.set_num_threads(1)
model, processor = tiny()
folder, slow = Path(sys.argv[1]), float(sys.argv[2])
def wait(step):
    print(step, flush=True)
    time.sleep(slow)
train_stage(model, processor, options(log_every=1), folder, on_step=wait)
"""


def launch(folder: Path, slow: float = 0.0, processes: int = 1) -> subprocess.Popen[str]:
    script = folder.with_suffix(".py")  # one each: a second launch must not rewrite what the first is reading
    script.write_text(SCRIPT)
    head = (
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        if processes > 1
        else [sys.executable]
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*head, str(script), str(folder), str(slow)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@pytest.mark.slow
def test_kill_minus_nine_and_resume_end_with_the_same_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole = launch(tmp_path / "whole")
    child = launch(tmp_path / "killed", slow=0.3)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "5":
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    again = launch(tmp_path / "killed")
    text, _ = again.communicate(timeout=240)
    assert again.returncode == 0, text
    assert "resuming from" in text
    assert whole.wait(timeout=240) == 0
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)
    start = time.monotonic()
    model, processor = tiny()
    train_stage(model, processor, options(log_every=1), tmp_path / "killed")  # finished: only loaded
    assert time.monotonic() - start < 5
    assert torch.equal(
        model.lm_head.weight, b["lm_head.weight"] if "lm_head.weight" in b else model.get_input_embeddings().weight
    )


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path) -> None:
    one, two = launch(tmp_path / "one"), launch(tmp_path / "two", processes=2)
    text, _ = two.communicate(timeout=240)
    assert two.returncode == 0, text
    assert one.wait(timeout=240) == 0
    curves = [[e["loss"] for e in json.loads((tmp_path / n / "result.json").read_text())["log"]] for n in ("one", "two")]
    # Two halves of a batch are averaged with equal weight though their answers may differ by a token or two.
    assert curves[0] == pytest.approx(curves[1], rel=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without GPUs says")
def test_sharding_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    model, processor = tiny()
    with pytest.raises(RecipeError, match="needs GPUs"):
        train_stage(model, processor, options(fsdp=True), tmp_path)


def test_tokenizer_reads_numbers_digit_by_digit() -> None:
    words = tokenizer()
    assert words.decode(words("How many 123").input_ids) == "How many 123"
    digits = words("123", add_special_tokens=False).input_ids
    assert len(digits) == 3
    assert words.convert_tokens_to_ids("<image>") == 3
