"""Items per processor second of `evaluate` against lmms-eval: same model, pictures, questions and answers, in one run.

    python benchmarks/evaluation.py [--pictures 24] [--questions 8] [--rounds 3]

It needs an environment that holds both: `pip install lmms-eval==0.7.3` beside Argus, in an environment of its own. lmms-eval is
driven as its users drive it: `simple_evaluate` on a task of its own YAML, with its model class `llava_hf`, told that Argus's
composed models are LLaVA-shaped. Two things are mended, since answers must be equal: its class counts a prompt's tokens without
the picture's, so that question tokens count as answer, and the chat template's line break behind the end of a turn is dropped.
Its metrics, which are not compared, are replaced by a constant. Timed on its side are its model's requests alone, without
loading, task building and scoring; on ours all of `evaluate`. Seconds are of the processor, so that other work on the machine
counts for neither. `llava_hf` asks one question at a time by its nature.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from argus.core.environment import environment
from argus.core.formats.messages import write
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.base import build_scenario
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.load import load, resolve

try:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models.simple import llava_hf
    from lmms_eval.tasks import TaskManager
    from loguru import logger
except ImportError as error:
    sys.exit(f"{error}\nThis benchmark needs lmms-eval: pip install lmms-eval==0.7.3 in an environment that also holds Argus.")

MODEL = "argus/tiny-vlm"
LONGEST = 16  # tokens of a free answer
MEAN = {"likelihood": {"normalise": "mean"}}  # lmms-eval's loss is a mean
KINDS = {  # what is asked -> families of questions of world/objects, how lmms-eval asks, how Argus asks
    "yes/no likelihood": (["existence"], "multiple_choice", MEAN),
    "multiple choice likelihood": (["colour", "count", "shape", "position"], "multiple_choice", MEAN),
    "free generation": (["colour", "count", "shape", "position"], "generate_until", {"generate": {"max_new_tokens": LONGEST}}),
}  # fmt: skip
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: {output}
doc_to_visual: !function items.pictures
doc_to_text: question
doc_to_choice: {choice}
doc_to_target: {target}
target_delimiter: ""
generation_kwargs: {{max_new_tokens: {longest}, temperature: 0, do_sample: false}}
process_results: !function items.scored
metric_list: [{{metric: asked, aggregation: mean, higher_is_better: true}}]
"""
ITEMS = """
from PIL import Image

def pictures(doc):
    return [Image.open(doc["picture"]).convert("RGB")]

def scored(doc, results):
    return {"asked": 1.0}
"""


class Counting:
    """A processor that counts a prompt's tokens with its pictures', as lmms-eval's loss needs them counted."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer

    def __call__(self, text: Any, images: Any = None, **kwargs: Any) -> Any:
        if images is not None:
            return self.processor(text=text, images=images, **kwargs)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][0]
        more = ids.count(self.processor.image_token_id) * (self.processor.image_token_count() - 1)
        return {"input_ids": torch.empty(1, len(ids) + more)}


class Timed(llava_hf.LlavaHf):
    """lmms-eval's own class; what it says and how long it takes to say it is kept."""

    said: list[Any]
    seconds: float

    def kept(self, ask: Callable[[Any], Any], requests: Any) -> Any:
        start = time.process_time()
        self.said = ask(requests)
        self.seconds = time.process_time() - start
        return self.said

    def loglikelihood(self, requests: Any) -> Any:
        return self.kept(super().loglikelihood, requests)

    def generate_until(self, requests: Any) -> Any:
        return self.kept(super().generate_until, requests)


