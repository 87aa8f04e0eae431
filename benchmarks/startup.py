"""How long a start takes: `python -c pass`, `import argus`, `argus --help` and `argus run --help`, as medians of fresh processes.

    python benchmarks/startup.py [--runs 11]

Interleaved, so that all see the same machine; the first round warms the disk cache and is not counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

HELP = "import sys; from argus.cli import main; sys.argv = ['argus', *sys.argv[1:]]; main()"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import argus": [sys.executable, "-c", "import argus"],
    "argus --help": [sys.executable, "-c", HELP, "--help"],
    "argus run --help": [sys.executable, "-c", HELP, "run", "--help"],
    "argus components": [sys.executable, "-c", HELP, "components"],
}


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11, help="processes per command")
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(runs + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if round_:
                times[name].append(time.perf_counter() - start)
    print(f"{'command':20} {'median':>8} {'fastest':>8}  of {runs}, in milliseconds")
    for name, values in times.items():
        print(f"{name:20} {1000 * median(values):8.0f} {1000 * min(values):8.0f}")


if __name__ == "__main__":
    main()
