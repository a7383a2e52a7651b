"""Loading: the same exam from every shape of file, and errors that say which rows are wrong."""

import hashlib
import json
import random

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_files import mmvp_rows, paired_rows, png, write_csv

from eyechart.core.errors import UserError
from eyechart.score import DOUBTS, load_benchmark

# ---- MMVP's shape


def test_an_mmvp_folder_is_read_by_id(mmvp):
    folder = mmvp(mmvp_rows(6))
    bench = load_benchmark(folder)
    assert bench.name == "MMVP"
    assert [item.id for item in bench.items] == [str(number) for number in range(1, 13)]  # 2 before 10
    assert [item.pair_id for item in bench.items] == [str((number + 1) // 2) for number in range(1, 13)]
    first, second = bench.items[:2]
    assert first.question == "Is door 1 open (or closed)?"
    assert (first.options, first.answer, second.answer) == (("Open", "Closed"), 0, 1)
    assert first.image == folder / "MMVP Images" / "1.jpg"
    assert first.image_sha256 == hashlib.sha256(png(1)).hexdigest()
    assert first.pattern is None
    assert not bench.quarantined
    assert any("2k-1 and 2k" in note for note in bench.notes)
    assert any("in all 6 pairs the item with the lower id has answer A" in note for note in bench.notes)
    assert "all pictures are 8 x 8 pixels" in bench.notes


def test_the_order_of_rows_plays_no_part(mmvp):
    rows = mmvp_rows(8)
    straight = load_benchmark(mmvp(rows))
    random.Random(4).shuffle(rows)
    assert load_benchmark(mmvp(rows)) == straight


@pytest.mark.parametrize(
    ("pictures", "suffix", "header"),
    [
        ("images", ".png", "Index"),
        ("images/test", ".JPEG", "index"),
        ("a b", ".webp", "INDEX"),
        (".", ".jpg", "Id"),
    ],
)
def test_folder_ending_and_header_may_be_others(mmvp, pictures, suffix, header):
    rows = mmvp_rows(3)
    folder = mmvp(rows, pictures=pictures, suffix=suffix)
    expected = load_benchmark(folder)
    write_csv(folder / "questions.CSV", [{header: row.pop("lndex"), **row, "Category": "sc"} for row in rows])
    (folder / "Questions.csv").unlink()
    bench = load_benchmark(folder, name="MMVP")
    assert [item.pattern for item in bench.items] == ["sc"] * 6
    assert bench.sha256 == expected.sha256  # the pattern is no part of it


def test_windows_lines_a_mark_in_front_and_zeros_in_file_names(mmvp):
    folder = mmvp(mmvp_rows(3))
    expected = load_benchmark(folder)
    text = (folder / "Questions.csv").read_text("utf-8")
    (folder / "Questions.csv").write_bytes("\N{BOM}".encode() + text.replace("\n", "\r\n").encode())
    for path in sorted((folder / "MMVP Images").iterdir()):
        path.rename(path.with_name(f"{int(path.stem):04d}.jpg"))
    assert load_benchmark(folder).sha256 == expected.sha256


def test_brackets_and_quotation_marks_are_text(mmvp):
    rows = mmvp_rows(2, options='(a) "Happy (spring)" (b) "Happy!", said she')
    rows[0]["Question"] = rows[1]["Question"] = 'Are all eggs in a container (e.g nest, basket) with a "Z"?'
    bench = load_benchmark(mmvp(rows))
    assert bench.items[0].question == 'Are all eggs in a container (e.g nest, basket) with a "Z"?'
    assert bench.items[0].options == ('"Happy (spring)"', '"Happy!", said she')


def test_a_copy_whose_inner_quotation_marks_are_not_doubled(mmvp):
    """One public copy of MMVP's table is written so; pandas and csv leave stray marks in the text."""
    folder = mmvp(mmvp_rows(2))
    (folder / "Questions.csv").write_text(
        "Index,Category,Question,Options,Correct Answer\n"
        '1,tx,"Can you see the key "Z" in it, or "J"?",(a) Yes (b) No,(a)\n'
        '2,tx,"Can you see the key "Z" in it, or "J"?",(a) Yes (b) No,(b)\n'
        '3,tx,What are the words in the image:,(a) "Happy Easter" (b) "Happy Easter!",(a)\n'
        '4,tx,"What are the words in the image:",(a) "Happy Easter" (b) "Happy Easter!",(b)\n'
    )
    bench = load_benchmark(folder)
    assert bench.items[0].question == 'Can you see the key "Z" in it, or "J"?'
    assert bench.items[3].options == ('"Happy Easter"', '"Happy Easter!"')
    assert any("not doubled; read as text" in note for note in bench.notes)


def test_a_pair_id_column_overrules_the_numbers(mmvp):
    rows = mmvp_rows(2)
    for row, pair in zip(rows, "xyxy", strict=True):
        row |= {"pair_id": pair, "Question": "Open?"}
    rows[1]["Correct Answer"], rows[2]["Correct Answer"] = "(a)", "(b)"
    bench = load_benchmark(mmvp(rows))
    assert [(item.id, item.pair_id) for item in bench.items] == [
        ("1", "x"),
        ("2", "y"),
        ("3", "x"),
        ("4", "y"),
    ]
    assert not any("2k-1" in note for note in bench.notes)


def test_mmvps_rule_is_checked_not_trusted(mmvp):
    rows = mmvp_rows(3)
    rows[0]["Question"] = "Another?"
    rows[3]["Correct Answer"] = "(a)"
    rows[5]["Options"] = "(a) Open (b) Shut"
    with pytest.raises(UserError) as error:
        load_benchmark(mmvp(rows))
    text = str(error.value)
    assert (
        "pair '1': two questions ('Another?' and 'Is door 1 open (or closed)?'): row 1 (item '1'), row 2"
        in text
    )
    assert "pair '2': both have the answer 'Open'" in text
    assert "pair '3': the options differ (('Open', 'Closed') and ('Open', 'Shut'))" in text


def test_one_item_too_few_and_ids_that_are_no_numbers(mmvp):
    rows = mmvp_rows(2)
    with pytest.raises(
        UserError, match=r"pair '2': a pair has two items, this one has 1: row 3 \(item '3'\)"
    ):
        load_benchmark(mmvp(rows[:3]))
    folder = mmvp(rows)
    write_csv(folder / "Questions.csv", [row | {"lndex": f"q{row['lndex']}"} for row in rows])
    with pytest.raises(UserError, match=r"row 1 \(item 'q1'\) has no whole number"):
        load_benchmark(folder)


def test_items_that_are_publicly_doubted_are_noted(mmvp):
    rows = mmvp_rows(2)
    for row in rows[:2]:
        row |= {"Question": DOUBTS[1].question, "Options": "(a) Standing (b) Sitting"}
    notes = [note for note in load_benchmark(mmvp(rows)).notes if "tsb0601/MMVP#14" in note]
    assert len(notes) == 1
    assert notes[0].startswith("items 1, 2: labels reported as swapped")


# ---- tables


def as_csv(rows, path, delimiter=","):
    return write_csv(
        path, [row | {"options": json.dumps(row["options"])} for row in rows], delimiter=delimiter
    )


def write_table(rows, folder, kind):
    path = folder / f"table.{kind}"
    if kind == "csv":
        return as_csv(rows, path)
    if kind == "tsv":
        return as_csv(rows, path, "\t")
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


KINDS = ["csv", "tsv", "json", "jsonl", "parquet", "saved"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_is_the_same_exam(kind, tmp_path, drawn):
    rows = paired_rows(drawn(8), patterns=("color", None))
    if kind == "saved":  # relative paths start at the folder itself
        rows = [row | {"image": f"../{row['image']}"} for row in rows]
    bench = load_benchmark(write_table(rows, tmp_path, kind))
    expected = load_benchmark(write_table(paired_rows(drawn(8)), tmp_path, "json"))
    assert bench.sha256 == expected.sha256
    assert bench.name == ("table.saved" if kind == "saved" else "table")
    assert [item.id for item in bench.items] == [f"q{number}" for number in range(8)]
    assert [item.pattern for item in bench.items] == ["color", "color", None, None] * 2
    assert [item.answer for item in bench.items] == [0, 1] * 4
    assert all(item.image.is_file() for item in bench.items)


def test_absolute_paths_and_a_folder_with_one_table(tmp_path, drawn):
    rows = paired_rows([str(tmp_path / path) for path in drawn(4)])
    (tmp_path / "other").mkdir()
    write_table(rows, tmp_path / "other", "jsonl")
    assert len(load_benchmark(tmp_path / "other").items) == 4


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_pictures_in_the_table_are_written_under_their_hash(kind, tmp_path):
    features = datasets.Features(
        {
            "pair_id": datasets.Value("int64"),
            "question": datasets.Value("string"),
            "options": datasets.List(datasets.Value("string")),
            "answer": datasets.Value("string"),
            "image": datasets.Image(),
            "pattern": datasets.ClassLabel(names=["color", "text"]),
        }
    )
    rows = [
        {key: row[key] for key in ("question", "options", "answer")}
        | {"pair_id": number // 2, "image": {"bytes": png(number), "path": None}, "pattern": number // 4}
        for number, row in enumerate(paired_rows([None] * 8))
    ]
    table = datasets.Dataset.from_list(rows, features=features)
    path = tmp_path / f"table.{kind}"
    if kind == "saved":
        table.save_to_disk(str(path))
    else:
        table.to_parquet(str(path))
    with pytest.raises(UserError, match=r"item '0-1' holds its image as bytes.*images=FOLDER"):
        load_benchmark(path)
    store = tmp_path / "store"
    bench = load_benchmark(path, images=store)
    assert [item.id for item in bench.items] == ["0-1", "0-2", "1-1", "1-2", "2-1", "2-2", "3-1", "3-2"]
    for item in bench.items:
        assert item.image == store / f"{item.image_sha256}.png"
        assert hashlib.sha256(item.image.read_bytes()).hexdigest() == item.image_sha256
    assert load_benchmark(path, images=store) == bench
    if kind == "saved":  # Parquet keeps a class label's number, the saved dataset its name too
        assert [item.pattern for item in bench.items] == ["color"] * 4 + ["text"] * 4


def test_a_dataset_of_one_split_is_read_and_of_two_is_not(tmp_path, drawn):
    rows = paired_rows([f"../img/p{number}.png" for number in range(len(drawn(4)))])
    one = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
    one.save_to_disk(str(tmp_path / "one"))
    assert len(load_benchmark(tmp_path / "one").items) == 4
    two = datasets.DatasetDict({"a": one["test"], "b": one["test"]})
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(UserError, match=r"2 splits \(a, b\)"):
        load_benchmark(tmp_path / "two")


def test_without_ids_the_items_of_a_pair_are_named_by_their_answers(tmp_path, drawn):
    rows = [{key: cell for key, cell in row.items() if key != "id"} for row in paired_rows(drawn(6))]
    straight = load_benchmark(write_table(rows, tmp_path, "json"))
    assert [item.id for item in straight.items] == ["p0-1", "p0-2", "p1-1", "p1-2", "p2-1", "p2-2"]
    assert load_benchmark(write_table(rows[::-1], tmp_path, "json")) == straight


@pytest.mark.parametrize(
    "options",
    [
        "(a) Yes (b) No",
        "(A) Yes (B) No",
        "A. Yes\nB. No",
        "A) Yes\r\n\r\nB) No",
        "(1) Yes (2) No",
        '["Yes", "No"]',
        "['Yes', 'No']",
    ],
)
def test_options_may_be_written_in_several_ways(options, tmp_path, drawn):
    rows = [
        row | {"options": options, "answer": word}
        for row, word in zip(paired_rows(drawn(2)), ["Yes", "No"], strict=True)
    ]
    assert [(item.options, item.answer) for item in load_benchmark(write_table(rows, tmp_path, "json")).items] == [
        (("Yes", "No"), 0), (("Yes", "No"), 1),
    ]  # fmt: skip


def test_options_in_columns_of_their_own(tmp_path, drawn):
    rows = [
        {key: cell for key, cell in row.items() if key != "options"}
        | {"A": "Yes", "B": "No", "C": "", "D": None}
        for row in paired_rows(drawn(2))
    ]
    assert load_benchmark(write_table(rows, tmp_path, "json")).items[0].options == (
        "Yes",
        "No",
    )


@pytest.mark.parametrize(
    "answers", [("A", "B"), ("a", "b"), ("(a)", "(b)"), ("B.", "A)"), ("yes", "NO"), ("Yes", "No")]
)
def test_answers_may_be_letters_or_words(answers, tmp_path, drawn):
    rows = [row | {"answer": answer} for row, answer in zip(paired_rows(drawn(2)), answers, strict=True)]
    first = load_benchmark(write_table(rows, tmp_path, "json")).items[0].answer
    assert first == (1 if answers[0] == "B." else 0)


def test_numbers_are_labels_only_where_options_bear_numbers(tmp_path, drawn):
    base = paired_rows(drawn(2))
    labelled = [
        row | {"options": "(1) Red (2) Blue", "answer": number}
        for row, number in zip(base, (1, 2), strict=True)
    ]
    assert [item.answer for item in load_benchmark(write_table(labelled, tmp_path, "json")).items] == [0, 1]
    texts = [
        row | {"options": ["2", "1"], "answer": number} for row, number in zip(base, (1, 2.0), strict=True)
    ]
    assert [item.answer for item in load_benchmark(write_table(texts, tmp_path, "json")).items] == [1, 0]


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"answer": 1}, r"row 1: the answer '1' names none.*A = 'Yes', B = 'No'.*is 1 the first or the second"),
        ({"answer": "C"}, r"row 1: the answer 'C' names none of the options"),
        ({"answer": "maybe"}, r"row 1: the answer 'maybe' names none"),
        ({"answer": " "}, r"row 1: the answer is empty"),
        ({"options": ["B", "A"], "answer": "A"}, r"row 1: the answer 'A' can mean more than one option \(A = 'B', B = 'A'\)"),
        ({"options": "(1) 2 (2) 1", "answer": "1"}, r"the answer '1' can mean more than one"),
        ({"options": ["Yes"]}, r"row 1: 1 options \('Yes',\); a question has 2 to 26"),
        ({"options": [str(n) for n in range(27)]}, r"27 options .*; a question has 2 to 26"),
        ({"options": ["Yes", ""]}, r"row 1: an option is empty: \('Yes', ''\)"),
        ({"options": ["Yes", "Yes"]}, r"row 1: two options are the same"),
        ({"options": "Yes or No"}, r"row 1: the options 'Yes or No' are neither a list"),
        ({"options": "[Yes, No]"}, r"the options '\[Yes, No\]' begin like a list and are none"),
        ({"options": "(a) the letter (c) (b) the letter (d)"}, r"are labelled a, c, b, d, expected a, b, ... or 1, 2"),
        ({"options": "(a) Yes (a) No"}, r"labelled a, a"),
        ({"question": "  "}, r"row 1: the question is empty"),
        ({"image": ""}, r"row 1: the image is empty"),
        ({"image": None}, r"row 1: the image is empty"),
        ({"id": ""}, r"row 1: the id is empty"),
        ({"pair_id": None}, r"row 1 \(item 'q0'\): the pair_id is empty"),
        ({"id": "q1"}, r"rows 1 and 2 have the same id 'q1'"),
        ({"pair_id": "p1"}, r"pair 'p1': a pair has two items, this one has 3: row 1 .*, row 3 .*, row 4"),
        ({"pattern": "text"}, r"pair 'p0': the patterns differ \('text' and 'color'\)"),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_named_with_what_is_wrong(cells, complaint, tmp_path, drawn):
    rows = paired_rows(drawn(4))
    rows[0] = rows[0] | cells
    with pytest.raises(UserError, match=complaint):
        load_benchmark(write_table(rows, tmp_path, "json"))


def test_an_image_of_no_known_kind(tmp_path, drawn):
    rows = paired_rows(drawn(2))
    rows[0]["image"] = 7
    with pytest.raises(UserError, match=r"item 'q0': the image is '7'; expected a path or bytes"):
        load_benchmark(write_table(rows, tmp_path, "json"))


def test_many_problems_are_listed_and_counted(tmp_path, drawn):
    rows = [row | {"answer": "?"} for row in paired_rows(drawn(14))]
    with pytest.raises(UserError, match=r"(?s)row 10: .*and 4 more$"):
        load_benchmark(write_table(rows, tmp_path, "json"))


@pytest.mark.parametrize(
    ("rename", "complaint"),
    [
        ({"question": "quesion"}, r"no column 'question' \(did you mean it to be 'quesion'\?\). Columns there: .*quesion"),
        ({"answer": "anwser"}, r"no column 'answer' \(did you mean it to be 'anwser'\?\)"),
        ({"options": "Opsions"}, r"no column 'options' \(did you mean it to be 'Opsions'\?\)"),
        ({"image": "images"}, r"no column 'image' \(did you mean it to be 'images'\?\)"),
        ({"pair_id": "pairid"}, r"(?s)no column 'pair_id' \(did you mean it to be 'pairid'\?\).*same pair_id.*kind 'items'"),
        ({"pair_id": "group"}, r"no column 'pair_id', and this is no layout that goes without"),
        ({"pattern": "Correct Answer"}, r"columns 'answer' and 'Correct Answer' both say the answer"),
    ],
)  # fmt: skip
def test_a_missing_column_is_named_with_the_one_it_may_be(rename, complaint, tmp_path, drawn):
    rows = [{rename.get(key, key): cell for key, cell in row.items()} for row in paired_rows(drawn(2))]
    with pytest.raises(UserError, match=complaint):
        load_benchmark(write_table(rows, tmp_path, "json"))


def test_a_table_given_as_a_file_is_not_paired_by_numbers(mmvp):
    folder = mmvp(mmvp_rows(2))
    with pytest.raises(UserError, match=r"no column 'image'.*given as the folder"):
        load_benchmark(folder / "Questions.csv")


def test_unused_columns_are_noted(tmp_path, drawn):
    rows = [row | {"split": "test", "hint": "?"} for row in paired_rows(drawn(2))]
    assert "columns not used: split, hint" in load_benchmark(write_table(rows, tmp_path, "json")).notes


def test_answers_out_of_balance_are_noted(tmp_path, drawn):
    rows = paired_rows(drawn(6))
    for row in rows:
        row |= {"options": ["No", "Yes", "Both"], "answer": "Yes" if row["answer"] == "A" else "No"}
        if row["pair_id"] == "p2" and row["answer"] == "No":
            row["answer"] = "Both"
    notes = load_benchmark(write_table(rows, tmp_path, "json")).notes
    assert any("always saying B is right for 3 of 6 items (50%; chance 33%)" in note for note in notes)


# ---- pictures that cannot be used


def test_a_bad_picture_takes_its_pair_out_and_is_listed(tmp_path, drawn):
    rows = paired_rows(drawn(8))
    (tmp_path / "img" / "p0.png").write_bytes(png(0, (64, 64))[:-40])
    rows[3]["image"] = "img/nowhere.png"
    bench = load_benchmark(write_table(rows, tmp_path, "json"))
    assert [item.id for item in bench.items] == ["q4", "q5", "q6", "q7"]
    listed = {entry.path: entry for entry in bench.quarantined}
    assert {entry.reason for entry in bench.quarantined} == {"truncated", "missing"}
    assert "pair 'p0' (items 'q0' and 'q1') is left out" in listed[str(tmp_path / "img/p0.png")].detail
    assert "pair 'p1' (items 'q2' and 'q3') is left out" in listed[str(tmp_path / "img/nowhere.png")].detail
    assert any("2 pictures could not be used" in note for note in bench.notes)


def test_two_items_with_the_same_picture_contradict_each_other(tmp_path, drawn):
    rows = paired_rows(drawn(4))
    (tmp_path / "img" / "p1.png").write_bytes(png(0))
    bench = load_benchmark(write_table(rows, tmp_path, "json"))
    assert [item.id for item in bench.items] == ["q2", "q3"]
    (entry,) = bench.quarantined
    assert entry.reason == "bad_row"
    assert entry.detail == (
        "both items show the same picture and have opposite answers; pair 'p0' (items 'q0' and 'q1') is left out"
    )


def test_a_folder_without_a_picture_for_an_id(mmvp):
    folder = mmvp(mmvp_rows(2))
    (folder / "MMVP Images" / "3.jpg").unlink()
    bench = load_benchmark(folder)
    assert [item.id for item in bench.items] == ["1", "2"]
    assert [(entry.path, entry.reason) for entry in bench.quarantined] == [(str(folder / "3"), "missing")]


def test_two_pictures_for_one_id(mmvp):
    folder = mmvp(mmvp_rows(2))
    (folder / "MMVP Images" / "03.png").write_bytes(png(9))
    with pytest.raises(
        UserError, match=r"two pictures for item '3': MMVP Images/03.png and MMVP Images/3.jpg"
    ):
        load_benchmark(folder)


def test_no_pair_left_says_why(tmp_path, drawn):
    rows = [row | {"image": f"gone{number}.png"} for number, row in enumerate(paired_rows(drawn(4)))]
    with pytest.raises(UserError, match=r"(?s)no pair is left.*missing: 4.*gone0.png: missing: .*pair 'p0'"):
        load_benchmark(write_table(rows, tmp_path, "json"))


# ---- limits, names, hashes, sources


def test_a_limit_takes_whole_pairs_from_every_pattern_in_turn(tmp_path, drawn):
    rows = paired_rows(drawn(24), patterns=("text", "text", "text", "color"))
    path = write_table(rows, tmp_path, "json")
    bench = load_benchmark(path, limit=5)
    assert sorted({item.pair_id for item in bench.items}) == ["p0", "p1", "p11", "p3", "p7"]
    assert len(bench.items) == 10
    assert any("limited to 5 of 12 pairs" in note for note in bench.notes)
    shuffled = write_table(rows[::-1], tmp_path, "json")
    assert load_benchmark(shuffled, limit=5) == bench
    assert load_benchmark(path, limit=99).sha256 == load_benchmark(path).sha256
    with pytest.raises(UserError, match="a limit of 0 pairs"):
        load_benchmark(path, limit=0)


def test_a_limit_counts_pairs_that_can_be_used(tmp_path, drawn):
    rows = paired_rows(drawn(8))
    rows[0]["image"] = "gone.png"
    bench = load_benchmark(write_table(rows, tmp_path, "json"), limit=2)
    assert sorted({item.pair_id for item in bench.items}) == ["p1", "p2"]
    assert len(bench.quarantined) == 1


def test_names_are_part_of_file_names(tmp_path, drawn):
    path = write_table(paired_rows(drawn(2)), tmp_path, "json")
    assert load_benchmark(path, name="my exam").name == "my exam"
    odd = path.rename(tmp_path / "my odd (table).json")
    assert load_benchmark(odd).name == "my-odd-table"
    for name in ("a/b", "", ".hidden", "a\nb"):
        with pytest.raises(UserError, match="a benchmark cannot be named"):
            load_benchmark(odd, name=name)


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Is thing 0 blue?"},
        {"options": ["No", "Yes"], "answer": "swap"},
        {"answer": "swap"},
        {"image": "other"},
    ],
)
def test_the_hash_follows_what_is_asked(change, tmp_path, drawn):
    images = drawn(5)
    rows = paired_rows(images[:4])
    before = load_benchmark(write_table(rows, tmp_path, "json")).sha256
    for row, word in zip(rows[:2], ("No", "Yes"), strict=True):
        row |= change
        if change.get("answer") == "swap":
            row["answer"] = word
    if change.get("image") == "other":
        rows[0]["image"], rows[1]["image"] = images[4], images[1]
    assert load_benchmark(write_table(rows, tmp_path, "json")).sha256 != before


