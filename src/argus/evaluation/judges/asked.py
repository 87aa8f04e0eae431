"""Asking a judge: requests go out, replies become verdicts, and nothing is asked twice.

Who judges is a model behind an endpoint (`openai:<name>@<base-url>`), a model on this machine, or a rule (`scripted:<rule>`).
Each verdict is appended to a JSONL file under the digest of judge, version, prompt, model and everything sent, pictures included,
so a run that was killed, a second run and another variant's equal answer ask for nothing that is known. Rules are not cached.

An endpoint is asked again, up to `tries` times, for a reply that cannot be read; its own retries are for what fails on the way. A
model on this machine writes greedily, so it is asked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from argus.core.errors import ArgusError, ModelError, UnknownNameError, nearest
from argus.core.images import load_image
from argus.core.run import RecordWriter
from argus.core.sample import ImagePart, Message, Sample
from argus.evaluation.endpoint import EndpointModel, RefusedError
from argus.evaluation.endpoint_reference import is_endpoint, parse_reference
from argus.evaluation.inferencers.base import Question
from argus.evaluation.judges.scripted import RULES
from argus.evaluation.local import LocalModel
from argus.model.load import load, resolve

if TYPE_CHECKING:
    from argus.evaluation.judges.base import JudgeOptions

SCRIPTED = "scripted:"
OWN_FAULT = ("HTTP 400", "HTTP 413", "HTTP 422")  # refusals of one request, not of all
AT_ONCE = 16  # requests that a model on this machine is given together


class UnreadableError(Exception):
    """A reply that is no verdict."""


@dataclass(frozen=True)
class Request:
    """One thing a judge is asked.

    Args:
        id: the sample's, with the round.
        messages: the conversation as sent.
        answers: the answers that are judged, in the order in which they are shown.
        known: the facts that the conversation tells, for judges by rule; None where it tells none.
    """

    id: str
    messages: list[Message]
    answers: tuple[str, ...]
    known: tuple[str, ...] | None = None

    def text(self) -> str:
        """What is asked, in words."""
        return "\n\n".join(m.text() for m in self.messages)

    @cached_property
    def images(self) -> list[Image]:
        """The pictures that are shown, decoded."""
        return [load_image(p.image, where=self.id) for m in self.messages for p in m.content if isinstance(p, ImagePart)]

    def digest(self) -> str:
        """A name for everything that is sent."""
        found = hashlib.sha256(json.dumps([[m.role, m.text()] for m in self.messages], ensure_ascii=False).encode())
        for image in self.images:
            found.update(str(image.size).encode() + image.tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request: `value` is what was read from the reply; where it is None, `error` says why."""

    request: str
    reply: str
    value: Any
    error: str | None
    model: str
    date: str

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check_reference(reference: str) -> None:
    """Refuse a judge that is not there, before anything runs.

    Raises:
        ArgusError: no such rule, endpoint or model.
    """
    if is_endpoint(reference):
        parse_reference(reference)
    elif not reference.startswith(SCRIPTED):
        resolve(reference)
    elif (rule := reference.removeprefix(SCRIPTED)) not in RULES:
        raise UnknownNameError(f"there is no judge by the rule '{rule}'.", hint=nearest(rule, RULES))


