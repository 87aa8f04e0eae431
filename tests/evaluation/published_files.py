"""Item files and pictures as two benchmarks publish them, a few items of each kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "purple", "orange")
V1_TYPES = {"Scene Understanding": 1, "Text Understanding": 9, "Action Recognition": 10, "Action Prediction": 11}


def v1_item(name: str, dimension: int, answer: str = "A", **changes: Any) -> dict[str, Any]:
    """An item of SEED-Bench."""
    return {
        "answer": answer,
        "choice_a": "red",
        "choice_b": "green",
        "choice_c": "light blue",
        "choice_d": "a very dark yellow",
        "data_id": f"{name}.png",
        "data_type": "image" if dimension <= 9 else "video",
        "question": "Which colour is it?",
        "question_id": name,
        "question_type_id": dimension,
        **changes,
    }


def v2_item(name: str, answer: str = "A", files: int = 1, version: str = "v2", **changes: Any) -> dict[str, Any]:
    """An item of SEED-Bench-2; its dimension stands in its name."""
    dimension = int(name.partition("_")[0])
    return {
        **v1_item(name, dimension, answer),
        "data_id": [f"{COLOURS[i]}.png" for i in range(files)] if files > 1 else "red.png",
        "data_source": "cc3m" if version == "v1" else "SEED-Bench v2",
        "level": "L1" if dimension <= 22 else "L2" if dimension <= 24 else "L3",
        "version": version,
        **changes,
    }


def write_items(path: Path, items: list[dict[str, Any]]) -> Path:
    """One item per line, the first on line 2."""
    lines = ",\n".join(json.dumps(item) for item in items)
    path.write_text('{"questions": [\n' + lines + f'\n],\n"question_type": {json.dumps(V1_TYPES)}}}\n')
    return path


def seed_bench(folder: Path, items: list[dict[str, Any]] | None = None) -> Path:
    """A download of SEED-Bench with two items in each picture dimension."""
    items = items or [v1_item(f"{d}{i}", d, "ABCD"[(d + i) % 4]) for d in range(1, 10) for i in range(2)]
    (folder / "SEED-Bench-image").mkdir(parents=True)
    for n, item in enumerate(items):
        if item["data_type"] == "image" and isinstance(item.get("data_id"), str):
            Image.new("RGB", (32, 32), COLOURS[n % 8]).save(folder / "SEED-Bench-image" / item["data_id"])
    return write_items(folder / "SEED-Bench.json", items)


def v2_items() -> list[dict[str, Any]]:
    """One item in each of the 27 dimensions; the first nine are inherited."""
    files = {17: 2, 18: 3, 19: 8, 20: 8, 21: 8, 22: 8, 23: 3, 24: 2, 25: 4, 26: 7, 27: 4}
    items = [v2_item(f"{d}_0", files=files.get(d, 1), version="v1" if d <= 9 else "v2") for d in range(1, 28)]
    items[22]["question"] = "<img>: The shirt is blue. <img>: The hat is red. <img>:"
    items[23]["question"] = "<img> was first, then <img>. What changed?"
    return items


def seed_bench_2(folder: Path, items: list[dict[str, Any]] | None = None) -> Path:
    """A download of SEED-Bench-2."""
    for root in ("cc3m-image", "SEED-Bench-2-image"):
        (folder / root).mkdir(parents=True)
        for colour in COLOURS:
            Image.new("RGB", (32, 32), colour).save(folder / root / f"{colour}.png")
    return write_items(folder / "SEED-Bench_v2_level1_2_3.json", items or v2_items())
