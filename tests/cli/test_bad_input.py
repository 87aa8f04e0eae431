"""What users get wrong: one clear message, exit code 2, no traceback."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

Argus = Callable[..., Result]


def message(result: Result) -> str:
    """The error of a command that failed as it should."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("error: ")
    assert len(result.output.strip().splitlines()) == 1
    return result.output


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_a_missing_picture(argus: Argus, picture: Path) -> None:
    text = message(argus("chat", "argus/tiny-vlm", picture.with_name("rad.png"), "What is it?"))
    assert "rad.png: there is no such picture" in text
    assert "Did you mean 'red.png'?" in text


@pytest.mark.parametrize("kept", [0.5, 0.02])
def test_a_torn_picture(argus: Argus, picture: Path, kept: float) -> None:
    noise = Image.effect_noise((64, 64), 80)
    noise.save(picture)
    data = picture.read_bytes()
    picture.write_bytes(data[: int(len(data) * kept)])
    assert "red.png: the picture cannot be decoded" in message(argus("chat", "argus/tiny-vlm", picture, "What is it?"))


def test_a_file_that_is_no_picture(argus: Argus, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture at all, only words")
    assert "notes.png: this is not a picture" in message(argus("look", tmp_path / "notes.png"))


def test_a_picture_of_a_hundred_megapixels_is_refused_unread(argus: Argus, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Only the header says 10,000 x 10,000; there are no pixels to decode.
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    text = message(argus("chat", "argus/tiny-vlm", tmp_path / "huge.png", "What is it?"))
    assert "10000 x 10000 = 100 megapixels, more than the limit" in text


def test_a_missing_model_folder(argus: Argus, picture: Path, tmp_path: Path) -> None:
    text = message(argus("chat", tmp_path / "no-model", picture, "What is it?"))
    assert f"there is no model folder '{tmp_path / 'no-model'}'" in text


def test_an_unknown_technique(argus: Argus, picture: Path) -> None:
    from tests.runner.tiny import tiny_model

    text = message(argus("chat", tiny_model(), picture, "What is it?", "--attach", "fastervml:keep=0.5"))
    assert "unknown technique 'fastervml'. Did you mean 'fastervlm'?" in text
    text = message(argus("chat", tiny_model(), picture, "What is it?", "--attach", "fastervlm:keep=lots"))
    assert "option 'keep'" in text
    assert "got 'lots'" in text
    text = message(argus("chat", tiny_model(), picture, "What is it?", "--attach", "fastervlm:0.5"))
    assert "fastervlm:0.5: '0.5' is no option" in text


def test_torn_and_wrong_records_of_a_dataset(argus: Argus, tmp_path: Path) -> None:
    good = {"id": "1", "messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}
    lines = [json.dumps(good), '{"id": "2", "messages": [{"ro', json.dumps({"id": "3"}), json.dumps({**good, "id": "4"})]
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + '\n{"id": "5", "mess')
    result = argus("data", "check", tmp_path / "data.jsonl")
    assert result.exit_code == 1
    assert "samples          2" in result.output
    assert "cannot be read   3" in result.output
    for line in (2, 3, 5):
        assert f"data.jsonl:{line}" in result.output
    assert "'messages'" in result.output
    assert json.loads(argus("data", "check", tmp_path / "data.jsonl", "--json").output)["bad"] == 3
    assert "data.jsonl:2: not valid JSON" in message(argus("data", "check", tmp_path / "data.jsonl", "--strict"))


def test_a_recipe_that_names_a_stage_that_is_not_there(argus: Argus, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "name: R\nmodel: {from: argus/tiny-vlm}\nstages:\n  tune: {objective: sft}\nvariants:\n  a: {train: [tnue]}\n"
    )
    text = message(argus("run", file, "--root", tmp_path / "runs"))
    assert "r.yaml:6: variant 'a' trains stage 'tnue', which is not there. Did you mean 'tune'?" in text
    assert not (tmp_path / "runs").exists()


def test_a_missing_dataset(argus: Argus, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    text = message(argus("data", "check", tmp_path / "tain.jsonl"))
    assert "there is no such file" in text
    assert "Did you mean 'train.jsonl'?" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("components", "list", "reduzer"), "unknown kind of component 'reduzer'. Did you mean 'reducer'?"),
        (("components", "show", "reducer", "fastervml"), "unknown reducer 'fastervml'. Did you mean 'fastervlm'?"),
        (("papers", "show", "fastervml"), "there is no paper 'fastervml'. Did you mean 'fastervlm'?"),
        (("world", "show", "objets"), "unknown domain 'objets'. Did you mean 'objects'?"),
        (("run", "no-such-recipe"), "there is no recipe 'no-such-recipe'"),
        (("report", "no-such-run"), "no-such-run: this run has no metrics.json, so it has not finished"),
        (("papers", "record", "no-such-run"), "this is not a run folder"),
        (("look", "red-picture.png"), "there is no such picture"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_names_that_do_not_exist(argus: Argus, words: tuple[str, ...], text: str) -> None:
    assert text in message(argus(*words))


@pytest.mark.parametrize("words", [("--ray", "auto"), ("--ray", "auto", "--shards", 2, "--shard", 0)], ids=len)
def test_ray_starts_every_shard(argus: Argus, words: tuple[object, ...]) -> None:
    text = message(argus("run", "recipes/quickstart.yaml", *words))
    assert "--ray needs --shards, and starts each shard itself For four: --shards 4 --ray auto" in text


@pytest.mark.parametrize(
    "words",
    [
        ("world", "show", "objects", "--count", 1, "--out"),
        ("world", "export", "objects", "--count", 1, "--out"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_a_place_where_nothing_can_be_written(argus: Argus, tmp_path: Path, words: tuple[object, ...]) -> None:
    (tmp_path / "file").write_text("")
    text = message(argus(*words, tmp_path / "file" / "out.jsonl"))
    assert str(tmp_path / "file") in text
    assert "exists" in text or "Not a directory" in text


def test_pictures_are_written_as_png_whatever_their_name(argus: Argus, tmp_path: Path) -> None:
    assert argus("world", "show", "objects", "--count", 1, "--out", tmp_path / "sheet.picture").exit_code == 0
    assert (tmp_path / "sheet.picture").read_bytes().startswith(b"\x89PNG")


def test_options_that_are_pictures_are_not_exported_without_them(argus: Argus, tmp_path: Path) -> None:
    text = message(argus("world", "export", "described", "--count", 1, "--out", tmp_path / "a.jsonl"))
    assert "its options are pictures" in text
    assert not (tmp_path / "a.jsonl").exists()


def test_an_argument_of_the_wrong_type(argus: Argus) -> None:
    result = argus("world", "show", "objects", "--count", "many")
    assert result.exit_code == 2
    assert "--count" in result.output


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = "import sys; sys.argv = ['argus', 'papers', 'list']; from argus.cli import main; main()"
    done = subprocess.run(f'{sys.executable} -c "{code}" | head -n 1', shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
