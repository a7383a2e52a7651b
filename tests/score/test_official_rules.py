"""The rules of other harnesses on constructed answers: each defect is shown to be there, and not to be ours.

The references are written anew from what the scripts do: MMVP's `gpt_grader.py` (Tong et al., 2024), the MMVP tasks of
lmms-eval, VLMEvalKit and Cambrian, InternVL's script.
"""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, Correction, Item, Outcome
from eyechart.score import grade_reply, load_benchmark, read_choice
from eyechart.score.asking import build_prompt
from eyechart.score.judge import Judge
from eyechart.score.rules import measure
from pictures import picture

OPEN = ("Open", "Closed")
SOFA = ("The sofa", "The bed")
YES = ("Yes", "No")


# ---- how they read a reply


def lmms_eval(reply: str) -> str:
    """Five patterns in turn, without regard to case, then the first sign; empty where none fits."""
    patterns = (
        r"^\s*\(?([AB])\)?\.?\s*$",
        r"^\s*\(?([AB])\)?[\.\s]",
        r"answer\s+is\s+\(?([AB])\)?",
        r"option\s+\(?([AB])\)?",
        r"\(?([AB])\)?(?:\s|$)",
    )
    text = reply.strip()
    for pattern in patterns:
        if match := re.search(pattern, text, re.I):
            return match[1].upper()
    return text[0].upper() if text[:1].upper() in ("A", "B") else ""


