"""Logs of three harnesses, with their quirks, read into one shape; joined by id and checked, never by a row's place."""

import base64
import hashlib
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.score.joining import match, units_of
from eyechart.score.log_lmms import read_lmms, split_prompt
from eyechart.score.logged import READ, SCORES, VERDICT, Answered, Log
from eyechart.score.logs import read_logs
from logs_made import (
    choices,
    encoder_run,
    eyechart_run,
    kit_rows,
    kit_table,
    letters,
    lmms_samples,
    made_items,
    relabelled,
)

ITEMS = made_items(6)
ALL_RIGHT = letters(ITEMS, choices(ITEMS))


def one(path) -> Log:
    (log,) = read_logs(path)
    return log


def rights(log: Log) -> dict[str, bool]:
    return {answer.id: answer.right for answer in log.answers}


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- Eyechart ---------------------------------------------------------------------------------------------------------


def test_every_way_of_a_run_is_a_log_the_first_one_first(tmp_path):
    ways = {"": choices(ITEMS, wrong=[1]), "swapped": choices(ITEMS, unread=[2]), "blank": choices(ITEMS)}
    variants = {"swapped": {"order": "swapped"}, "blank": {"show": "blank"}}
    logs = read_logs(eyechart_run(tmp_path / "run", ITEMS, ways, variants=variants))
    assert [log.variant for log in logs] == ["", "swapped", "blank"]
    assert [log.control for log in logs] == ["", "", "blank"]
    assert rights(logs[0]) == {item.id: item.number != 1 for item in ITEMS}
    assert [answer.unread for answer in logs[1].answers] == [item.number == 2 for item in ITEMS]
    assert logs[1].answers[0].choice == ITEMS[0].answer  # a place in the set's own order, whatever was shown
    assert one(tmp_path / "run" / "samples_doors@swapped.jsonl").variant == "swapped"


def test_an_exam_of_before_places_were_logged(tmp_path):
    run = eyechart_run(tmp_path / "run", ITEMS, {"": choices(ITEMS, wrong=[3], unread=[4])})
    path = run / "samples_doors.jsonl"
    rows = [
        {name: value for name, value in row.items() if name not in ("answer", "choice", "order", "right")}
        for row in lines(path)
    ]
    for row in rows[::2]:  # MMVP's labels, (a) and (b)
        row["target"] = row["target"].lower()
        row["filtered_resps"] = [row["filtered_resps"][0].lower()]
    write(path, rows)
    answers = one(run).answers
    assert [answer.answer for answer in answers] == [item.answer for item in ITEMS]
    assert [answer.choice for answer in answers] == list(choices(ITEMS, wrong=[3], unread=[4]).values())


