"""What answering one question costs: FLOPs, time, cache and memory, read from the real forward pass.

FLOPs are counted from the shapes of every matrix product, convolution and attention that runs, 2 per
multiply-accumulate; norms, activations and softmax are not counted. Attention counts the full S x S scores, not the
causal half, as papers do. For a Llama-shaped layer of width D, key-value width K, MLP width m and S tokens that is

    2 * (2 S D^2 + 2 S D K + 2 S^2 D + 3 S D m)  FLOP,

which with K = D is twice the multiply-accumulates sum_l(4 S D^2 + 2 S^2 D + 3 S D m) that FasterVLM (arXiv
2412.01818) prints as its FLOPs. S is each layer's own length, so tokens dropped on the way are not paid for.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from argus.core.errors import UnsupportedError
from argus.evaluation.inferencers.base import Question
from argus.model.backbones.seen import seen_bytes
from argus.model.prefix_lm import PrefixLM

if TYPE_CHECKING:
    from argus.evaluation.local import LocalModel

VISION_NAMES = ("vision_tower", "visual", "vision_model")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one question, asked alone.

    Args:
        flops: FLOPs of prefill in `decoder` (the language model's layers), `vision` (the encoder) and `rest`.
        ttft_ms: from prepared inputs on the device to the first token.
        vision_ms: the share of it that the encoder takes.
        decode_tokens_per_s: over the tokens after the first.
        kv_bytes: key and value tensors of all layers after prefill, those of cross-attention included.
        answer_entries: entries that each layer's cache gets per generated token; less than 1 where a technique forgets some.
        visual_tokens: visual tokens at each decoder layer's input.
        peak_memory_mb: most memory that tensors take at once in prefill, beyond what was there before.
    """

    flops: dict[str, float]
    ttft_ms: float
    vision_ms: float
    decode_tokens_per_s: float
    kv_bytes: float
    answer_entries: list[float]
    visual_tokens: list[int]
    peak_memory_mb: float

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def measure(asked: LocalModel, question: Question, decode: int = 16, repeats: int = 3) -> Cost:
    """Measure one question; time is the best of `repeats`, after one run that warms up and counts.

    Raises:
        UnsupportedError: a language model that reads the prompt with an encoder.
    """
    held, model = asked.held, asked.held.model
    if isinstance(model.get_decoder(), PrefixLM):
        raise UnsupportedError(
            "costs are counted over the layers of a decoder that reads prompt and answer, and an encoder-decoder has two stacks.",
            hint="Leave the cost metrics out, or compose the model with a causal language model.",
        )
    (inputs,) = asked.alone.inputs([question], held.prompter.prompts([question], options=False))
    length = inputs["input_ids"].shape[1]
    image_token = getattr(model.config, "image_token_id", None)
    text = length if image_token is None else int((inputs["input_ids"] != image_token).sum())
    forward = partial(model, use_cache=True, logits_to_keep=1)
    with torch.inference_mode():
        with _Memory(model.device) as memory, _Lengths(model.get_decoder()) as lengths, _flop_counter() as counter:
            output = forward(**inputs)
        cache = output.past_key_values
        kv_bytes = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values) if t is not None)
        kv_bytes += seen_bytes(cache)
        del output, cache
        first = []
        for _ in range(repeats):
            with _VisionTime(model) as vision:
                start = _now(model.device)
                output = forward(**inputs)
                token = output.logits[:, -1:].argmax(-1)
                first.append((_now(model.device) - start, vision.seconds))
        before = _entries(output.past_key_values)
        ones = inputs["attention_mask"]
        start = _now(model.device)
        for _ in range(decode):
            ones = torch.cat([ones, torch.ones_like(token)], dim=1)
            output = model(
                input_ids=token,
                attention_mask=ones,
                past_key_values=output.past_key_values,
                use_cache=True,
                **held.positions(ones.shape[1] - 1, token, pictures="image_grid_thw" in inputs),
            )
            token = output.logits[:, -1:].argmax(-1)
        seconds = _now(model.device) - start
        after = _entries(output.past_key_values)
    return Cost(
        flops=_parts(model, counter),
        ttft_ms=1000 * min(first)[0],
        vision_ms=1000 * min(first)[1],
        decode_tokens_per_s=decode / seconds,
        kv_bytes=float(kv_bytes),
        answer_entries=[(now - then) / decode for now, then in zip(after, before, strict=True)],
        visual_tokens=[n - text for n in lengths.seen],
        peak_memory_mb=memory.peak / 1e6,
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _entries(cache: Any) -> list[int]:
    """Positions that each layer of a cache holds."""
    return [0 if layer.keys is None else layer.keys.shape[-2] for layer in cache.layers]


def _flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which knows the fused attention of GPUs, and the CPU's besides."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: attention})


def _parts(model: nn.Module, counter: FlopCounterMode) -> dict[str, float]:
    """Counted FLOPs by part of the model."""
    counts = {name: float(sum(ops.values())) for name, ops in counter.get_flop_counts().items()}
    names = {module: f"{type(model).__name__}.{name}" for name, module in model.named_modules()}
    decoder = names[model.get_decoder()]  # type: ignore[operator]
    layers = sum(v for k, v in counts.items() if k.rpartition(".")[0] == f"{decoder}.layers")
    vision = sum(v for k, v in counts.items() if k.rpartition(".")[2] in VISION_NAMES and _outermost(k))
    return {"decoder": layers, "vision": vision, "rest": counts.get("Global", 0.0) - layers - vision}


def _outermost(name: str) -> bool:
    """Whether no module around this one is a vision part too."""
    return not set(name.split(".")[:-1]) & set(VISION_NAMES)


class _Lengths:
    """Sequence length at the input of each decoder layer, read behind all hooks that were there before."""

    def __init__(self, decoder: Any) -> None:
        self.layers: nn.ModuleList = decoder.layers
        self.seen = [0] * len(self.layers)

    def __enter__(self) -> _Lengths:
        self.handles = [
            layer.register_forward_pre_hook(partial(self._read, index), with_kwargs=True)
            for index, layer in enumerate(self.layers)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _read(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # The prompt itself comes last, where a technique runs layers on parts of it before.
        self.seen[index] = (args[0] if args else kwargs["hidden_states"]).shape[1]


class _VisionTime:
    """Seconds between the starts and the ends of a model's vision parts."""

    def __init__(self, model: Any) -> None:
        self.device, self.seconds = model.device, 0.0
        self.parts = [m for n, m in model.named_modules() if n.rpartition(".")[2] in VISION_NAMES and _outermost(n)]

    def __enter__(self) -> _VisionTime:
        starts = [part.register_forward_pre_hook(self._start) for part in self.parts]
        self.handles = [*starts, *(part.register_forward_hook(self._end) for part in self.parts)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _start(self, *_: object) -> None:
        self.seconds -= _now(self.device)

    def _end(self, *_: object) -> None:
        self.seconds += _now(self.device)


class _Memory:
    """Peak of tensor memory: the allocator's own count on a GPU, the sum of live tensors elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.live = device, None if device.type == "cuda" else _LiveBytes()

    def __enter__(self) -> _Memory:
        if self.live:
            self.live.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)

    @property
    def peak(self) -> float:
        return self.live.peak if self.live else torch.cuda.max_memory_allocated(self.device) - self.before


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations create and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self.known.add(given.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
