"""What goes to an OpenAI-compatible endpoint and comes back: conversations in its format, a first token's scores, waits."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

from argus.core.errors import UnsupportedError
from argus.core.images import encode_png
from argus.core.sample import ImagePart
from argus.evaluation.inferencers.base import Question


def first_token_scores(options: Sequence[str], top: dict[str, float], where: str = "") -> list[float]:
    """Log-probability that the answer's first token begins each option and no other.

    Raises:
        UnsupportedError: a likely first token begins several options.
    """
    scores: list[list[float]] = [[] for _ in options]
    for token, logp in top.items():
        begun = [i for i, option in enumerate(options) if token.strip() and option.strip().startswith(token.strip())]
        if len(begun) > 1:
            alike = " and ".join(f"'{options[i]}'" for i in begun)
            raise UnsupportedError(
                f"{alike} begin with the same token '{token}', and an endpoint shows only the first",
                where=where or None,
                hint="Ask with the instruction `lettered`, or by the inferencer `generate`.",
            )
        for i in begun:
            scores[i].append(logp)
    floor = min(top.values(), default=-math.inf)
    return [math.log(sum(map(math.exp, s))) if s else floor for s in scores]


def top_log_probabilities(choice: dict[str, Any]) -> dict[str, float]:
    """Token -> log-probability of the first position; empty when the server gives none."""
    content = (choice.get("logprobs") or {}).get("content") or []
    return {t["token"]: float(t["logprob"]) for t in (content[0].get("top_logprobs") or [])} if content else {}


def api_messages(question: Question) -> list[dict[str, Any]]:
    """The conversation in the API's format, pictures as data URLs in the order in which it shows them.

    Raises:
        UnsupportedError: something that the API has no form for.
    """
    if question.lead:
        raise UnsupportedError(
            "an endpoint begins its turn itself, so it cannot go on from words that it is taken to have said",
            where=question.sample.id,
            hint="Ask by the inferencer `generate`.",
        )
    pictures = iter(question.images)
    found = []
    for message, chat in zip(question.sample.messages, question.sample.chat(), strict=True):
        parts = []
        for part, plain in zip(message.content, chat["content"], strict=True):
            if isinstance(part, ImagePart):
                data = base64.b64encode(encode_png(next(pictures))).decode()
                parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
            elif plain["type"] == "text":
                parts.append(plain)
            else:
                raise UnsupportedError(f"an endpoint takes pictures and text, not {plain['type']}", where=question.sample.id)
        found.append({"role": message.role, "content": parts})
    return found


def retry_after(header: str | None) -> float | None:
    """A Retry-After of seconds; dates are left to the back-off."""
    return float(header) if header and header.replace(".", "", 1).isdigit() else None
