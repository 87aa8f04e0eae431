"""Attention shift ([CLS] Attention is All You Need for Training-Free Visual Token Pruning, arXiv 2412.01818, section 3).

Averaged over questions, attention of a prompt's last token on the picture rises with the place j of a visual token in the
sequence, as the causal mask has it; that of the encoder's CLS token does not. The number is Spearman's correlation of the mean
curve with j:

    all        of the mean over layers and questions of last_j        layer l    of that of one decoder layer, 0-based
    encoder    of the mean over questions of the CLS row (of attention received, in encoders without CLS)

The inferencer `attention` gives the curves, which have to be of pictures with equally many tokens. Intervals are of a bootstrap
over pictures. The paper's finding is a rise in the language model, here more than 0.3, and none in the encoder, less than 0.2
either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from argus.core.errors import UnsupportedError
from argus.core.sample import Sample
from argus.evaluation import statistics
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import NoOptions, Row, Score, WholeMetric
from argus.evaluation.statistics import Measurement
from argus.methods.reduction.diagnostics import spearman

Curves = np.ndarray  # (rows, N) float
CHUNK = 64  # resampled curves that are ranked at once


class AttentionShift(WholeMetric):
    """Correlation of attention on visual tokens with their place."""

    Options = NoOptions
    unit, better = "correlation", "lower"

    def applies(self, sample: Sample) -> bool:
        return True

    def score(self, sample: Sample, answer: Answer) -> Score:
        if "attention" not in answer.notes:
            raise UnsupportedError("attention_shift needs curves.", hint="The inferencer `attention` reads them.")
        return Score(None, "", notes=answer.notes["attention"])

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        if len({len(row.notes["encoder"]) for row in rows}) > 1:
            raise UnsupportedError("attention_shift: pictures of different sizes have curves that cannot be averaged")
        last = np.array([row.notes["last"] for row in rows])  # (rows, layers, N)
        cluster = statistics.cluster_numbers([row.cluster for row in rows])
        curves = {f"layer {layer}": last[:, layer] for layer in range(last.shape[1])}
        curves |= {"all": last.mean(1), "encoder": np.array([row.notes["encoder"] for row in rows])}
        return {name: shift(of, cluster) for name, of in curves.items()}


def shift(curves: Curves, cluster: np.ndarray) -> Measurement:
    """Spearman's correlation of the mean curve with its index; `cluster` (rows,) numbers the pictures from 0."""
    sums, counts = np.zeros((int(cluster.max()) + 1, curves.shape[1])), np.bincount(cluster)
    np.add.at(sums, cluster, curves)  # (pictures, N)
    found = statistics.resampled(sums, np.broadcast_to(counts[:, None], sums.shape), _correlations, AttentionShift.unit)
    return replace(found, n=len(curves))


def _correlations(curves: Curves) -> np.ndarray:
    return np.concatenate([spearman(part).numpy() for part in torch.from_numpy(curves).split(CHUNK)])
