"""A stage with partial LoRA: what learns, what its folder holds, and how later stages go on from it."""

from pathlib import Path
from typing import Any

import torch

from argus.model.load import load
from argus.training.options import StageOptions
from argus.training.stage import train_stage
from tests.model.tiny import chat, tiny
from tests.training.test_stage import options

PLORA = {"partial_lora": {"r": 2, "alpha": 2, "full": ["multi_modal_projector"]}}
# A and B of each linear layer; q 48+48, k and v 48+24, o 48+48, gate and up 48+64, down 64+48: 2 layers
UPDATES = 2 * 2 * (96 + 72 + 72 + 96 + 112 * 3)


def stage(**changes: Any) -> StageOptions:
    return options(**{"tuner": PLORA, "steps": 4, "checkpointing": True, "precision": "bf16", "learning_rate": 0.05, **changes})


def asked(processor: Any, pictures: int) -> Any:
    prompt = processor.apply_chat_template(chat("How many?", pictures), tokenize=False, add_generation_prompt=True)
    images = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(255).byte()] * pictures
    return processor(images=images or None, text=[prompt], return_tensors="pt")


def test_the_updates_learn_and_text_is_read_as_before(tmp_path: Path) -> None:
    model, processor = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        text = model(**asked(processor, 0)).logits
    connector = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    result = train_stage(model, processor, stage(), tmp_path)
    assert result.trainable == {"tuner": UPDATES + connector}
    changed = {n for n, v in model.state_dict().items() if n not in before or not torch.equal(v, before[n])}
    assert {n.split(".")[1] for n in changed} == {"partial_lora", "multi_modal_projector"}
    # In the last layer only keys and values of a picture are read, so nothing else of it learns there.
    still = {n.split(".")[-3] for n, v in model.state_dict().items() if "lora_B" in n and not v.any()}
    assert still == {"self_attn_q_proj", "self_attn_o_proj", "mlp_gate_proj", "mlp_up_proj", "mlp_down_proj"}
    assert all(v.any() for n, v in model.state_dict().items() if "layers.0" in n and "lora_B" in n)
    again, processor_again = load(str(tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(again(**asked(processor_again, 0)).logits, text)
        shown = again(**asked(processor_again, 1)).logits
        torch.testing.assert_close(shown, model.eval()(**asked(processor, 1)).logits, rtol=1e-5, atol=1e-5)  # another kernel


def test_a_finished_stage_and_later_ones(tmp_path: Path) -> None:
    """What was trained comes back into a new model; a later stage trains the updates as a part, or everything with them."""
    model, processor = tiny()
    train_stage(model, processor, stage(), tmp_path / "one")
    other, _ = tiny()
    train_stage(other, processor, stage(), tmp_path / "one")
    given = asked(processor, 1)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(**given).logits, model.eval()(**given).logits, rtol=1e-5, atol=1e-5)
    result = train_stage(other, processor, stage(tuner=None, train=["partial_lora"]), tmp_path / "two")
    assert result.trainable == {"partial_lora": UPDATES}
    result = train_stage(other, processor, stage(), tmp_path / "three")
    assert result.trainable["tuner"] > UPDATES
    result = train_stage(other, processor, stage(tuner={"lora": {"r": 2}}), tmp_path / "four")
    assert not any("lora_A.default" in name for name in other.state_dict())
    with torch.no_grad():
        found = load(str(tmp_path / "four" / "model"))[0](**given).logits
        torch.testing.assert_close(found, other.eval()(**given).logits, rtol=1e-5, atol=1e-5)


def test_a_stopped_stage_goes_on(tmp_path: Path) -> None:
    model, processor = tiny()
    train_stage(model, processor, stage(steps=4), tmp_path / "whole")

    def stop(step: int) -> None:
        if step == 3:  # behind the checkpoint of step 2
            raise KeyboardInterrupt

    for on_step in (stop, None):
        again, _ = tiny()
        try:
            train_stage(again, processor, stage(steps=4), tmp_path / "parts", on_step=on_step)
        except KeyboardInterrupt:
            continue
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_batches_without_pictures_train(tmp_path: Path) -> None:
    """Nothing learns from text, and nothing breaks: the gradient of every update is 0."""
    model, processor = tiny()
    tuner = {"partial_lora": {"r": 2}}
    train_stage(model, processor, stage(tuner=tuner, objective={"sft": {"pictures": False}}), tmp_path)
    assert not any(v.any() for n, v in model.state_dict().items() if "lora_B" in n)
