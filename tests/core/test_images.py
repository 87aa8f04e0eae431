"""Pictures are read with limits, and a bad one says what is wrong with it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from argus.core.errors import DataError
from argus.core.images import encode_png, load_image


def png(size: tuple[int, int] = (8, 6), colour: object = (10, 20, 30), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")  # type: ignore[arg-type]
    return buffer.getvalue()


def test_a_path_bytes_and_a_picture_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for source in (tmp_path / "a.png", png(), Image.open(io.BytesIO(png()))):
        assert load_image(source).getpixel((0, 0)) == (10, 20, 30)


def test_a_missing_picture_gives_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "kitten.png").write_bytes(png())
    with pytest.raises(DataError, match=r"kiten\.png: there is no such picture Did you mean 'kitten\.png'"):
        load_image(tmp_path / "kiten.png")


def test_a_torn_picture_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encode_png(Image.fromarray(noise))
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"torn\.png: the picture cannot be decoded"):
        load_image(tmp_path / "torn.png")


def test_text_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match="not a picture"):
        load_image(tmp_path / "a.png", where="sample 7")


def test_a_hundred_megapixels_are_refused_from_the_header_alone() -> None:
    # The header says 10,000 x 10,000; no pixel follows, so decoding would fail differently.
    head = png((1, 1))
    bomb = head[:16] + (10_000).to_bytes(4, "big") * 2 + head[24:]
    import zlib

    chunk = bomb[12:29]
    bomb = bomb[:29] + zlib.crc32(chunk).to_bytes(4, "big") + bomb[33:]
    with pytest.raises(DataError, match=r"10000 x 10000 = 100 megapixels, more than the limit of 64"):
        load_image(bomb)


def test_transparency_lies_over_white() -> None:
    assert load_image(png(colour=(255, 0, 0, 0), mode="RGBA")).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_gray_keeps_its_high_byte() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16)).save(buffer, "PNG")
    assert load_image(buffer.getvalue()).getpixel((0, 0)) == (128, 128, 128)


def test_cmyk_becomes_rgb() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 0, 0, 0)).save(buffer, "JPEG")
    assert load_image(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_a_rotated_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: width and height swap
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "JPEG", exif=exif)
    assert load_image(buffer.getvalue()).size == (4, 8)
