"""Time from a picture to normalised tiles, beside transformers' Pillow processors.

    python benchmarks/views.py

One 4K picture, one core, CPU milliseconds (the best of several runs, taken in turns). Where transformers has the same view, the
largest and the mean difference of their pixels are given, in steps of 255.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from argus.model.processor import ArgusImageProcessor

VIEWS: dict[str, tuple[int, dict[str, Any]]] = {
    "internvl": (448, {"max_tiles": 12}),
    "anyres": (336, {}),
    "nvlm": (448, {}),
    "4khd": (336, {"hd_num": 25}),
    "ferret_ui": (336, {}),
}


def transformers_processor(view: str, size: int) -> Any:
    """The published processor of a view; None where transformers has none."""
    square = {"height": size, "width": size}
    if view == "internvl":
        return GotOcr2ImageProcessorPil(size=square, crop_to_patches=True, max_patches=12)
    if view == "anyres":
        return LlavaNextImageProcessorPil(size={"shortest_edge": size}, crop_size=square)
    return None


def measure(width: int, height: int, rounds: int) -> dict[str, dict[str, float]]:
    """View -> milliseconds, ratio and difference."""
    torch.set_num_threads(1)
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    found = {}
    for view, (size, options) in VIEWS.items():
        theirs = transformers_processor(view, size)
        ours = ArgusImageProcessor(size, 14, {view: options})
        if theirs is not None:
            ours.image_mean, ours.image_std = theirs.image_mean, theirs.image_std
        ways: dict[str, Callable[[], Any]] = {"argus_ms": partial(ours, [picture])}
        if theirs is not None:
            ways["transformers_ms"] = partial(theirs, picture, return_tensors="pt")
        outputs = {name: way()["pixel_values"] for name, way in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.process_time()
                way()
                times[name].append(1000 * (time.process_time() - start))
        row = {"tiles": float(len(outputs["argus_ms"])), **{name: round(min(t), 1) for name, t in times.items()}}
        if theirs is not None:
            row["times_as_fast"] = round(row["transformers_ms"] / row["argus_ms"], 2)
            steps = 255 * float(np.mean(ours.image_std))
            difference = (outputs["argus_ms"] - outputs["transformers_ms"].flatten(0, -4)).abs() * steps
            row.update(off_by=round(float(difference.max()), 2), off_by_mean=round(float(difference.mean()), 4))
        found[view] = row
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.width, arguments.height, arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
