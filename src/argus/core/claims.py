"""Claims: comparisons over measured numbers, parsed by a small grammar and never run as code.

    claim      = disjunct { "or" disjunct }
    disjunct   = conjunct { "and" conjunct }
    conjunct   = "not" conjunct | comparison
    comparison = sum { ("<=" | "<" | ">=" | ">" | "==") sum }        chained as in mathematics: a <= b <= c
    sum        = product { ("+" | "-") product }
    product    = factor { ("*" | "/") factor }
    factor     = "-" factor | number ["%"] | name | function "(" sum { "," sum } ")" | "(" claim ")"
    name       = word { "." word } [ "[" anything "]" ]               fastervlm.accuracy, full.accuracy[count]

A name is looked up as `variant.metric`, or `variant.scenario.metric` where there are several scenarios; the brackets choose one
family of questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from argus.core.errors import RecipeError, nearest

FUNCTIONS: dict[str, Callable[..., float]] = {
    "abs": lambda x: abs(x),
    "min": lambda *xs: min(xs),
    "max": lambda *xs: max(xs),
    "mean": lambda *xs: sum(xs) / len(xs),
}
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
}
TINY = 1e-12  # a divisor smaller than this is zero
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?%?)|(?P<name>[A-Za-z_]\w*(?:\.\w+)*(?:\[[^\]]*\])?)"
    r"|(?P<sign><=|>=|==|[-+*/(),<>]))"
)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a parsed claim: an operator or function with its operands, a number, or a name."""

    kind: str
    value: str | float = ""
    inner: tuple[Node, ...] = ()


class UnmeasuredError(Exception):
    """A name that was not measured."""