def test_what_is_no_finished_run_is_refused(tmp_path):
    unfinished = eyechart_run(tmp_path / "a", ITEMS, {"": choices(ITEMS)}, finished=False)
    with pytest.raises(UserError, match="not finished"):
        read_logs(unfinished)
    cut = eyechart_run(tmp_path / "b", ITEMS, {"": choices(ITEMS)})
    path = cut / "samples_doors.jsonl"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match="line 12 is no JSON"):
        read_logs(cut)
    with pytest.raises(UserError, match="there is no run at"):
        read_logs(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(UserError, match="no run that can be compared"):
        read_logs(tmp_path / "notes.txt")


def test_an_encoders_matches_count_from_text_to_image(tmp_path):
    log = one(encoder_run(tmp_path / "enc", {"color": [1, 0, 1]}))
    assert (log.kind, [answer.right for answer in log.answers]) == ("encoder", [True, False, True])


# --- lmms-eval --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_doc", [False, True], ids=["0.7.3", "with doc"])
def test_lmms_samples_are_told_as_items(tmp_path, with_doc):
    log = one(lmms_samples(tmp_path, ITEMS, ALL_RIGHT, with_doc=with_doc).parent.parent)
    assert log.model == "org/model"
    assert log.graded == READ
    assert [answer.id for answer in log.answers] == [item.id for item in ITEMS]
    assert [answer.options for answer in log.answers] == [("Open", "Closed")] * len(ITEMS)
    assert [answer.question for answer in log.answers] == [item.question for item in ITEMS]
    assert all(rights(log).values())
    assert all(answer.theirs for answer in log.answers)


def test_an_index_from_0_puts_two_rows_at_0_and_is_told_apart(tmp_path):
    path = lmms_samples(tmp_path, ITEMS, ALL_RIGHT, index_from=0)
    assert [row["mmvp_accuracy"]["index"] for row in lines(path)][:3] == [0, 0, 1]
    assert [answer.id for answer in read_lmms(path).answers] == [item.id for item in ITEMS]


def test_our_reader_grades_where_theirs_takes_a_first_letter(tmp_path):
    replies = dict(ALL_RIGHT)
    replies[2] = "Closed"  # right, in words: theirs reads nothing
    replies[1] = "A man stands in front of it."  # theirs reads A, which is right
    replies[4] = "Both doors are closed, so I cannot say."  # theirs reads B, which is right
    answers = {answer.id: answer for answer in read_lmms(lmms_samples(tmp_path, ITEMS, replies)).answers}
    assert (answers["2"].right, answers["2"].theirs) == (True, False)
    assert (answers["1"].right, answers["1"].unread, answers["1"].theirs) == (False, True, True)
    assert (answers["4"].right, answers["4"].unread, answers["4"].theirs) == (False, True, True)


def test_rows_logged_twice_count_once_and_contradictions_are_left_out(tmp_path):
    path = lmms_samples(tmp_path, ITEMS, ALL_RIGHT)
    rows = lines(path)
    other = {**rows[4], "filtered_resps": "B", "resps": [["B"]]}
    write(path, [*rows, rows[0], rows[1], other])
    log = read_lmms(path)
    assert [answer.id for answer in log.answers] == [item.id for item in ITEMS if item.number != 5]
    assert "2 rows were exact copies" in " ".join(log.notes)
    (left,) = log.left_out
    assert "item 5: 2 rows with this id and different answers" in left.detail


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    path = lmms_samples(tmp_path, ITEMS, ALL_RIGHT)
    rows = lines(path)
    rows[2]["target"] = "C"
    del rows[3]["input"], rows[3]["mmvp_accuracy"], rows[3]["mmvp_pair_accuracy"]
    rows[3]["score"] = 1  # no options to grade by, but a verdict
    write(path, rows)
    log = read_lmms(path)
    assert len(log.answers) == len(ITEMS) - 1
    assert "row 3" in log.left_out[0].detail
    kept = {answer.id: answer for answer in log.answers}["3"]  # named by its doc_id, as nothing else does
    assert (kept.regraded, kept.right) == (False, True)
    assert "1 of 11 items could not be graded again" in " ".join(log.notes)


def test_likelihood_tasks_choose_by_score_and_ties_are_unread(tmp_path):
    path = lmms_samples(tmp_path, ITEMS[:4], ALL_RIGHT)
    rows = lines(path)
    scores = [[-1.0, -2.0], [-2.0, -1.0], [-2.0, -1.0], [-1.0, -1.0]]
    for row, pair in zip(rows, scores, strict=True):
        row["resps"] = [[[str(score), "False"]] for score in pair]
        row["filtered_resps"] = [[str(score), "False"] for score in pair]
    write(path, rows)
    log = read_lmms(path)
    assert log.graded == SCORES
    assert [answer.choice for answer in log.answers] == [0, 1, 1, None]


def test_cv_bench_and_pope_rows(tmp_path):
    told = {"id": 17, "type": "2D", "task": "Count", "source": "COCO", "is_correct": False}
    prompt = "Note: You only need to respond with A, B, C.\n\nHow many? Select from the choices.\n(A) 1\n(B) 2\n(C) 3"
    counted = {"doc_id": 0, "target": "(B)", "filtered_resps": "(B) 2", "cv_bench_acc": told, "input": prompt}
    path = tmp_path / "m" / "20260101_1_samples_cv_bench_2d.jsonl"
    path.parent.mkdir()
    write(path, [counted])
    (answer,) = read_lmms(path).answers
    assert (answer.id, answer.pattern, answer.options, answer.right) == ("17", "Count", ("1", "2", "3"), True)
    assert answer.theirs is False
    pope = {
        "doc_id": 3, "target": "no", "filtered_resps": "No, there is not.", "input": "Is there a dog?\nAnswer yes or no.",
        "pope_accuracy": {"question_id": "81", "score": 1.0, "prediction": "no"},
    }  # fmt: skip
    write(path, [pope])
    (answer,) = read_lmms(path).answers
    assert (answer.id, answer.options, answer.choice, answer.theirs) == ("81", ("Yes", "No"), 1, True)


def test_a_task_without_options_keeps_its_verdict(tmp_path):
    path = tmp_path / "m" / "20260101_1_samples_gqa.jsonl"
    path.parent.mkdir()
    rows = [
        {"doc_id": n, "target": "red", "filtered_resps": "red", "exact_match": n % 2, "input": "What?"}
        for n in range(4)
    ]
    write(path, rows)
    log = read_lmms(path)
    assert log.graded == VERDICT
    assert [answer.right for answer in log.answers] == [False, True, False, True]


def test_several_tasks_or_dates_must_be_named(tmp_path):
    lmms_samples(tmp_path, ITEMS, ALL_RIGHT)
    lmms_samples(tmp_path, ITEMS, ALL_RIGHT, task="mmvp_again")
    with pytest.raises(UserError, match="2 tasks: mmvp, mmvp_again; name one with --task"):
        read_logs(tmp_path)
    assert read_logs(tmp_path, task="mmvp")[0].task == "mmvp"
    lmms_samples(tmp_path, ITEMS, ALL_RIGHT, model="org__two")
    with pytest.raises(UserError, match="2 files of samples of mmvp"):
        read_logs(tmp_path, task="mmvp")


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("Q?\nA. x y\nB. z\nAnswer with", ("Q?", ("x y", "z"), "letters")),
        ("Q?\n(a) x\n(b) z", ("Q?", ("x", "z"), "letters")),
        ("Q?\n(1) x\n(2) z", ("Q?", ("x", "z"), "numbers")),
        ("Is it? (a) Open (b) Closed", ("Is it?", ("Open", "Closed"), "letters")),
        ("Hint: A. b\nQ?\nA. x\nB. z\nC. w", ("Hint: A. b Q?", ("x", "z", "w"), "letters")),
        ("A. only one\nQ?", ("A. only one Q?", (), "letters")),
        ("Say what is there.", ("Say what is there.", (), "letters")),
    ],
)
def test_prompts_are_split(prompt, read):
    assert split_prompt(prompt) == read


