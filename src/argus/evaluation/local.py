"""A model on this machine, asked with everything shared that can be: `generate` and `score`.

Pictures of one batch are prefilled together, once; their questions and options follow as packed trees behind the KV
cache (`tree.py`). Where that cannot be - attention kernels that take no mask, position ids that a model computes
itself, or a reduction whose choice depends on the question - each question is prefilled by itself and its options
follow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from argus.core.errors import ModelError
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.prompts import Prompt, Prompter
from argus.evaluation.tree import Packed, Tree, additive, branch_scores, pack

logger = logging.getLogger(__name__)

ROW_TOKENS = 1024  # longest packed row; longer ones are asked in rounds, as attention grows with the square


@dataclass(slots=True)
class _Prefix:
    """Rows of one prefill: their cache, length, and which questions hang on each row."""

    cache: Any
    length: int
    rows: list[list[int]]


class LocalModel:
    """Answers questions with a Hugging Face model and its processor.

    Args:
        model: any image-text-to-text or causal language model of transformers.
        processor: its processor (or tokenizer, for a model without pictures).
        attachment: what is attached to it, if anything.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, attachment: Any = None) -> None:
        self.model, self.processor, self.attachment = model, processor, attachment
        self.prompter = Prompter(processor)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        own = self.prompter.tokenizer.eos_token_id
        self.ends = {*(ends if isinstance(ends, list) else [ends]), own} - {None}
        pad = self.prompter.tokenizer.pad_token_id
        self.pad = pad if pad is not None else min(self.ends, default=0)
        self.plain_positions = plain_positions(model)
        self.shares = takes_masks(model) and not getattr(attachment, "depends_on_question", False)
        self.checked = False

    def score(self, questions: Sequence[Question], mean: bool) -> list[list[float]]:
        """Log-probability of each option as the model's whole turn, end included; divided by its tokens if `mean`."""
        prompts = self.prompter.prompts(questions, options=True)
        scores: list[list[float]] = [[] for _ in questions]
        with torch.inference_mode():
            if not self.sharing(questions, prompts):
                self._score_alone(questions, prompts, mean, scores)
                return scores
            trees = [Tree(p.tail, p.options) for p in prompts]
            for prefix in self._prefixes(questions, prompts):
                for round_ in _rounds(prefix.rows, trees):
                    self._score_round(prefix, round_, prompts, mean, scores)
        return scores

    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        prompts = self.prompter.prompts(questions, options=False)
        tokens: list[list[int]] = [[] for _ in questions]
        with torch.inference_mode():
            if not self.sharing(questions, prompts):
                self._generate_alone(questions, prompts, max_new_tokens, tokens)
            else:
                for prefix in self._prefixes(questions, prompts):
                    for round_ in _rounds(prefix.rows, [Tree(p.tail, []) for p in prompts]):
                        self._generate_round(prefix, round_, prompts, max_new_tokens, tokens)
        texts = self.prompter.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [Answer(text.strip(), tokens=len(t)) for text, t in zip(texts, tokens, strict=True)]

    def sharing(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> bool:
        """Whether prefixes are shared: where nothing speaks against it, and the first question proves it exact.

        The proof is the distribution of the first answer token, asked both ways. Models whose attention looks ahead within
        the prompt, or that compute positions in their own way, fail it and are asked one question at a time.
        """
        if self.shares and not self.checked and questions:
            self.checked = True
            shown = next((i for i, q in enumerate(questions) if q.images), 0)
            question, prompt = [questions[shown]], [prompts[shown]]
            (prefix,) = self._prefixes(question, prompt)
            shared = self._feed(prefix, pack([[Tree(prompt[0].tail, [])]], prefix.length, self.model.device))
            ((_, inputs),) = self.alone(question, prompt)
            self._same_tokens(question[0], inputs["input_ids"])
            alone = self.model(**inputs, logits_to_keep=1).logits
            gap = float((shared[0, -1].float().log_softmax(-1) - alone[0, -1].float().log_softmax(-1)).abs().max())
            self.shares = gap < (1e-3 if self.model.dtype == torch.float32 else 0.5)
            if not self.shares:
                logger.warning(
                    "prefixes cannot be shared here (log-probabilities differ by %.2g): asking one by one", gap
                )
        return self.shares

    def _same_tokens(self, question: Question, ids: Tensor) -> None:
        """Refuses processors that tokenise the text behind a picture otherwise when they see it whole."""
        text = [self.prompter.text(question)]
        whole = self.processor(
            text=text, **({"images": question.images} if question.images else {}), return_tensors="pt"
        )
        if whole["input_ids"].tolist() != ids.tolist():
            raise ModelError("the processor tokenises text behind a picture differently from text alone")

    def picture_inputs(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The processor's tensors for the heads of questions, pictures included."""
        images = [image for q in questions for image in q.images]
        inputs = self.processor(text=[p.head for p in prompts], images=images, padding=True, return_tensors="pt")
        return {k: v.to(self.model.device) for k, v in inputs.items()}

    # -- prefixes

    def _prefixes(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> Iterator[_Prefix]:
        """Prefilled prefixes that together carry every question once."""
        rows: dict[tuple[str, str], list[int]] = {}
        for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
            rows.setdefault((question.group, prompt.head), []).append(i)
        buckets: dict[Any, list[list[int]]] = {}
        for members in rows.values():
            first = questions[members[0]]
            # Pictures of one size become equally many tokens, so prefixes of one bucket need no padding.
            key = (prompts[members[0]].head, tuple(image.size for image in first.images))
            buckets.setdefault(key, []).append(members)
        for (head, _), bucket in buckets.items():
            if not head:
                yield _Prefix(None, 0, bucket)
                continue
            inputs = self._heads(bucket, questions, prompts)
            if inputs["attention_mask"].all():
                yield self._prefill(inputs, bucket)
            else:  # the processor cut pictures of one size differently after all
                for members in bucket:
                    yield self._prefill(self._heads([members], questions, prompts), [members])

    def _heads(
        self, bucket: list[list[int]], questions: Sequence[Question], prompts: Sequence[Prompt]
    ) -> dict[str, Tensor]:
        firsts = [members[0] for members in bucket]
        return self.picture_inputs([questions[i] for i in firsts], [prompts[i] for i in firsts])

    def _prefill(self, inputs: dict[str, Tensor], bucket: list[list[int]]) -> _Prefix:
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        return _Prefix(output.past_key_values, inputs["input_ids"].shape[1], bucket)

    # -- what hangs on them

    def _feed(self, prefix: _Prefix, packed: Packed) -> Tensor:
        """Logits (R, needed, V) of packed trees behind a prefix."""
        return self._extend(
            prefix,
            input_ids=packed.ids,
            attention_mask=packed.mask(prefix.length, self.model.dtype),
            position_ids=packed.positions,
            logits_to_keep=packed.needed,
        ).logits

    def _extend(self, prefix: _Prefix, **inputs: Any) -> Any:
        """A forward pass behind a prefix; the cache then holds the new tokens too."""
        output = self.model(past_key_values=prefix.cache, use_cache=True, **inputs)
        prefix.cache = output.past_key_values
        return output

    def _score_round(
        self,
        prefix: _Prefix,
        round_: list[list[int]],
        prompts: Sequence[Prompt],
        mean: bool,
        scores: list[list[float]],
    ) -> None:
        packed = pack(
            [[Tree(prompts[i].tail, prompts[i].options) for i in row] for row in round_],
            prefix.length,
            self.model.device,
        )
        logits = self._feed(prefix, packed)
        prefix.cache.crop(-packed.ids.shape[1])
        sums, counts = branch_scores(logits, packed)
        values = iter((sums / counts if mean else sums).tolist())
        for i in (i for row in round_ for i in row):
            scores[i] = [next(values) for _ in prompts[i].options]

    def _generate_round(
        self,
        prefix: _Prefix,
        round_: list[list[int]],
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        tokens: list[list[int]],
    ) -> None:
        """Decodes all questions of a round side by side: each step feeds one token per question."""
        device = self.model.device
        packed = pack([[Tree(prompts[i].tail, []) for i in row] for row in round_], prefix.length, device)
        # (R, S, V), one column per question: a tree without branches needs its stem's end only
        logits = self._feed(prefix, packed)
        owner = packed.tree  # (R, T) whose token each cached one behind the prefix is
        stream = packed.tree[:, -packed.needed :]  # (R, S); -1 where a row has fewer questions
        position = packed.positions[:, -packed.needed :]
        alive = stream >= 0
        ends = torch.tensor(sorted(self.ends), device=device, dtype=torch.long)
        fed = packed.ids.shape[1]
        for step in range(max_new_tokens):
            token = logits.argmax(-1)  # (R, S)
            alive &= ~torch.isin(token, ends)
            for (r, s), t in zip(alive.nonzero().tolist(), token[alive].tolist(), strict=True):
                tokens[round_[r][s]].append(t)
            if step + 1 == max_new_tokens or not alive.any():
                break
            position = position + 1
            owner = torch.cat([owner, stream], dim=1)
            seen = owner[:, None, :] == stream[:, :, None]  # (R, S, T + steps * S)
            allowed = torch.nn.functional.pad(seen, (prefix.length, 0), value=True)
            logits = self._extend(
                prefix, input_ids=token, attention_mask=additive(allowed, self.model.dtype), position_ids=position
            ).logits
            fed += token.shape[1]
        prefix.cache.crop(-fed)

    # -- one question at a time

    def alone(
        self, questions: Sequence[Question], prompts: Sequence[Prompt]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Each question with the inputs of its whole prompt; its pictures are prepared once per group."""
        heads: dict[tuple[str, str], dict[str, Tensor]] = {}
        for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
            tail = torch.tensor([prompt.tail], device=self.model.device)
            if not prompt.head:
                yield i, {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
                continue
            key = (question.group, prompt.head)
            if key not in heads:
                heads = {key: self.picture_inputs([question], [prompt])}
            inputs = dict(heads[key])
            length = inputs["input_ids"].shape[1]
            for name, value in inputs.items():
                if value.ndim == 2 and value.shape[1] == length and not value.is_floating_point():
                    fill = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}.get(
                        name, torch.zeros_like(tail)
                    )
                    inputs[name] = torch.cat([value, fill], dim=1)
            yield i, inputs

    def _score_alone(
        self, questions: Sequence[Question], prompts: Sequence[Prompt], mean: bool, scores: list[list[float]]
    ) -> None:
        for i, inputs in self.alone(questions, prompts):
            options = prompts[i].options
            output = self.model(**inputs, use_cache=True, logits_to_keep=1)
            longest = max(map(len, options))
            target = torch.tensor([o + [-1] * (longest - len(o)) for o in options], device=self.model.device)  # (O, T)
            logits = output.logits[:, -1:].expand(len(options), -1, -1)  # (O, 1, V)
            if longest > 1:
                cache = output.past_key_values
                cache.batch_repeat_interleave(len(options))
                length = inputs["input_ids"].shape[1]
                more = self.model(
                    input_ids=target[:, :-1].clamp(min=0),
                    attention_mask=target.new_ones(len(options), length + longest - 1),
                    past_key_values=cache,
                    use_cache=True,
                    **self.positions(length, target[:, :-1]),
                )
                logits = torch.cat([logits, more.logits], dim=1)
            logp = logits.float().log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
            real = target >= 0
            sums = (logp * real).sum(1)
            scores[i] = (sums / real.sum(1) if mean else sums).tolist()

    def positions(self, start: int, ids: Tensor) -> dict[str, Tensor]:
        """Position ids of tokens behind `start` others, for models that do not compute them from the picture's grid."""
        if not self.plain_positions:
            return {}
        return {"position_ids": (start + torch.arange(ids.shape[1], device=ids.device)).expand(ids.shape[0], -1)}

    def _generate_alone(
        self, questions: Sequence[Question], prompts: Sequence[Prompt], max_new_tokens: int, tokens: list[list[int]]
    ) -> None:
        for i, inputs in self.alone(questions, prompts):
            sequence = self.model.generate(  # type: ignore[operator]
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self.ends) or None,
                pad_token_id=self.pad,
            )
            for token in sequence[0, inputs["input_ids"].shape[1] :].tolist():
                if token in self.ends:
                    break
                tokens[i].append(token)


def takes_masks(model: PreTrainedModel) -> bool:
    """Whether packed trees are worth trying.

    They need causal attention over the whole past, by a kernel that takes any mask, and one position number per token.
    """
    text = model.config.get_text_config()
    layers = getattr(text, "layer_types", None) or []
    sliding = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    kernel = getattr(text, "_attn_implementation", "eager") or "eager"
    return plain_positions(model) and set(layers) <= {"full_attention"} and not sliding and kernel in ("sdpa", "eager")


def plain_positions(model: PreTrainedModel) -> bool:
    """Whether positions are simply 0, 1, 2, ... (not rows and columns of pictures, as in mRoPE)."""
    text = model.config.get_text_config()
    rope = {**(getattr(text, "rope_scaling", None) or {}), **(getattr(text, "rope_parameters", None) or {})}
    return "mrope_section" not in rope


def _rounds(rows: Sequence[Sequence[int]], trees: Sequence[Tree]) -> list[list[list[int]]]:
    """Splits each row's questions so that no packed row exceeds `ROW_TOKENS` (unless one question does)."""
    split: list[list[list[int]]] = []
    for row in rows:
        parts: list[list[int]] = [[]]
        size = 0
        for i in row:
            if parts[-1] and size + trees[i].size() > ROW_TOKENS:
                parts.append([])
                size = 0
            parts[-1].append(i)
            size += trees[i].size()
        split.append(parts)
    count = max(map(len, split))
    return [[parts[k] if k < len(parts) else [] for parts in split] for k in range(count)]
