"""Milliseconds of the connectors on one batch of features, and beside a loop over tokens where there is an obvious one.

    python benchmarks/connectors.py
    python benchmarks/connectors.py --side 24 --width 1024 --text 4096 --batch 4

Each connector reads the same patches and makes visual tokens of them. Three of them move patches about - blocks side by side,
blocks averaged, a block per coarse token - which no connector does patch by patch; the loop that would is timed beside it, its
result is compared, and the ratio of the medians is what indexing all of them at once saves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from argus.core.environment import environment
from argus.core.registry import build
from argus.model.features import VisualFeatures

CONNECTORS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {},
    "mqt": {"max_tokens": 36},
    "ovis": {"vocabulary": 4096, "framed": False},
    "pixel_shuffle": {},
    "pool": {"side": 6},
    "qformer": {"queries": 36, "width": 192, "layers": 4, "heads": 3, "hidden": 384, "through": None},
    "tokenpacker": {"levels": (1, 2, 3)},
}


def blocks(tokens: Tensor, grid: tuple[int, int], side: int) -> list[list[Tensor]]:
    """Patches (B, s s, C) of each block in raster order, one patch after another."""
    found = []
    for row in range(0, grid[0], side):
        for column in range(0, grid[1], side):
            cells = [(row + i) * grid[1] + column + j for i in range(side) for j in range(side)]
            found.append([tokens[:, cell] for cell in cells])
    return found


def shuffled(connector: Any, seen: VisualFeatures) -> Tensor:
    """Pixel shuffle block by block."""
    joined = torch.stack([torch.cat(block, -1) for block in blocks(seen.tokens, seen.grid, connector.options.factor)], 1)
    hidden = torch.nn.functional.gelu(connector.linear_1(connector.norm(joined)))
    return connector.linear_2(hidden)


def pooled(connector: Any, seen: VisualFeatures) -> Tensor:
    """The pool-adapter block by block."""
    side = seen.grid[0] // connector.options.side
    means = torch.stack([torch.stack(block).mean(0) for block in blocks(seen.tokens, seen.grid, side)], 1)
    return connector.linear_2(torch.nn.functional.gelu(connector.linear_1(means)))


def packed(connector: Any, seen: VisualFeatures) -> Tensor:
    """TokenPacker with one attention per coarse token."""
    fine = connector.level_states(seen)
    query = connector.ln_q(connector.q_proj(connector.coarse(seen)))
    key, value = connector.ln_k(connector.k_proj(fine)), connector.ln_v(connector.v_proj(fine))
    side, out = connector.options.scale_factor, []
    pairs = zip(blocks(key, seen.grid, side), blocks(value, seen.grid, side), strict=True)
    for number, (keys, values) in enumerate(pairs):
        one, _ = connector.attn(query[:, number : number + 1], torch.stack(keys, 1), torch.stack(values, 1), need_weights=False)
        out.append(one)
    return connector.mlp(torch.cat(out, 1))


LOOPS = {"pixel_shuffle": shuffled, "pool": pooled, "tokenpacker": packed}


@torch.inference_mode()
def medians(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call, timed in turns after two runs that warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure every connector, and the loops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=12, help="patches per side, a multiple of 6")
    parser.add_argument("--width", type=int, default=192, help="width of the features, a multiple of 64")
    parser.add_argument("--text", type=int, default=192, help="width of the language model")
    parser.add_argument("--batch", type=int, default=16, help="tiles per call")
    parser.add_argument("--repeats", type=int, default=15, help="measured calls of each")
    a = parser.parse_args()
    torch.manual_seed(0)
    states = tuple(torch.randn(a.batch, a.side**2, a.width) for _ in range(5))
    seen = VisualFeatures(states[-2], (a.side, a.side), hidden_states=states)
    made = {
        name: build("connector", name, options, vision_width=a.width, text_width=a.text).eval()
        for name, options in CONNECTORS.items()
    }
    found = medians({name: lambda part=part: part(seen) for name, part in made.items()}, a.repeats)
    for name, part in made.items():
        rows, columns = part.tokens(seen.grid)
        size = sum(p.numel() for p in part.parameters()) / 1e6
        print(f"{name:14} {size:7.2f} M parameters {rows * columns:5} tokens {found[name]:9.2f} ms for {a.batch} tiles")
    ratios = {}
    for name, loop in LOOPS.items():
        with torch.inference_mode():
            difference = float((loop(made[name], seen) - made[name](seen)).abs().max())
        both = medians(
            {"all at once": lambda name=name: made[name](seen), "loop": lambda name=name: LOOPS[name](made[name], seen)},
            a.repeats,
        )
        ratios[name] = both["loop"] / both["all at once"]
        print(f"{name:14} loop / all at once = {ratios[name]:.2f}, largest difference of a token {difference:.1e}")
    kept = {key: environment()[key] for key in ("machine", "commit", "threads")}
    print(json.dumps({"connectors": found, "ratios": ratios, **kept}))


if __name__ == "__main__":
    main()
