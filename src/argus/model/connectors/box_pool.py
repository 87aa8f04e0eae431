"""The mean of a feature map over a box: RoIAlign (Mask R-CNN, arXiv 1703.06870) and the mean over its bins, in one product.

RoIAlign divides a box into bins, reads the map bilinearly at s x s points of each and takes means; here as `roi_align` of
torchvision does with `aligned=False` and its default s = ceil(side / bins), per box and axis. All bins have equally many points,
so the mean over bins is the mean over points; points lie on a grid, and bilinear reading is a product of two hats. So it is, too:

    pooled(c) = sum_ij  a_i  M(c, i, j)  b_j        a (H,), b (W,): mean of the hats at the points' rows, and columns

Where the map was enlarged bilinearly before, that is one more matrix on a and b: nothing large is ever made.

Shapes: maps (B, C, H, W), boxes (B, K, 4) relative -> (B, K, C), computed in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def box_pool(maps: Tensor, boxes: Tensor, bins: int, size: tuple[int, int] | None = None) -> Tensor:
    """Mean of maps over boxes.

    Args:
        maps: (B, C, H, W).
        boxes: (B, K, 4) x1, y1, x2, y2, relative.
        bins: bins per side of a box.
        size: rows and columns that the map is bilinearly resized to before.
    """
    boxes, maps = boxes.float(), maps.float()
    high, wide = size or (maps.shape[2], maps.shape[3])
    with torch.autocast(maps.device.type, enabled=False):
        down, along = resize_matrix(maps.shape[2], high).to(boxes), resize_matrix(maps.shape[3], wide).to(boxes)
        rows = axis_weights(boxes[..., 1], boxes[..., 3], high, bins) @ down  # (B, K, H)
        columns = axis_weights(boxes[..., 0], boxes[..., 2], wide, bins) @ along  # (B, K, W)
        across = torch.einsum("bkh,bchw->bkcw", rows, maps)
        return torch.einsum("bkcw,bkw->bkc", across, columns)


def axis_weights(start: Tensor, end: Tensor, cells: int, bins: int) -> Tensor:
    """How much each of the `cells` of an axis counts in the mean over intervals: (...) relative ends -> (..., cells).

    A point up to one cell outside reads the cell at the border; one further out reads nothing.
    """
    first = start * cells
    length = (end * cells - first).clamp(min=1)  # at least one cell
    per_bin = (length / bins).ceil()  # s
    count = bins * per_bin
    number = torch.arange(bins * max(int(per_bin.max()), 1) if per_bin.numel() else 0, device=start.device)
    points = first[..., None] + (number + 0.5) * (length / count)[..., None]  # (..., P)
    read = ((number < count[..., None]) & (points >= -1) & (points <= cells)).to(points)
    place = points.clamp(0, cells - 1)
    low = place.floor()
    share = (place - low) * read
    weights = torch.zeros(*start.shape, cells, device=start.device)
    weights.scatter_add_(-1, low.long(), read - share)
    weights.scatter_add_(-1, (low.long() + 1).clamp(max=cells - 1), share)
    return weights / count[..., None]


def resize_matrix(given: int, wanted: int) -> Tensor:
    """Bilinear resizing of one axis without aligned corners as a matrix (wanted, given)."""
    return F.interpolate(torch.eye(given)[None], size=wanted, mode="linear", align_corners=False)[0].T
