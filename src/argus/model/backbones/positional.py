"""The door for what acts on some positions alone: partial LoRA, experts of a modality, second projections for visual tokens.

A `Positional` says by the token map which positions are its own. The choice travels as an argument through the decoder layers to
their attention, where the layer's own module takes it (`AtRows`); hooks behind attention and MLP read it from there:

    token map (B, S) -> chosen (B, S) bool -> Rows, an argument of every decoder layer -> AtRows.rows while the layer runs

It is an argument and no state of a pass, so that a layer that is computed again in the backward pass (gradient checkpointing)
takes the rows of its own pass, and a reduction that cuts a layer's positions cuts the rows with them. Composed models build it
from their config and run it themselves; in a model of another family it listens (`listen`), see `added`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, isin, nn

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import attention_of
from argus.model.backbones.base import Backbone, Pass
from argus.model.token_map import VISUAL, TokenMap, plain


@dataclass(frozen=True, slots=True)
class Rows:
    """The chosen positions of a pass.

    Args:
        mask: (B, S) bool.
        index: (n,) their numbers among all B * S.
    """

    mask: Tensor
    index: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Rows:
        """Of a mask (B, S)."""
        return cls(mask, mask.flatten().nonzero()[:, 0])

    def cut(self, take: Callable[[Tensor], Tensor], there: Tensor) -> Rows:
        """In a layer that sees only some positions: `take` (B, S) -> (B, L), of which those in `there` (B, L) are real."""
        return Rows.of(take(self.mask) & there)


class AtRows(nn.Module):
    """What a decoder layer has for the chosen positions.

    Args:
        name: of the argument that brings the rows.

    Attributes:
        rows: those of the pass that runs; None where it has none.
        reached: whether rows have come since `Positional.begin`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.rows: Rows | None = None
        self.reached = False

    def receive(self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In front of the layer's attention. A method, so that the copy of a model hooks its own layers."""
        self.rows = kwargs.get(self.name)
        if self.name not in kwargs:
            return None
        self.reached = True
        return args, {k: v for k, v in kwargs.items() if k != self.name}


class Positional(Backbone):
    """Subclasses make an `AtRows` per decoder layer and hand it to `join`.

    Attributes:
        layers: what each decoder layer has.
    """

    def __init__(self, options: Any, *, language_model: nn.Module) -> None:
        super().__init__(options, language_model=language_model)
        self.layers = nn.ModuleList()
        self._words: Tensor | None = None  # ids of placeholders, and arguments with pictures, where it listens
        self._pictures: Sequence[str] = ()
        self._known: TokenMap | None = None

    @property
    def argument(self) -> str:
        """Name of the argument that brings the rows."""
        return f"argus_{self.part}"

    def join(self, layer: nn.Module, own: AtRows) -> None:
        """Give a decoder layer its module, which from then on has the rows while the layer runs.

        Raises:
            UnsupportedError: the layer has no attention that the rows could come to.
        """
        self.layers.append(own)
        attention_of(layer).register_forward_pre_hook(own.receive, with_kwargs=True)

    def chosen(self, known: TokenMap) -> Tensor:
        """(B, S) bool: the positions of a pass that are its own, by the pass's part of the map."""
        return known.placeholders

    def begin(self, run: Pass) -> dict[str, Any]:
        return self._give(run.known.slice(run.past))

    def end(self, given: dict[str, Any], cache: Any) -> None:
        if self.argument in given and not all(own.reached for own in self.layers):
            raise UnsupportedError(f"{self.part}: this language model does not hand its arguments on to its attention.")

    def _give(self, known: TokenMap) -> dict[str, Any]:
        """The argument for a pass. In training it comes with no positions, too, so that every process has gradients."""
        for own in self.layers:
            own.reached = False  # type: ignore[assignment]
        rows = Rows.of(self.chosen(known))
        return {self.argument: rows} if len(rows.index) or self.training else {}

    # -- in a model that does not run it itself

    def listen(self, root: nn.Module, language_model: nn.Module, words: Tensor, pictures: Sequence[str]) -> None:
        """Find the positions from what the model is given.

        Args:
            root: takes `input_ids` and pictures, and calls the language model.
            words: ids of placeholders.
            pictures: names of the arguments that say a pass has pictures.
        """
        self._words, self._pictures = words, pictures
        root.register_forward_pre_hook(self._see, with_kwargs=True)
        language_model.register_forward_pre_hook(self._pass, with_kwargs=True)
        language_model.register_forward_hook(self._passed, with_kwargs=True)

    def _see(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self._known = None
        if not any(kwargs.get(name) is not None and len(kwargs[name]) for name in self._pictures):
            return  # placeholders in a continuation without pictures are only the model saying the word
        if ids is None:
            raise UnsupportedError("visual tokens are found by input_ids, and the model was given only embeddings.")
        assert self._words is not None
        self._known = plain(ids)
        self._known.kind[isin(ids, self._words.to(ids.device))] = VISUAL

    def _pass(self, language_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known, self._known = self._known, None
        known = plain(kwargs["inputs_embeds"][..., 0].long()) if known is None else known
        return args, {**kwargs, **self._give(known)}

    def _passed(self, language_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.end(kwargs, None)
