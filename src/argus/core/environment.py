"""What a number was measured on: versions, commit, machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from argus import __version__

PACKAGES = ("torch", "transformers", "accelerate", "peft", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Everything that is needed to understand and repeat a run."""
    return {
        "argus": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "machine": machine(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "command": command(),
    }


def command() -> str:
    """The command line of this process as a person would type it."""
    name = Path(sys.argv[0]).name
    return shlex.join(["argus" if name in ("argus", "__main__.py", "-c") else name, *sys.argv[1:]])


def commit() -> str | None:
    """Short commit of the working tree that Argus runs from, with `+` when it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=5, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def machine() -> str:
    """One line: cores, processor, memory, and the GPU where there is one."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0] if lines else name
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB"
    return f"{os.cpu_count()} x {name}{memory}{_gpu()}"


def _gpu() -> str:
    if "torch" not in sys.modules:
        return ""
    import torch

    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