# --- VLMEvalKit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".json"])
def test_vlmevalkit_tables(tmp_path, ending):
    replies = {**ALL_RIGHT, 2: "Closed", 3: "", 4: "Failed to obtain answer via API.", 5: "The door is blue."}
    log = one(kit_table(tmp_path / f"llava_v1.5_7b_MMVP{ending}", kit_rows(ITEMS, replies)))
    assert (log.model, log.task, log.source) == ("llava_v1.5_7b", "MMVP", "VLMEvalKit")
    assert [answer.id for answer in log.answers] == [item.id for item in ITEMS]
    assert [answer.id for answer in log.answers if answer.unread] == ["3", "4", "5"]
    assert [answer.right for answer in log.answers][:2] == [True, True]
    assert "2 items have no reply" in " ".join(log.notes)
    assert log.answers[0].pattern == ITEMS[0].pattern


def test_vlmevalkit_names_of_results_and_missing_columns(tmp_path):
    rows = kit_rows(ITEMS, ALL_RIGHT)
    assert one(kit_table(tmp_path / "qwen_MMVP_openai_result.tsv", rows)).model == "qwen"
    bad = [{name: value for name, value in row.items() if name != "prediction"} for row in rows]
    with pytest.raises(UserError, match=r"no column 'prediction'.*columns are index, question"):
        read_logs(kit_table(tmp_path / "x.csv", bad))


def test_vlmevalkit_pictures_in_the_table_are_hashed(tmp_path):
    rows = kit_rows(ITEMS, ALL_RIGHT)
    data = b"a picture's bytes, long enough to be one" * 4
    for row in rows:
        row["image"] = base64.b64encode(data).decode() if row["index"] == 1 else ""
    log = one(kit_table(tmp_path / "m_MMVP.tsv", rows))
    assert log.answers[0].images_sha256 == (hashlib.sha256(data).hexdigest(),)
    assert log.answers[1].images_sha256 == ()


