"""A recipe is checked before anything runs, and an error says where and what the nearest right thing is."""

from pathlib import Path

import pytest

from argus.core.errors import RecipeError
from argus.core.recipe import dump, find_recipe, load_recipe

GOOD = """
name: A test
model: {from: argus/tiny-vlm}
stages:
  tune:
    objective: sft
    steps: 500
variants:
  full: {}
  half:
    attach: {fastervlm: {keep: 0.5}}
  trained:
    train: [tune]
evaluate:
  - {scenario: world/objects, samples: 2000, metrics: [accuracy]}
claims:
  - half.accuracy >= 0.9 * full.accuracy
"""


def written(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_good_recipe_round_trips(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD)).recipe
    again = load_recipe(written(tmp_path, dump(recipe), "again.yaml")).recipe
    assert again == recipe
    assert again.digest() == recipe.digest()


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("variants:", "varaints:", 8, "unknown option 'varaints'. Did you mean 'variants'"),
        ("train: [tune]", "train: [tnue]", 13, "Did you mean 'tune'"),
        ("half.accuracy >=", "hlaf.accuracy >=", 17, "Did you mean 'half'"),
        ("half.accuracy >= 0.9", "half.accuracy >= 0.9 )", 17, "not expected"),
        ("{from: argus/tiny-vlm}", "{form: argus/tiny-vlm}", 3, "unknown option 'model.form'. Did you mean 'from'"),
        ("steps: 500", "steps: 500\n    steps: 600", 8, "stands here twice"),
        ("name: A test", "name: [", 4, "not valid YAML"),
        ("claims:", "claims: 3\nquick:", 16, "list"),
    ],
)
def test_errors_name_file_line_and_the_nearest_name(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert f"r.yaml:{line}" in (caught.value.where or "")


def test_overrides_reach_everything(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    recipe = load_recipe(
        path, ["evaluate.0.samples=10", "variants.half.attach.fastervlm.keep=0.1", "model.from=some/model"]
    ).recipe
    assert recipe.evaluate[0]["samples"] == 10
    assert recipe.variants["half"].attach["fastervlm"]["keep"] == 0.1
    assert recipe.model.reference == "some/model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("evalaute.0.samples=1", "Did you mean 'evaluate'"),
        ("evaluate.3.samples=1", "entries 0 to 0"),
        ("name", "key=value"),
        ("name.x=1", "single value"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, GOOD), [change])


def test_quick_shrinks_samples_and_steps(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD), quick=True).recipe
    assert recipe.evaluate[0]["samples"] == 64
    assert recipe.stages["tune"]["steps"] == 20


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  tune:\n    objective: sft\n    steps: 500\n", "  - tune\n", 4, "'stages': Input should be a valid dict"),
        ("  - {scenario: world/objects, samples: 2000, metrics: [accuracy]}", "  world/objects", 14, "valid list"),
        ("variants:", "variants: 3\nquick:", 8, "'variants': Input should be a valid dict"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_wrong_types_are_errors_with_their_line(tmp_path: Path, old: str, new: str, line: int, message: str, quick: bool) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(written(tmp_path, GOOD.replace(old, new)), quick=quick)
    assert caught.value.where == f"{tmp_path / 'r.yaml'}:{line}"


def test_a_quick_run_leaves_what_is_no_number_to_the_check(tmp_path: Path) -> None:
    text = GOOD.replace("samples: 2000", "samples: many").replace("steps: 500", "steps: few")
    recipe = load_recipe(written(tmp_path, text), quick=True).recipe
    assert (recipe.evaluate[0]["samples"], recipe.stages["tune"]["steps"]) == ("many", "few")


def test_a_missing_base_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"r\.yaml:2: there is no recipe 'quickstrat'\. Did you mean 'quickstart'"):
        load_recipe(written(tmp_path, "name: a\nextends: quickstrat\n"))


def test_extends_merges_key_by_key(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "base.yaml")
    path = written(tmp_path, "extends: base.yaml\nname: Another\nvariants:\n  half: {attach: {fastervlm: {keep: 0.25}}}\n")
    recipe = load_recipe(path).recipe
    assert recipe.name == "Another"
    assert recipe.variants["half"].attach == {"fastervlm": {"keep": 0.25}}
    assert set(recipe.variants) == {"full", "half", "trained"}


def test_a_circle_of_extends_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "extends: b.yaml\nname: a\n", "a.yaml")
    written(tmp_path, "extends: a.yaml\nname: b\n", "b.yaml")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(tmp_path / "a.yaml")


def test_a_stage_may_live_in_a_file_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, "objective: sft\nsteps: 7\n", "tune.yaml")
    text = GOOD.replace("  tune:\n    objective: sft\n    steps: 500\n", "  tune: tune.yaml\n")
    assert load_recipe(written(tmp_path, text)).recipe.stages["tune"] == {"objective": "sft", "steps": 7}


def test_recipes_share_stages_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes" / "stages").mkdir(parents=True)
    written(tmp_path / "recipes" / "stages", "objective: sft\nsteps: 7\n", "short.yaml")
    shared = GOOD.replace("  tune:\n    objective: sft\n    steps: 500\n", "  tune: short\n")
    assert load_recipe(written(tmp_path, shared)).recipe.stages["tune"] == {"objective": "sft", "steps": 7}
    with pytest.raises(RecipeError, match=r"r\.yaml:5: there is no stage 'shrot'\. Did you mean 'short'"):
        load_recipe(written(tmp_path, shared.replace("tune: short", "tune: shrot")))


def test_a_missing_recipe_gives_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        find_recipe("no-such-recipe-at-all")


def test_no_python_objects_in_yaml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        load_recipe(written(tmp_path, "name: !!python/object/apply:os.system ['true']\nmodel: {from: x}\n"))


def test_a_variant_may_change_the_model_line(tmp_path: Path) -> None:
    text = GOOD.replace("  full: {}", "  full: {}\n  other: {model: {from: argus/tiny-clip}}")
    recipe = load_recipe(written(tmp_path, text)).recipe
    assert recipe.variant_model("other").reference == "argus/tiny-clip"
    assert recipe.variant_model("full").reference == "argus/tiny-vlm"


def test_a_variant_with_another_connector_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "name: r\nmodel: {compose: {language_model: argus/tiny-lm, connector: {mlp: {hidden: 8}}, view: square}}\n"
        "variants:\n"
        "  other: {model: {compose: {connector: {linear: {}}}}}\n"
        "  wider: {model: {compose: {connector: {mlp: {hidden: 16}}}}}\n"
        "  tiled: {model: {compose: {view: {internvl: {}}}}}\n"
    )
    recipe = load_recipe(file).recipe
    parts = {name: recipe.variant_model(name).compose or {} for name in recipe.variants}
    assert parts["other"]["connector"] == {"linear": {}}
    assert parts["wider"]["connector"] == {"mlp": {"hidden": 16}}
    assert parts["tiled"] == {"language_model": "argus/tiny-lm", "connector": {"mlp": {"hidden": 8}}, "view": {"internvl": {}}}
