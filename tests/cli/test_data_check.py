"""`argus data check BENCHMARK PATH` says what is in a download and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.evaluation.published_files import seed_bench, seed_bench_2, v1_item, v2_item

Argus = Callable[..., Result]


def test_a_whole_download_is_fine(argus: Argus, tmp_path: Path) -> None:
    seed_bench(tmp_path)
    result = argus("data", "check", "seed-bench", tmp_path)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "Scene Understanding 2 of 3,158" in lines
    assert "Procedure Understanding 0 of 1,192" in lines
    assert "can be asked     18" in result.output
    assert "most frequent    B, 27.8% of the right answers" in result.output  # 5 of 18
    assert "cannot be read   0" in result.output


def test_every_problem_is_named_with_line_field_and_reason(argus: Argus, tmp_path: Path) -> None:
    items = [v1_item("1", 1), v1_item("2", 2, answer="X"), v1_item("3", 3), v1_item("4", 4), v1_item("4", 4)]
    path = seed_bench(tmp_path, items)
    pictures = tmp_path / "SEED-Bench-image"
    (pictures / "3.png").unlink()
    (pictures / "1.png").write_bytes((pictures / "1.png").read_bytes()[:60])
    result = argus("data", "check", "seed-bench", path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert (found["bad"], sum(found["found"].values())) == (4, 1)
    torn, letter, missing, twice = found["errors"]
    assert torn.startswith(f"{path}:2, field 'data_id', {pictures / '1.png'}: the picture cannot be decoded")
    assert letter == f"{path}:3, field 'answer': answer 'X' is none of A, B, C, D"
    assert missing.startswith(f"{path}:4, field 'data_id', {pictures / '3.png'}: there is no such picture")
    assert twice == f"{path}:6, field 'question_id': '4' stands at {path}:5 too"
    stopped = argus("data", "check", "seed-bench", path, "--strict")
    assert stopped.exit_code == 2
    assert stopped.output.startswith(f"error: {torn}")


def test_options_choose_what_is_checked(argus: Argus, tmp_path: Path) -> None:
    path = seed_bench(tmp_path, [v1_item("1", 1), v1_item("v1", 10, data_id="a.webm")])
    whole = argus("data", "check", "seed-bench", path)
    assert whole.exit_code == 1
    assert f"{path}:3: " in whole.output  # without PyAV no video can be read; with it there is none
    assert argus("data", "check", "seed-bench", path, "--set", "task=image").exit_code == 0
    assert "option 'task'" in argus("data", "check", "seed-bench", path, "--set", "task=sound").output


def test_the_second_benchmark_is_checked_with_its_options_pictures(argus: Argus, tmp_path: Path) -> None:
    seed_bench_2(tmp_path)
    assert "can be asked     27" in argus("data", "check", "seed-bench-2", tmp_path).output
    seed_bench_2(tmp_path / "again", [v2_item("25_0", files=4)])
    (tmp_path / "again" / "SEED-Bench-2-image" / "yellow.png").unlink()  # the fourth option
    result = argus("data", "check", "seed-bench-2", tmp_path / "again")
    assert result.exit_code == 1
    assert "yellow.png: there is no such picture" in result.output


def test_languages_and_sensors_are_checked(argus: Argus, tmp_path: Path) -> None:
    from tests.evaluation import test_mvl_sib, test_spark

    result = argus("data", "check", "mvl-sib", test_mvl_sib.download(tmp_path / "a", 35), "--set", "task=i2s")
    assert result.exit_code == 0, result.output
    assert ["nqo_Nkoo", "105", "of", "3,012"] in [line.split() for line in result.output.splitlines()]
    result = argus("data", "check", "spark", test_spark.download(tmp_path / "b", "jsonl"))
    assert result.exit_code == 0, result.output
    assert ["position", "4", "of", "817"] in [line.split() for line in result.output.splitlines()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("seed-bnech", "."), "there is no benchmark 'seed-bnech' whose download can be read. Did you mean 'seed-bench'?"),
        (("seed-bench", "nowhere"), "nowhere: there is no such item file."),
        (("nowhere.jsonl",), "nowhere.jsonl: there is no such file."),
    ],
)
def test_a_wrong_name_gives_the_nearest(argus: Argus, words: tuple[str, ...], message: str) -> None:
    result = argus("data", "check", *words)
    assert result.exit_code == 2
    assert message in result.output
