"""What one question takes, measured on a sub-set of the questions, each alone (see `argus.evaluation.cost`)."""

from __future__ import annotations

from argus.evaluation.cost import Cost
from argus.evaluation.metrics.base import CostMetric


class PrefillFlops(CostMetric):
    """FLOPs (2 per multiply-accumulate) of the language model's layers in prefill; parts: `vision`, `rest`, `total`."""

    unit = "FLOP"

    def read(self, cost: Cost) -> dict[str, float]:
        parts = {"all": cost.flops["decoder"], "vision": cost.flops["vision"], "rest": cost.flops["rest"]}
        return {**parts, "total": sum(parts.values())}


class TimeToFirstToken(CostMetric):
    """Milliseconds from prepared inputs to the first token; parts: `vision` (the encoder), `prefill` (connector and the rest)."""

    unit, middle = "ms", "median"

    def read(self, cost: Cost) -> dict[str, float]:
        return {"all": cost.ttft_ms, "vision": cost.vision_ms, "prefill": cost.ttft_ms - cost.vision_ms}


class DecodeRate(CostMetric):
    """Tokens per second after the first, one question at a time."""

    unit, middle, better = "tokens/s", "median", "higher"

    def read(self, cost: Cost) -> dict[str, float]:
        return {"all": cost.decode_tokens_per_s}


class KVBytes(CostMetric):
    """Bytes of all key and value tensors after prefill."""

    unit = "bytes"

    def read(self, cost: Cost) -> dict[str, float]:
        return {"all": cost.kv_bytes}


class AnswerEntries(CostMetric):
    """Entries that the last layer's KV cache gets per generated token, over 16 of them; parts: `layer 0`, `layer 1`, ..."""

    unit = "entries"

    def read(self, cost: Cost) -> dict[str, float]:
        layers = {f"layer {i}": n for i, n in enumerate(cost.answer_entries)}
        return {"all": cost.answer_entries[-1], **layers}


class VisualTokens(CostMetric):
    """Visual tokens at the last layer's input; parts: `layer 0`, `layer 1`, ..."""

    unit = "tokens"

    def read(self, cost: Cost) -> dict[str, float]:
        layers = {f"layer {i}": float(n) for i, n in enumerate(cost.visual_tokens)}
        return {"all": float(cost.visual_tokens[-1]), **layers}


class LayerTokens(CostMetric):
    """Visual tokens at a layer's input, mean over the layers: what reductions inside the language model leave to compute."""

    unit = "tokens"

    def read(self, cost: Cost) -> dict[str, float]:
        return {"all": sum(cost.visual_tokens) / len(cost.visual_tokens)}


class PeakMemory(CostMetric):
    """Most bytes of tensors alive at once in prefill, beyond weights and inputs."""

    unit = "MB"

    def read(self, cost: Cost) -> dict[str, float]:
        return {"all": cost.peak_memory_mb}
