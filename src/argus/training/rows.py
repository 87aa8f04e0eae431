"""Rows of tokens: many turns that share a prefix, many samples in a row, and nothing that sees across.

A picture costs 144 tokens and a question about it 15, so a row asks many questions about one picture. With
*independent* turns each one sees the prefix and itself and starts at the same position, exactly as if it were asked alone:

    row        [ prefix | turn 1 | turn 2 | ... ]           positions  [0..P-1 | P.. | P.. | ...]
    token q sees token k  iff  k <= q, same sample, and (k in the prefix or same turn)

With *conversation* turns, later ones see earlier ones and positions run on. Packing puts several samples in one row under the
same rule, so that no row is mostly padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # label of positions without a target, as in PyTorch and transformers
ROUND = 32  # rows are padded to multiples of this, so that compiled code sees few lengths


@dataclass(slots=True)
class Encoded:
    """One sample as token ids.

    Args:
        prefix: ids that every turn sees (picture, description, system prompt).
        turns: per turn its ids.
        labels: per turn as many labels, `IGNORE` where nothing is to be learned.
        prefix_labels: labels of the prefix; nothing to learn when None.
        independent: turns don't see each other.
    """

    prefix: list[int]
    turns: list[list[int]]
    labels: list[list[int]]
    prefix_labels: list[int] | None = None
    independent: bool = True

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.turns))


def pack(samples: Sequence[Encoded], length: int) -> list[list[int]]:
    """First-fit decreasing: indices of the samples in each row of at most `length` tokens.

    A sample longer than `length` gets a row of its own; nothing is ever cut.
    """
    order = sorted(range(len(samples)), key=lambda i: -len(samples[i]))
    rows: list[list[int]] = []
    space: list[int] = []
    for index in order:
        need = len(samples[index])
        for row, free in enumerate(space):
            if need <= free:
                rows[row].append(index)
                space[row] -= need
                break
        else:
            rows.append([index])
            space.append(length - need)
    return rows


def assemble(samples: Sequence[Encoded], pad: int, packing: int = 0) -> dict[str, Tensor]:
    """Samples -> a batch of rows.

    Args:
        samples: encoded samples.
        pad: id that fills rows up.
        packing: tokens per packed row; 0 gives each sample its own row, in order.

    Returns:
        input_ids, labels, position_ids, sample, turn: each (B, S). `sample` is -1 on padding; `turn` is 0 on prefixes.
        `order`: indices of the samples in the order in which the rows hold them (for their pictures).
    """
    rows = pack(samples, packing) if packing else [[i] for i in range(len(samples))]
    length = max(sum(len(samples[i]) for i in row) for row in rows)
    length = -(-length // ROUND) * ROUND
    shape = (len(rows), length)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORE)
    position, sample, turn = (
        torch.zeros(shape, dtype=torch.long),
        torch.full(shape, -1),
        torch.zeros(shape, dtype=torch.long),
    )
    for r, row in enumerate(rows):
        at = 0
        for number in row:
            one = samples[number]
            start = len(one.prefix)
            flat = [*one.prefix, *(i for t in one.turns for i in t)]
            where = [*range(start)]
            which = [0] * start
            for k, ids_of_turn in enumerate(one.turns, start=1):
                first = start if one.independent else len(where)
                where.extend(range(first, first + len(ids_of_turn)))
                which.extend([k if one.independent else 0] * len(ids_of_turn))
            end = at + len(flat)
            ids[r, at:end] = torch.tensor(flat)
            labels[r, at:end] = torch.tensor([*(one.prefix_labels or [IGNORE] * start), *(x for t in one.labels for x in t)])
            position[r, at:end] = torch.tensor(where)
            sample[r, at:end] = number
            turn[r, at:end] = torch.tensor(which)
            at = end
    order = torch.tensor([i for row in rows for i in row])
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": position,
        "sample": sample,
        "turn": turn,
        "order": order,
    }


def visible(sample: Tensor, turn: Tensor) -> Tensor:
    """Which token sees which: bool (B, 1, S, S). Padding sees itself, so that no softmax is empty."""
    length = sample.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=sample.device).tril()
    same = sample[:, :, None] == sample[:, None, :]  # (B, Q, K)
    reach = (turn[:, None, :] == 0) | (turn[:, :, None] == turn[:, None, :])
    return (causal & same & reach)[:, None]


def bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as an additive one: 0 where visible, the type's minimum elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def supervised(labels: Tensor, sample: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which positions predict which label: rows (n,), columns (n,) of the token before the labelled one, labels (n,).

    The first token of a turn has no token before it in its own turn, so its label is dropped: what is asked is never learned
    from the picture alone.
    """
    rows, columns = (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)  # columns: of the predicting token
    same = (sample[rows, columns] == sample[rows, columns + 1]) & (turn[rows, columns] == turn[rows, columns + 1])
    rows, columns = rows[same], columns[same]
    return rows, columns, labels[rows, columns + 1]
