"""The engine: asks everything a scenario holds, writes one record per question, and measures from the records.

    result = evaluate(model, processor, EvaluationOptions(scenario="world/objects"), run_part=writer)

Records come first, numbers second: every number of the result is computed from the records alone, so a run that was
killed and resumed ends with the numbers of one that was not. Batches are formed from the scenario's order, never from
what is left to do, so a resumed run repeats the same arithmetic.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from typing import Any

from argus.core.errors import ArgusError, UnsupportedError
from argus.core.images import load_image
from argus.core.progress import console, track
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.contrastive import ContrastiveModel, is_contrastive
from argus.evaluation.cost import measure
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.inferencers.base import Inferencer, Question
from argus.evaluation.inferencers.likelihood import Likelihood
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.local import LocalModel
from argus.evaluation.metrics.base import AnswerMetric, CostMetric
from argus.evaluation.options import EvaluationOptions, named
from argus.evaluation.records import MemoryRecords, Records, record_id, record_of, scored
from argus.evaluation.results import EvaluationResult, Metrics, summarise
from argus.evaluation.scenarios.base import Group, build_scenario
from argus.model.viewing import viewing


def evaluate(
    model: Any,
    processor: Any,
    options: EvaluationOptions,
    *,
    run_part: Records | None = None,
    attachment: Any = None,
    progress: bool = True,
    shard: tuple[int, int] | None = None,
) -> EvaluationResult:
    """Ask a model everything an evaluation holds.

    Args:
        model: a Hugging Face image-text-to-text or causal language model, or an `EndpointModel`.
        processor: its processor; an endpoint has none.
        options: scenario, instruction, inferencer, metrics.
        run_part: where records go and from where a run resumes; in memory when None.
        attachment: what is attached to the model, so that its kept tokens can be shown and its needs respected.
        progress: show a bar.
        shard: (i, k) to ask every k-th batch alone, beginning with number i. Batches stay whole, so the arithmetic is that of one
            run; each record then says its batch, so that the records of all shards can be put in the order of one run.

    Raises:
        ArgusError: nothing at all could be answered; the reason is the last one.
    """
    if not isinstance(model, EndpointModel):
        model.eval()
    records = MemoryRecords() if run_part is None else run_part
    run = _Run(
        options,
        answering(model, processor, attachment, options.visual_tokens),
        build("inferencer", *named(options.inferencer)),
        build_metrics(options),
        records,
        records.done_ids(),
        shard,
    )
    instructions = build_instructions(options)
    with viewing(model, processor, options.view):
        run.ask(instructions, blind=False)
        if options.blind:
            run.ask([*instructions, build("instruction", "blind")], blind=True)
    return summarise(records.records(), run.metrics, options.examples)


def answering(
    model: Any, processor: Any, attachment: Any = None, visual_tokens: int | None = None
) -> LocalModel | ContrastiveModel | EndpointModel:
    """A model as evaluation sees it: one that writes, here or behind an endpoint, or a dual encoder that compares.

    Raises:
        UnsupportedError: a technique on a dual encoder, which has no language model for it, or on an endpoint; a number of visual
            tokens where it cannot be chosen.
    """
    if visual_tokens is not None and (isinstance(model, EndpointModel) or is_contrastive(model)):
        raise UnsupportedError("visual_tokens: the number can be chosen for composed models alone")
    if isinstance(model, EndpointModel):
        if attachment is not None:
            raise UnsupportedError("nothing can be attached to a model behind an endpoint", where=model.url)
        return model
    if not is_contrastive(model):
        return LocalModel(model, processor, attachment, visual_tokens)
    if attachment is not None:
        raise UnsupportedError("a dual encoder has no language model, so nothing can be attached to it")
    return ContrastiveModel(model, processor)


def build_metrics(options: EvaluationOptions) -> dict[str, AnswerMetric | CostMetric]:
    """The metrics an evaluation names, by name."""
    return {named(m)[0]: build("metric", *named(m)) for m in options.metrics}


def build_instructions(options: EvaluationOptions) -> list[Instruction]:
    """The instructions an evaluation names, in the order in which they rewrite a question."""
    given = options.instruction if isinstance(options.instruction, list) else [options.instruction]
    return [build("instruction", *named(one)) for one in given]


@dataclass(slots=True)
class _Run:
    options: EvaluationOptions
    model: LocalModel | ContrastiveModel | EndpointModel
    inferencer: Inferencer
    metrics: Metrics
    records: Records
    done: set[str]
    shard: tuple[int, int] | None = None
    answered: bool = False
    batch_of: dict[str, int] = field(default_factory=dict)  # group -> its batch, kept for shards

    def ask(self, instructions: Sequence[Instruction], blind: bool) -> None:
        """One pass over the scenario."""
        costs = {name: m for name, m in self.metrics.items() if isinstance(m, CostMetric) and not blind}
        if costs and not isinstance(self.model, LocalModel):
            raise UnsupportedError(f"{', '.join(costs)} measure a language model on this machine, and there is none")
        if costs and isinstance(self.model, LocalModel) and (method := self.model.held.decoding):
            raise UnsupportedError(f"{', '.join(costs)} measure one forward pass, and '{method.name}' runs a second branch")
        left = self.options.cost_samples if costs else 0  # the first groups of the scenario are measured
        if isinstance(self.model, EndpointModel) and isinstance(self.inferencer, Likelihood):
            self.model.check_scores()
        groups = build_scenario(self.options).groups(self.options.samples, self.seed())
        if isinstance(self.model, EndpointModel):
            self.ask_endpoint(self.model, (g for _, batch in self.batches(groups) for g in batch), instructions, blind)
            return
        for number, batch in self.batches(groups):
            measured = batch[: max(0, left - number * self.options.batch_size)]
            ids = {record_id(sample, blind) for group in batch for sample in group.samples}
            ids |= {f"cost/{group.id}" for group in measured}
            ids |= {record_id(Sample(name, []), blind) for group in batch for name in group.errors}
            if ids <= self.done:
                continue
            questions = [q for group in batch for q in self.questions(group, instructions, blind)]
            self.answer(questions, blind)
            for group in measured:
                question = next((q for q in questions if q.group == group.id), None)
                if question and f"cost/{group.id}" not in self.done:
                    assert isinstance(self.model, LocalModel)  # refused above where it is not
                    cost = measure(self.model, question)
                    values = {name: metric.read(cost) for name, metric in costs.items()}
                    self.write({"id": f"cost/{group.id}", "kind": "cost", "group": group.id, "values": values})

    def ask_endpoint(
        self, model: EndpointModel, groups: Iterator[Group], instructions: Sequence[Instruction], blind: bool
    ) -> None:
        """Ask what is not recorded yet, many at once, and record each answer as it comes in."""

        def left() -> Iterator[list[Question]]:
            for group in groups:
                ids = {record_id(s, blind) for s in group.samples} | {record_id(Sample(name, []), blind) for name in group.errors}
                if not ids <= self.done:
                    questions = list(self.questions(group, instructions, blind))
                    if self.inferencer.whole_groups:
                        yield from [questions] if questions else []
                    else:
                        yield from ([q] for q in questions if record_id(q.sample, blind) not in self.done)

        def answer(questions: list[Question]) -> list[dict[str, Any]]:
            start = time.perf_counter()
            found = self.inferencer.answer(model, questions)
            seconds = (time.perf_counter() - start) / len(questions)
            # Scored here, so that a judge is waited for beside other questions.
            return scored(self.metrics, questions, found, seconds, blind)

        for questions, found, _ in track(model.each(answer, left()), model.name, total=self.options.samples):
            if isinstance(found, ArgusError) and not self.answered:
                raise found
            if isinstance(found, ArgusError):
                reason = f"{type(found).__name__}: {found}"
                found = [record_of(q.sample, q.group, blind, error=reason) for q in questions]
            self.answered = True
            for record in found:
                self.write(record)
        console().print(model.bill(), highlight=False)

    def seed(self) -> int:
        """The seed of this run; a fresh one is drawn once and written down."""
        if self.options.seed != "fresh":
            if "seed" not in self.done:
                self.write({"id": "seed", "kind": "seed", "seed": self.options.seed})
            return self.options.seed
        known = next((r["seed"] for r in self.records.records() if r["kind"] == "seed"), None)
        if known is None:
            known = 1 + secrets.randbelow(2**31)
            self.write({"id": "seed", "kind": "seed", "seed": known})
        return known

    def batches(self, groups: Iterator[Group]) -> Iterator[tuple[int, list[Group]]]:
        """Numbered lists of `batch_size` groups, the last one shorter; of a shard its own."""
        first, every = self.shard or (0, 1)
        for number, batch in enumerate(_batches(groups, self.options.batch_size)):
            if number % every == first:
                if self.shard:
                    self.batch_of.update((group.id, number) for group in batch)
                yield number, batch

    def write(self, record: dict[str, Any]) -> None:
        if record["id"] not in self.done:
            if self.shard and "group" in record:
                record = {**record, "batch": self.batch_of[record["group"]]}
            self.records.write(record)
            self.done.add(record["id"])

    def questions(self, group: Group, instructions: Sequence[Instruction], blind: bool) -> Iterator[Question]:
        """The group's questions as asked; what cannot be read or asked gets its record here."""
        for id_, reason in group.errors.items():
            self.write(record_of(Sample(id_, []), group.id, blind, error=reason))
        shown: list[Any] = []
        images: list[Any] = []
        sets = 0
        for sample in group.samples:
            try:
                sample = reduce(lambda s, instruction: instruction.apply(s), instructions, sample)
                wanted = sample.images()
                if wanted != shown:  # an instruction may add pictures of its own, and a dialogue shows more and more
                    kept = images if wanted[: len(shown)] == shown else []
                    images = [*kept, *(load_image(i, where=sample.id) for i in wanted[len(kept) :])]
                    shown, sets = wanted, sets + 1
            except (ArgusError, OSError, ValueError) as error:
                self.write(record_of(sample, group.id, blind, error=f"{type(error).__name__}: {error}"))
                continue
            if refusal := self.inferencer.refusal(sample):
                self.write(record_of(sample, group.id, blind, skipped=refusal))
                continue
            yield Question(group.id, sample, images, sets)

    def answer(self, questions: Sequence[Question], blind: bool) -> None:
        """Answer a batch, score it and write it; a batch that fails is asked group by group."""
        if all(record_id(q.sample, blind) in self.done for q in questions):
            return
        start = time.perf_counter()
        try:
            answers = self.inferencer.answer(self.model, questions)
        except (ArgusError, RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            by_group: dict[str, list[Question]] = {}
            for question in questions:
                by_group.setdefault(question.group, []).append(question)
            if len(by_group) > 1:
                for members in by_group.values():
                    self.answer(members, blind)
                return
            if not self.answered:
                raise
            for question in questions:
                self.write(record_of(question.sample, question.group, blind, error=f"{type(error).__name__}: {error}"))
            return
        self.answered = True
        seconds = (time.perf_counter() - start) / len(questions)
        for record in scored(self.metrics, questions, answers, seconds, blind):
            self.write(record)


def _batches(groups: Iterator[Group], size: int) -> Iterator[list[Group]]:
    """Lists of `size` groups, the last one shorter."""
    while batch := list(islice(groups, size)):
        yield batch
