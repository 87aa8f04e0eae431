"""Milliseconds per picture of the encoders, and what re-parameterisation saves.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --side 512 --variant HD --batch 1

A FastViTHD is timed in its training form and folded into single convolutions, in turns so that both see the same machine; the
ratio of the medians is what re-parameterisation saves. Then the encoders of about equal size at their own token counts.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from argus.core.environment import environment
from argus.core.registry import build
from argus.model.encoders.base import build_tower

ENCODERS: dict[str, dict[str, Any]] = {
    "vit": {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512, "patch_size": 16},
    "vitamin": {"variant": "tiny"},
    "fastvit_hd": {"variant": "tiny"},
}


def tower(name: str, options: Mapping[str, Any], side: int) -> Any:
    """An encoder with new weights for pictures of this side."""
    torch.manual_seed(0)
    return build_tower(build("encoder", name, {**options, "image_size": side}).config()).eval()


@torch.inference_mode()
def medians(towers: Mapping[str, Callable[[Tensor], Any]], pixels: Tensor, repeats: int) -> dict[str, float]:
    """Median milliseconds per picture of each tower, timed in turns after two runs that warm up."""
    times: dict[str, list[float]] = {name: [] for name in towers}
    for turn in range(repeats + 2):
        for name, encode in towers.items():
            start = time.perf_counter()
            encode(pixels)
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start) / len(pixels))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="side of the pictures in pixels, a multiple of 64")
    parser.add_argument("--batch", type=int, default=4, help="pictures per call")
    parser.add_argument("--repeats", type=int, default=15, help="measured calls of each")
    parser.add_argument("--variant", default="tiny", help="size of the FastViTHD: tiny or HD")
    a = parser.parse_args()
    pixels = torch.rand(a.batch, 3, a.side, a.side)
    trained = tower("fastvit_hd", {"variant": a.variant}, a.side)
    folded = copy.deepcopy(trained)
    folded.reparameterise()
    with torch.inference_mode():
        difference = float((trained(pixels).tokens - folded(pixels).tokens).abs().max())
    forms = medians({"training form": trained, "re-parameterised": folded}, pixels, a.repeats)
    ratio = forms["training form"] / forms["re-parameterised"]
    for name, milliseconds in forms.items():
        print(f"fastvit_hd {a.variant}, {name:17} {milliseconds:8.2f} ms/picture")
    print(f"training form / re-parameterised = {ratio:.2f}, largest difference of a feature {difference:.1e}")
    towers = {name: tower(name, options, a.side) for name, options in ENCODERS.items()}
    towers["fastvit_hd"].reparameterise()
    found = medians(towers, pixels, a.repeats)
    for name, one in towers.items():
        size, tokens = sum(p.numel() for p in one.parameters()) / 1e6, (a.side // one.patch_size) ** 2
        print(f"{name:10} {size:5.2f} M parameters {tokens:5} tokens {found[name]:8.2f} ms/picture at {a.side} px")
    kept = {key: environment()[key] for key in ("machine", "commit", "threads")}
    print(json.dumps({"forms": forms, "ratio": ratio, "encoders": found, **kept}))


if __name__ == "__main__":
    main()
