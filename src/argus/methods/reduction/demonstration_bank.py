"""The demonstration bank of AIM (arXiv 2406.07588): a demonstration is read once; its virtual tokens (m, D) serve every prompt.

What an entry stands for is a hash of everything that decides it: the pixels of the picture's crops, which of its visual tokens
are there and where, the text's ids, the layer, and the weights (a sample of each tensor of vision tower, projector, language
model and W, so that an adapter or a tuned model finds nothing of the old one; one that is only switched off is not noticed). A
folder holds one safetensors file per entry in fp16; with one, what is given out is always rounded so, whether it comes from the
folder, from memory or was just computed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from argus.methods.encoded import fingerprint
from argus.methods.reduction.base import Step
from argus.model.anatomy.base import Anatomy

if TYPE_CHECKING:
    from argus.methods.reduction.aim_icl import Demonstrations

SAMPLED = 4096  # values of each weight tensor that are looked at


class DemonstrationBank:
    """Virtual tokens by key.

    Args:
        size: entries kept in memory; the one used longest ago goes first.
        folder: keeps all entries, where given.
    """

    def __init__(self, size: int, folder: Path | None) -> None:
        self.size, self.folder = size, folder
        self.entries: OrderedDict[str, Tensor] = OrderedDict()
        self._weights: tuple[list[tuple[int, int]], str] = ([], "")  # what the weights were when they were last looked at

    def __bool__(self) -> bool:
        return self.size > 0 or self.folder is not None

    def get(self, key: str) -> Tensor | None:
        """An entry (m, D), or None."""
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key]
        file = self._file(key)
        return self._remember(key, load_file(file)["virtual"]) if file is not None and file.is_file() else None

    def put(self, key: str, virtual: Tensor) -> Tensor:
        """Keeps an entry; returns it as `get` will."""
        file = self._file(key)
        if file is None:
            return self._remember(key, virtual)
        virtual = virtual.half()
        part = file.with_suffix(".part")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"virtual": virtual.cpu().contiguous()}, part)
        part.replace(file)
        return self._remember(key, virtual)

    def keys(self, anatomy: Anatomy, parts: nn.Module, step: Step, found: Demonstrations, layer: int | None) -> list[str]:
        """The key of each demonstration in a prompt."""
        shared = f"{self._marks(anatomy, parts)} {layer} {step.hidden.dtype}"
        prints = torch.zeros_like(step.ids, dtype=torch.long)
        prints[step.tokens.item, step.tokens.column] = step.fingerprints().to(prints.device)
        # A token as its crop's pixels, its cell and its id; text has no pixels.
        cells = torch.full_like(prints, -1)
        cells[step.tokens.item, step.tokens.column] = step.tokens.cell
        place = found.item, found.column
        told = [prints[place], cells[place], step.ids[place].long(), found.text.long(), *found.place.view(-1, len(found.text))]
        rows = torch.stack(told, 1).cpu()  # (N, 5 or 7)
        return [hashlib.sha256(shared.encode() + one.numpy().tobytes()).hexdigest() for one in rows.split(found.sizes)]

    def _remember(self, key: str, virtual: Tensor) -> Tensor:
        self.entries[key] = virtual
        while len(self.entries) > self.size:
            self.entries.popitem(last=False)
        return virtual

    def _file(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.safetensors"

    def _marks(self, anatomy: Anatomy, parts: nn.Module) -> str:
        """A hash of the weights; looked at again only after something was written to one of them, or another took its place."""
        modules = (anatomy.vision_tower, anatomy.projector, anatomy.language_model, parts)
        tensors = [p.detach() for module in modules for p in module.parameters()]
        state = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in tensors]
        if state != self._weights[0]:
            samples = [fingerprint(p.flatten()[:: 1 + p.numel() // SAMPLED].float()) for p in tensors]
            self._weights = state, hashlib.sha256(torch.stack([s.cpu() for s in samples]).numpy().tobytes()).hexdigest()
        return self._weights[1]
