"""A language model with 8-bit weights, on machines without a GPU.

As TinyGPT-V (arXiv 2312.16862) does for use on 8 GB: the decoder's matrices are stored in int8, the vision tower, the connector
and the head stay as they are, and nothing is calibrated. torch's dynamic quantisation does it: per tensor, weights once and
activations as they come,

    y = s_x s_w (q(x / s_x) q(W / s_w)^T) + b        q rounds to 8 bits

A quantised model answers; it is neither trained nor saved.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

from argus.core.errors import UnsupportedError


def quantised(model: Any) -> Any:
    """The model, its decoder's linear layers replaced in place.

    Raises:
        UnsupportedError: a GPU, or a torch without 8-bit kernels.
    """
    kernels = [engine for engine in torch.backends.quantized.supported_engines if engine != "none"]
    if model.device.type != "cpu" or not kernels:
        why = "this torch has no 8-bit kernels" if not kernels else f"the model is on {model.device.type}"
        raise UnsupportedError(f"dtype int8 is for CPUs with 8-bit kernels, and {why}.", hint="Use dtype bfloat16.")
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise UnsupportedError("dtype int8 starts from float32 weights.")
    decoder: nn.Module = model.get_decoder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor package
        quantize_dynamic(decoder, {nn.Linear}, dtype=torch.qint8, inplace=True)
    return model
