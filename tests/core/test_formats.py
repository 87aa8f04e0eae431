"""Every format gives back what was written, and sets aside what it cannot read."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from argus.core.errors import ArgusError, DataError, UnknownNameError
from argus.core.formats import check, read_samples, write_samples
from argus.core.images import encode_png, load_image
from argus.core.sample import BoxPart, ImagePart, Message, Sample, TextPart

text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).filter(lambda t: "<image>" not in t)
picture = st.integers(0, 255).map(lambda v: encode_png(Image.new("RGB", (2, 2), (v, 0, 255 - v))))
names = st.text("abcdefgh", min_size=1, max_size=6).filter(lambda n: n not in ("id", "image"))


@st.composite
def dialogues(draw: st.DrawFn) -> Sample:
    """A dialogue: system turn or not, pictures in user turns, non-empty texts that do not touch."""
    messages = [Message("system", [TextPart("Be brief.")])] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        shown = [ImagePart(p) for p in draw(st.lists(picture, max_size=2))]
        messages.append(Message("user", [*shown, TextPart(draw(text.filter(bool)))]))
        messages.append(Message("assistant", [TextPart(draw(text.filter(bool)))]))
    metadata = draw(st.dictionaries(names.map(lambda n: f"x_{n}"), st.one_of(text, st.integers(), st.booleans()), max_size=2))
    return Sample(
        draw(names), messages, draw(st.none() | text.filter(bool)), draw(st.lists(text.filter(bool), max_size=3)), metadata
    )


@st.composite
def questions(draw: st.DrawFn) -> Sample:
    """One question with options, as a row of a table holds it."""
    options = draw(st.lists(text.filter(lambda t: t.strip() == t and t), min_size=2, max_size=4, unique=True))
    shown = [ImagePart(p) for p in draw(st.lists(picture, max_size=2))]
    metadata = {"category": draw(text.filter(bool))}
    return Sample(
        draw(names), [Message("user", [*shown, TextPart(draw(text))])], draw(st.sampled_from(options)), options, metadata
    )


def same(a: Sample, b: Sample) -> None:
    metadata = {k: v for k, v in b.metadata.items() if k != "source"}
    assert (a.id, a.target, a.options, a.metadata) == (b.id, b.target, b.options, metadata)
    assert [m.role for m in a.messages] == [m.role for m in b.messages]
    for x, y in zip(a.messages, b.messages, strict=True):
        assert [type(p) for p in x.content] == [type(p) for p in y.content]
        assert [p for p in x.content if not isinstance(p, ImagePart)] == [p for p in y.content if not isinstance(p, ImagePart)]
    for p, q in zip(a.images(), b.images(), strict=True):
        assert list(load_image(p).tobytes()) == list(load_image(q).tobytes())


@pytest.mark.parametrize(("name", "ending"), [("messages", "jsonl"), ("llava", "json"), ("parquet", "parquet")])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.lists(dialogues(), min_size=1, max_size=4, unique_by=lambda s: s.id))
def test_dialogues_round_trip(tmp_path: Path, name: str, ending: str, samples: list[Sample]) -> None:
    path = tmp_path / f"data.{ending}"
    assert write_samples(samples, path, name) == len(samples)
    for before, after in zip(samples, read_samples(path, name, strict=True), strict=True):
        same(before, after)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.lists(questions(), min_size=1, max_size=4, unique_by=lambda s: s.id))
def test_questions_round_trip_as_tsv(tmp_path: Path, samples: list[Sample]) -> None:
    path = tmp_path / "data.tsv"
    write_samples(samples, path)
    for before, after in zip(samples, read_samples(path, strict=True), strict=True):
        same(before, after)


def test_pictures_of_two_datasets_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    def shown(id_: str, colour: str) -> Sample:
        return Sample(id_, [Message("user", [ImagePart(Image.new("RGB", (2, 2), colour)), TextPart("q")])])

    write_samples([shown("a", "red"), shown("b/c", "lime"), shown("b c", "blue")], tmp_path / "one.jsonl")
    write_samples([shown("a", "white")], tmp_path / "two.jsonl")
    write_samples([shown("a", "white")], tmp_path / "two.jsonl")
    found = [load_image(i).getpixel((0, 0)) for s in read_samples(tmp_path / "one.jsonl") for i in s.images()]
    assert found == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert [load_image(i).getpixel((0, 0)) for s in read_samples(tmp_path / "two.jsonl") for i in s.images()] == [(255, 255, 255)]
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_boxes_survive_json_lines_and_are_refused_by_tables(tmp_path: Path) -> None:
    sample = Sample("a", [Message("user", [TextPart("at"), BoxPart((0.1, 0.2, 0.3, 0.4), "cat")])])
    write_samples([sample], tmp_path / "a.jsonl")
    same(sample, next(iter(read_samples(tmp_path / "a.jsonl"))))
    with pytest.raises(DataError, match=r"cannot hold boxes|one user turn"):
        write_samples([sample], tmp_path / "a.tsv")


def test_bad_records_are_set_aside_with_line_field_and_reason(tmp_path: Path) -> None:
    good = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    lines = [good, '{"messages": [', json.dumps({"mesages": []}), json.dumps({"messages": [{"role": "robot", "content": "x"}]})]
    lines += ["", json.dumps({"messages": [{"role": "user", "content": "<image>"}]}), good]
    path = tmp_path / "d.jsonl"
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    reading = read_samples(path)
    assert len(list(reading)) == 2
    assert reading.set_aside == 4
    found = [e.text() for e in reading.errors]
    assert "d.jsonl:2: not valid JSON" in found[0]
    assert "field 'messages' is missing. Did you mean 'mesages'?" in found[1].replace(
        "Did you mean 'mesages'? Valid", "Did you mean 'mesages'? Valid"
    )
    assert "messages.0': role 'robot'" in found[2]
    assert "more <image> markers than pictures" in found[3]
    with pytest.raises(DataError, match=r"d\.jsonl:2"):
        list(read_samples(path, strict=True))


def test_a_torn_list_gives_every_complete_record_then_the_line(tmp_path: Path) -> None:
    samples = [
        Sample(str(i), [Message("user", [TextPart("q" * 50)]), Message("assistant", [TextPart("a")])]) for i in range(5000)
    ]
    path = tmp_path / "big.json"
    write_samples(samples, path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    reading = read_samples(path)
    read = [s.id for s in reading]
    assert read == [str(i) for i in range(len(read))]
    assert 2400 < len(read) < 2600
    assert reading.set_aside == 1
    assert f"big.json:{len(read) + 2}: the file is torn" in reading.errors[0].text()


def test_a_missing_picture_is_found_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "<image>x"}], "images": ["no.png"]}))
    assert len(list(read_samples(path))) == 1
    summary = check(path)
    assert (summary.good, summary.bad) == (0, 1)
    assert "no.png: there is no such picture" in summary.errors[0]


def test_more_pictures_than_markers_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(
        json.dumps([{"id": 1, "image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image>x"}]}])
    )
    reading = read_samples(path)
    assert list(reading) == []
    assert "2 pictures, but 1 <image> markers" in reading.errors[0].text()


def test_trl_prompt_and_completion(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "1 + 1?", "completion": "2"}\n')
    (sample,) = read_samples(path)
    assert [(m.role, m.text()) for m in sample.messages] == [("user", "1 + 1?"), ("assistant", "2")]


def test_a_row_may_refer_to_the_picture_of_another(tmp_path: Path) -> None:
    import base64

    data = base64.b64encode(encode_png(Image.new("RGB", (2, 2), "red"))).decode()
    path = tmp_path / "d.tsv"
    path.write_text(f"index\timage\tquestion\tA\tB\tanswer\n1\t{data}\tq\tx\ty\tA\n2\t1\tq\tx\ty\tB\n3\t1\tq\tx\ty\tC\n")
    reading = read_samples(path)
    first, second = reading
    assert first.images() == second.images()
    assert (first.target, second.target) == ("x", "y")
    assert "answer 'C' is none of A, B" in reading.errors[0].text()


def test_answers_keep_their_letters_where_a_letter_between_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("index\tquestion\tA\tB\tC\tD\tanswer\n1\tq\tred\t\tblue\tpink\tC\n2\tq\tred\t\tblue\tpink\tB\n")
    reading = read_samples(path)
    (sample,) = reading
    assert (sample.target, sample.options) == ("blue", ["red", "blue", "pink"])
    assert "answer 'B' is none of A, C, D" in reading.errors[0].text()


def test_a_table_holds_rows_with_more_options_than_its_first(tmp_path: Path) -> None:
    samples = [
        Sample(str(n), [Message("user", [TextPart("q")])], "0", [str(i) for i in range(n)], {"category": "count"}) for n in (2, 7)
    ]
    write_samples(samples, tmp_path / "d.tsv")
    assert [len(s.options) for s in read_samples(tmp_path / "d.tsv", strict=True)] == [2, 7]
    wrong = Sample("x", [Message("user", [TextPart("q")])], "c", ["a", "b"])
    with pytest.raises(DataError, match="sample 'x': the target 'c' is none of its options"):
        write_samples([wrong], tmp_path / "wrong.tsv")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": 3}, "field 'target': a target is a text, not int"),
        ({"options": "red"}, "field 'options': options are a list of texts"),
        ({"options": [1, 2]}, "field 'options': options are a list of texts"),
        ({"images": 7}, "field 'images': a picture is a path or encoded bytes, not int"),
    ],
)
def test_fields_of_the_wrong_type_are_set_aside(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    turns = {"messages": [{"role": "user", "content": "hi"}]}
    rows = [{**turns, **fields}, {"conversations": [{"from": "human", "value": "hi"}], **fields}]
    for row, name in zip(rows, ("messages", "llava"), strict=True):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n" + json.dumps({k: v for k, v in row.items() if k not in fields}))
        summary = check(path, name)
        assert (summary.good, summary.bad) == (1, 1)
        assert message.replace("images", "image") in summary.errors[0].replace("images", "image")


def test_null_is_a_field_that_is_not_there(tmp_path: Path) -> None:
    nothing = {"id": None, "target": None, "options": None, "images": None}
    path = tmp_path / "d.jsonl"
    lines = [{"messages": [{"role": "user", "content": "a"}], **nothing}, {"prompt": "b", "completion": None}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [(s.id, s.target, s.options, s.images()) for s in read_samples(path, strict=True)] == [
        ("d.jsonl:1", None, [], []),
        ("d.jsonl:2", None, [], []),
    ]
    path.write_text(json.dumps({"conversations": [{"from": "human", "value": "a"}], "image": None}))
    assert [s.images() for s in read_samples(path, strict=True)] == [[]]


@pytest.mark.parametrize(
    "part", [{"type": "box", "box": [0.1, 0.2, 0.3]}, {"type": "box", "box": "all"}, {"type": "point", "point": [0.1, "right"]}]
)
def test_a_box_or_point_without_its_numbers_is_set_aside(tmp_path: Path, part: dict[str, object]) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": [part]}]}))
    reading = read_samples(path)
    assert list(reading) == []
    assert f"d.jsonl:1, field 'messages.0': field '{part['type']}' must be" in reading.errors[0].text()


def test_bytes_that_are_no_utf8_are_set_aside(tmp_path: Path) -> None:
    rows = [{"id": name, "conversations": [{"from": "human", "value": f"größer {name}"}]} for name in "abc"]
    text = json.dumps(rows, ensure_ascii=False, indent=0).encode()
    (tmp_path / "d.json").write_bytes(text.replace("größer b".encode(), b"gr\xf6\xdfer b"))
    reading = read_samples(tmp_path / "d.json")
    assert [s.messages[0].text() for s in reading] == ["größer a", "größer c"]
    assert "not UTF-8 text" in reading.errors[0].text()
    (tmp_path / "d.tsv").write_bytes(b"index\tquestion\n1\tgr\xf6\xdfer\n")
    reading = read_samples(tmp_path / "d.tsv")
    assert list(reading) == []
    assert "not UTF-8 text" in reading.errors[0].text()


def test_datasets_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    picture = Image.new("RGB", (2, 2), "red")
    sample = Sample("a", [Message("user", [ImagePart(picture), TextPart("q")]), Message("assistant", [TextPart("red")])])
    write_samples([sample], tmp_path / "ours.parquet")
    (row,) = datasets.Dataset.from_parquet(str(tmp_path / "ours.parquet"), cache_dir=str(tmp_path / "cache"))
    assert row["id"] == "a"
    assert [m["role"] for m in json.loads(row["messages"])] == ["user", "assistant"]
    assert load_image(row["images"][0]["bytes"]).getpixel((0, 0)) == (255, 0, 0)
    turns = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "red"}]
    theirs = datasets.Dataset.from_list([{"messages": turns, "images": [picture]}])
    theirs = theirs.cast_column("images", datasets.List(datasets.Image()))
    theirs.to_parquet(str(tmp_path / "theirs.parquet"))
    (again,) = read_samples(tmp_path / "theirs.parquet", strict=True)
    assert [m.text() for m in again.messages] == ["q", "red"]
    assert load_image(again.images()[0]).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("content", "message"), [("", "empty"), ("hello\n", "nothing says what format")])
def test_a_file_of_no_format(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "d.txt")


def test_unknown_names_give_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    with pytest.raises(UnknownNameError, match="Did you mean 'llava'"):
        read_samples(tmp_path / "data.jsonl", "lava")
    with pytest.raises(DataError, match=r"Did you mean 'data\.jsonl'"):
        read_samples(tmp_path / "date.jsonl")
    with pytest.raises(DataError, match="names no format"):
        write_samples([], tmp_path / "a.xyz")


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.jsonl"
    sample = Sample("a", [Message("user", [TextPart("x")])])
    write_samples([sample], path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ArgusError, match="disk is full"):
        write_samples([sample, sample], path)
    assert path.read_bytes() == before
