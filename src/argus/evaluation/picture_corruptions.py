"""Corruptions of a picture at severities 0 (none) to 5, with numpy and Pillow alone.

The levels of noise, blur, brightness, contrast, pixelation and JPEG are those of "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations" (arXiv 1903.12261), made for pictures of 224 pixels: lengths scale with the shorter side.
ChEF (arXiv 2311.02692) adds cuts and changes of size. Its own corrupted files are not part of its code; what is here is of the
same kinds (noise, blur, weather, digital, geometry), not the same pictures.

    corrupt(picture, "gaussian_noise", 3, seed)      the same arguments, the same bytes
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from argus.core.errors import UnknownNameError, nearest

SIDE = 224  # pixels that levels with a length are made for
WORST = 5
Kind = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "motion_blur", "fog", "brightness",
    "contrast", "pixelate", "jpeg", "crop", "resize", "rotate",
]  # fmt: skip
# Kind -> its level at severities 1 to 5.
LEVELS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "shot_noise": (60, 25, 12, 5, 3),  # photons at white
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of salt and pepper
    "gaussian_blur": (1, 2, 3, 4, 6),  # radius
    "motion_blur": (5, 9, 13, 17, 25),  # length of a horizontal streak
    "fog": (0.25, 0.35, 0.45, 0.6, 0.75),  # share of the haze
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # what is left of it
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # of the size
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "crop": (0.95, 0.9, 0.8, 0.7, 0.6),  # of the side that is left
    "resize": (0.8, 0.65, 0.5, 0.35, 0.25),  # of the size, smoothly
    "rotate": (5, 10, 15, 25, 40),  # degrees
}


def corrupt(picture: Image.Image, kind: str, severity: int, seed: int = 0) -> Image.Image:
    """A corrupted copy of an RGB picture, of the same size; the picture itself at severity 0.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind not in LEVELS:
        raise UnknownNameError(f"there is no corruption '{kind}'.", hint=nearest(kind, LEVELS))
    if not severity:
        return picture
    level = LEVELS[kind][severity - 1]
    if kind in _PIXELS:
        values = np.asarray(picture, dtype=np.float64) / 255  # (H, W, 3)
        changed = _PIXELS[kind](values, level, np.random.default_rng(seed))
        return Image.fromarray((changed.clip(0, 1) * 255).round().astype(np.uint8))
    return _SHAPES[kind](picture, level)


def _fog(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(rng.integers(128, 256, (5, 5), dtype=np.uint8))
    haze = np.asarray(coarse.resize((x.shape[1], x.shape[0]), Image.Resampling.BICUBIC), dtype=np.float64)[..., None] / 255
    return (1 - level) * x + level * haze


def _impulse(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    lot = rng.random(x.shape)
    return np.where(lot < level / 2, 0.0, np.where(lot > 1 - level / 2, 1.0, x))


_PIXELS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": lambda x, level, rng: x + rng.normal(0, level, x.shape),
    "shot_noise": lambda x, level, rng: rng.poisson(x * level) / level,
    "impulse_noise": _impulse,
    "fog": _fog,
    "brightness": lambda x, level, _: x + level,
    "contrast": lambda x, level, _: (x - x.mean((0, 1))) * level + x.mean((0, 1)),
}


def _scaled(length: float, picture: Image.Image) -> float:
    return length * min(picture.size) / SIDE


def _streak(picture: Image.Image, length: float) -> Image.Image:
    """Mean over a horizontal window, by differences of running sums."""
    width = max(2, round(_scaled(length, picture)))
    x = np.asarray(picture, dtype=np.float64)
    padded = np.pad(x, ((0, 0), (width // 2 + 1, width - width // 2 - 1), (0, 0)), mode="edge").cumsum(1)
    return Image.fromarray(((padded[:, width:] - padded[:, :-width]) / width).round().clip(0, 255).astype(np.uint8))


def _shrunk(picture: Image.Image, share: float, back: Image.Resampling) -> Image.Image:
    small = picture.resize([max(1, round(side * share)) for side in picture.size], Image.Resampling.BOX)
    return small.resize(picture.size, back)


def _jpeg(picture: Image.Image, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(quality))
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _crop(picture: Image.Image, share: float) -> Image.Image:
    (w, h), cut = picture.size, (1 - share) / 2
    return picture.resize((w, h), Image.Resampling.BILINEAR, (w * cut, h * cut, w * (1 - cut), h * (1 - cut)))


_SHAPES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "gaussian_blur": lambda p, level: p.filter(ImageFilter.GaussianBlur(_scaled(level, p))),
    "motion_blur": _streak,
    "pixelate": lambda p, level: _shrunk(p, level, Image.Resampling.NEAREST),
    "resize": lambda p, level: _shrunk(p, level, Image.Resampling.BILINEAR),
    "jpeg": _jpeg,
    "crop": _crop,
    "rotate": lambda p, level: p.rotate(level, Image.Resampling.BILINEAR),
}
