"""A recipe is refused as a whole, with file and line, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from argus.core.errors import ArgusError
from argus.runner.plan import plan
from tests.model.seq2seq import composed, saved

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fastervlm: {attach: {fastervlm:",
            "fastervlm: {attach: {fastervml:",
            r"tiny\.yaml:5: .*unknown technique 'fastervml'.*'fastervlm'",
        ),
        ("{keep: 0.25}", "{keep: 1.5}", r"tiny\.yaml:5: .*option 'keep'.*less than or equal to 1, got 1\.5"),
        ("{keep: 0.25}", "{kep: 0.25}", r"tiny\.yaml:5: .*unknown option 'kep'.*Did you mean 'keep'"),
        ("world/objects", "world/objets", r"tiny\.yaml:8: .*unknown domain 'objets'.*Did you mean 'objects'"),
        ("colour, count", "colour, cuont", r"tiny\.yaml:8: .*no question family 'cuont'.*Did you mean 'count'"),
        ("samples: 48", "samples: many", r"tiny\.yaml:9: .*option 'samples'.*valid integer.*got 'many'"),
        ("samples: 48", "sample: 48", r"tiny\.yaml:9: .*unknown option 'sample'.*Did you mean 'samples'"),
        ("[accuracy,", "[acuracy,", r"tiny\.yaml:13: .*unknown metric 'acuracy'.*Did you mean 'accuracy'"),
        ("full: {}", "full: {train: [align]}", r"tiny\.yaml:4: .*trains stage 'align', which is not there"),
        ("fastv.prefill", "fastw.prefill", r"tiny\.yaml:16: .*variant 'fastw'.*Did you mean 'fastv'"),
        ("fastv.prefill_flops", "fastv.ttft_ms", r"tiny\.yaml:16: .*'fastv\.ttft_ms', which will not be measured"),
        ("== 4", "= = 4", r"tiny\.yaml:15: .*claim"),
        ("full: {}", "full: {model: {form: x}}", r"tiny\.yaml:4: .*unknown option 'form'"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(recipe: Write, old: str, new: str, message: str) -> None:
    with pytest.raises(ArgusError, match=message):
        plan(recipe((old, new)))


def test_a_missing_model_folder_is_named_before_anything_runs(recipe: Write, model: Path) -> None:
    with pytest.raises(ArgusError, match=r"tiny\.yaml:2: there is no model folder '.*-gone'"):
        plan(recipe((str(model), f"{model}-gone")))


def test_models_that_a_composed_one_is_made_of_are_looked_for_too(recipe: Write, model: Path) -> None:
    parts = "{compose: {language_model: argus/tiny-llm, encoder: {vit: {}}}}"
    with pytest.raises(ArgusError, match=r"tiny\.yaml:2: there is no shipped model 'argus/tiny-llm'"):
        plan(recipe((f"{{from: {model}}}", parts)))


def test_a_recipe_without_work_is_refused(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "idle.yaml"
    file.write_text(f"name: Idle\nmodel: {{from: {model}}}\n")
    with pytest.raises(ArgusError, match="nothing to do"):
        plan(file)


STAGE = """\
stages:
  tune: {{objective: {objective}, data: {{world: {{objects: 1.0}}, size: 32}}, steps: 2{more}}}
variants:
  full: {{train: [tune]}}