def test_vlmevalkit_spreadsheets(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    rows = kit_rows(ITEMS, ALL_RIGHT)
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(tmp_path / "m_MMVP.xlsx")
    assert rights(one(tmp_path / "m_MMVP.xlsx")) == {item.id: True for item in ITEMS}


def test_a_run_of_the_engine_is_read_from_the_logs_in_it(tmp_path):
    lmms_samples(tmp_path / "run/logs", ITEMS, ALL_RIGHT, with_doc=True)
    (tmp_path / "run/manifest.json").write_text("{}")
    (log,) = read_logs(tmp_path / "run")
    assert len(log.answers) == len(ITEMS)


def test_a_missing_openpyxl_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "m_MMVP.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"pip install 'eyechart\[xlsx\]'"):
        read_logs(tmp_path / "m_MMVP.xlsx")


# --- joining ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path) -> Log:
    return one(eyechart_run(tmp_path / "ours", ITEMS, {"": choices(ITEMS)}))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_plays_no_part(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("shuffled")
    wrong = choices(ITEMS, wrong=[2, 7])
    ours = one(eyechart_run(folder / "ours", ITEMS, {"": wrong}))
    path = lmms_samples(folder / "lmms", ITEMS, letters(ITEMS, wrong))
    rows = lines(path)
    random.Random(seed).shuffle(rows)
    write(path, rows)
    other = read_lmms(path)
    join = match(ours, other)
    assert join.how == "by id"
    assert all(name == own for name, own in join.pairs.items())
    assert rights(ours) == {name: rights(other)[own] for name, own in join.pairs.items()}


def test_ids_from_0_are_met_with_ids_from_1(ours, tmp_path):
    kit = one(kit_table(tmp_path / "m_MMVP.tsv", kit_rows(ITEMS, ALL_RIGHT, index_from=0)))
    join = match(ours, kit)
    assert join.how == "by id, counted from 0 here and from 1 in the first run"
    assert join.pairs == {item.id: str(item.number - 1) for item in ITEMS}
    assert match(kit, ours).pairs == {str(item.number - 1): item.id for item in ITEMS}


def test_other_ids_are_met_by_question_and_picture(ours):
    renamed = replace(ours, answers=tuple(replace(a, id=f"row-{a.id}") for a in reversed(ours.answers)))
    join = match(ours, renamed)
    assert join.how.startswith("by question")
    assert join.pairs == {item.id: f"row-{item.id}" for item in ITEMS}
    blind = replace(renamed, answers=tuple(replace(a, images=(), images_sha256=()) for a in renamed.answers))
    with pytest.raises(UserError, match="do not ask the same questions"):
        match(ours, blind)  # the two of a pair ask the same, so nothing tells them apart


def test_another_set_under_the_same_ids_is_refused(ours):
    other = replace(
        ours,
        answers=tuple(
            replace(a, question="What is it?", options=("X", "Y"), images=(), images_sha256=())
            for a in ours.answers
        ),
    )
    with pytest.raises(UserError, match="do not ask the same questions"):
        match(ours, other)
    pictures = replace(ours, answers=tuple(replace(a, images_sha256=("0" * 64,)) for a in ours.answers))
    with pytest.raises(UserError, match="different pictures"):
        match(ours, pictures)


def test_the_two_of_every_pair_changed_round_are_no_corrections(ours):
    round_about = {a.id: a for a in ours.answers}
    swapped = replace(
        ours,
        answers=tuple(
            replace(
                a,
                answer=round_about[str(int(a.id) + (1 if int(a.id) % 2 else -1))].answer,
                images=(),
                images_sha256=(),
            )
            for a in ours.answers
        ),
    )
    with pytest.raises(UserError, match="another right answer"):
        match(ours, swapped)


def test_a_single_other_question_is_left_out_and_listed():
    items = made_items(10)

    def log(question: str) -> Log:
        answers = [
            Answered(id=i.id, question=question if i.number == 5 else i.question, options=i.options, answer=i.answer,
                     choice=i.answer, reply="", right=True, unread=False)
            for i in items
        ]  # fmt: skip
        return Log(path=Path("x"), source="lmms-eval", kind="vlm", model="m", identity="m",
                   task="t", variant="", control="", answers=tuple(answers), graded=READ)  # fmt: skip

    join = match(log("Is door 3 open or closed?"), log("Something else?"))
    assert join.only_first == ("5",)
    assert "item 5 asks" in join.mismatched[0]


def test_labels_that_differ_are_named(ours, tmp_path):
    log = read_lmms(lmms_samples(tmp_path / "l", relabelled(ITEMS, [3]), ALL_RIGHT))
    assert match(ours, log).labels_differ == ("3",)


# --- units ------------------------------------------------------------------------------------------------------------


def test_pairs_by_number_only_where_every_two_are_a_pair(tmp_path):
    log = read_lmms(lmms_samples(tmp_path, ITEMS, ALL_RIGHT))
    units = units_of(log.answers)
    assert units.unit == "pairs"
    assert units.groups["3"] == ("5", "6")
    assert "by number" in units.notes[0]
    same = read_lmms(lmms_samples(tmp_path / "s", relabelled(ITEMS, [6]), ALL_RIGHT))
    assert units_of(same.answers).unit == "items"  # 5 and 6 have one answer
    assert units_of(log.answers, rule="items").unit == "items"
    lacking = tuple(answer for answer in log.answers if answer.id != "4")
    assert units_of(lacking).incomplete == ("3",)
    from_0 = tuple(replace(answer, id=str(int(answer.id) - 1)) for answer in log.answers)
    assert units_of(from_0).groups["1"] == ("0", "1")


def test_items_on_one_picture_are_one_cluster(ours):
    alone = [
        replace(a, pair_id="", images_sha256=("s",) if int(a.id) < 4 else a.images_sha256)
        for a in ours.answers
    ]
    units = units_of(alone, rule="items")
    assert units.clustered
    assert len(set(units.clusters.values())) == len(ITEMS) - 2


def test_naturalbench_is_compared_by_group(ours):
    fours = [replace(a, pair_id="", group=str((int(a.id) - 1) // 4)) for a in ours.answers]
    units = units_of(fours[:-1], rule="naturalbench")
    assert (units.unit, units.groups["0"]) == ("groups", ("1", "2", "3", "4"))
    assert units.incomplete == ("9", "10", "11")
