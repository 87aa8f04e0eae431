"""Help is instant, complete, and shows how each command is used."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import Result

from argus import __version__
from argus.cli.app import app

Argus = Callable[..., Result]
HEAVY = ("torch", "transformers", "matplotlib", "numpy", "pandas", "rich", "PIL")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as typed."""
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands(typer.main.get_command(app)))


def imported(*words: str) -> set[str]:
    """Which heavy modules a fresh process has imported after a command."""
    code = (
        "import sys; sys.argv = ['argus', *sys.argv[1:]]\n"
        "from argus.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('IMPORTED', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(run.stdout.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("components",), ("--version",)], ids=" ".join)
def test_help_and_listings_import_nothing_heavy(words: tuple[str, ...]) -> None:
    assert imported(*words) == set()


def test_import_argus_imports_nothing_heavy() -> None:
    code = f"import sys, argus; print([m for m in {(*HEAVY, 'pydantic', 'typer')!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_examples(argus: Argus, words: tuple[str, ...]) -> None:
    result = argus(*words, "--help")
    assert result.exit_code == 0
    examples = result.output.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.startswith("    argus " + " ".join(words)) for line in examples if line.strip())
    # every option and argument says what it is for
    for line in re.findall(r"^  (-\S.*|\S+ <.*)$", result.output, re.MULTILINE):
        assert re.search(r"\S  +\S", line) or len(line) > 20


def test_the_list_of_commands_is_not_cut_off(argus: Argus) -> None:
    assert "..." not in argus("--help").output.partition("Commands:")[2]


def test_version(argus: Argus) -> None:
    assert argus("--version").output == f"argus {__version__}\n"


def test_an_unknown_command_names_the_nearest(argus: Argus) -> None:
    result = argus("rnu")
    assert result.exit_code == 2
    assert "rnu" in result.output
