"""Metrics: what is measured, on answers or on the work they took."""

from argus.core.registry import Component

_COSTS = "argus.evaluation.metrics.costs"

COMPONENTS = (
    Component("metric", "accuracy", "argus.evaluation.metrics.accuracy:Accuracy", "share of answers that match the target"),
    Component("metric", "above_chance", "argus.evaluation.metrics.above_chance:AboveChance", "accuracy beyond a blind guess"),
    Component("metric", "capture", "argus.evaluation.metrics.capture:Capture", "objects, attributes and relations of a caption"),
    Component("metric", "word_match", "argus.evaluation.metrics.words:WordMatch", "the target occurs in the answer as a word"),
    Component("metric", "iou", "argus.evaluation.metrics.iou:IoU", "share of boxes that overlap the target enough"),
    Component("metric", "prefill_flops", f"{_COSTS}:PrefillFlops", "FLOPs of the language model before the first token"),
    Component("metric", "ttft_ms", f"{_COSTS}:TimeToFirstToken", "median time to the first token"),
    Component("metric", "decode_tokens_per_s", f"{_COSTS}:DecodeRate", "tokens per second after the first"),
    Component("metric", "kv_bytes", f"{_COSTS}:KVBytes", "size of the KV cache after prefill"),
    Component("metric", "visual_tokens", f"{_COSTS}:VisualTokens", "visual tokens that the last layer still sees"),
    Component("metric", "peak_memory_mb", f"{_COSTS}:PeakMemory", "most tensor memory a question takes, beyond the weights"),
)
