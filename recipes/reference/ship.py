"""Ship a trained reference model with the package, with what it scores.

    argus run recipes/reference/tiny-vlm.yaml
    python recipes/reference/ship.py runs/tiny-vlm/<time>/stages/tiny_vlm/all/model tiny-vlm

Weights are stored in bfloat16. `scores.json` holds the accuracy on unseen scenes of every domain, with its 95 % interval,
beside the same questions asked without pictures and beside chance; of a vision tower, the share of patches that its heads
name; of a language model, how it answers about scenes in words.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from argus.core.environment import environment
from argus.core.registry import build, components
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.model.dual_encoder import DualEncoder
from argus.model.image_processor import normalise
from argus.model.load import load

REFERENCE = Path(__file__).parents[2] / "src" / "argus" / "reference"


def main() -> None:
    """Convert, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the trained model")
    parser.add_argument("name", help="its name behind argus/")
    parser.add_argument("--questions", type=int, default=2000, help="questions per domain")
    arguments = parser.parse_args()
    model, processor = load(str(arguments.model), device="cpu")
    folder = REFERENCE / arguments.name
    for part in (model.config, *(getattr(model.config, name, None) for name in model.config.sub_configs)):
        if part is not None:
            part._name_or_path = ""  # where it was trained is nobody's business
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    shipped, processor = load(str(folder), device="cpu")
    if isinstance(shipped, DualEncoder):
        scores = probe(shipped, arguments.questions)
    elif hasattr(shipped.config, "image_token_id"):
        scores = answers(shipped, processor, arguments.questions)
    else:
        scores = reading(shipped, processor, arguments.questions)
    found = environment()
    command = f"python recipes/reference/ship.py MODEL {arguments.name} --questions {arguments.questions}"
    scores["measured"] = {"command": command, "commit": found["commit"], "machine": found["machine"]}
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=1))


def answers(model: Any, processor: Any, questions: int) -> dict[str, Any]:
    """Accuracy by likelihood per domain, overall and per family, with the blind baseline."""
    found: dict[str, Any] = {}
    for row in components("domain"):
        scenario = {f"world/{row.name}": {"questions": 8}}
        result = evaluate(model, processor, EvaluationOptions(scenario=scenario, samples=questions, blind=True))
        accuracy = {group: m for group, m in result.measurements["accuracy"].items() if m.n}
        if not accuracy:  # its questions are asked in another way
            continue
        found[row.name] = {
            group: {"value": round(m.value, 4), "low": round(m.low, 4), "high": round(m.high, 4), "n": m.n}
            for group, m in accuracy.items()
        }
        found[row.name]["chance"] = {group: round(value, 4) for group, value in result.chance.items() if value}
    return found


def reading(model: Any, tokenizer: Any, questions: int) -> dict[str, Any]:
    """Loss and accuracy per answer token on described scenes of the test split."""
    objective = build("objective", "language", {"answers_only": True})
    objective.bind(model, tokenizer)
    found: dict[str, Any] = {}
    for row in components("domain"):
        domain = build("domain", row.name)
        items = [(domain.draw("test", index, 64, 8), domain) for index in range(max(1, questions // 8))]
        losses, shares = [], []
        for start in range(0, len(items), 16):
            with torch.inference_mode():
                loss, parts = objective.loss(model, objective.collate(items[start : start + 16]))
            losses.append(float(loss))
            shares.append(float(parts["token_accuracy"]))
        found[row.name] = {"loss": round(sum(losses) / len(losses), 4), "tokens": round(sum(shares) / len(shares), 4)}
    return {"answers to described scenes": found}


def probe(model: DualEncoder, scenes: int) -> dict[str, Any]:
    """Share of patches with something on them whose attribute the dense heads name, on unseen scenes of all domains."""
    right: dict[str, list[int]] = {}
    vision = model.config.vision_config
    for row in components("domain"):
        domain = build("domain", row.name)
        for index in range(scenes // 8):
            drawing = domain.draw("test", index, vision.image_size, 0)
            with torch.inference_mode():
                output = model(normalise(drawing.pixels[None], vision.image_mean, vision.image_std))
            truth = domain.dense(drawing.scene, vision.image_size // vision.patch_size)
            for head, logits in output.dense_logits.items():
                target = torch.from_numpy(truth[head]).flatten()
                shown = target > 0
                tally = right.setdefault(head, [0, 0])
                tally[0] += int((logits[0].argmax(-1)[shown] == target[shown]).sum())
                tally[1] += int(shown.sum())
    return {"patches": {head: round(a / b, 4) for head, (a, b) in right.items() if b}}


if __name__ == "__main__":
    main()
