"""The ids of what views write, which a tokenizer makes of it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from argus.core.errors import UnsupportedError
from argus.model.views.base import View


def tag_length(view: View, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the text with which a view announces a tile; 0 where it has none.

    Raises:
        UnsupportedError: tags of different length.
    """
    lengths = {tag: len(tokenizer(tag, add_special_tokens=False)["input_ids"]) for tag in view.tags()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{tag} {n}" for tag, n in sorted(lengths.items(), key=lambda pair: (pair[1], pair[0])))
        raise UnsupportedError(
            f"the tags of tiles must have equally many tokens; this tokenizer makes of them: {told}.",
            hint="Choose another kind of tags, or a thumbnail_tag of the others' length.",
        )
    return max(lengths.values(), default=0)


def picture_texts(view: View, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Ids of each text that a view may write."""
    return {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in view.texts()}
