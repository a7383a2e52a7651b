"""Conversations read from LLaVA JSON, TRL messages and Parquet: the same sample whatever the format, bad rows listed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.train.samples import (
    MARK,
    REASONS,
    Rejected,
    Sample,
    Stored,
    Turn,
    open_picture,
    read_samples,
)
from llava_parts import write_pictures

ASKED = "Is the mug full?"
TURNS = (Turn(role="user", parts=(0, ASKED)), Turn(role="assistant", parts=("full",)))
LLAVA = {
    "id": "a",
    "image": "0.png",
    "conversations": [{"from": "human", "value": f"{MARK}\n{ASKED}"}, {"from": "gpt", "value": "full"}],
}
TRL = {
    "id": "a",
    "images": ["0.png"],
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]},
        {"role": "assistant", "content": [{"type": "text", "text": "full"}]},
    ],
}


def read(tmp_path: Path, rows: list[object], name: str = "data.json") -> list[Sample | Rejected]:
    file = tmp_path / name
    file.write_text(json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)) + "\n")
    return list(read_samples(file))


@pytest.mark.parametrize("row", [LLAVA, TRL], ids=["llava", "trl"])
@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_both_formats_are_one_sample(tmp_path, row, name):
    [sample] = read(tmp_path, [row], name)
    assert isinstance(sample, Sample)
    assert (sample.turns, sample.images) == (TURNS, (tmp_path / "0.png",))
    assert (sample.id, sample.file, sample.row) == ("a", str(tmp_path / name), 0)


def test_trl_places_images_that_nothing_places_before_the_first_question(tmp_path):
    plain = TRL | {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": "full"},
        ]
    }
    [sample] = read(tmp_path, [plain])
    assert isinstance(sample, Sample)
    assert sample.turns[1:] == TURNS


def test_images_named_in_the_parts_are_read_in_their_order(tmp_path):
    parts = [
        {"type": "image", "path": "b.png"}, {"type": "text", "text": "and"}, {"type": "image", "image": "a.png"},
    ]  # fmt: skip
    [sample] = read(
        tmp_path, [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]}]
    )
    assert isinstance(sample, Sample)
    assert sample.turns[0].parts == (0, "and", 1)
    assert sample.images == (tmp_path / "b.png", tmp_path / "a.png")


def test_parquet_holds_bytes_or_paths(tmp_path):
    write_pictures(tmp_path, 2)
    data = [(tmp_path / f"{number}.png").read_bytes() for number in range(2)]
    rows = [
        {**TRL, "images": [{"bytes": data[0], "path": None}]},
        {**TRL, "images": [{"bytes": None, "path": "1.png"}]},
        {**TRL, "images": [{"bytes": data[1], "path": "elsewhere.png"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet", row_group_size=2)
    samples = list(read_samples(tmp_path / "data.parquet"))
    assert all(isinstance(one, Sample) and one.turns == TURNS for one in samples)
    pictures = [one.images[0] for one in samples]
    assert pictures[1] == tmp_path / "1.png"
    assert isinstance(pictures[2], Stored)
    assert (pictures[2].group, pictures[2].row) == (1, 0)
    opened = [open_picture(one) for one in pictures]
    assert opened[1].sha256 == opened[2].sha256 != opened[0].sha256
    assert opened[0].sha256 == open_picture(tmp_path / "0.png").sha256


def test_llava_parquet_with_one_image_column(tmp_path):
    write_pictures(tmp_path, 1)
    row = LLAVA | {"image": (tmp_path / "0.png").read_bytes()}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data.parquet")
    [sample] = read_samples(tmp_path / "data.parquet")
    assert isinstance(sample, Sample)
    assert sample.turns == TURNS
    assert open_picture(sample.images[0]).sha256 == open_picture(tmp_path / "0.png").sha256


ANSWER = {"from": "gpt", "value": "x"}
BAD = {
    "not_json": 3,
    "no_turns": {"conversations": []},
    "bad_turn": {"conversations": [{"from": "narrator", "value": "x"}]},
    "no_answer": {"conversations": [{"from": "human", "value": "x"}]},
    "image_count": {"image": "a.png", "conversations": [{"from": "human", "value": MARK * 2}, ANSWER]},
    "bad_image": {"image": "http://a/b.png", "conversations": [{"from": "human", "value": MARK}, ANSWER]},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_listed_with_its_reason_and_the_others_are_read(tmp_path, reason):
    first, bad, last = read(tmp_path, [LLAVA, BAD[reason], LLAVA])
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)
    assert isinstance(bad, Rejected)
    assert (bad.reason, bad.row, bad.file) == (reason, 1, str(tmp_path / "data.json"))
    assert bad.reason in REASONS
    assert bad.detail


@pytest.mark.parametrize("row", [{**LLAVA, "image": ["a.png", "b.png"]}, {**LLAVA, "image": None}])
def test_marks_and_images_must_be_as_many(tmp_path, row):
    [bad] = read(tmp_path, [row])
    assert isinstance(bad, Rejected)
    assert bad.reason == "image_count"


def test_a_torn_line_is_one_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(LLAVA) + '\n{"id": "b", "conv\n' + json.dumps(LLAVA) + "\n")
    assert [getattr(one, "reason", "") for one in read_samples(tmp_path / "a.jsonl")] == ["", "not_json", ""]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "x", r"a\.csv is no data file that is read here; expected \.json, \.jsonl or \.parquet"),
        ("a.json", '{"a": 1}', r"a\.json must hold a JSON list of conversations; it holds dict"),
        ("a.parquet", "x", r"a\.parquet cannot be read as a Parquet table"),
        ("none.json", None, r"there is no data file .*none\.json"),
    ],
)
def test_a_file_that_is_no_data_is_an_error(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        list(read_samples(tmp_path / name))


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=1).filter(
    lambda text: MARK not in text and text.strip() == text
)


@given(st.lists(st.one_of(words, st.none()), min_size=1, max_size=6))
def test_text_and_marks_come_out_in_the_order_of_the_text(parts: list[str | None]) -> None:
    """The reference: None is an image. LLaVA writes a line break after each mark."""
    from eyechart.train.samples import _conversation

    joined: list[str | None] = []
    for part in parts:  # two texts in a row are one
        if part is not None and joined and joined[-1] is not None:
            joined[-1] += part
        else:
            joined.append(part)
    text = "".join(f"{MARK}\n" if part is None else part for part in joined)
    row = {
        "image": ["a.png"] * joined.count(None),
        "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}],
    }
    turns, images = _conversation(row, Path())
    numbers = iter(range(len(joined)))
    assert turns[0].parts == tuple(next(numbers) if part is None else part for part in joined)
    assert len(images) == joined.count(None)
