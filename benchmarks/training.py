"""Samples per second of Argus's trainer against TRL's SFTTrainer on the same model, data and precision.

    python benchmarks/training.py

Both train `argus/tiny-vlm` on the same scenes with the same questions. TRL asks each question with its own copy of the picture
(one sample = one picture + one question, which is how its vision-language data are laid out) or all questions of a picture as
one dialogue; Argus asks all questions of a picture in one row of independent turns. A sample is one question with its answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from argus.core.environment import environment
from argus.model.load import load
from argus.training.options import StageOptions
from argus.training.stage import train_stage
from argus.world.data import drawings

DATA = {"world": {"objects": 1.0, "charts": 1.0}, "families": ["colour", "count", "shape", "position", "extreme", "kind"]}


class Clock(TrainerCallback):
    """Seconds of each step, the first `skip` left out."""

    def __init__(self, skip: int) -> None:
        self.skip, self.times, self.last = skip, [], 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > self.skip:
            self.times.append(time.perf_counter() - self.last)


def rows(pictures: int, questions: int, dialogue: bool) -> Dataset:
    """The scenes that Argus's stage draws, as TRL reads them."""
    out = []
    from PIL import Image

    for drawing, _ in drawings({"objects": 1.0, "charts": 1.0}, "train", 0, pictures, questions=questions):
        image = Image.fromarray(drawing.pixels)
        turns = [
            [
                {"role": "user", "content": [{"type": "text", "text": q.text}]},
                {"role": "assistant", "content": [{"type": "text", "text": q.answer}]},
            ]
            for q in drawing.questions
        ]
        groups = [[t for pair in turns for t in pair]] if dialogue else turns
        for group in groups:
            first = {**group[0], "content": [{"type": "image"}, *group[0]["content"]]}
            out.append({"images": [image], "messages": [first, *group[1:]]})
    return Dataset.from_list(out)


def trl_rate(pictures: int, questions: int, steps: int, skip: int, dialogue: bool) -> float:
    """Questions per second of TRL's SFTTrainer."""
    model, processor = load("argus/tiny-vlm", device="cpu")
    share = pictures if dialogue else pictures * questions
    clock = Clock(skip)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=steps + skip, per_device_train_batch_size=share, max_length=None, bf16=True,
            use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1000,
            gradient_checkpointing=False, learning_rate=1e-4,
        )  # fmt: skip
        data = rows(pictures * (steps + skip), questions, dialogue)
        SFTTrainer(model=model, args=config, train_dataset=data, processing_class=processor, callbacks=[clock]).train()
    return pictures * questions / statistics.median(clock.times)


def argus_rate(pictures: int, questions: int, steps: int, skip: int) -> float:
    """Questions per second of a stage."""
    model, processor = load("argus/tiny-vlm", device="cpu")
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        stage = StageOptions.model_validate(
            {"objective": "sft", "data": {**DATA, "questions": questions}, "steps": steps + skip, "batch_size": pictures,
             "learning_rate": 1e-4, "log_every": 1000, "save_every": 1000}
        )  # fmt: skip
        train_stage(model, processor, stage, Path(folder), on_step=lambda step: times.append(time.perf_counter()))
    gaps = [b - a for a, b in pairwise(times)][skip:]
    return pictures * questions / statistics.median(gaps)


def main() -> None:
    """Measure both sides in one run and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4, help="pictures per step")
    parser.add_argument("--questions", type=int, default=8, help="questions per picture")
    parser.add_argument("--steps", type=int, default=8, help="measured steps")
    parser.add_argument("--skip", type=int, default=2, help="steps before measuring")
    a = parser.parse_args()
    rates = {
        "trl, one question per row": trl_rate(a.pictures, a.questions, a.steps, a.skip, dialogue=False),
        "trl, one dialogue per row": trl_rate(a.pictures, a.questions, a.steps, a.skip, dialogue=True),
        "argus": argus_rate(a.pictures, a.questions, a.steps, a.skip),
    }
    for name, rate in rates.items():
        print(f"{name:28} {rate:8.1f} questions/s   argus / this = {rates['argus'] / rate:.2f}")
    print(json.dumps({"rates": rates, **{k: environment()[k] for k in ("machine", "commit", "threads")}}))


if __name__ == "__main__":
    main()
