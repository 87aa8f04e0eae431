"""One training stage: data, objective and options on `transformers.Trainer`, resumable at any step.

    result = train_stage(model, processor, StageOptions(...), folder)

A stage's folder holds `checkpoints/`, `model/` (the trained model and its processor), `techniques/` (parts of techniques that
learned beside it), `curves.png`, TensorBoard events in `events/` and `result.json`. Calling it again on a finished folder returns
the stored result and loads the stored weights; on an unfinished one it goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments, set_seed

from argus.core.errors import RecipeError
from argus.core.progress import console
from argus.core.registry import build
from argus.methods.learned import load_parts
from argus.training.callbacks import Clock, Progress, Steps
from argus.training.curves import draw_curves
from argus.training.data import StageData
from argus.training.flops import machine_peak, training_flops
from argus.training.objectives.base import Objective
from argus.training.optimizers import optimizer
from argus.training.options import StageOptions
from argus.training.parts import draw_anew, set_trainable
from argus.training.weights import last_checkpoint, load_weights, save_techniques, technique_file


@dataclass(slots=True)
class TrainResult:
    """What a stage did.

    Args:
        steps: optimiser steps done.
        samples: pictures or texts seen.
        seconds: time in training, over all starts.
        samples_per_second: mean rate.
        mfu: share of the machine's measured matmul rate that the model's FLOPs used.
        flops_per_sample: of a forward and backward pass.
        trainable: trainable parameters per part.
        log: the logged losses and shares.
    """

    steps: int
    samples: int
    seconds: float
    samples_per_second: float
    mfu: float | None
    trainable: dict[str, int]
    flops_per_sample: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


class Lesson(nn.Module):
    """A model and its objective as one module, so that DDP and FSDP see the whole computation of the loss."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.techniques = nn.ModuleDict(objective.techniques())

    def forward(self, **batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective.loss(self.model, batch)


class StageTrainer(Trainer):
    """`Trainer` that asks an objective for the loss, logs its parts, and keeps the data in order."""

    optimizer: torch.optim.Optimizer | None

    def __init__(self, options: StageOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.loss_is_scaled_for_ga = False  # the objective's loss is a mean over its forward pass
        self.parts: dict[str, list[Tensor]] = {}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = optimizer(model or self.model, self.options)
        return self.optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, parts = model(**inputs)
        for name, value in parts.items():
            self.parts.setdefault(name, []).append(value.detach().float())
        return (loss, {}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        inner = None
        if state_dict:
            inner = {k.removeprefix("model."): v for k, v in state_dict.items() if k.startswith("model.")}
        folder = Path(output_dir or str(self.args.output_dir))
        self.model.model.save_pretrained(folder, state_dict=inner)
        save_techniques(self.model.techniques, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        lesson, folder = model or self.model, Path(resume_from_checkpoint)
        load_weights(lesson.model, folder)
        for name, parts in lesson.techniques.items():
            load_parts(parts, technique_file(folder, name))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for name, values in self.parts.items():
            logs[name] = round(self.accelerator.gather(torch.stack(values).mean()[None]).mean().item(), 5)
        self.parts.clear()
        super().log(logs, start_time)


def train_stage(
    model: nn.Module,
    processor: Any,
    options: StageOptions,
    folder: Path,
    *,
    resume: bool = True,
    on_step: Callable[[int], None] | None = None,
    techniques: Mapping[str, Path] | None = None,
) -> TrainResult:
    """Train `model` in place.

    Args:
        model: a PreTrainedModel.
        processor: its processor or tokenizer; saved with it.
        options: the stage.
        folder: where everything of this stage is written.
        resume: go on from the last checkpoint in `folder`, or take the finished result.
        on_step: called with the step number after each step.
        techniques: files of parts that an earlier stage trained, by their techniques' names; the same parts go on from there.

    Raises:
        RecipeError: options that do not fit the model or the machine.
    """
    result_file = folder / "result.json"
    if resume and result_file.exists():
        if options.tuner is not None:
            _merged(_tuned(model, options))  # what a tuner adds for good has to be there
        load_weights(model, folder / "model")
        return TrainResult(**json.loads(result_file.read_text()))
    set_seed(options.seed)
    objective: Objective = build("objective", options.objective_name(), options.objective_options())
    draw_anew(model, options.anew)
    trained = _tuned(model, options)
    objective.bind(model, processor)
    lesson = Lesson(trained, objective)
    for name, parts in lesson.techniques.items():
        if name in (techniques or {}):
            load_parts(parts, (techniques or {})[name])
    trainable = set_trainable(lesson, options.train, options.freeze) if options.tuner is None else _learning(lesson)
    data = StageData(options.data, options.steps * options.batch_size, questions=objective.needs_questions)
    arguments = _arguments(options, folder)
    share = arguments.per_device_train_batch_size
    first = objective.collate([data[i] for i in range(share)])
    flops = training_flops(trained, objective, first) / share
    if options.checkpointing:
        trained.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    if options.compile:
        torch.compiler.reset()  # what an earlier stage compiled counts against PyTorch's limit, behind which code runs uncompiled
        objective.compile(trained)
    callback = Progress(options, flops, machine_peak(options.precision))
    trainer = StageTrainer(
        options,
        model=lesson,
        args=arguments,
        train_dataset=data,
        data_collator=objective.collate,
        callbacks=[callback, Clock(objective), *([Steps(on_step)] if on_step else [])],
    )
    for name in ("PrinterCallback", "ProgressCallback"):
        for handler in list(trainer.callback_handler.callbacks):
            if type(handler).__name__ == name:
                trainer.remove_callback(handler)
    checkpoints = folder / "checkpoints"
    last = last_checkpoint(checkpoints) if resume else None
    if last:
        console().print(f"resuming from {last}", highlight=False)
    output = trainer.train(resume_from_checkpoint=str(last) if last else None)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    seconds = sum(options.log_every * options.batch_size / e["samples_per_second"] for e in log if "samples_per_second" in e)
    result = TrainResult(
        steps=output.global_step,
        samples=output.global_step * options.batch_size,
        seconds=round(seconds, 1),
        samples_per_second=round(output.global_step * options.batch_size / max(seconds, 1e-9), 2),
        mfu=round(sum(callback.mfu) / len(callback.mfu), 4) if callback.mfu else None,
        trainable=trainable,
        flops_per_sample=flops,
        log=log,
    )
    if trainer.is_world_process_zero():
        (folder / "model").mkdir(parents=True, exist_ok=True)
        _merged(trained).save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        save_techniques(lesson.techniques, folder)
        draw_curves(log, folder / "curves.png", f"{folder.name}: {result.samples:,} samples")
        part = result_file.with_suffix(".part")
        part.write_text(json.dumps(asdict(result), indent=1))
        part.replace(result_file)
    trainer.accelerator.wait_for_everyone()  # or others would look for this stage's files before they are there
    return result


def _tuned(model: nn.Module, options: StageOptions) -> nn.Module:
    if options.tuner is None:
        return model
    if options.train or options.freeze:
        raise RecipeError("a tuner chooses what learns itself; leave 'train' and 'freeze' out")
    name, settings = next(iter(options.tuner.items()))
    return build("tuner", name, settings).apply(model)


def _merged(model: Any) -> Any:
    """The plain model again: adapters are merged into the weights they adapt."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _learning(model: nn.Module) -> dict[str, int]:
    return {"tuner": sum(p.numel() for p in model.parameters() if p.requires_grad)}


def _arguments(options: StageOptions, folder: Path) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    share, rest = divmod(options.batch_size, options.accumulation * processes)
    if rest or not share:
        raise RecipeError(
            f"batch_size {options.batch_size} cannot be split over {processes} processes x {options.accumulation} accumulation"
        )
    if options.fsdp and not cuda:
        raise RecipeError("fsdp needs GPUs: processes on CPUs keep whole weights (DDP)", hint="Leave 'fsdp' out of the stage.")
    schedule = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}[options.schedule]
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        warmup_steps=math.ceil(options.warmup * options.steps),
        lr_scheduler_type=schedule,
        max_grad_norm=options.max_grad_norm,
        bf16=options.precision == "bf16",
        fsdp=True if options.fsdp else None,
        fsdp_config={"version": 2, "reshard_after_forward": True} if options.fsdp else None,
        logging_steps=options.log_every,
        save_steps=options.save_every,
        save_total_limit=2,
        dataloader_num_workers=options.workers,
        dataloader_persistent_workers=options.workers > 0,
        seed=options.seed,
        use_cpu=not cuda,
        ddp_backend="gloo" if processes > 1 and not cuda else None,
        ddp_find_unused_parameters=processes > 1,  # a tower's last block is unused where an earlier layer is read
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        report_to=["tensorboard"] if find_spec("tensorboard") else [],
    )
