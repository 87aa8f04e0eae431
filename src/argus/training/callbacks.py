"""What goes on beside the steps of a stage: lines on the console, the objective's clock, calls after each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from argus.core.progress import console
from argus.training.objectives.base import Objective
from argus.training.options import StageOptions


class Progress(TrainerCallback):
    """Rate, losses and MFU on the console, and in the log."""

    def __init__(self, options: StageOptions, flops_per_sample: float, peak: float) -> None:
        self.options, self.flops, self.peak = options, flops_per_sample, peak
        self.since: tuple[float, int] | None = None
        self.mfu: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.since is None:
            self.since = (time.perf_counter(), state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None or "loss" not in logs or self.since is None:
            return
        seconds = time.perf_counter() - self.since[0]
        rate = (state.global_step - self.since[1]) * self.options.batch_size / max(seconds, 1e-9)
        self.since = (time.perf_counter(), state.global_step)
        mfu = rate * self.flops / self.peak
        self.mfu.append(mfu)
        state.log_history[-1].update(samples_per_second=round(rate, 2), mfu=round(mfu, 4))
        left = (state.max_steps - state.global_step) * self.options.batch_size / max(rate, 1e-9)
        shown = "  ".join(
            f"{n} {v:.3f}" for n, v in logs.items() if n not in ("epoch", "learning_rate", "grad_norm", "total_flos")
        )
        console().print(
            f"step {state.global_step}/{state.max_steps}  {shown}  {rate:.1f} samples/s  MFU {mfu:.0%}  {left / 60:.0f} min left",
            highlight=False,
        )


class Clock(TrainerCallback):
    """Tells the objective how far the stage is, also where it goes on from a checkpoint."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.objective.progress = state.global_step / state.max_steps


class Steps(TrainerCallback):
    """Calls a function with the number of each step that is done."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.call(state.global_step)
