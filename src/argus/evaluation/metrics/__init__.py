"""Metrics: what is measured, on answers or on the work they took."""

from argus.core.registry import Component

_COSTS = "argus.evaluation.metrics.costs"
_WAYS = "argus.evaluation.metrics.desiderata"

COMPONENTS = (
    Component("metric", "accuracy", "argus.evaluation.metrics.accuracy:Accuracy", "share of answers that match the target"),
    Component("metric", "above_chance", "argus.evaluation.metrics.above_chance:AboveChance", "accuracy beyond a blind guess"),
    Component(
        "metric",
        "attention_shift",
        "argus.evaluation.metrics.attention_shift:AttentionShift",
        "correlation of attention on visual tokens with their place",
        "fastervlm",
    ),
    Component("metric", "bleu", "argus.evaluation.metrics.caption_overlap:Bleu", "BLEU-4 with the best reference", "chef"),
    Component("metric", "capture", "argus.evaluation.metrics.capture:Capture", "objects, attributes and relations of a caption"),
    Component("metric", "chain", "argus.evaluation.metrics.chain:Chain", "deepest right level of a chain of classes", "chef"),
    Component("metric", "chair", "argus.evaluation.metrics.chair:Chair", "captions with things that are not in the picture"),
    Component("metric", "cider", "argus.evaluation.metrics.cider:Cider", "n-grams shared with several captions", "lvlm-ehub"),
    Component(
        "metric",
        "class_match",
        "argus.evaluation.metrics.words:ClassMatch",
        "the class's name occurs in the answer; also per class",
        "lvlm-ehub",
    ),
    Component("metric", "choice", "argus.evaluation.metrics.choice:Choice", "right options, letters read as in SEED-Bench"),
    Component("metric", "counting", "argus.evaluation.metrics.counting:Counting", "mean absolute error of counts", "chef"),
    Component("metric", "cv_bench", "argus.evaluation.metrics.cv_bench:CVBenchScore", "mean of 2D and 3D", "cv-bench"),
    Component(
        "metric", "detection", "argus.evaluation.metrics.detection:Detection", "boxes of rightly named classes that hit", "chef"
    ),
    Component("metric", "ece", "argus.evaluation.metrics.calibration:ECE", "how far confidence is from accuracy", "chef"),
    Component("metric", "hallucination", "argus.evaluation.metrics.judge:JudgeMetric", "as `judge`, beside another judge"),
    Component("metric", "judge", "argus.evaluation.metrics.judge:JudgeMetric", "what one or several judges think of an answer"),
    Component(
        "metric",
        "letter_start",
        "argus.evaluation.metrics.letter_start:LetterStart",
        "answers that start with the right letter; also strict and tolerant",
        "mvl-sib",
    ),
    Component("metric", "mcq", "argus.evaluation.metrics.mcq:MCQ", "right options, letters read as in ChEF", "chef"),
    Component("metric", "meant", "argus.evaluation.metrics.meant:Meant", "exact truth of worded answers", "tiny-lvlm-ehub"),
    Component("metric", "mme_pairs", "argus.evaluation.metrics.mme_pairs:MMEPairs", "100 (acc + acc+), as MME", "mme-survey"),
    Component("metric", "mr", f"{_WAYS}:Matching", "share of items whose choice stays when options are renamed", "chef"),
    Component("metric", "perplexity", "argus.evaluation.metrics.perplexity:Perplexity", "perplexity of the right answers"),
    Component("metric", "pope", "argus.evaluation.metrics.pope:Pope", "accuracy, precision, recall and F1 of yes and no"),
    Component(
        "metric",
        "reciprocal_rank",
        "argus.evaluation.metrics.words:ReciprocalRank",
        "1 / rank of the first candidate in the answer",
        "lvlm-ehub",
    ),
    Component("metric", "riam", f"{_WAYS}:InContext", "what examples in context add, relative to the skill", "chef"),
    Component("metric", "rouge_l", "argus.evaluation.metrics.caption_overlap:RougeL", "ROUGE-L with the best reference", "chef"),
    Component("metric", "rrm", f"{_WAYS}:Robustness", "what corruptions leave of the skill above chance", "chef"),
    Component(
        "metric",
        "same_verdict",
        "argus.evaluation.metrics.meant:SameVerdict",
        "share of answers on which metrics decide as the truth does",
        "tiny-lvlm-ehub",
    ),
    Component("metric", "spread", f"{_WAYS}:Spread", "standard deviation of accuracy over ways of asking", "chef"),
    Component("metric", "spark", "argus.evaluation.metrics.spark:Spark", "right answers, read as in SPARK; baselines", "spark"),
    Component(
        "metric",
        "spark_all",
        "argus.evaluation.metrics.spark:SparkAll",
        "mean over sensors of perception and reasoning, each the mean of its question types",
        "spark",
    ),
    Component(
        "metric",
        "vqa_accuracy",
        "argus.evaluation.metrics.vqa:VQAAccuracy",
        "as far as three of the people asked gave the answer",
        "infmllm",
    ),
    Component("metric", "word_f1", "argus.evaluation.metrics.words:WordF1", "words shared with the target", "lvlm-ehub"),
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
    Component(
        "metric",
        "judge_quality",
        "argus.evaluation.metrics.judge_quality:JudgeQuality",
        "a judge's scores beside the true ones: Pearson, Spearman, cosine, MSE, MAE",
        "mmie",
    ),
)
