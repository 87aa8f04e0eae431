"""What a model of tiny-vlm's shape has learned after equal steps and after equal time with AdamW and with Muon.

    python benchmarks/optimizers.py

Both train the first stage of recipes/reference/tiny-vlm.yaml (a new language model learns about pictures of one thing) at the
same learning rate, on the same pictures. Printed: mean loss and share of answer tokens that are right over the last tenth of the
steps, and the seconds each took; `Muon needs` is the share of AdamW's steps, and of its time, after which Muon's loss is as low.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from argus.core.environment import environment
from argus.model.compose import compose
from argus.training.options import StageOptions
from argus.training.stage import TrainResult, train_stage

RECIPE = Path(__file__).parents[1] / "recipes" / "reference" / "tiny-vlm.yaml"


def train(recipe: dict[str, Any], name: str, steps: int) -> TrainResult:
    """The first stage with one optimiser, on new weights."""
    from transformers import set_seed

    set_seed(0)
    model, processor = compose(recipe["model"]["compose"])
    stage = next(iter(recipe["stages"].values()))
    given = {**stage, "optimizer": name, "steps": steps, "log_every": max(1, steps // 20), "save_every": steps}
    with tempfile.TemporaryDirectory() as folder:
        return train_stage(model, processor, StageOptions.model_validate(given), Path(folder))


def main() -> None:
    """Train twice, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    results = {name: train(recipe, name, arguments.steps) for name in ("adamw", "muon")}
    found: dict[str, Any] = {
        name: {
            "loss": round(sum(e["loss"] for e in r.log[-2:]) / 2, 3),
            "right": round(sum(e["token_accuracy"] for e in r.log[-2:]) / 2, 3),
            "seconds": round(r.seconds, 1),
        }
        for name, r in results.items()
    }
    reached = next((e["step"] for e in results["muon"].log if e["loss"] <= found["adamw"]["loss"]), None)
    if reached:
        pace = results["muon"].seconds / results["adamw"].seconds
        share = reached / arguments.steps
        found["Muon needs"] = {"steps": round(share, 2), "time": round(share * pace, 2)}
    ours = environment()
    print(json.dumps({**found, "commit": ours["commit"], "machine": ours["machine"]}, indent=1))


if __name__ == "__main__":
    main()
