"""TinyGPT-V's stages: exactly which weights learn in each, and what stays as it is while they do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from argus.core.errors import RecipeError
from argus.core.recipe import load_recipe
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.processor import processor_for
from argus.training.options import StageOptions
from argus.training.parts import set_trainable
from argus.training.stage import train_stage
from argus.training.tuners.lora import LoRA, LoRAOptions
from tests.model.backbones.test_attention_norms import PHI
from tests.model.connectors.test_qformer import SIZES
from tests.model.tiny import LANGUAGE, TOWERS, tokenizer

MATRICES = ["project", "project_2"]
INSIDE = ["q_head_norm", "k_head_norm", "out_norm"]
OWN = ["input_layernorm", "final_layernorm"]
LORA = {"r": 64, "alpha": 16, "dropout": 0.05, "targets": ["q_proj", "k_proj", "v_proj", "dense"]}
DATA = {"world": {"objects": 1.0}, "size": 32, "questions": 2, "families": ["colour"]}
BASE = {"objective": "sft", "data": DATA, "steps": 2, "batch_size": 2, "log_every": 1, "precision": "fp32"}


def tinygpt_v(tower: str = "clip", language: Any = PHI) -> tuple[ArgusForConditionalGeneration, Any]:
    words = tokenizer()
    torch.manual_seed(0)
    config = ArgusConfig(
        TOWERS[tower].to_dict(),
        {**language, "vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        connector={"qformer": {**SIZES, "through": 40, "dropout": 0.5}},
        backbone={"attention_norms": {}},
        image_token_id=3,
    )
    model = ArgusForConditionalGeneration(config)
    return model, processor_for(model.model, words)


def names(model: torch.nn.Module) -> set[str]:
    return {
        n.removeprefix("base_model.model.model.").removeprefix("model.") for n, p in model.named_parameters() if p.requires_grad
    }


def plain_names(model: torch.nn.Module) -> set[str]:
    """As `names`, whether a part is trained as it is or as the copy that peft makes of it."""
    return {name.replace("modules_to_save.default.", "") for name in names(model)}


NORMS = {
    *(f"multi_modal_projector.{m}.{kind}" for m in MATRICES for kind in ("weight", "bias")),
    *(
        f"attention_norms.norms.{i}.{n}.{kind}"
        for i in (0, 1)
        for n in ("q_head_norm", "k_head_norm")
        for kind in ("weight", "bias")
    ),
    *(f"attention_norms.norms.{i}.out_norm.weight" for i in (0, 1)),
    *(f"language_model.layers.{i}.input_layernorm.{kind}" for i in (0, 1) for kind in ("weight", "bias")),
    *(f"language_model.final_layernorm.{kind}" for kind in ("weight", "bias")),
}


def test_the_first_stage_trains_two_matrices_and_the_norms() -> None:
    model, _ = tinygpt_v()
    set_trainable(model, [*MATRICES, "attention_norms", *OWN])
    assert names(model) == NORMS


def test_later_stages_add_lora_on_attention() -> None:
    model, _ = tinygpt_v()
    tuned = LoRA(LoRAOptions(**LORA, full=[*MATRICES, *INSIDE, *OWN])).apply(model)
    assert plain_names(tuned) == NORMS | updates(LORA["targets"])


def updates(targets: Any) -> set[str]:
    return {f"language_model.layers.{i}.self_attn.{m}.lora_{x}.default.weight" for i in (0, 1) for m in targets for x in "AB"}


def test_the_recipes_stages_train_the_norm_behind_all_blocks_and_no_norm_of_the_encoder() -> None:
    """The shipped language model calls its last norm `norm`, as the encoder does."""
    expected = {
        *(f"multi_modal_projector.{m}.{kind}" for m in MATRICES for kind in ("weight", "bias")),
        *(name for name in NORMS if name.startswith("attention_norms.")),
        *(f"language_model.layers.{i}.input_layernorm.weight" for i in (0, 1)),
        "language_model.norm.weight",
    }
    stages = load_recipe("tinygpt-v").recipe.stages
    model, _ = tinygpt_v("vit", LANGUAGE["llama"])
    set_trainable(model, stages["one"]["train"])
    assert names(model) == expected
    for stage in ("two", "three", "four", "at_once"):
        model, _ = tinygpt_v("vit", LANGUAGE["llama"])
        options = stages[stage]["tuner"]["lora"]
        assert plain_names(LoRA(LoRAOptions(**options)).apply(model)) == expected | updates(options["targets"])


def test_stages_follow_each_other_and_leave_a_plain_model(tmp_path: Path) -> None:
    """Encoder and Q-Former stay as they are, to the bit, and have no dropout while the rest trains."""
    model, processor = tinygpt_v()
    model.eval()  # as it is loaded
    before = {k: v.clone() for k, v in model.state_dict().items()}
    quiet: list[bool] = []
    model.model.multi_modal_projector.qformer.register_forward_pre_hook(lambda module, _: quiet.append(module.training))
    one = {**BASE, "train": [*MATRICES, "attention_norms", *OWN]}
    train_stage(model, processor, StageOptions.model_validate(one), tmp_path / "one")
    two = {**BASE, "tuner": {"lora": {**LORA, "full": [*MATRICES, *INSIDE, *OWN]}}}
    result = train_stage(model, processor, StageOptions.model_validate(two), tmp_path / "two")
    assert result.log[-1]["attention_logit"] > 0
    assert not any(quiet)
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path / "two" / "model")
    assert again.state_dict().keys() == before.keys()
    changed = {k.removeprefix("model.") for k, v in again.state_dict().items() if not torch.equal(v, before[k])}
    adapted = {f"language_model.layers.{i}.self_attn.{m}.weight" for i in (0, 1) for m in LORA["targets"]}  # type: ignore[attr-defined]
    assert adapted <= changed <= NORMS | adapted


def test_targets_that_are_not_there_are_named() -> None:
    model, _ = tinygpt_v()
    with pytest.raises(RecipeError, match="no part 'o_proj'"):
        LoRA(LoRAOptions(targets=["o_proj"])).apply(model)