class Asked:
    """The model behind a judge, and the verdicts that are known.

    Args:
        judge, version, prompt: the judge's name, the version of its code, the digest of its prompt.
        options: the judge's.
    """

    def __init__(self, judge: str, version: int, prompt: str, options: JudgeOptions) -> None:
        self.judge, self.options = judge, options
        self.kind = {"judge": judge, "version": version, "prompt": prompt}
        self.lock = threading.RLock()
        self.answered = False

    def ask(
        self, requests: Sequence[Request], read: Callable[[str], Any], spoken: Callable[[Sequence[float]], str]
    ) -> list[Verdict]:
        """A verdict on each request, known ones first.

        Raises:
            ArgusError: the judge answered nothing at all; the reason is its first failure.
        """
        if self.options.model.startswith(SCRIPTED):
            rule = RULES[self.options.model.removeprefix(SCRIPTED)]
            return [self._read(r, spoken(rule(r.known, r.answers)), read) for r in requests]
        keys = [self.key(request) for request in requests]
        with self.lock:
            known = {key: self.known[key] for key in keys if key in self.known}
        found = {key: self._recalled(r, known[key], read) for r, key in zip(requests, keys, strict=True) if key in known}
        found = {key: verdict for key, verdict in found.items() if not (verdict.error and self.options.again)}
        left = {key: request for request, key in zip(requests, keys, strict=True) if key not in found}
        for attempt in range(self.options.tries if is_endpoint(self.options.model) else 1):
            last, still = attempt + 1 == self.options.tries or not is_endpoint(self.options.model), {}
            for (key, request), reply in self._replies(left):
                verdict = self._read(request, reply, read)
                if verdict.error and not last and isinstance(reply, str):
                    still[key] = request
                else:
                    found[key] = verdict
                    self._keep(key, verdict, reply)
            left = still
            if not left:
                break
        return [found[key] for key in keys]

    def key(self, request: Request) -> str:
        """What a verdict is filed under."""
        parts = [*self.kind.values(), self.identity, self.options.max_new_tokens, request.digest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @cached_property
    def identity(self) -> str:
        """The judging model: its name and address, or its place and the time of its weights."""
        if is_endpoint(self.options.model):
            name, url, _ = parse_reference(self.options.model)
            return f"{name}@{url}"
        weights = Path(resolve(self.options.model)).glob("*.safetensors")
        return f"{self.options.model} {sorted(file.stat().st_mtime_ns for file in weights)}"

    @cached_property
    def endpoint(self) -> EndpointModel:
        """The judge behind an endpoint."""
        return EndpointModel(self.options.model)

    @cached_property
    def local(self) -> Any:
        """The judge on this machine, loaded when first asked."""
        return LocalModel(*load(self.options.model))

    @cached_property
    def file(self) -> RecordWriter:
        """Where verdicts are kept."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argus" / "judges"
        return RecordWriter(self.options.cache or home / f"{self.judge}.jsonl")

    @cached_property
    def known(self) -> dict[str, dict[str, Any]]:
        """Verdicts by key, as filed; the last of a key counts."""
        return {row["id"]: row for row in self.file.records()}

    def _recalled(self, request: Request, row: dict[str, Any], read: Callable[[str], Any]) -> Verdict:
        """A verdict as filed; its reply is read anew, since a parser may be chosen."""
        reply = ModelError(row["failed"]) if row["failed"] else row["reply"]
        return replace(self._read(request, reply, read), model=row["model"], date=row["date"])

    def _keep(self, key: str, verdict: Verdict, reply: str | ArgusError) -> None:
        row = {"id": key, **self.kind, "model": verdict.model, "date": verdict.date, "reply": verdict.reply}
        row["failed"] = None if isinstance(reply, str) else str(reply)
        with self.lock:
            self.file.write(row)
            self.known[key] = row

    def _replies(self, left: dict[str, Request]) -> Iterator[tuple[tuple[str, Request], str | ArgusError]]:
        """Replies as they come in."""
        questions = {key: Question(key, Sample(r.id, r.messages), r.images) for key, r in left.items()}
        limit = self.options.max_new_tokens
        if not is_endpoint(self.options.model):
            listed = list(questions.items())
            with self.lock:
                for start in range(0, len(listed), AT_ONCE):
                    some = listed[start : start + AT_ONCE]
                    for (key, _), answer in zip(some, self.local.generate([q for _, q in some], limit), strict=True):
                        yield (key, left[key]), answer.text
            return
        with self.lock:
            model = self.endpoint

        def said(question: Question) -> str | ArgusError:
            try:
                return model.generate([question], limit)[0].text
            except RefusedError as error:  # what is too long for the judge fails alone; a wrong key stops everything
                if self.answered and error.message.startswith(OWN_FAULT):
                    return error
                raise

        for question, reply, _ in model.each(said, questions.values()):
            if isinstance(reply, ArgusError) and not self.answered:
                raise reply
            self.answered = self.answered or isinstance(reply, str)
            yield (question.group, left[question.group]), reply

    def _read(self, request: Request, reply: str | ArgusError, read: Callable[[str], Any]) -> Verdict:
        date = time.strftime("%Y-%m-%d")
        if isinstance(reply, ArgusError):
            return Verdict(request.text(), "", None, f"failed: {reply}", self.options.model, date)
        try:
            return Verdict(request.text(), reply, read(reply), None, self.options.model, date)
        except UnreadableError as error:
            return Verdict(request.text(), reply, None, f"unreadable: {error}", self.options.model, date)
