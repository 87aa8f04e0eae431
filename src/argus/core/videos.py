"""Frames of a video: which ones, and their pixels (through PyAV, the extra `video`).

    k of n frames, n >= k:  seg = (n - 1) / k,  frame j = int(seg / 2) + round(j seg),  j = 0 .. k - 1

the middles of k equal stretches, as the video benchmarks' published code takes them (SEED-Bench, arXiv 2307.16125); of fewer
than k frames all are taken. Halves are rounded to the even number, as NumPy does.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from argus.core.errors import DataError, UnsupportedError


def frame_indices(count: int, frames: int) -> list[int]:
    """Which `frames` of `count` frames to look at.

    >>> frame_indices(100, 8)
    [6, 18, 31, 43, 56, 68, 80, 93]
    """
    if frames > count:
        return list(range(count))
    stretch = (count - 1) / frames
    return [int(stretch / 2) + round(stretch * j) for j in range(frames)]


def check_videos() -> None:
    """Refuse videos where they cannot be decoded.

    Raises:
        UnsupportedError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise UnsupportedError(
            "videos are read with PyAV, which is not installed", hint="pip install 'argus-vl[video]'"
        ) from None


def read_frames(
    path: Path, frames: int, start: float | None = None, end: float | None = None, *, seconds: bool = True
) -> list[Image.Image]:
    """Frames of a video, or of a stretch of it, in RGB.

    Args:
        frames: how many (see `frame_indices`).
        start, end: the stretch; the whole video when not given.
        seconds: whether the stretch is in seconds; in frames otherwise.

    Raises:
        UnsupportedError: PyAV is not installed.
        DataError: no such file, no video, torn, or a stretch without frames.
    """
    check_videos()
    import av

    if not path.is_file():
        raise DataError("there is no such video", where=str(path))
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = sum(1 for packet in container.demux(stream) if packet.size)  # headers often lie, packets do not
            rate = float(stream.average_rate or 0)
        first, length = _stretch(count, rate, start, end, seconds, path)
        wanted = [first + i for i in frame_indices(length, frames)]
        with av.open(str(path)) as container:
            found = [f.to_image() for n, f in enumerate(container.decode(video=0)) if n in wanted]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"the video cannot be decoded: {error}", where=str(path)) from None
    if len(found) < len(wanted):
        raise DataError(f"the video is torn: {len(found)} of the {len(wanted)} wanted frames can be decoded", where=str(path))
    return found


def _stretch(count: int, rate: float, start: float | None, end: float | None, seconds: bool, path: Path) -> tuple[int, int]:
    """First frame and number of frames of a stretch; of a whole video the last frame is left out, as published."""
    if start is None or end is None:
        first, last = 0, count - 1
    else:
        scale = rate if seconds else 1.0
        first, last = (min(int(t * scale), count - 1 if seconds else count) for t in (start, end))
    if last <= first:
        raise DataError(f"the video has {count} frames, none of them in the stretch {start} to {end}", where=str(path))
    return first, last - first
