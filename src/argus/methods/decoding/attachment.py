"""A decoding method on a model: `generate` and the scores of options use it for as long as it is attached.

`generate` asks the model for its logits processors once per call; while the method is attached the answer starts with a new
`ContrastiveProcessor`, in front of those for penalties and sampling. The class is untouched, and detaching deletes the instance's
attribute again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList

from argus.core.errors import UnsupportedError
from argus.methods.attached import Attached, Kept
from argus.methods.decoding.contrastive import Branch, Contrastive, ContrastiveProcessor, combine
from argus.methods.decoding.prompt import Prompt, Prompts
from argus.model.anatomy import anatomy

_DECODING = "_argus_decoding"  # attribute of the model while a method is attached
_HOOK = "_get_logits_processor"  # of transformers' GenerationMixin


class DecodingAttachment(Attached):
    """A decoding method on a model.

    Attributes:
        alpha, beta: of the contrast.
    """

    depends_on_question = True  # the second branch reads the whole prompt

    def __init__(self, model: nn.Module, name: str, method: Contrastive) -> None:
        self.name, self.options, self.method = name, method.options, method
        self.alpha, self.beta = method.options.alpha, method.options.beta
        self.anatomy = anatomy(model)
        self.model: Any = self.anatomy.model
        other = decoding(model)
        if other is not None:
            raise UnsupportedError(f"'{other.name}' already decides on the next token.", hint="Detach it first.")
        method.check(self.anatomy)
        self._negative: Prompt | None = None
        self.prompts = Prompts(self.anatomy, method.kinds, method.fingerprinted, method.patchwise)
        self._instead = vars(self.model).get(_HOOK)  # what somebody else put on the instance
        setattr(self.model, _HOOK, self._processors)
        setattr(self.model, _DECODING, self)

    @property
    def attached(self) -> bool:
        return decoding(self.model) is self

    def detach(self) -> None:
        if not self.attached:
            return
        self.prompts.remove()
        delattr(self.model, _DECODING)
        delattr(self.model, _HOOK)
        if self._instead is not None:
            setattr(self.model, _HOOK, self._instead)

    @property
    def shown(self) -> list[Kept]:
        """What the negative branch saw of the last prompt: one entry per crop, its tokens in the order shown.

        Where visual tokens were made anew of some patches, grid and indices are of the patches.
        """
        if self._negative is None:
            return []
        if self._negative.patches is not None and self._negative.patch_grid is not None:
            grid, crops = self._negative.patch_grid, self._negative.tokens.crops
            total = grid[0] * grid[1]
            both = zip(crops, self._negative.patches, strict=True)
            return [Kept(0, c.item, c.image, c.tile, grid, patches, total, total) for c, patches in both]
        if self._negative.place is None:
            return []
        tokens, place = self._negative.tokens, self._negative.place
        entries = []
        for number, crop in enumerate(tokens.crops):
            own = tokens.crop == number
            cells, places = tokens.cell[own], place[own]
            order = places[places >= 0].argsort()
            shown = cells[places >= 0][order]
            entries.append(Kept(0, crop.item, crop.image, crop.tile, crop.grid, shown, len(cells), len(cells)))
        return entries

    def contrasted(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Contrasted logits of several continuations of the one prompt that was prefilled last.

        Nothing is ruled out: what is compared was chosen beforehand, and of options that are all unlikely one must still be best.

        Args:
            logits: (R, T, V) of the model, behind the prompt and behind each of `tokens`.
            tokens: (R, T - 1) that follow the prompt.
        """
        branch = self._begin(None)
        if branch is None:
            return logits
        branch.select(torch.zeros(len(logits), dtype=torch.long, device=logits.device))
        negative = branch.logits[:, None]  # (R, 1, V)
        if tokens.shape[1]:
            negative = torch.cat([negative, branch.extend(tokens)], dim=1)
        return combine(logits, negative, self.alpha, beta=0)

    def _begin(self, length: int | None) -> Branch | None:
        """The branch of the prompt that was just prefilled, of `length` tokens where that is known."""
        prompt = self.prompts.take()
        if prompt is None:
            return None
        if length not in (None, prompt.real.shape[1]):
            raise UnsupportedError(
                f"the prompt of {length} tokens was prefilled in parts, the first one of {prompt.real.shape[1]} tokens, and the "
                "second branch needs the whole prompt at once.",
                hint="Leave prefill_chunk_size out.",
            )
        self._negative = self.method.negative(prompt)
        return Branch(self.anatomy, self._negative)

    def _processors(self, generation_config: GenerationConfig, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        original = self._instead or getattr(type(self.model), _HOOK).__get__(self.model)
        processor = ContrastiveProcessor(self._begin, self.alpha, self.beta, generation_config.num_beams or 1)
        return LogitsProcessorList([processor, *original(generation_config, *args, **kwargs)])


def decoding(model: Any) -> DecodingAttachment | None:
    """The decoding method that is attached to a model."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return vars(base).get(_DECODING)