"""


def test_claims_about_training_name_a_stage_of_the_variant(recipe: Write) -> None:
    stages = ("variants:\n  full: {}\n", STAGE.format(objective="sft", more=""))
    claim = "full.accuracy[colour] >= 0"
    assert plan(recipe(stages, (claim, "full.tune.loss < 9"))).recipe.claims[-1] == "full.tune.loss < 9"
    with pytest.raises(ArgusError, match=r"'fastv\.tune\.loss', which will not be measured"):
        plan(recipe(stages, (claim, "fastv.tune.loss < 9")))


@pytest.mark.parametrize(
    ("objective", "more", "message"),
    [
        ("sftt", "", r"tiny\.yaml:4: .*unknown objective 'sftt'.*Did you mean 'sft'"),
        ("{sft: {wrong: 1}}", "", r"tiny\.yaml:4: .*unknown option 'wrong'"),
        ("sft", ", batch: 3", r"tiny\.yaml:4: .*unknown option 'batch'.*Did you mean 'batch_size'"),
        ("sft", ", tuner: {lora: {r: 0}}", r"tiny\.yaml:4: .*option 'r'"),
    ],
)
def test_stages_are_checked_too(recipe: Write, objective: str, more: str, message: str) -> None:
    file = recipe(("variants:\n  full: {}\n", STAGE.format(objective=objective, more=more)))
    with pytest.raises(ArgusError, match=message):
        plan(file)


def test_evaluations_get_the_names_that_claims_use(recipe: Write) -> None:
    second = "  - {scenario: world/objects, instruction: options, metrics: [accuracy]}\nclaims:"
    file = recipe(("claims:", second), ("full.accuracy[colour]", "full.objects_2.accuracy[colour]"))
    made = plan(file)
    assert list(made.evaluations) == ["objects", "objects_2"]
    with pytest.raises(ArgusError, match=r"'full\.accuracy', which will not be measured"):  # two evaluations measure it
        plan(file, ["claims.2=full.accuracy > 0"])


def test_a_variant_asked_through_another_view_is_checked(recipe: Write, model: Path) -> None:
    parts = "compose: {language_model: argus/tiny-vlm, encoder: argus/tiny-clip, view: 4khd}"
    changed = [(f"from: {model}", parts), ("full: {}", "full: {ask: {view: {hd_num: 9}}}")]
    made = plan(recipe(*changed))
    assert made.options("full", "objects").view == {"hd_num": 9}
    assert made.options("fastervlm", "objects").view == {}
    assert made.base("full") == made.base("fastervlm")  # one trained model
    with pytest.raises(ArgusError, match=r"unknown option 'hdnum'.*'hd_num'"):
        plan(recipe(*changed, ("hd_num: 9", "hdnum: 9")))


def test_variants_on_the_same_model_share_one_copy(recipe: Write) -> None:
    made = plan(recipe(("fastv: {attach", "fastv: {seed: 1, attach")))
    assert made.base("full") == made.base("fastervlm") != made.base("fastv")


def test_the_direction_of_a_metric_follows_from_its_kind(recipe: Write) -> None:
    made = plan(recipe(("visual_tokens]", "visual_tokens, decode_tokens_per_s]")))
    better = {"accuracy": "higher", "prefill_flops": "lower", "visual_tokens": "lower", "decode_tokens_per_s": "higher"}
    assert made.better == better


def test_what_acts_in_a_decoder_is_refused_where_an_encoder_reads_prompts(recipe: Write, model: Path, tmp_path: Path) -> None:
    """A folder of the T5 family, new weights of one, and a model that was composed of one: known without loading any of them."""
    parts = "{{language_model: {0}, encoder: {{vit: {{}}}}{1}}}"
    new = "{causal_lm: {model_type: t5, d_model: 16}, tokenizer: " + str(model) + "}"
    folder = saved(tmp_path)
    asked = ("[accuracy, prefill_flops, visual_tokens]", "[accuracy]")
    bare = ("  fastervlm: {attach: {fastervlm: {keep: 0.25}}}\n  fastv: {attach: {fastv: {keep: 0.25, layer: 1}}}\n", "")
    claims = ("  - fastervlm.visual_tokens == 4\n  - fastv.prefill_flops < full.prefill_flops\n", "")
    for given in (folder, new):
        line = (f"from: {model}", "compose: " + parts.format(given, ""))
        assert plan(recipe(line, asked, bare, claims)).models["full"].compose
        with pytest.raises(ArgusError, match=r"tiny\.yaml:\d+: .*fastervlm: the language model reads prompts with an encoder"):
            plan(recipe(line, asked, claims))
        with pytest.raises(ArgusError, match="prefill_flops, visual_tokens: the language model reads"):
            plan(recipe(line, bare, claims))
        with pytest.raises(ArgusError, match="attention_norms: the language model reads"):
            plan(recipe((line[0], "compose: " + parts.format(given, ", backbone: attention_norms")), asked, bare, claims))
    made, processor = composed(tmp_path)
    made.save_pretrained(tmp_path / "made")
    processor.save_pretrained(tmp_path / "made")
    with pytest.raises(ArgusError, match="fastervlm: the language model reads"):
        plan(recipe((str(model), str(tmp_path / "made")), asked, claims))