def draw(folder: Path, name: str, output: str, families: list[str], pictures: int, questions: int) -> int:
    """Write the items twice: as a file for Argus and as a task for lmms-eval. Returns how many they are."""
    setting = {"domain": "objects", "questions": questions, "families": families}
    options = EvaluationOptions.model_validate({"scenario": {"world": setting}, "samples": pictures * questions})
    groups = list(build_scenario(options).groups(pictures * questions, 0))
    samples, rows = [], []
    for number, group in enumerate(groups):
        picture = folder / f"{name}-{number}.png"
        group.samples[0].images()[0].save(picture)  # type: ignore[union-attr]
        for sample in group.samples:
            sample.messages[0].content[0].image = picture  # type: ignore[union-attr]
            samples.append(sample)
            row = {"picture": str(picture), "question": sample.messages[0].text()}
            rows.append(
                {**row, "choices": sample.options, "answer": sample.target, "index": sample.options.index(sample.target or "")}
            )
    for sample in samples:
        sample.metadata = {}
    write(samples, folder / f"{name}.jsonl", folder / f"{name}.jsonl")
    (folder / f"{name}-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chosen = output == "multiple_choice"
    filled = TASK.format(
        name=name, file=folder / f"{name}-rows.jsonl", output=output, longest=LONGEST, choice="choices" if chosen else "null",
        target="index" if chosen else "answer",
    )  # fmt: skip
    (folder / f"{name}.yaml").write_text(filled, encoding="utf-8")
    (folder / "items.py").write_text(ITEMS, encoding="utf-8")
    return len(rows)


def theirs(manager: TaskManager, name: str, choices: list[list[str]], dtype: str, template: str) -> tuple[list[str], float]:
    """lmms-eval's answers and seconds; it takes its model apart after each run."""
    lm = Timed(str(resolve(MODEL)), device="cpu", device_map="cpu", dtype=dtype, chat_template=template)
    lm._image_processor = Counting(lm._image_processor)
    simple_evaluate(model=lm, tasks=[name], task_manager=manager, log_samples=False, bootstrap_iters=0, verbosity="ERROR")
    if isinstance(lm.said[0], str):
        return [text.strip() for text in lm.said], lm.seconds
    losses = iter(loss for loss, _ in lm.said)
    scores = [[next(losses) for _ in options] for options in choices]
    return [options[row.index(min(row))] for options, row in zip(choices, scores, strict=True)], lm.seconds


def ours(model: Any, processor: Any, file: Path, inferencer: Any) -> tuple[list[str], list[list[str]], float]:
    """Argus's answers, what could be chosen from, and seconds."""
    options = EvaluationOptions.model_validate({"scenario": {"file": {"path": file}}, "inferencer": inferencer, "samples": None})
    records = MemoryRecords()
    start = time.process_time()
    evaluate(model, processor, options, run_part=records, progress=False)
    seconds = time.process_time() - start
    rows = [row for row in records.rows if row["kind"] == "answer"]
    return [row["answer"] for row in rows], [row["options"] for row in rows], seconds


def main() -> None:
    """Ask both in turn and print the rates, their ratio and the share of equal answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24, help="pictures per kind of question")
    parser.add_argument("--questions", type=int, default=8, help="questions per picture")
    parser.add_argument("--rounds", type=int, default=3, help="times that both are asked in turn; medians count")
    parser.add_argument("--dtype", default="float32", help="precision of both; lower ones may break ties otherwise")
    given = parser.parse_args()
    logger.remove()
    logging.disable(logging.WARNING)
    llava_hf.model_map["argus"] = ArgusForConditionalGeneration
    llava_hf.tqdm = lambda *a, **k: _Silent()
    model, processor = load(MODEL, device="cpu", dtype=given.dtype)
    template = processor.chat_template.replace("{% endgeneration %}{{ '\\n' }}", "{% endgeneration %}")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = [
            draw(folder, f"kind{n}", output, families, given.pictures, given.questions)
            for n, (families, output, _) in enumerate(KINDS.values())
        ]
        manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False)
        for n, ((kind, (_, _, inferencer)), count) in enumerate(zip(KINDS.items(), counts, strict=True)):
            seconds: dict[str, list[float]] = {"lmms-eval": [], "argus": []}
            for _ in range(given.rounds):
                here, choices, took = ours(model, processor, folder / f"kind{n}.jsonl", inferencer)
                seconds["argus"].append(took)
                there, took = theirs(manager, f"kind{n}", choices, given.dtype, template)
                seconds["lmms-eval"].append(took)
            rates = {side: count / statistics.median(times) for side, times in seconds.items()}
            equal = sum(a == b for a, b in zip(here, there, strict=True)) / count
            found[kind] = {**rates, "ratio": rates["argus"] / rates["lmms-eval"], "equal": equal}
            print(f"{kind:28} lmms-eval {rates['lmms-eval']:6.1f} items/s  argus {rates['argus']:6.1f} items/s  "
                  f"argus / lmms-eval {found[kind]['ratio']:5.2f}  equal answers {equal:.1%}", flush=True)  # fmt: skip
    print(json.dumps({"found": found, "dtype": given.dtype, **{k: environment()[k] for k in ("machine", "commit", "threads")}}))


class _Silent:
    """In place of a progress bar."""

    def update(self, _: int) -> None: ...

    def close(self) -> None: ...


if __name__ == "__main__":
    main()
