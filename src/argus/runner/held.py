"""The model in hand: variants that stand on the same model, seed and stages share one loaded copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.progress import console
from argus.core.run import Run
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.endpoint_reference import is_endpoint
from argus.methods.attach import attach
from argus.methods.attached import Attached
from argus.model.compose import compose
from argus.model.encoders.base import Tower
from argus.model.load import load
from argus.runner.calibrate import calibrated
from argus.runner.plan import Plan
from argus.training.stage import train_stage


@dataclass(slots=True)
class Held:
    """One loaded model at a time.

    Args:
        plan: what the recipe asks for.
        run: the run folder; stages keep their checkpoints there.
    """

    plan: Plan
    run: Run
    base: str = ""
    model: Any = None
    processor: Any = None

    def take(self, variant: str) -> tuple[Any, Any]:
        """The model and processor that a variant stands on, loaded and trained."""
        base = self.plan.base(variant)
        if base != self.base:
            self.train(variant)
            self.base = base
            self._try_all(base)
        return self.model, self.processor

    def train(self, variant: str) -> None:
        """Load the model of a variant and take it through the stages, or to where they ended."""
        self.base, self.model, self.processor = "", None, None  # the old one goes before the new one comes
        self.model, self.processor = self._load(variant)
        for stage in self.plan.recipe.variants[variant].train:
            console().print(f"{variant}: training stage {stage}", highlight=False)
            folder = stage_folder(self.plan, self.run, variant, stage)
            train_stage(
                self.model, self.processor, self.plan.stages[stage], folder, techniques=self._trained(variant, before=stage)
            )
        for tower in self.model.modules() if isinstance(self.model, nn.Module) else ():
            if isinstance(tower, Tower):
                tower.reparameterise()  # it is asked as it would be used

    @contextmanager
    def attached(self, variant: str) -> Iterator[list[Attached]]:
        """A variant's techniques on the model, for the time inside."""
        with ExitStack() as stack:
            techniques = self.plan.recipe.variants[variant].attach
            try:
                found = []
                trained = self._trained(variant)
                for name, options in techniques.items():
                    weights = {"weights": str(trained[name])} if name in trained else {}
                    fitted = self._calibrated(variant, name, {**weights, **options})
                    found.append(stack.enter_context(attach(self.model, name, **fitted)))
            except UnsupportedError as error:
                raise RecipeError(error.text(), where=self.plan.source.where(("variants", variant, "attach"))) from None
            yield found

    def _trained(self, variant: str, before: str | None = None) -> dict[str, Path]:
        """Technique -> the parts that the variant's stages trained last, of those before a stage or of all."""
        found: dict[str, Path] = {}
        for stage in self.plan.recipe.variants[variant].train:
            if stage == before:
                break
            folder = stage_folder(self.plan, self.run, variant, stage) / "techniques"
            found.update({file.stem: file for file in sorted(folder.glob("*.safetensors"))})
        return found

    def _calibrated(self, variant: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """A technique's options with what it finds on data, found once and kept in the run folder."""
        if not options.get("calibrate"):
            return options
        file = f"calibrated/{variant}.{name}.json"
        known = self.run.read_json(file)
        if not known:
            console().print(f"{variant}: calibrating {name}", highlight=False)
            known = calibrated(self.model, self.processor, name, options)
            (self.run.folder / "calibrated").mkdir(exist_ok=True)
            self.run.write_json(file, known)
        return known

    def _load(self, variant: str) -> tuple[Any, Any]:
        spec, changes = self.plan.models[variant], self.plan.recipe.variants[variant]
        torch.manual_seed(self.plan.recipe.seed if changes.seed is None else changes.seed)
        if spec.compose is not None:
            return compose(spec.compose)
        assert spec.reference is not None  # one of the two is given: the schema says so
        if is_endpoint(spec.reference):
            return EndpointModel(spec.reference), None
        return load(
            spec.reference,
            dtype=spec.dtype,
            device=spec.device,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            attn_implementation=spec.attention,
        )

    def _try_all(self, base: str) -> None:
        """Attach, once and for nothing, what later variants will attach to this model, so that a refusal comes early."""
        for variant in self.plan.recipe.variants:
            if self.plan.base(variant) == base:
                with self.attached(variant):
                    pass


def stage_folder(plan: Plan, run: Run, variant: str, stage: str) -> Path:
    """Where a stage is trained: under the first variant that stands on the same base, so that none is trained twice."""
    base = plan.base(variant)
    return run.stage_folder(next(v for v in plan.recipe.variants if plan.base(v) == base), stage)
