"""Options as statements about the picture, for models that compare pictures with texts (CLIP, arXiv 2103.00020).

colour, "red"  ->  "a red star", "a red circle", ...
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, field_validator

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.contrastive import TEXTS
from argus.evaluation.instructions.base import Instruction


class StatementOptions(Options):
    """The templates."""

    templates: list[str] = Field(
        ["{option}", "a {option}", "a picture of a {option}"], min_length=1, description="texts with {option}, and {question}"
    )
    families: dict[str, list[str]] = Field(default_factory=dict, description="family of questions -> its own templates")

    @field_validator("templates")
    @classmethod
    def _complete(cls, value: list[str]) -> list[str]:
        if any("{option}" not in template for template in value):
            raise ValueError("every template needs {option}")
        return value


class Statement(Instruction):
    """Writes each option's statements into the sample; options and target stay."""

    Options = StatementOptions
    options: StatementOptions

    def apply(self, sample: Sample) -> Sample:
        templates = self.options.families.get(str(sample.metadata.get("family")), self.options.templates)
        asked = sample.messages[-1].text()
        texts = {o: [t.replace("{option}", o).replace("{question}", asked) for t in templates] for o in sample.options}
        return replace(sample, metadata={**sample.metadata, TEXTS: texts})
