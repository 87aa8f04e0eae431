"""Fits a technique to a model on questions of its own, before it is attached.

    options = calibrated(model, processor, "gsearch", {"calibrate": {"tolerance": 0.01}})
    argus.attach(model, "gsearch", **options)

What is already attached stays on meanwhile, so that a technique is fitted to what it will meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from argus.core.images import load_image
from argus.core.registry import Options, check_options, component
from argus.evaluation.engine import build_instructions, evaluate
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.base import build_scenario
from argus.methods.attach import Attachment
from argus.methods.calibration import CalibrationOptions
from argus.model.anatomy import anatomy
from argus.model.anatomy.base import Anatomy


@dataclass(slots=True)
class Questions:
    """The calibration that techniques see, on a loaded model."""

    model: Any
    processor: Any
    name: str
    asked: EvaluationOptions
    anatomy: Anatomy

    def accuracy(self, options: Options) -> float:
        """Accuracy on all questions with the technique attached with these options."""
        reducer = component("reducer", self.name).load()(options)
        with Attachment(self.model, self.name, reducer) as attachment:
            return evaluate(self.model, self.processor, self.asked, attachment=attachment, progress=False).value("accuracy")

    def prompts(self) -> Iterator[Mapping[str, Tensor]]:
        """Each question's whole prompt."""
        local = LocalModel(self.model, self.processor)
        assert isinstance(self.asked.seed, int)  # calibration names its part
        with torch.inference_mode():
            for group in build_scenario(self.asked).groups(self.asked.samples, self.asked.seed):
                samples = group.samples
                for instruction in build_instructions(self.asked):
                    samples = [instruction.apply(sample) for sample in samples]
                images = [load_image(image) for image in samples[0].images()] if samples else []
                questions = [Question(group.id, sample, images) for sample in samples if sample.images()]
                yield from local.alone.inputs(questions, local.held.prompter.prompts(questions, options=False))


def calibrated(model: Any, processor: Any, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A technique's options with everything found that has to be found on data; unchanged where there is nothing.

    Args:
        model: a loaded model of a family that the anatomy knows.
        processor: its processor.
        name: a registered technique.
        options: its options as a recipe has them.

    Raises:
        RecipeError: wrong options, of the technique or of its questions.
    """
    cls = component("reducer", name).load()
    given = check_options("reducer", name, cls.Options, options)
    wanted = getattr(given, "calibrate", None)
    if not isinstance(wanted, CalibrationOptions):
        return dict(options)
    model.eval()
    asked = EvaluationOptions.model_validate(
        {"scenario": wanted.scenario, "samples": wanted.samples, "seed": wanted.seed, "examples": 0}
    )
    found: Options = cls.calibrated(given, Questions(model, processor, name, asked, anatomy(model)))
    return found.model_dump(mode="json", exclude_unset=True)
