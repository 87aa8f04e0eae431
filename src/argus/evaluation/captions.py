"""Captions as scene graphs, and how well two of them match.

CAPTURE, "Benchmarking and Improving Detail Image Caption" (arXiv 2405.19092). A caption is objects, attributes and relations.
Each list is matched in three stages - equal, synonyms, similar -, every entry once in the first two, and gives an F1:

    M    = matched in stages 1 and 2
    m_c  = M + sum_i max_j S_ij        m_r = M + sum_j max_i S_ij        S: cosines of what both left over
    P = m_c / |C|     R = m_r / |R|     F1 = 2 P R / (P + R)              (each denominator plus 1e-6)
    CAPTURE = (0.5 F1_objects + 0.5 F1_attributes + 0.2 F1_relations) / 1.2

Weights, epsilons and the order of stages are the official code's; so is that attributes are matched whatever they belong to,
that a word inside another counts as its synonym ("red" in "bored"), and that two empty lists give an F1 of 0: `renormalise`
leaves such a channel out instead. Lists are sorted first, where the official code follows the order of a hash.

Parser and encoder are parts: the official ones are a T5 scene-graph parser and all-mpnet-base-v2; here `parse` reads plain
English of the form "a small red star left of a blue ring", and the encoder is anything that turns texts into unit vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6
WEIGHTS = (0.5, 0.5, 0.2)  # objects, attributes, relations
T = TypeVar("T")
Triple = tuple[str, str, str]
Encoder = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> unit vectors (n, D)
Synonyms = Mapping[str, frozenset[str]]  # word -> names of its meanings


@dataclass(frozen=True, slots=True)
class Graph:
    """What a caption states.

    Args:
        objects: names of things, each once.
        attributes: (thing, property).
        relations: (thing, relation, thing).
    """

    objects: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    relations: tuple[Triple, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """How well one list was matched."""

    precision: float
    recall: float
    f1: float
    empty: bool  # both lists were


@dataclass(frozen=True, slots=True)
class Captured:
    """The score and its three channels."""

    score: float
    objects: Match
    attributes: Match
    relations: Match


def capture(
    candidate: Graph,
    reference: Graph,
    *,
    encode: Encoder | None = None,
    synonyms: Synonyms | None = None,
    renormalise: bool = False,
    weights: tuple[float, float, float] = WEIGHTS,
) -> Captured:
    """Score a caption's graph against a reference's.

    Args:
        encode: the third stage's encoder; two stages without one.
        synonyms: word -> its meanings; without it only a word inside another is a synonym.
        renormalise: leave out a channel that is empty on both sides.
    """
    known = synonyms or {}

    def same(a: str, b: str) -> float:
        return synonymy(a, b, known)

    def same_triple(a: Triple, b: Triple) -> float:
        parts = [same(x, y) for x, y in zip(a, b, strict=True)]
        return min(parts) and sum(parts)

    channels = (
        _match(sorted(candidate.objects), sorted(reference.objects), same, encode),
        _match(sorted(p for _, p in candidate.attributes), sorted(p for _, p in reference.attributes), same, encode),
        _match(
            sorted(candidate.relations),
            sorted(reference.relations),
            same_triple,
            encode and (lambda triples: encode([" ".join(t) for t in triples])),
        ),
    )
    counted = [(w, c.f1) for w, c in zip(weights, channels, strict=True) if not (renormalise and c.empty)]
    total = sum(w for w, _ in counted)
    return Captured(sum(w * f for w, f in counted) / total if total else 0.0, *channels)


def synonymy(a: str, b: str, synonyms: Synonyms) -> float:
    """1 where one is part of the other, else the overlap of their meanings."""
    if a in b or b in a:
        return 1.0
    mine, other = synonyms.get(a, frozenset()), synonyms.get(b, frozenset())
    return len(mine & other) / (len(mine | other) + EPSILON)


def _match(
    candidates: Sequence[T],
    references: Sequence[T],
    same: Callable[[T, T], float],
    encode: Callable[[Sequence[T]], NDArray] | None,
) -> Match:
    left = list(candidates)
    free = list(references)
    for alike in (lambda a, b: a == b, lambda a, b: same(a, b) > 0):
        rest = []
        for one in left:
            found = next((i for i, other in enumerate(free) if alike(one, other)), None)
            if found is None:
                rest.append(one)
            else:
                del free[found]
        left = rest
    matched = float(len(candidates) - len(left))
    in_candidate = in_reference = matched
    if encode is not None and left and free:
        cosines = encode(left) @ encode(free).T  # (left, free)
        in_candidate += float(cosines.max(1).sum())
        in_reference += float(cosines.max(0).sum())
    precision = in_candidate / (len(candidates) + EPSILON)
    recall = in_reference / (len(references) + EPSILON)
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    return Match(precision, recall, f1, not candidates and not references)


# -- a parser for plain English

ARTICLES = frozenset("a an the one this that its their some".split())
RELATIONS = (
    *("in front of", "on top of", "to the left of", "to the right of", "left of", "right of", "next to", "close to"),
    *("at", "on", "in", "above", "below", "under", "over", "behind", "beside", "near", "with", "inside", "between", "around"),
)
PLACES = frozenset("left right top bottom middle center corner side".split())
STOP = PLACES | frozenset(
    "background foreground scene image picture photo atmosphere color colour view area setting element style light".split()
)
_RELATION = re.compile(r"\b(?:is |are |stands |lies )?(" + "|".join(map(re.escape, RELATIONS)) + r")\b")


def parse(caption: str) -> Graph:
    """The graph of a plain English caption: sentences and phrases of "[article] adjective* noun", joined by prepositions.

    The last word of a phrase is its head, words before it are attributes. Places (top left) and abstract nouns (background)
    are no objects, but relations keep them.
    """
    objects: dict[str, None] = {}
    attributes: dict[tuple[str, str], None] = {}
    relations: dict[Triple, None] = {}
    for sentence in re.split(r"[.;,!?\n]+|\band\b", caption.lower()):
        parts = _RELATION.split(sentence)
        heads = [_phrase(part) for part in parts[::2]]
        for head, properties in heads:
            if head and head not in STOP:
                objects[head] = None
                attributes.update(dict.fromkeys((head, p) for p in properties))
        subject = heads[0]
        for relation, (head, properties) in zip(parts[1::2], heads[1:], strict=True):
            target = " ".join([*properties, head]) if head in PLACES else head
            if subject[0] and head:
                relations[subject[0], relation, target] = None
    return Graph(tuple(objects), tuple(attributes), tuple(relations))


def _phrase(text: str) -> tuple[str, list[str]]:
    words = [w for w in re.findall(r"[a-z0-9'-]+", text) if w not in ARTICLES and w not in ("is", "are", "there")]
    if not words:
        return "", []
    return singular(words[-1]), words[:-1]


def singular(noun: str) -> str:
    """The singular of a regular plural."""
    for ending, single in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x")):
        if noun.endswith(ending) and len(noun) > len(ending) + 1:
            return noun[: -len(ending)] + single
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and len(noun) > 3 else noun
