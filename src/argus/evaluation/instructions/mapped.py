"""Options by other names: does a model follow an instruction (ChEF's instruction following, arXiv 2311.02692)?

    ... If the answer is "(A)", you need to output "Smith". If the answer is "(B)", you need to output "Johnson".

    natural    1 2 3 ..         I II III ..           first second third ..
    neutral    Smith Johnson .. foo dog hip oh ..
    unnatural  each option is given the next one's name

Option by option the names take the options' places, so that the chosen place can be held against that without renaming: the
metric `mr`. The paper averages over these six settings. Options that are letters "(A" are named "(A)" in the sentence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.instructions.leading import reworded

Names = Literal["digits", "roman", "ordinals", "surnames", "words", "shifted"]
NAMES: dict[str, tuple[str, ...]] = {
    "digits": ("1", "2", "3", "4", "5", "6", "7", "8"),
    "roman": ("I", "II", "III", "IV", "V", "VI", "VII", "VIII"),
    "ordinals": ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
    "surnames": ("Smith", "Johnson", "Williams", "Jones", "Brown", "Davis", "Miller", "Wilson"),
    "words": ("foo", "dog", "hip", "oh", "cat", "lake", "river", "joy"),
}


class MappedOptions(Options):
    """Which names."""

    names: Names = Field("digits", description="what the options are called: natural, neutral, or each as the next one")


class Mapped(Instruction):
    """Renames the options; a question without options stays as it is."""

    Options = MappedOptions
    options: MappedOptions

    def apply(self, sample: Sample) -> Sample:
        old = list(sample.options)
        if not old:
            return sample
        new = old[1:] + old[:1] if self.options.names == "shifted" else list(NAMES[self.options.names][: len(old)])
        if len(new) < len(old):
            raise DataError(f"{len(old)} options, but {len(new)} names", where=sample.id)
        rule = "".join(f'If the answer is "{_closed(a)}", you need to output "{b}". ' for a, b in zip(old, new, strict=True))
        asked = reworded(sample, lambda text: f"{text.rstrip()}\n{rule}")
        target = new[old.index(sample.target)] if sample.target in old else sample.target
        metadata = {**sample.metadata, "choices": sample.metadata.get("choices", old)}
        return replace(asked, options=new, target=target, metadata=metadata)


def _closed(option: str) -> str:
    return f"{option})" if len(option) == 2 and option[0] == "(" else option
