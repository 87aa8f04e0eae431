"""Run folders: `runs/<name>/<time>/` holds everything that a job did, written as it goes.

    recipe.yaml        the resolved recipe
    environment.json   versions, commit, machine, command
    records/*.jsonl    one record per question, append-only, flushed as written
    stages/<variant>/  checkpoints and trained models
    metrics.json       measured numbers and claims, written at the end
    report.html        the page

A run that was killed at any moment is opened again by the same recipe: records that are complete are kept, a torn last line is
cut off, and nothing is asked twice.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from argus.core.environment import environment
from argus.core.errors import ArgusError, DataError, LockedError
from argus.core.recipe import Recipe, dump
from argus.core.reference import digests

SCHEMA = 1  # version of a record
SYNC_SECONDS = 5.0  # between fsyncs: a power cut loses at most this much; a killed process loses nothing
LOCK_SECONDS = 0.2  # in which who makes a lock has written into it who it is


class RecordWriter:
    """An append-only JSONL file of records with unique ids.

    Args:
        path: the file; its folder is made. A torn last line is cut off; a torn line before it is set aside in `torn`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.torn: list[str] = []
        self._done = set()
        end = 0
        if path.exists():
            for number, start, record in _lines(path):
                if record is None:
                    self.torn.append(f"{path}:{number}")
                else:
                    self._done.add(str(record["id"]))
                    end = start
            self._cut(end)
        self._file = path.open("ab")
        self._synced = time.monotonic()

    def _cut(self, end: int) -> None:
        """Drop what follows the last complete record."""
        if self.path.stat().st_size > end:
            with self.path.open("r+b") as file:
                file.truncate(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def done_ids(self) -> set[str]:
        """Ids of all complete records."""
        return set(self._done)

    def records(self) -> Iterator[dict[str, Any]]:
        """All complete records, in the order written."""
        self._file.flush()
        return (record for _, _, record in _lines(self.path) if record is not None)

    def sorted_by(self, key: Callable[[dict[str, Any]], Any]) -> Iterator[dict[str, Any]]:
        """All complete records by a key, equal ones in the order written; only keys and places are held in memory."""
        self._file.flush()
        places, start = [], 0
        for _, end, record in _lines(self.path):
            if record is not None:
                places.append((key(record), start))
            start = end
        with self.path.open("rb") as file:
            for _, start in sorted(places):
                file.seek(start)
                yield json.loads(file.readline())

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; it survives the process.

        Raises:
            ArgusError: the disk is full or cannot be written; what was written before is kept.
        """
        line = (json.dumps({"v": SCHEMA, **record}, ensure_ascii=False) + "\n").encode()
        start = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            self._undo(start)
            reason = "the disk is full" if error.errno == errno.ENOSPC else f"cannot write: {error.strerror or error}"
            raise ArgusError(
                f"{reason}; {len(self._done)} records are safe",
                where=str(self.path),
                hint="Free some room and give the same command again; it goes on from there.",
            ) from None
        self._done.add(str(record["id"]))

    def _undo(self, start: int) -> None:
        """Take back half a line, if the disk still lets us."""
        try:
            os.ftruncate(self._file.fileno(), start)
        except OSError:
            return  # the torn line is cut off when the run is opened again

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """(line number, offset behind it, record) of each line; None for a line that is torn."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            yield number, offset, record if isinstance(record, dict) and "id" in record else None


class Run:
    """One run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, recipe: Recipe, root: Path, **state: Any) -> Run:
        """A new folder for a recipe; `state` says more of the run, e.g. which shard it is.

        Raises:
            ArgusError: the folder cannot be made.
        """
        base = root / slug(recipe.name)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for suffix in ("", *(f"-{n}" for n in range(2, 100))):
            folder = base / f"{stamp}{suffix}"
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
            except OSError as error:
                raise ArgusError(f"cannot make the run folder: {error.strerror}", where=str(folder)) from None
        run = cls(folder)
        run.begin(recipe, **state)
        return run

    def begin(self, recipe: Recipe, **state: Any) -> None:
        """Write down what the run is of and where it runs; its folder is made if need be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = dump(recipe)
        (self.folder / "recipe.yaml").write_text(text, encoding="utf-8")
        self.write_json("environment.json", {**environment(), "models": digests(text)})
        self.write_json("state.json", {"digest": recipe.digest(), "finished": False, "started": time.time(), **state})

    @classmethod
    def latest_unfinished(
        cls, recipe: Recipe, root: Path, shard: list[int] | None = None, shards: int | None = None
    ) -> Run | None:
        """The newest unfinished run of exactly this recipe; of this shard of it, [i, k], or of so many shards together.

        One that began with other weights of the shipped models is another run, or its numbers would be of two models.
        """
        return cls._latest(recipe, root, shard, shards, finished=False)

    @classmethod
    def latest_finished(cls, recipe: Recipe, root: Path) -> Run | None:
        """The newest finished run of exactly this recipe, all of it, with the weights that the shipped models have now."""
        return cls._latest(recipe, root, None, None, finished=True)

    @classmethod
    def _latest(cls, recipe: Recipe, root: Path, shard: list[int] | None, shards: int | None, *, finished: bool) -> Run | None:
        models = digests(dump(recipe))
        for folder in sorted((root / slug(recipe.name)).glob("*/"), reverse=True):
            state = _json(folder / "state.json")
            same = state.get("digest") == recipe.digest() and (state.get("shard"), state.get("shards")) == (shard, shards)
            same = same and _json(folder / "environment.json").get("models") == models
            if same and bool(state.get("finished")) == finished:
                return cls(folder)
        return None

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run folder.

        Raises:
            DataError: the folder is not a run.
        """
        if not (folder / "state.json").exists():
            raise DataError("this is not a run folder: it has no state.json", where=str(folder))
        return cls(folder)

    def lock(self) -> RunLock:
        """Keeps a second process from writing the same run."""
        return RunLock(self.folder / "lock")

    def records(self, part: str) -> RecordWriter:
        """The records of one part, e.g. `fastervlm.objects`."""
        return RecordWriter(self.folder / "records" / f"{part}.jsonl")

    def stage_folder(self, variant: str, stage: str) -> Path:
        """Where a variant's training stage keeps its checkpoints and model."""
        return self.folder / "stages" / variant / stage

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file whole or not at all."""
        path = self.folder / name
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise ArgusError(f"cannot write: {error.strerror}", where=str(path), hint="All records are kept.") from None

    def read_json(self, name: str) -> Any:
        """A JSON file of the run; empty when it is not there."""
        return _json(self.folder / name)

    def finish(self) -> None:
        """Mark the run as complete."""
        state = self.read_json("state.json")
        started = state.get("started", time.time())
        self.write_json("state.json", {**state, "finished": True, "seconds": round(time.time() - started, 1)})


class RunLock:
    """A lock file with the owner's process id; one left behind by a dead process is taken over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        while not self._made():
            owner = self._owner()
            if owner != os.getpid() and _alive(owner):
                raise LockedError(
                    f"process {owner} is writing this run", where=str(self.path.parent), hint="Wait for it, or use --fresh."
                )
            self.path.unlink(missing_ok=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self.path.unlink(missing_ok=True)

    def _made(self) -> bool:
        """Make the file, unless it is there: of several processes that try at once, one succeeds."""
        try:
            with self.path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
        return True

    def _owner(self) -> int:
        """Who made the file; 0 where it is gone, or where nobody wrote into it for as long as that may take."""
        for wait in (0.0, LOCK_SECONDS):
            time.sleep(wait)
            try:
                text = self.path.read_text().strip()
            except FileNotFoundError:
                return 0
            if text.isdecimal():
                return int(text)
        return 0


def _alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def slug(name: str) -> str:
    """A name as a folder: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
