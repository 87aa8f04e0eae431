"""Metrics: what is measured, on answers or on the work they took."""

from argus.core.registry import Component

_COSTS = "argus.evaluation.metrics.costs"

COMPONENTS = (
    Component("metric", "accuracy", "argus.evaluation.metrics.accuracy:Accuracy", "share of answers that match the target"),
    Component("metric", "above_chance", "argus.evaluation.metrics.above_chance:AboveChance", "accuracy beyond a blind guess"),
    Component("metric", "capture", "argus.evaluation.metrics.capture:Capture", "objects, attributes and relations of a caption"),
    Component("metric", "chair", "argus.evaluation.metrics.chair:Chair", "captions with things that are not in the picture"),
    Component("metric", "choice", "argus.evaluation.metrics.choice:Choice", "right options, letters read as in SEED-Bench"),
    Component("metric", "hallucination", "argus.evaluation.metrics.judge:JudgeMetric", "as `judge`, beside another judge"),
    Component("metric", "judge", "argus.evaluation.metrics.judge:JudgeMetric", "what one or several judges think of an answer"),
    Component("metric", "mme_pairs", "argus.evaluation.metrics.mme_pairs:MMEPairs", "100 (acc + acc+), as MME", "mme-survey"),
    Component("metric", "pope", "argus.evaluation.metrics.pope:Pope", "accuracy, precision, recall and F1 of yes and no"),
    Component("metric", "word_match", "argus.evaluation.metrics.words:WordMatch", "the target occurs in the answer as a word"),
    Component("metric", "iou", "argus.evaluation.metrics.iou:IoU", "share of boxes that overlap the target enough"),
    Component("metric", "looks", "argus.evaluation.metrics.looks:Looks", "prompts about parts that a search asked per question"),
    Component("metric", "prefill_flops", f"{_COSTS}:PrefillFlops", "FLOPs of the language model before the first token"),
    Component("metric", "ttft_ms", f"{_COSTS}:TimeToFirstToken", "median time to the first token"),
    Component("metric", "decode_tokens_per_s", f"{_COSTS}:DecodeRate", "tokens per second after the first"),
    Component("metric", "kv_bytes", f"{_COSTS}:KVBytes", "size of the KV cache after prefill"),
    Component(
        "metric", "answer_entries", f"{_COSTS}:AnswerEntries", "KV entries that a generated token leaves in the last layer"
    ),
    Component("metric", "visual_tokens", f"{_COSTS}:VisualTokens", "visual tokens that the last layer still sees"),
    Component("metric", "layer_tokens", f"{_COSTS}:LayerTokens", "visual tokens that a layer sees, mean over the layers"),
    Component("metric", "peak_memory_mb", f"{_COSTS}:PeakMemory", "most tensor memory a question takes, beyond the weights"),
)
