"""A finished run as a report sees it: a full model, two techniques at three budgets, two families of questions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from argus.core.claims import ClaimResult
from argus.evaluation.statistics import Measurement
from argus.report.overlay import lit
from argus.report.summary import Evaluated, Example, Reply, Result, Summary, Trained, Variant

GRID = (12, 12)
BUDGETS = (0.5, 0.25, 0.1)


def share(value: float, half: float = 0.02) -> Measurement:
    return Measurement(value, value - half, value + half, 1200, "share")


def cost(value: float, unit: str) -> Measurement:
    return Measurement(value, value * 0.98, value * 1.03, 16, unit)


def result(variant: str, accuracy: float, keep: float) -> Result:
    tokens = round(144 * keep)
    accuracy_of = {
        "all": share(accuracy),
        "colour": share(min(0.97, accuracy + 0.08), 0.03),
        "count": share(accuracy - 0.08, 0.04),
    }
    if variant == "full":
        accuracy_of["blind"] = share(0.28)
    kv = 1024.0 * (20 + tokens)
    return Result(
        variant,
        {
            "accuracy": accuracy_of,
            "prefill_flops": {"all": cost(2.4e6 * (20 + tokens), "FLOP"), "vision": cost(3e8, "FLOP")},
            "ttft_ms": {"all": cost(4 + 0.05 * tokens, "ms")},
            "kv_bytes": {"all": Measurement(kv, kv, kv, 16, "bytes")},
        },
    )


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    """The run's findings; its pictures lie in `tmp_path`."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(60, 220, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    (tmp_path / "pictures").mkdir()
    picture.resize((288, 288), Image.Resampling.NEAREST).save(tmp_path / "pictures" / "0.png")
    variants, results, replies = [Variant("full")], [result("full", 0.86, 1.0)], [Reply("full", "red", 1.0)]
    for technique, loss in (("fastervlm", 0.05), ("random", 0.22)):
        for keep in BUDGETS:
            name, count = f"{technique}_{round(100 * keep)}", round(144 * keep)
            variants.append(Variant(name, technique, f"{technique} (keep {keep})"))
            results.append(result(name, 0.86 - loss * (1 - keep) ** 2, keep))
            kept = np.sort(rng.permutation(144)[:count])
            lit(picture, kept, GRID, 3).save(tmp_path / "pictures" / f"0-{name}.png")
            right = technique == "fastervlm"
            replies.append(Reply(name, "red" if right else "blue", float(right), f"pictures/0-{name}.png", count, 144))
    evaluated = Evaluated(
        name="objects",
        title="world/objects",
        questions=1200,
        results=results,
        better={"accuracy": "higher", "prefill_flops": "lower", "ttft_ms": "lower", "kv_bytes": "lower"},
        set_aside={"has no options to choose from": 3},
        chance={"all": 0.27, "colour": 0.25, "count": 0.29},
        examples=[Example("objects/test/0/0", "Which colour is the star?", "red", "pictures/0.png", replies)],
    )
    claims = [
        ClaimResult("fastervlm_25.accuracy >= 0.95 * full.accuracy", True, "0.832 >= 0.817", margin=0.015),
        ClaimResult("random_25.accuracy >= 0.99 * full.accuracy", False, "0.736 >= 0.851", margin=-0.115),
        ClaimResult("fastv_25.accuracy >= 0.5", None, "fastv_25.accuracy >= 0.5", reason="not measured"),
    ]
    log = [{"step": s, "loss": 3 / (1 + s / 50), "token_accuracy": s / 250} for s in range(0, 201, 20)]
    return Summary(
        name="FasterVLM & random pruning <at three budgets>",
        model="argus/tiny-vlm",
        command="argus run recipes/papers/fastervlm.yaml",
        variants=variants,
        evaluated=[evaluated],
        claims=claims,
        trained=[Trained("full", "align", {"steps": "200", "pictures": "6,400"}, log)],
        paper="fastervlm",
        recipe="name: FasterVLM\n",
        finished="2026-01-02 03:04",
        seconds=185.0,
        environment={"argus": "0.1.0", "torch": "2.13.0", "processor": "2 cores"},
    )
