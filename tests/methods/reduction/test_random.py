"""Random pruning is uniform, seeded, and the same for a picture in any batch."""

from __future__ import annotations

from typing import Any

import torch

import argus
from argus.methods.encoded import fingerprint, mix
from tests.methods.families import FAMILIES, llava_inputs


def kept(model: Any, inputs: Any, **options: Any) -> list[list[int]]:
    with argus.attach(model, "random", **options) as attachment, torch.no_grad():
        model(**inputs)
    return [k.indices.tolist() for k in attachment.kept]


def test_a_function_of_seed_and_picture(models: dict[str, Any], family: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1, 1], [4, 9])
    first = kept(model, inputs, keep=0.4)
    assert first == kept(model, inputs, keep=0.4)
    assert first != kept(model, inputs, keep=0.4, seed=1)
    assert first[0] != first[1]


def test_alone_or_in_a_batch(models: dict[str, Any]) -> None:
    model, batch = models["llava"], llava_inputs([1, 1, 1], [4, 6, 9])
    together = kept(model, batch, keep=0.4)
    for item in range(3):
        real = batch["attention_mask"][item].bool()
        alone = {
            "input_ids": batch["input_ids"][item : item + 1, real],
            "pixel_values": batch["pixel_values"][item : item + 1],
        }
        assert kept(model, alone, keep=0.4) == [together[item]]


def test_uniform(models: dict[str, Any]) -> None:
    """200 pictures, 9 of 36 cells each: every cell is kept 50 times in the mean, standard deviation sqrt(200 * 3/16) = 6.1."""
    model = models["llava"]
    counts = torch.zeros(36)
    for seed in range(20):
        for indices in kept(model, llava_inputs([1] * 10, [4] * 10, seed=seed), keep=0.25):
            assert len(indices) == 9
            counts[indices] += 1
    assert counts.sum() == 1800
    assert counts.min() > 25
    assert counts.max() < 75


def test_mix_is_splitmix64() -> None:
    """First outputs of SplitMix64 seeded with 1234567: state advances by the golden gamma, then the finaliser."""
    state, outputs = 1234567, []
    for _ in range(2):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        signed = state - 2**64 if state >= 2**63 else state
        outputs.append(int(mix(torch.tensor(signed))) % 2**64)
    assert outputs == [6457827717110365317, 3203168211198807973]


def test_fingerprints_tell_pictures_apart() -> None:
    pixels = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    swapped = pixels.flip(-1)
    assert fingerprint(pixels) == fingerprint(pixels.clone())
    assert len({int(fingerprint(p)) for p in (pixels, swapped, pixels.bfloat16(), pixels + 1)}) == 4


def test_rows_are_drawn_whole(models: dict[str, Any]) -> None:
    """2 of 6 rows, other ones for another seed."""
    draws = [kept(models["llava"], llava_inputs([1], [4]), keep=1 / 3, unit="row", seed=seed)[0] for seed in range(8)]
    rows = [sorted({cell // 6 for cell in draw}) for draw in draws]
    assert draws == [[6 * r + c for r in two for c in range(6)] for two in rows]
    assert all(len(two) == 2 for two in rows)
    assert len({tuple(two) for two in rows}) > 3