def vlmevalkit(reply: str, options: tuple[str, ...]) -> str | None:
    """A lone capital among the words, near the end; else the one option text it contains; None goes to a model."""
    known = dict(zip("ABCD", options, strict=False))
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
    named = [letter for letter in known if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if len(reply) > 2 * sum(map(len, options)):
        return None
    inside = [letter for letter, text in known.items() if text.lower() in reply.lower()]
    return inside[0] if len(inside) == 1 else None


def cambrian(reply: str, options: tuple[str, ...], answer: int) -> bool:
    """What follows `answer is` or `answer:` must be the bare letter or the whole option text."""
    text = reply.lower().strip()
    for words in ("answer is", "answer is:", "answer:"):
        text = text.split(words)[-1]
    text = text.strip().rstrip(".:,").lstrip("(").rstrip(")")
    return text in ("ab"[answer], options[answer].lower())


def internvl(reply: str, options: tuple[str, ...], answer: int) -> bool:
    """The first sign is the letter, or the option's text is contained."""
    return reply[:1].upper() == "AB"[answer] or options[answer].lower() in reply.lower()


def gpt_grader(words: str) -> bool:
    """Whether the official script counts what GPT-4 said about a reply as a yes."""
    graded = words.lower() if re.match(r"^(yes|no)$", words, re.I) else "Could not determine yes or no."
    return graded == "yes"


@pytest.mark.parametrize(
    ("reply", "options", "theirs", "ours"),
    [
        ("There is a lemon inside; the answer: (b)", ("Inside", "Outside"), "A", 1),
        ("The answer is the sofa", SOFA, "A", 0),  # by luck: it is the a of "sofa"
        ("The answer is the sofa", SOFA[::-1], "A", 1),
        ("The answer is a bed", SOFA, "A", 1),
        ("Both are visible", OPEN, "B", None),
        ("Both options look plausible", OPEN, "B", None),
        ("A man is standing.", ("Sitting", "Standing"), "A", None),
        ("The butterfly is on a leaf", OPEN, "A", None),
        ("bananas", OPEN, "B", None),
        ("not A", OPEN, "A", None),
        ("I cannot tell if it is option A or option B.", OPEN, "A", None),
        ("A or B", OPEN, "A", None),
    ],
)
def test_lmms_eval_takes_letters_of_words_for_answers(reply, options, theirs, ours):
    assert lmms_eval(reply) == theirs
    assert read_choice(reply, options, "AB") == ours


@pytest.mark.parametrize(
    ("reply", "options", "ours"),
    [
        ("Closed", OPEN, 1),
        ("closed.", OPEN, 1),
        ("No.", YES, 1),
        ("Yes, it is.", YES, 0),
        ("The sofa", SOFA, 0),
    ],
)
def test_lmms_eval_cannot_credit_an_options_words(reply, options, ours):
    assert lmms_eval(reply) in ("", "A")
    assert lmms_eval(reply) != "B" or ours != 1
    assert read_choice(reply, options, "AB") == ours


def test_lmms_eval_counts_what_it_cannot_read_as_wrong_and_we_count_it_apart():
    pair = pair_of("1")
    assert [lmms_eval(reply) for reply in ("Closed", "I see it")] == ["", ""]
    graded = [grade_reply(pair[0], "I see it", "AB"), grade_reply(pair[1], "Closed", "AB")]
    assert [one.outcome for one in graded] == [Outcome.UNREAD, Outcome.RIGHT]
    by_name = {one.name: one for one in measure("pairs", pair, graded)}
    assert (by_name["unread"].hits, by_name["unread"].n) == (1, 2)


@pytest.mark.parametrize(
    ("reply", "options", "theirs", "ours"),
    [
        ("It is A dog", ("Cat", "Horse"), "A", None),
        ("Not A", OPEN, "A", None),
        ("I would not say B", OPEN, "B", None),
        ("not open", OPEN, "A", None),
        ("It reopened", OPEN, "A", None),
        ("Is it open?", OPEN, "A", None),
        ("Not sure", YES, "B", None),
        ("Closed", OPEN, "B", 1),  # this one it credits, as it should
    ],
)
def test_vlmevalkit_takes_words_inside_words_and_denials_for_answers(reply, options, theirs, ours):
    assert vlmevalkit(reply, options) == theirs
    assert read_choice(reply, options, "AB") == ours


@pytest.mark.parametrize(
    "reply", ["Both are visible", "(b) because it is shut and A is what one sees when it is not", ""]
)
def test_what_vlmevalkit_leaves_to_a_model_and_then_to_chance_is_unread(reply):
    """After three failures of its judge it draws among the options and a dummy, without a seed."""
    assert vlmevalkit(reply, OPEN) is None
    first = read_choice(reply, OPEN, "AB")
    assert first in (None, 1)
    assert {read_choice(reply, OPEN, "AB") for _ in range(20)} == {first}


@pytest.mark.parametrize(
    ("reply", "strict"),
    [("(a) Open", False), ("A. Open", False), ("The answer is: A", False), ("Answer: (a) Open", False), ("A", True), ("(a)", True), ("open.", True)],
)  # fmt: skip
def test_cambrian_rejects_a_letter_with_its_text_and_a_colon(reply, strict):
    assert cambrian(reply, OPEN, 0) is strict
    assert read_choice(reply, OPEN, "AB") == 0


@pytest.mark.parametrize(
    ("reply", "answer", "ours"),
    [("A man stands there", 0, None), ("Both", 1, None), ("It is not open", 0, None), ("Answer: B", 0, 1)],
)
def test_internvl_takes_the_first_sign_and_any_occurrence(reply, answer, ours):
    assert internvl(reply, OPEN, answer)
    assert read_choice(reply, OPEN, "AB") == ours


@pytest.mark.parametrize("words", ["Yes.", "Yes, it does", "yes\n", " yes", "**Yes**"])
def test_the_official_grader_counts_a_yes_in_other_dress_as_wrong(words):
    assert gpt_grader("Yes")
    assert not gpt_grader(words)


def test_a_trailing_line_end_passes_the_official_pattern_and_fails_the_test_after_it():
    assert re.match(r"^(yes|no)$", "yes\n", re.I)
    assert not gpt_grader("yes\n")
    assert read_choice("Yes\n", YES, "AB") == 0


@pytest.mark.parametrize("dress", ["{}", "{}.", "{}\n", " {}", "**{}**", "({})", '"{}"', "{}!"])
def test_our_judge_is_read_in_any_dress_and_a_sentence_of_it_is_unread(dress):
    judge = Judge(model="judge", revision="1", answering=lambda prompts: [dress.format("B")] * len(prompts))
    assert judge.read_choice("It is shut", OPEN, "AB") == 1
    talking = Judge(
        model="judge", revision="1", answering=lambda prompts: [f"{dress.format('B')} it is"] * len(prompts)
    )
    assert talking.read_choice("It is shut", OPEN, "AB") is None


def test_the_official_grader_names_no_version_that_can_be_had_again_and_our_judge_must():
    with pytest.raises(Exception, match="named by model and revision"):
        Judge(model="gpt-4", revision="", answering=lambda prompts: [])


# ---- how they count


def pair_of(name: str, answers=(0, 1)) -> tuple[Item, Item]:
    first, second = (
        Item(
            id=f"{name}{side}",
            pair_id=name,
            question="Open?",
            options=OPEN,
            answer=answer,
            image=Path(f"{name}{side}.jpg"),
            image_sha256=f"{name}{side}",
        )
        for side, answer in zip("xy", answers, strict=True)
    )
    return first, second


def by_line_order(rows: list[tuple[Item, bool]]) -> float:
    """The official script and Cambrian: two lines at a time are a pair, whatever they are."""
    pairs = [(rows[n][1], rows[n + 1][1]) for n in range(0, len(rows) - 1, 2)]
    return sum(all(pair) for pair in pairs) / len(pairs)


def graded(items, right):
    return [grade_reply(item, "AB"[item.answer if good else 1 - item.answer], "AB") for item, good in zip(items, right, strict=True)]  # fmt: skip


def pair_accuracy(items, replies) -> float:
    first = measure("pairs", items, replies)[0]
    assert first.name == "pair_accuracy"
    return first.value


def test_pairs_are_found_by_their_id_whatever_the_order_of_lines():
    """Two pairs, each half right, of which the right halves come to stand side by side: 50 % by lines, 0 % in truth."""
    one, two = pair_of("1"), pair_of("2")
    items, right = [one[0], two[0], one[1], two[1]], [True, True, False, False]
    assert by_line_order(list(zip(items, right, strict=True))) == 0.5
    assert pair_accuracy(items, graded(items, right)) == 0.0
    for order in ([0, 1, 2, 3], [3, 0, 2, 1], [2, 3, 1, 0]):
        there = [items[n] for n in order]
        assert pair_accuracy(there, graded(there, [right[n] for n in order])) == 0.0


def test_pairs_are_not_found_by_arithmetic_on_numbers():
    """lmms-eval pairs (index - 1) // 2: ids that start at 2 belong to the wrong neighbour."""
    items = [pair_of("1")[0], pair_of("1")[1], pair_of("2")[0], pair_of("2")[1]]
    places = dict(zip((2, 3, 4, 5), items, strict=True))
    theirs: dict[int, list[str]] = {}
    for index, item in places.items():
        theirs.setdefault((index - 1) // 2, []).append(item.pair_id)
    assert ["1", "2"] in theirs.values()
    assert pair_accuracy(items, graded(items, [True, True, False, False])) == 0.5


def test_a_pair_is_counted_once_in_the_denominator():
    """Until 2024-01-17 the official script divided pairs by images: a model that has all right had 50 %."""
    items = [item for number in range(4) for item in pair_of(str(number))]
    right_pairs = 4
    assert right_pairs / len(items) == 0.5
    first = measure("pairs", items, graded(items, [True] * 8))[0]
    assert (first.value, first.hits, first.n, first.unit) == (1.0, 4, 4, "pairs")


def test_accuracy_by_image_is_never_called_by_the_name_of_accuracy_by_pair():
    """VLMEvalKit's MMVP was accuracy by image for eight months; one constant answer has 50 % of it, and no pair."""
    items = [item for number in range(5) for item in pair_of(str(number))]
    constant = [grade_reply(item, "A", "AB") for item in items]
    by_name = {one.name: one for one in measure("pairs", items, constant)}
    assert next(iter(by_name)) == "pair_accuracy"
    assert (by_name["pair_accuracy"].value, by_name["image_accuracy"].value) == (0.0, 0.5)
    assert (by_name["pair_accuracy"].n, by_name["image_accuracy"].n) == (5, 10)


def test_cambrian_counts_pairs_out_of_images_through_parity():
    """Its counter is taken back when the second of a pair is wrong, and needs lines in order to work at all."""

    def score(right: list[bool]) -> float:
        correct = 0
        for place, good in enumerate(right):
            second = place % 2 == 1
            if good and (not second or correct % 2 == 1):
                correct += 1
            elif not good and second and correct % 2 == 1:
                correct -= 1
        return correct / len(right)

    assert score([True, True, False, False]) == 0.5
    assert score([True, False, False, True]) == 0.0
    items = [item for number in range(2) for item in pair_of(str(number))]
    assert score([False, True, True, False]) == 0.0
    shuffled = [items[1], items[2], items[0], items[3]]  # both of pair 0 right, none of pair 1
    assert score([True, False, True, False]) == 0.0
    assert pair_accuracy(shuffled, graded(shuffled, [True, False, True, False])) == 0.5


def test_no_answers_are_no_score():
    """lmms-eval aggregates an empty list to 0.0, so a failed run looks like a measured one."""
    with pytest.raises(ValueError, match="nothing was asked"):
        measure("pairs", [], [])
    with pytest.raises(ValueError, match=r"1|missing|match"):
        measure("pairs", pair_of("1"), graded(pair_of("1")[:1], [True]))


def test_a_correction_on_one_side_only_leaves_a_pair_that_a_constant_wins(tmp_path):
    """lmms-eval's first correction flipped ids 100 and 280 alone, so both sides of two pairs were (a)."""
    flipped = pair_of("50", answers=(0, 0))
    assert all(lmms_eval("A") == "AB"[item.answer] for item in flipped)
    rows = [[*row[:3], "(a)" if row[0] == "4" else row[3]] for row in ROWS]
    with pytest.raises(UserError, match=r"3.*4|pair"):
        load_benchmark(folder_of(tmp_path, rows))


def test_both_label_sets_are_kept_and_a_correction_swaps_both_sides():
    items = pair_of("50")
    corrections = tuple(
        Correction(item_id=item.id, old=item.answer, new=1 - item.answer, reason="swapped", source="#30")
        for item in items
    )
    benchmark = Benchmark(name="s", source="", sha256="", items=items, in_source=2, corrections=corrections)
    assert [item.answer for item in benchmark.items] == [0, 1]
    assert [item.answer for item in benchmark.corrected()] == [1, 0]


# ---- how they read the files


def folder_of(tmp_path: Path, rows: list[list[str]], *, header: str = "Index") -> Path:
    (tmp_path / "MMVP Images").mkdir()
    for number in range(1, len(rows) + 1):
        picture(24, 24, seed=number).save(tmp_path / "MMVP Images" / f"{number}.jpg")
    with (tmp_path / "Questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[header, "Question", "Options", "Correct Answer"], *rows])
    return tmp_path


ROWS = [
    [str(number), "Is the door open?", "(a) Yes (b) No", "(a)" if number % 2 else "(b)"]
    for number in range(1, 13)
]


@pytest.mark.parametrize("header", ["Index", "lndex"])
def test_rows_are_joined_by_their_index_under_either_spelling(header, tmp_path):
    """The official script takes the row's number + 1 for the image; `datasets` sorts 1, 10, 11, 12, 2 ..."""
    shuffled = [ROWS[n] for n in (3, 0, 2, 1, 11, 5, 4, 6, 7, 10, 8, 9)]
    assert sum(str(place + 1) != row[0] for place, row in enumerate(shuffled)) > 8
    assert (
        sum(a != b for a, b in zip(sorted(row[0] for row in ROWS), (row[0] for row in ROWS), strict=True)) > 8
    )
    benchmark = load_benchmark(folder_of(tmp_path, shuffled, header=header))
    assert {item.id: (item.image.stem, item.answer) for item in benchmark.items} == {
        row[0]: (row[0], 0 if row[3] == "(a)" else 1) for row in ROWS
    }


def test_brackets_and_quotation_marks_in_a_question_break_neither_rows_nor_options(tmp_path):
    """Splitting lines at commas and options at brackets, as one may be tempted to, loses some of both."""
    question = 'Does it say "Happy Easter!", or is it (a) blank, as (b) often?'
    rows = [[row[0], question, '(a) "Happy Easter!" (b) Nothing (at all), or "-"', row[3]] for row in ROWS]
    folder = folder_of(tmp_path, rows)
    line = (folder / "Questions.csv").read_text().splitlines()[1]
    assert len(line.split(",")) != 4
    naive = re.findall(r"\([a-z]\)\s*([^(]+?)(?=\s*\([a-z]\)|$)", rows[0][2])
    assert naive != ['"Happy Easter!"', 'Nothing (at all), or "-"']
    benchmark = load_benchmark(folder)
    assert len(benchmark.items) == 12
    assert {item.question for item in benchmark.items} == {question}
    assert {item.options for item in benchmark.items} == {('"Happy Easter!"', 'Nothing (at all), or "-"')}


def test_answers_do_not_follow_from_the_place_of_an_item(tmp_path):
    """In MMVP odd ids are (a): who reads the number has it all right. What a model is asked holds no number."""
    benchmark = load_benchmark(folder_of(tmp_path, ROWS))
    assert all("AB"[(int(item.id) - 1) % 2] == "AB"[item.answer] for item in benchmark.items)
    assert len({build_prompt(item, "letter").text for item in benchmark.items}) == 1


def test_grades_in_a_log_do_not_depend_on_the_order_of_its_lines():
    """The official grader pairs the lines of its JSONL file."""
    items = [item for number in range(3) for item in pair_of(str(number))]
    file = io.StringIO(
        "\n".join(json.dumps({"id": item.id, "reply": "AB"[item.answer]}) for item in items[:4])
    )
    said = {row["id"]: row["reply"] for row in map(json.loads, file)}
    replies = [grade_reply(item, said.get(item.id, ""), "AB") for item in reversed(items)]
    assert pair_accuracy(items, replies) == pytest.approx(2 / 3)
