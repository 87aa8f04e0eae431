"""Scenes per second and core of every domain, drawn and rendered.

python benchmarks/world.py
"""

from __future__ import annotations

import argparse
import time

from argus.core.environment import machine
from argus.core.registry import build, components


def main() -> None:
    """Measure each domain after a warm-up that fills its caches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="side of the pictures in pixels")
    parser.add_argument("--scenes", type=int, default=1500, help="scenes measured")
    arguments = parser.parse_args()
    for row in components("domain"):
        domain = build("domain", row.name)
        for index in range(-(-arguments.scenes // 4)):
            domain.render(domain.scene(domain.rng("train", index)), arguments.size)
        start = time.perf_counter()
        for index in range(arguments.scenes):
            domain.render(domain.scene(domain.rng("test", index)), arguments.size)
        print(f"{row.name:10} {arguments.scenes / (time.perf_counter() - start):7.0f} scenes/s at {arguments.size} px")
    print(machine())


if __name__ == "__main__":
    main()
