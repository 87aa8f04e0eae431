"""What a judge is: requests made of a prompt, replies read as verdicts, verdicts made one judgement per answer.

    sample, answer  ->  requests (one, or two with positions swapped)  ->  replies  ->  verdicts  ->  judgement

The prompt is data, a YAML file of named templates with `$fields`; `prompt: FILE` puts another one in its place. A reply that
cannot be read is asked for again, and if that does not help its verdict is an error: it counts in no score, and in `unreadable`.
"""

from __future__ import annotations

import ast
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Literal

import yaml
from PIL.Image import Image
from pydantic import Field

from argus.core import registry
from argus.core.errors import DataError, nearest
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.judges.asked import Asked, Request, UnreadableError, Verdict, check_reference


class JudgeOptions(registry.Options):
    """What every judge can be told."""

    model: str = Field(description="who judges: openai:<name>@<base-url>, a model that argus can load, or scripted:<rule>")
    prompt: Path | None = Field(None, description="YAML file of templates in place of the judge's own")
    tries: int = Field(5, ge=1, le=20, description="most times a reply that cannot be read is asked for")
    max_new_tokens: int = Field(1024, ge=1, le=8192, description="longest reply in tokens")
    cache: Path | None = Field(
        None, description="JSONL file of verdicts; one per judge in the user's cache folder when not given"
    )
    again: bool = Field(False, description="ask again for verdicts that were unreadable in an earlier run")


@dataclass(slots=True)
class Judgement:
    """What an answer is worth to a judge.

    Args:
        value: its score; None where no verdict could be read.
        label: the verdict in a word, for votes and agreement.
        ratios: its part in numbers that are no means over answers: name -> (numerator, denominator).
        verdicts: what was asked and replied.
    """

    value: float | None
    label: str | None
    ratios: dict[str, tuple[float, float]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)


class Judge(ABC):
    """Grades answers."""

    Options: ClassVar[type[JudgeOptions]]
    name: ClassVar[str]
    version: ClassVar[int] = 1  # of how requests are built and replies read; a change makes cached verdicts void
    unit: ClassVar[str] = "share"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    fields: ClassVar[Sequence[str]]  # what a prompt may use

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        check_reference(options.model)
        file = options.prompt or Path(__file__).parent / "prompts" / f"{self.name}.yaml"
        self.prompt = read_prompt(file, self.fields)
        self.asked = Asked(self.name, self.version, digest(self.prompt), options)

    @abstractmethod
    def applies(self, sample: Sample) -> bool:
        """Whether answers to a sample can be judged."""

    @abstractmethod
    def requests(self, sample: Sample, answer: str) -> list[Request]:
        """What has to be asked to judge an answer."""

    @abstractmethod
    def read(self, reply: str) -> Any:
        """The verdict in a reply, as plain values.

        Raises:
            UnreadableError: it holds none.
        """

    @abstractmethod
    def spoken(self, grades: Sequence[float]) -> str:
        """A reply that gives the answers these grades, 0 to 1, in the form that `read` reads."""

    @abstractmethod
    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        """One judgement of the verdicts on an answer's requests."""

    def worth(self, label: str) -> float:
        """The score that a label stands for, where judges vote."""
        return float(label)

    @property
    def vote_unit(self) -> str:
        """The unit of what labels are worth."""
        return self.unit

    def ratio_unit(self, name: str) -> str:
        """The unit of one of the ratios."""
        return "share"

    def judge(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Judgement]:
        """A judgement of each answer; all requests are asked together."""
        asked = [self.requests(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        verdicts = iter(self.asked.ask([r for some in asked for r in some], self.read, self.spoken))
        return [self.judgement(s, [next(verdicts) for _ in some]) for s, some in zip(samples, asked, strict=True)]

    def filled(self, part: str, **values: str) -> str:
        """A template of the prompt with its fields filled in."""
        return Template(self.prompt[part]).substitute(values)

    def messages(self, user: str, pictures: Sequence[Path | bytes | Image] = ()) -> list[Message]:
        """The conversation: the prompt's system turn, where it has one, and what is asked, pictures first."""
        system = self.prompt.get("system")
        parts: list[Part] = [*map(ImagePart, pictures), TextPart(user)]
        return [*([Message("system", [TextPart(system)])] if system else []), Message("user", parts)]


def read_prompt(file: Path, fields: Sequence[str]) -> dict[str, str]:
    """The templates of a prompt file.

    Raises:
        DataError: no such file, not templates by name, or a field that the judge does not know.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"the prompt cannot be read: {error}", where=str(file)) from None
    if not isinstance(found, dict) or "user" not in found or not all(isinstance(text, str) for text in found.values()):
        raise DataError("a prompt is a mapping of names to texts, `user` among them", where=str(file))
    for part, text in found.items():
        template = Template(text)
        if not template.is_valid():
            raise DataError("a lone `$` stands in the text; write `$$` for the sign itself", where=f"{file}, field '{part}'")
        for name in template.get_identifiers():
            if name not in fields:
                raise DataError(f"the judge fills in no '${name}'.", where=f"{file}, field '{part}'", hint=nearest(name, fields))
    return found


def digest(data: Any) -> str:
    """A name for plain data: equal data, equal name."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:20]


def dictionary(reply: str) -> dict[Any, Any]:
    """The dictionary in a reply: the text from the first `{` to the last `}` as a literal, never run as code.

    Raises:
        UnreadableError: there is none.
    """
    try:
        found = ast.literal_eval(reply[reply.index("{") : reply.rindex("}") + 1])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UnreadableError(f"no dictionary can be read ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise UnreadableError("what stands in braces is no dictionary")
    return found
