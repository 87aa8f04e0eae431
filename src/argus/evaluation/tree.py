"""Many questions and many options behind one prefix, in one forward pass: a token tree packed into a row.

All questions about a picture share its prefix (system text and picture), and all options of a question share the
question. Each picture is one row that goes behind the prefix's KV cache; nothing shared is computed or copied twice:

    cache                 row
    [system, picture] <-  [stem 1][stem 2] ... [options of 1][options of 2] ...

A token sees the whole prefix, its own stem and its own branch, nothing else; positions run along its own path. That
is a 4-D attention mask and explicit position ids, so the logits equal those of the separate sequences. Tokens whose
logits are needed (a stem's last token, and every branch token but the last, which is only a target) are placed at the
row's end, so that the language model's head runs on them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(slots=True)
class Tree:
    """One question: tokens that lead to the answer, and the candidate answers.

    Args:
        stem: tokens behind the prefix, at least one.
        branches: tokens of each candidate answer, each at least one; none when the answer is to be generated.
    """

    stem: list[int]
    branches: list[list[int]]

    def size(self) -> int:
        """Tokens it adds to a row."""
        return len(self.stem) + sum(len(b) - 1 for b in self.branches)


@dataclass(slots=True)
class Packed:
    """R rows of T tokens behind a prefix.

    Args:
        ids: (R, T) token ids; padding is 0.
        positions: (R, T) position along each token's own path.
        tree: (R, T) which of the row's trees a token belongs to; -1 is padding.
        visible: (R, T, T) whether token i sees token j of the row.
        needed: the last `needed` columns are those whose logits are read.
        targets: (4, K) row, needed column, token, and the branch (numbered over all rows, trees and branches in order).
    """

    ids: Tensor
    positions: Tensor
    tree: Tensor
    visible: Tensor
    needed: int
    targets: Tensor

    def mask(self, prefix: int, dtype: torch.dtype) -> Tensor:
        """(R, 1, T, prefix + T) additive attention mask."""
        allowed = torch.nn.functional.pad(self.visible, (prefix, 0), value=True)
        return additive(allowed, dtype)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, T, S) bool -> (R, 1, T, S): 0 where allowed, the type's least number elsewhere."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def pack(rows: Sequence[Sequence[Tree]], prefix: int, device: torch.device | str = "cpu") -> Packed:
    """Pack trees, row by row, behind prefixes of `prefix` tokens."""
    before: list[list[tuple[int, ...]]] = []  # token, position, tree, branch; per row
    read: list[list[tuple[int, ...]]] = []
    targets: list[tuple[int, int, int, int]] = []
    number = 0
    for r, trees in enumerate(rows):
        head: list[tuple[int, ...]] = []
        tail: list[tuple[int, ...]] = []
        for t, tree in enumerate(trees):
            head += [(token, prefix + i, t, -1) for i, token in enumerate(tree.stem[:-1])]
            end, start = len(tail), prefix + len(tree.stem)
            tail.append((tree.stem[-1], start - 1, t, -1))
            for b, branch in enumerate(tree.branches):
                targets.append((r, end, branch[0], number))
                for i, token in enumerate(branch[:-1]):
                    targets.append((r, len(tail), branch[i + 1], number))
                    tail.append((token, start + i, t, b))
                number += 1
        before.append(head)
        read.append(tail)
    columns = np.concatenate([_table(before), _table(read)], axis=1)  # (R, T, 4)
    tokens, position, tree_of, branch_of = torch.from_numpy(columns).to(device).unbind(-1)
    same_tree = tree_of[:, :, None] == tree_of[:, None, :]
    same_path = (branch_of[:, None, :] == -1) | (branch_of[:, :, None] == branch_of[:, None, :])
    earlier = position[:, None, :] <= position[:, :, None]
    return Packed(
        tokens,
        position,
        tree_of,
        same_tree & same_path & earlier,
        max(map(len, read)),
        torch.tensor(targets, device=device).reshape(-1, 4).T,
    )


def _table(rows: list[list[tuple[int, ...]]]) -> np.ndarray:
    """Rows of (token, position, tree, branch) as one array (R, longest, 4), padded with token 0 of tree -1."""
    table = np.empty((len(rows), max(map(len, rows)), 4), dtype=np.int64)
    table[:] = (0, 0, -1, -1)
    for r, row in enumerate(rows):
        if row:
            table[r, : len(row)] = row
    return table


def branch_scores(logits: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Log-probability and length of each branch.

    Args:
        logits: (R, needed, V) of the last `needed` columns.

    Returns:
        (branches,) sums of log-probabilities in float32, and (branches,) numbers of tokens.
    """
    row, column, token, branch = packed.targets
    norm = logits.float().logsumexp(-1)  # (R, needed)
    logp = logits[row, column, token].float() - norm[row, column]  # (K,)
    count = int(branch.max()) + 1 if branch.numel() else 0
    sums = torch.zeros(count, device=logits.device).index_add_(0, branch, logp)
    return sums, torch.bincount(branch, minlength=count)