def test_the_hash_does_not_follow_names_and_order(tmp_path, drawn):
    rows = paired_rows(drawn(4))
    before = load_benchmark(write_table(rows, tmp_path, "json")).sha256
    other = [
        row | {"id": f"z{place}", "pair_id": f"y{row['pair_id']}", "pattern": None}
        for place, row in enumerate(rows)
    ]
    assert load_benchmark(write_table(other[::-1], tmp_path, "json")).sha256 == before


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.csv", b"", "the file is empty"),
        ("t.csv", b"question,answer\n", "the table has no rows"),
        ("t.csv", b"question,question\na,b\n", "two columns have the same name: 'question'"),
        ("t.csv", b"question,answer\nWhich, this?,A\n", "row 1 has 3 cells, the header has 2 .*not quoted"),
        ("t.csv", b"question,answer\n\xff\xfe,A\n", "not UTF-8 text \\(byte 16\\)"),
        ("t.csv", b"question,answer\n" + b"x" * 140_000 + b",A\n", "field larger than field limit.*Parquet"),
        ("t.json", b"{}", "expected a list of objects, got dict"),
        ("t.json", b"[1]", "row 1 is int, expected an object"),
        ("t.json", b"{", "no JSON .*one object for each line is .jsonl"),
        ("t.json", b"[]", "the table has no rows"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("t.parquet", b"PAR1", "no readable Parquet file"),
        ("t.xlsx", b"PK", "no reader for '.xlsx'. Readers there are: .csv, .tsv"),
    ],
)
def test_a_damaged_file_is_named(name, content, complaint, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        load_benchmark(tmp_path / name)


def test_a_saved_dataset_that_is_damaged_or_empty(tmp_path, drawn):
    path = write_table(paired_rows(drawn(2)), tmp_path, "saved")
    (path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="no readable saved dataset"):
        load_benchmark(path)
    datasets.Dataset.from_dict({"question": []}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no readable saved dataset"):
        load_benchmark(tmp_path / "none")


def test_empty_rows_are_skipped_and_counted(tmp_path, drawn):
    path = as_csv(paired_rows(drawn(2)), tmp_path / "t.csv")
    path.write_text(path.read_text() + "\n,,,,,,\n\n,,,,,,\n")
    bench = load_benchmark(path)
    assert len(bench.items) == 2
    assert "2 empty rows skipped" in bench.notes


def test_a_source_that_is_not_there_or_not_clear(tmp_path, drawn):
    with pytest.raises(UserError, match=r"no benchmark at 'MMVP/MMVP'.*nothing is downloaded"):
        load_benchmark("MMVP/MMVP")
    drawn(1)
    with pytest.raises(UserError, match="no table in this folder"):
        load_benchmark(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("question\n?\n")
    with pytest.raises(UserError, match=r"several tables \(a.csv, b.csv\)"):
        load_benchmark(tmp_path)


def test_a_table_one_folder_down(mmvp):
    folder = mmvp(mmvp_rows(2))
    assert len(load_benchmark(folder.parent).items) == 4


def test_a_table_cut_by_semicolons_says_the_same(drawn, tmp_path):
    rows = [row | {"options": json.dumps(row["options"])} for row in paired_rows(drawn(4))]
    commas = write_csv(tmp_path / "commas.csv", rows)
    semicolons = write_csv(tmp_path / "semicolons.csv", rows, delimiter=";")
    assert load_benchmark(semicolons).rows_sha256 == load_benchmark(commas).rows_sha256


def test_two_columns_that_differ_in_case_alone_are_refused(drawn, tmp_path):
    rows = [row | {"options": json.dumps(row["options"]), "Answer": "A"} for row in paired_rows(drawn(2))]
    table = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(UserError, match="columns 'answer' and 'Answer' differ only in case or spacing"):
        load_benchmark(table)


def test_what_lies_outside_the_folder_is_noted_and_what_was_not_taken_is_counted(drawn, tmp_path):
    rows = [row | {"options": json.dumps(row["options"])} for row in paired_rows(drawn(4))]
    inner = [row | {"image": f"../{row['image']}"} for row in rows]
    outside = load_benchmark(write_csv(tmp_path / "inner" / "t.csv", inner), limit=1)
    assert "2 pictures lie outside the benchmark's folder, where its table points to" in outside.notes
    assert (len(outside.items), outside.in_source) == (2, 4)
    assert not any("outside" in note for note in load_benchmark(write_csv(tmp_path / "t.csv", rows)).notes)


def test_ids_of_any_length_are_sorted(drawn, tmp_path):
    rows = [row | {"options": json.dumps(row["options"])} for row in paired_rows(drawn(2))]
    rows[0]["id"] = "9" * 5000
    assert load_benchmark(write_csv(tmp_path / "t.csv", rows)).items[0].id == "9" * 5000


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_json_nested_without_end_is_refused(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"(no|is no) JSON"):
        load_benchmark(tmp_path / name)