@dataclass(slots=True)
class ClaimResult:
    """What became of a claim.

    Args:
        claim: its text.
        holds: whether it is true; None when something was not measured or cannot be computed.
        text: the claim with the numbers put in.
        values: the measured numbers it used.
        margin: smallest (left - right) towards truth over its comparisons; negative where it fails.
        reason: why it has no truth value.
    """

    claim: str
    holds: bool | None
    text: str
    values: dict[str, float] = field(default_factory=dict)
    margin: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A parsed claim."""

    text: str
    root: Node

    def names(self) -> list[str]:
        """The measured names it uses, in order, each once."""
        return list(dict.fromkeys(_names(self.root)))

    def evaluate(self, measured: Mapping[str, float]) -> ClaimResult:
        """Put measured numbers in.

        Args:
            measured: full name -> number.
        """
        used: dict[str, float] = {}
        margins: list[float] = []

        def look(name: str) -> float:
            if name not in measured:
                raise UnmeasuredError(f"'{name}' was not measured. {nearest(name, measured)}")
            used[name] = measured[name]
            return measured[name]

        try:
            holds = _truth(self.root, look, margins)
        except (UnmeasuredError, ZeroDivisionError, OverflowError) as error:
            return ClaimResult(self.text, None, self.text, used, None, str(error))
        return ClaimResult(self.text, holds, _shown(self.root, used), used, min(margins) if margins else None)


def parse(text: str) -> Claim:
    """Parse a claim.

    Raises:
        RecipeError: the text does not follow the grammar; the message says where.
    """
    tokens = _tokens(text)
    parser = _Parser(text, tokens)
    root = parser.claim()
    if parser.at < len(tokens):
        parser.fail(f"'{tokens[parser.at][1]}' is not expected here")
    if not _is_claim(root):
        raise RecipeError("a claim compares something; this is only a number", where=f"claim '{text}'")
    return Claim(text, root)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if match is None:
            raise RecipeError(f"cannot read '{text[at:].strip()[:12]}' at column {at + 1}", where=f"claim '{text}'")
        kind = match.lastgroup or ""
        found.append((kind, match.group(kind), match.start(kind) + 1))
        at = match.end()
    return found


class _Parser:
    def __init__(self, text: str, tokens: list[tuple[str, str, int]]) -> None:
        self.text, self.tokens, self.at = text, tokens, 0

    def fail(self, why: str) -> None:
        column = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text) + 1
        raise RecipeError(f"{why}, at column {column}", where=f"claim '{self.text}'")

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, *signs: str) -> str | None:
        if self.peek() in signs and self.peek():
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def claim(self) -> Node:
        return self._joined("or", lambda: self._joined("and", self._not))

    def _joined(self, word: str, inner: Callable[[], Node]) -> Node:
        nodes = [inner()]
        while self.take(word):
            nodes.append(inner())
        return nodes[0] if len(nodes) == 1 else Node(word, word, tuple(nodes))

    def _not(self) -> Node:
        return Node("not", "not", (self._not(),)) if self.take("not") else self._comparison()

    def _comparison(self) -> Node:
        left = self.sum()
        signs, nodes = [], [left]
        while sign := self.take(*COMPARE):
            signs.append(sign)
            nodes.append(self.sum())
        return Node("compare", " ".join(signs), tuple(nodes)) if signs else left

    def sum(self) -> Node:
        node = self.product()
        while sign := self.take("+", "-"):
            node = Node("arithmetic", sign, (node, self.product()))
        return node

    def product(self) -> Node:
        node = self.factor()
        while sign := self.take("*", "/"):
            node = Node("arithmetic", sign, (node, self.factor()))
        return node

    def factor(self) -> Node:
        if self.take("-"):
            return Node("negative", "-", (self.factor(),))
        if self.take("("):
            node = self.claim()
            if not self.take(")"):
                self.fail("a ')' is missing")
            return Node("group", "()", (node,))
        if self.at >= len(self.tokens):
            self.fail("the claim ends too early")
        kind, value, _ = self.tokens[self.at]
        if kind == "sign" or value in ("and", "or", "not"):
            self.fail(f"'{value}' is not expected here")
        self.at += 1
        if kind == "number":
            return Node("number", float(value[:-1]) / 100 if value.endswith("%") else float(value))
        if self.peek() == "(":
            return self._call(value)
        return Node("name", value)

    def _call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            self.at -= 1
            self.fail(f"there is no function '{name}'. {nearest(name, FUNCTIONS)}")
        self.take("(")
        inner = [self.sum()]
        while self.take(","):
            inner.append(self.sum())
        if not self.take(")"):
            self.fail("a ')' is missing")
        if name == "abs" and len(inner) != 1:
            self.fail("abs takes one number")
        return Node("call", name, tuple(inner))


def _is_claim(node: Node) -> bool:
    return node.kind in ("compare", "and", "or", "not") or (node.kind == "group" and _is_claim(node.inner[0]))


def _names(node: Node) -> list[str]:
    own = [str(node.value)] if node.kind == "name" else []
    return own + [name for child in node.inner for name in _names(child)]


def _truth(node: Node, look: Callable[[str], float], margins: list[float]) -> bool:
    if node.kind == "group":
        return _truth(node.inner[0], look, margins)
    if node.kind == "or":
        return any([_truth(n, look, margins) for n in node.inner])  # noqa: C419  every margin counts
    if node.kind == "and":
        return all([_truth(n, look, margins) for n in node.inner])  # noqa: C419
    if node.kind == "not":
        return not _truth(node.inner[0], look, margins)
    if node.kind != "compare":
        raise ZeroDivisionError("a number stands where a comparison is needed")
    numbers = [_number(n, look) for n in node.inner]
    signs = str(node.value).split()
    for sign, a, b in zip(signs, numbers, numbers[1:], strict=False):
        margins.append(-abs(a - b) if sign == "==" else (b - a if sign.startswith("<") else a - b))
    return all(COMPARE[s](a, b) for s, a, b in zip(signs, numbers, numbers[1:], strict=False))


def _number(node: Node, look: Callable[[str], float]) -> float:
    if node.kind == "number":
        return float(node.value)
    if node.kind == "name":
        return look(str(node.value))
    if node.kind == "group":
        return _number(node.inner[0], look)
    if node.kind == "negative":
        return -_number(node.inner[0], look)
    if node.kind == "call":
        return FUNCTIONS[str(node.value)](*(_number(n, look) for n in node.inner))
    if node.kind != "arithmetic":
        raise ZeroDivisionError("a comparison stands where a number is needed")
    a, b = (_number(n, look) for n in node.inner)
    if node.value == "/":
        if abs(b) < TINY:
            raise ZeroDivisionError(f"division by zero: {_shown(node.inner[1], {})} is {b:g}")
        return a / b
    return a + b if node.value == "+" else a - b if node.value == "-" else a * b


def _shown(node: Node, values: Mapping[str, float]) -> str:
    """The claim's text with numbers in place of names."""
    if node.kind == "number":
        return f"{node.value:.4g}"
    if node.kind == "name":
        return f"{values[str(node.value)]:.4g}" if node.value in values else str(node.value)
    inner = [_shown(n, values) for n in node.inner]
    if node.kind == "group":
        return f"({inner[0]})"
    if node.kind == "negative":
        return f"-{inner[0]}"
    if node.kind == "not":
        return f"not {inner[0]}"
    if node.kind == "call":
        return f"{node.value}({', '.join(inner)})"
    if node.kind == "compare":
        return inner[0] + "".join(f" {s} {x}" for s, x in zip(str(node.value).split(), inner[1:], strict=True))
    return f" {node.value} ".join(inner)
