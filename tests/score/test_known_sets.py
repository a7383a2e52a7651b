"""Known sets in their own layouts: every quirk of the files is read, every fault in them is named."""

import json
import random
import shutil
from pathlib import Path

import pytest
from benchmark_files import in_table, jpeg, mmvp_all, mmvp_rows, paired_rows, png, write_csv, write_parquet

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark
from eyechart.score import KINDS, exam_hash, load_benchmark
from eyechart.score.kinds import SIGNATURES, recognise
from eyechart.score.layouts import VSR_QUESTION
from eyechart.score.tables import Row, Table
from eyechart.world.sets_pairs import CV, render_pairs
from eyechart.world.sets_plan import PairPlan

# ---- all of MMVP


def rehosted(path, picture):
    """All of MMVP as it is re-hosted: Index as a number, in the order of file names, four labels changed."""
    rows = [
        {
            "Index": int(row["lndex"]),
            **{name: row[name] for name in ("Question", "Options", "Correct Answer")},
            "image": picture(int(row["lndex"])),
        }
        for row in sorted(mmvp_all(corrected=True), key=lambda row: row["lndex"])  # 1, 10, 100, 101, ...
    ]
    return write_parquet(path, rows)


def test_all_of_mmvp_is_joined_by_id_and_both_label_sets_are_there(all_of_mmvp):
    bench = load_benchmark(all_of_mmvp)
    assert (len(bench.items), bench.rule, bench.quarantined) == (300, "pairs", ())
    for number, item in enumerate(bench.items, start=1):
        assert item.id == str(number)
        assert item.pair_id == str((number + 1) // 2)
        assert item.image.name == f"{number}.jpg"
        assert item.answer == (0 if number % 2 else 1)
    assert bench.items[9].question == 'Is the key "Z" to be seen?'
    assert bench.items[134].question == "Are all eggs in a container (e.g. nest, basket)?"
    assert bench.items[60].options == ('"Happy Easter"', '"Happy Easter!"')
    assert [(one.item_id, one.old, one.new) for one in bench.corrections] == [
        ("99", 0, 1), ("100", 1, 0), ("279", 0, 1), ("280", 1, 0),
    ]  # fmt: skip
    assert all("contradict each other" in one.reason for one in bench.corrections[:2])
    assert {one.source for one in bench.corrections} == {
        "tsb0601/MMVP#30, EvolvingLMMs-Lab/lmms-eval#1018",
        "tsb0601/MMVP#14, tsb0601/MMVP#30",
    }
    corrected = bench.corrected()
    changed = [old.id for old, new in zip(bench.items, corrected, strict=True) if old != new]
    assert changed == ["99", "100", "279", "280"]
    assert any(
        note.startswith("items 99, 100, 279, 280: labels publicly held to be wrong") for note in bench.notes
    )
    assert "all pictures are 224 x 224 pixels" in bench.notes


@pytest.mark.slow
def test_the_rehosted_corrected_set_is_the_same_exam(all_of_mmvp, tmp_path):
    """Its rows stand in the order 1, 10, 100; its labels of four items are the corrected ones."""
    folder = tmp_path / "MMVP"
    rehosted(
        folder / "data" / "test-00000-of-00001.parquet",
        lambda number: {"bytes": None, "path": str(all_of_mmvp / "MMVP Images" / f"{number}.jpg")},
    )
    original, bench = load_benchmark(all_of_mmvp), load_benchmark(folder)
    assert bench.sha256 == original.sha256
    assert bench.corrections == original.corrections
    assert [item.answer for item in bench.items] == [item.answer for item in original.items]
    assert any(
        note.startswith("items 99, 100, 279, 280: the source holds the corrected labels")
        for note in bench.notes
    )


def test_pictures_in_the_rehosted_table_are_those_of_their_row(tmp_path):
    path = rehosted(tmp_path / "mmvp.parquet", lambda number: in_table(jpeg(number)))
    bench = load_benchmark(path, images=tmp_path / "store", kind="mmvp", limit=6)
    assert [item.id for item in bench.items] == [str(number) for number in range(1, 13)]
    for item in bench.items:
        assert item.image.read_bytes() == jpeg(int(item.id))


def test_labels_corrected_on_one_side_of_a_pair_only_are_refused(all_of_mmvp, tmp_path):
    """One harness once changed ids 100 and 280 alone, which makes both items of a pair (a)."""
    rows = [row | ({"Correct Answer": "(a)"} if row["lndex"] in ("100", "280") else {}) for row in mmvp_all()]
    folder = copied(all_of_mmvp, tmp_path, rows)
    with pytest.raises(UserError, match=r"(?s)pair '50': both have the answer 'Long'.*pair '140': both"):
        load_benchmark(folder)


def copied(source, tmp_path, rows):
    """The same pictures beside other rows."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "MMVP Images").symlink_to(source / "MMVP Images")
    write_csv(folder / "Questions.csv", rows)
    return folder


def test_a_set_that_is_not_all_of_mmvp_is_refused_where_it_was_named(mmvp, all_of_mmvp, tmp_path):
    with pytest.raises(UserError, match=r"MMVP has the ids 1 to 300; missing: 13, 14, .* and 278 more"):
        load_benchmark(mmvp(mmvp_rows(6)), kind="mmvp")
    rows = mmvp_all()
    extra = [
        row | {"lndex": str(300 + n)}
        for n, row in enumerate(sorted(rows, key=lambda r: int(r["lndex"]))[:2], 1)
    ]
    with pytest.raises(UserError, match=r"not among them: 301, 302"):
        load_benchmark(copied(all_of_mmvp, tmp_path, rows + extra), kind="mmvp")


def test_other_orders_of_options_three_options_and_other_pairs_are_not_mmvp(all_of_mmvp, tmp_path):
    rows = {row["lndex"]: row for row in mmvp_all()}
    rows["2"] |= {"Options": "(a) No (b) Yes", "Correct Answer": "(a)"}
    for number in ("3", "4"):
        rows[number]["Options"] = "(a) Yes (b) No (c) Both"
    for number, row in rows.items():
        row["pair_id"] = str((int(number) + 1) // 2)
    for number, pair in (("11", "6"), ("12", "6b"), ("13", "7"), ("14", "6"), ("15", "7"), ("16", "6b")):
        rows[number] |= {"pair_id": pair, "Question": "Well?"}
    rows["15"]["Correct Answer"], rows["16"]["Correct Answer"] = "(b)", "(a)"
    with pytest.raises(UserError) as error:
        load_benchmark(copied(all_of_mmvp, tmp_path, list(rows.values())), kind="mmvp")
    text = str(error.value)
    assert "pair '1'" in text
    assert "the options stand in another order (('Yes', 'No') and ('No', 'Yes'))" in text
    assert "pair '2'" in text
    assert "3 options; every question of MMVP has two" in text
    assert "pair '6'" in text
    assert "in MMVP a pair has the ids 2k-1 and 2k" in text
    assert "the answers are not balanced: the first option is right for 151 of 300" in text


def test_pictures_that_were_resized_are_noted(all_of_mmvp, tmp_path):
    folder = copied(all_of_mmvp, tmp_path, mmvp_all())
    (folder / "MMVP Images").unlink()
    shutil.copytree(all_of_mmvp / "MMVP Images", folder / "MMVP Images")
    (folder / "MMVP Images" / "7.jpg").write_bytes(jpeg(7, (336, 336)))
    notes = load_benchmark(folder).notes
    assert (
        "1 of 300 pictures are not 224 x 224 pixels, as the published ones are: 7; were they resized?"
        in notes
    )


def test_a_doubted_question_under_another_id_is_noted_and_nothing_is_corrected(mmvp):
    rows = mmvp_rows(2)
    for row in rows[:2]:
        row |= {"Question": "Does the elephant have long or short tusks?", "Options": "(a) Long (b) Short"}
    bench = load_benchmark(mmvp(rows))
    assert bench.corrections == ()
    assert any(note.startswith("items 1, 2: labels reported") for note in bench.notes)


def test_another_question_under_a_doubted_id_is_not_touched(mmvp):
    assert load_benchmark(mmvp(mmvp_rows(50))).corrections == ()


# ---- CV-Bench


CV_ROWS = [
    ("Count", "2D", "ADE20K", ["3", "2", "0", "1"], "(C)"),
    ("Relation", "2D", "ADE20K", ["above", "below"], "(A)"),
    ("Count", "2D", "COCO", ["1", "5", "4", "2"], "(B)"),
    ("Relation", "2D", "COCO", ["left", "right"], "(B)"),
    ("Depth", "3D", "Omni3D", ["lamp", "table"], "(A)"),
    ("Distance", "3D", "Omni3D", ["book", "chair"], "(B)"),
]


def cv_rows(dimension=None):
    rows = []
    for number, (task, kind, source, choices, answer) in enumerate(CV_ROWS):
        question = f"How about thing {number}?"
        listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip("ABCD", choices, strict=False))
        rows.append(
            {
                "idx": number,
                "type": kind,
                "task": task,
                "image": in_table(png(number)),
                "question": question,
                "choices": choices,
                "answer": answer,
                "prompt": f"{question} Select from the following choices.\n{listed}",
                "filename": f"img/{kind}/{number}.png",
                "source": source,
                "source_dataset": f"{source} val",
                "source_filename": f"{number}.jpg",
                "target_class": None,
                "target_size": None,
                "bbox": None,
            }
        )
    return [row for row in rows if dimension in (None, row["type"])]


def facts(bench: Benchmark):
    return [
        (item.id, item.pattern, item.facet("type"), item.facet("source"), item.options[item.answer])
        for item in bench.items
    ]


def test_cv_bench_is_read_from_its_two_files(tmp_path):
    folder = tmp_path / "CV-Bench"
    for dimension in ("2D", "3D"):
        write_parquet(folder / f"test_{dimension.lower()}.parquet", cv_rows(dimension)[::-1])
    bench = load_benchmark(folder, images=tmp_path / "store")
    assert bench.rule == "cv-bench"
    assert facts(bench) == [
        ("0", "Count", "2D", "ADE20K", "0"),
        ("1", "Relation", "2D", "ADE20K", "above"),
        ("2", "Count", "2D", "COCO", "5"),
        ("3", "Relation", "2D", "COCO", "right"),
        ("4", "Depth", "3D", "Omni3D", "lamp"),
        ("5", "Distance", "3D", "Omni3D", "chair"),
    ]
    assert all(item.pair_id == "" for item in bench.items)
    assert "one table of 2 files, joined: test_2d.parquet, test_3d.parquet" in bench.notes
    only = load_benchmark(folder / "test_2d.parquet", images=tmp_path / "store")
    assert len(only.items) == 4
    assert any(note.startswith("no items of Omni3D") for note in only.notes)


def test_cv_bench_as_lines_of_json_and_numbered_from_0_in_both_dimensions(tmp_path, drawn):
    images = drawn(6)
    rows = [row | {"image": image} for row, image in zip(cv_rows(), images, strict=True)]
    for row in rows[4:]:
        row["idx"] -= 4
    path = tmp_path / "cv.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert [item.id for item in load_benchmark(path).items] == [
        "2D-0",
        "2D-1",
        "2D-2",
        "2D-3",
        "3D-0",
        "3D-1",
    ]


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"type": "3D"}, r"row 1: the type is '3D', but task Count is of 2D"),
        ({"task": "Motion", "type": "3D"}, r"row 1: the type is '3D', but source ADE20K is of 2D"),
        ({"type": "4D", "task": "Motion", "source": "x"}, r"the type is '4D', expected 2D or 3D"),
        ({"answer": "(E)"}, r"row 1: the answer '\(E\)' names none of the options"),
        ({"image": None}, r"row 1: the image is empty"),
        ({"question": " "}, r"row 1: the question is empty"),
        ({"source": ""}, r"row 1: the source is empty"),
        ({"idx": 1}, r"rows 1 and 2 have the same id '2D-1'"),
    ],
)
def test_faults_in_cv_bench_are_named(cells, complaint, tmp_path):
    rows = cv_rows()
    rows[0] |= cells
    (tmp_path / "cv.json").write_text(
        json.dumps([row | {"image": "x.png" if row["image"] else None} for row in rows])
    )
    with pytest.raises(UserError, match=complaint):
        load_benchmark(tmp_path / "cv.json")


def test_a_limit_is_spread_over_tasks_and_sources(tmp_path):
    rows = [row | {"idx": 10 * copy + row["idx"]} for copy in range(3) for row in cv_rows()]
    path = write_parquet(tmp_path / "cv.parquet", rows)
    bench = load_benchmark(path, images=tmp_path / "store", limit=6)
    assert (
        sorted(item.facet("source") for item in bench.items) == ["ADE20K"] * 2 + ["COCO"] * 2 + ["Omni3D"] * 2
    )
    assert any("limited to 6 of 18 items" in note for note in bench.notes)


def test_the_worlds_own_questions_in_the_shape_of_cv_bench(tmp_path):
    folder = render_pairs(
        tmp_path / "world", PairPlan(split="test", pairs=1, patterns=("color",), seed=3), workers=1
    )
    bench = load_benchmark(folder / CV, name="world-cv", kind="cv-bench")
    assert bench.sha256 == load_benchmark(folder / CV).sha256
    assert bench.rule == "cv-bench"
    assert {item.facet("source") for item in bench.items} == {"eyechart"}
    assert {item.pattern for item in bench.items} <= {"Count", "Relation", "Depth", "Distance"}
    assert any(note.startswith("sources that are not CV-Bench's: eyechart") for note in bench.notes)
    assert load_benchmark(folder).rule == "pairs"  # the folder is still the exam in pairs


# ---- POPE


def pope_rows(images):
    """Three categories on the same images, numbered anew in each, with the same yes questions."""
    rows = []
    for category in ("adversarial", "popular", "random"):
        for number, image in enumerate(images):
            for place, (thing, answer) in enumerate((("dog", "yes"), (f"{category} cat", "no"))):
                rows.append(
                    {
                        "id": str(len(rows)),
                        "question_id": str(2 * number + place + 1),
                        "question": f"Is there a {thing} in the image?",
                        "answer": answer,
                        "image_source": f"COCO_val2014_{number:012d}",
                        "image": image,
                        "category": category,
                    }
                )
    return rows


def test_pope_as_it_is_rehosted_in_shards(tmp_path):
    rows = pope_rows([in_table(png(number)) for number in range(3)])
    folder = tmp_path / "POPE"
    for number in range(3):
        write_parquet(
            folder / "data" / f"test-{number:05d}-of-00003.parquet", rows[6 * number : 6 * number + 6]
        )
    write_parquet(folder / "Full" / "random-00000-of-00001.parquet", rows[12:])  # another configuration
    bench = load_benchmark(folder, images=tmp_path / "store")
    assert (bench.rule, len(bench.items)) == ("pope", 18)
    assert [item.id for item in bench.items[:3]] == ["adversarial-1", "adversarial-2", "adversarial-3"]
    assert [item.options[item.answer] for item in bench.items[:2]] == ["Yes", "No"]
    assert len({item.image_sha256 for item in bench.items}) == 3
    assert any("unread reply counts as wrong" in note for note in bench.notes)
    assert load_benchmark(
        folder / "data" / "test-00001-of-00003.parquet", images=tmp_path / "store"
    ) == Benchmark(
        **{name: getattr(bench, name) for name in bench.__slots__}
        | {"name": "test-00001-of-00003", "source": str(folder / "data" / "test-00001-of-00003.parquet")}
    )
    (folder / "data" / "test-00002-of-00003.parquet").unlink()
    with pytest.raises(
        UserError, match=r"of the 3 files of this split some are missing: test-00002-of-00003.parquet"
    ):
        load_benchmark(folder)


def test_popes_original_files_are_lines_of_json_beside_a_folder_of_pictures(tmp_path):
    pictures = tmp_path / "val2014"
    pictures.mkdir()
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(2)]
    for number, name in enumerate(names):
        (pictures / name).write_bytes(jpeg(number))
    for category in ("adversarial", "popular", "random"):
        lines = [
            json.dumps(
                {
                    "question_id": row["question_id"],
                    "image": row["image"],
                    "text": row["question"],
                    "label": row["answer"],
                }
            )
            for row in pope_rows(names)
            if row["category"] == category
        ]
        (tmp_path / f"coco_pope_{category}.json").write_text("\n".join(lines))
    bench = load_benchmark(tmp_path)
    assert (bench.rule, len(bench.items)) == ("pope", 12)
    assert bench.items[-1].image == pictures / names[1]
    one = load_benchmark(tmp_path / "coco_pope_random.json")
    assert {item.facet("category") for item in one.items} == {"random"}
    assert [item.id for item in one.items] == ["random-1", "random-2", "random-3", "random-4"]


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"answer": "maybe"}, "row 1: the answer is 'maybe', expected yes or no"),
        ({"category": "hard"}, "row 1: the category is 'hard', expected adversarial, popular, random"),
        ({"question_id": "2"}, "rows 1 and 2 have the same id 'adversarial-2'"),
        ({"question_id": ""}, "row 1: the question_id is empty"),
    ],
)
def test_faults_in_pope_are_named(cells, complaint, tmp_path):
    rows = pope_rows(["x.png"])
    rows[0] |= cells
    (tmp_path / "pope.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=complaint):
        load_benchmark(tmp_path / "pope.json")


# ---- NaturalBench


def natural_rows():
    answers = ("Image_0_Question_0", "Image_1_Question_0", "Image_0_Question_1", "Image_1_Question_1")
    yes_no = {
        "Index": 0,
        "Question_0": "Is the dog awake?",
        "Question_1": "Is the dog asleep?",
        **dict(zip(answers, ("Yes", "No", "No", "Yes"), strict=True)),
        "Question_Type": "yes_no",
    }
    choice = {
        "Index": 10,
        "Question_0": "What does the man do?\nOption: A: sit, (a) still; B: stand;",
        "Question_1": "Who stands?\nOption:A:the woman;B:the man;",
        **dict(zip(answers, ("A", "B", "B", "A"), strict=True)),
        "Question_Type": "multiple_choice",
    }
    odd = choice | {"Index": 9, "Question_0": "Which, first or second?"}
    rows = [yes_no, choice, odd]
    for number, row in enumerate(rows):
        row |= {
            "Image_0": in_table(png(2 * number)),
            "Image_1": in_table(png(2 * number + 1)),
            "Source": "Flickr30K",
        }
    return rows


def test_a_row_of_naturalbench_is_four_items(tmp_path):
    write_parquet(tmp_path / "NB" / "data" / "train-00000-of-00001.parquet", natural_rows()[::-1])
    bench = load_benchmark(tmp_path / "NB", images=tmp_path / "store")
    assert (bench.rule, len(bench.items), bench.in_source) == ("naturalbench", 12, 12)
    assert [item.id for item in bench.items[:5]] == ["0-q0-i0", "0-q0-i1", "0-q1-i0", "0-q1-i1", "9-q0-i0"]
    assert [item.options[item.answer] for item in bench.items[:4]] == ["Yes", "No", "No", "Yes"]
    assert dict(bench.items[2].facets) == {"group": "0", "question": "1", "image": "0", "source": "Flickr30K"}
    assert bench.items[8].question == "What does the man do?"
    assert bench.items[8].options == ("sit, (a) still", "stand")
    assert bench.items[10].question == "Who stands?"
    assert [item.options[item.answer] for item in bench.items[8:]] == [
        "sit, (a) still",
        "stand",
        "the man",
        "the woman",
    ]
    assert bench.items[4].options == ("A", "B")
    assert bench.items[4].question == "Which, first or second?"
    assert any(
        note.startswith("1 rows hold their two options in the question's own words") for note in bench.notes
    )
    assert len(load_benchmark(tmp_path / "NB", images=tmp_path / "store", limit=2).items) == 8


def test_answers_of_naturalbench_alternate(tmp_path):
    rows = natural_rows()
    rows[0]["Image_1_Question_1"] = "No"
    rows[1]["Question_Type"] = "open"
    path = write_parquet(tmp_path / "nb.parquet", rows)
    with pytest.raises(UserError) as error:
        load_benchmark(path, images=tmp_path)
    assert "row 1: row '0' of the set: each question must have opposite answers" in str(error.value)
    assert "row 2: the question_type is 'open', expected yes_no or multiple_choice" in str(error.value)


def test_a_bad_picture_takes_its_group_out_and_so_do_two_that_are_the_same(tmp_path):
    rows = natural_rows()
    rows[0]["Image_1"] = in_table(png(1, (64, 64))[:-40])
    rows[1]["Image_1"] = rows[1]["Image_0"]
    bench = load_benchmark(write_parquet(tmp_path / "nb.parquet", rows), images=tmp_path)
    assert {item.facet("group") for item in bench.items} == {"9"}
    first, second = bench.quarantined
    assert first.reason == "truncated"
    assert "group '0' (items '0-q0-i0', '0-q0-i1', '0-q1-i0' and '0-q1-i1') is left out" in first.detail
    assert (second.reason, "all items show the same picture" in second.detail) == ("bad_row", True)
    assert "2 pictures could not be used; their groups are left out and listed" in bench.notes


# ---- VSR and BLINK


def test_vsr_is_asked_in_words_of_our_own(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for number, (caption, label) in enumerate(
        (("The cat is behind the laptop.", 1), ("The cow is on the bus.", 0))
    ):
        name = f"{number:012d}.jpg"
        (tmp_path / "images" / name).write_bytes(jpeg(number))
        rows.append(
            {
                "image": name,
                "image_link": f"https://example.org/{name}",
                "caption": caption,
                "label": label,
                "relation": caption.split(" is ")[1].split(" the ")[0],
                "annotator_id": 3,
                "vote_true_validator_id": [2, 6],
                "vote_false_validator_id": [],
            }
        )
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    bench = load_benchmark(path)
    assert bench.rule == "items"
    by_relation = {item.pattern: item for item in bench.items}
    assert by_relation["behind"].question == VSR_QUESTION.format(caption="The cat is behind the laptop.")
    assert [by_relation[name].options[by_relation[name].answer] for name in ("behind", "on")] == ["Yes", "No"]
    assert any("Eyechart's wording" in note for note in bench.notes)
    path.write_text("\n".join(map(json.dumps, rows[::-1])))
    assert load_benchmark(path) == bench  # ids are of what is said, not of the row
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    with pytest.raises(UserError, match=r"rows 1 and 3 have the same id 'item-"):
        load_benchmark(path)
    path.write_text(json.dumps(rows[0] | {"label": 2}))
    with pytest.raises(UserError, match="the label is '2', expected 1 or 0"):
        load_benchmark(path)


def blink_rows():
    rows = []
    for number, shown in enumerate((1, 2, 4)):
        images = {
            f"image_{place}": in_table(png(10 * number + place)) if place <= shown else None
            for place in (1, 2, 3, 4)
        }
        rows.append(
            {
                "idx": f"val_Jigsaw_{number + 9}",
                "question": "Which image fits?",
                "sub_task": "Jigsaw",
                **images,
                "choices": ["the second image", "the third image"],
                "answer": "(B)",
                "prompt": "Which image fits?\nSelect from the following options.",
                "explanation": "",
            }
        )
    return rows


def test_blink_has_several_pictures_an_item(tmp_path):
    for task in ("Jigsaw", "IQ_Test"):
        rows = [row | {"sub_task": task, "idx": row["idx"].replace("Jigsaw", task)} for row in blink_rows()]
        write_parquet(tmp_path / "BLINK" / task / "val-00000-of-00001.parquet", rows)
    bench = load_benchmark(tmp_path / "BLINK", images=tmp_path / "store")
    assert [(item.id, len(item.images)) for item in bench.items[3:]] == [
        ("val_Jigsaw_9", 1), ("val_Jigsaw_10", 2), ("val_Jigsaw_11", 4),
    ]  # fmt: skip
    assert {item.pattern for item in bench.items} == {"Jigsaw", "IQ_Test"}
    assert bench.items[0].options[bench.items[0].answer] == "the third image"
    assert len(set(bench.items[5].more_sha256)) == 3
    assert bench.rule == "items"


def test_answers_of_blink_that_are_not_published(tmp_path):
    rows = [row | {"answer": "hidden"} for row in blink_rows()]
    with pytest.raises(UserError, match=r"row 1: the answer is 'hidden'.*take the split 'val'"):
        load_benchmark(write_parquet(tmp_path / "test.parquet", rows), images=tmp_path)


# ---- rows of any set, each by itself


def test_rows_without_pairs_are_read_where_that_was_said(tmp_path, drawn):
    rows = [row | {"pattern": "text"} for row in paired_rows(drawn(4))]
    for row in rows:
        del row["pair_id"], row["id"]
    rows[1] |= {"image_2": "img/p0.png", "image_3": "", "hint": "?"}
    (tmp_path / "t.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="kind 'items'"):
        load_benchmark(tmp_path / "t.json")
    bench = load_benchmark(tmp_path / "t.json", kind="items")
    assert bench.rule == "items"
    assert len(bench.items) == 4
    assert {item.pattern for item in bench.items} == {"text"}
    assert sorted(len(item.images) for item in bench.items) == [1, 1, 1, 2]
    assert any("hint" in note for note in bench.notes)
    (tmp_path / "t.json").write_text(json.dumps(rows[::-1]))
    assert load_benchmark(tmp_path / "t.json", kind="items") == bench


def test_the_hash_of_items_follows_every_picture(tmp_path, drawn):
    images = drawn(3)
    rows = [
        {
            "id": "1",
            "question": "Same?",
            "options": ["Yes", "No"],
            "answer": "A",
            "image_1": images[0],
            "image_2": images[1],
        }
    ]
    seen = set()
    for second in images[1:]:
        (tmp_path / "t.json").write_text(json.dumps([rows[0] | {"image_2": second}]))
        bench = load_benchmark(tmp_path / "t.json", kind="items")
        assert bench.sha256 == exam_hash(bench.items)
        seen.add(bench.sha256)
    assert len(seen) == 2


# ---- kinds and files


def table_of(columns):
    return Table(path=Path("t.csv"), folder=Path(), columns=tuple(columns), rows=(Row(number=1, cells={}),))


def test_every_kind_is_known_by_its_columns_alone():
    assert KINDS.keys() == {"auto", "pairs", "items", *SIGNATURES}
    for kind, signatures in SIGNATURES.items():
        for columns in signatures:
            shuffled = random.Random(1).sample(sorted(columns), len(columns))
            assert recognise(table_of(name.upper().replace("_", " ") for name in shuffled), "auto") == kind


def test_columns_of_two_kinds_and_of_captions_are_refused():
    with pytest.raises(UserError, match=r"fit more than one kind \(cv-bench, blink\); say which"):
        recognise(table_of(SIGNATURES["cv-bench"][0] | SIGNATURES["blink"][0]), "auto")
    with pytest.raises(UserError, match=r"captions and images for encoders \(sugarcrepe\), not of questions"):
        recognise(table_of(["filename", "caption", "negative_caption"]), "auto")
    with pytest.raises(UserError, match=r"no kind of benchmark named 'pop'\. Did you mean 'pope'"):
        recognise(table_of(["question"]), "pop")


def test_files_of_one_name_with_other_columns_are_not_one_table(tmp_path):
    for number in range(2):
        write_parquet(tmp_path / f"test-{number:05d}-of-00002.parquet", [{"question": "?", f"x{number}": 1}])
    with pytest.raises(
        UserError, match=r"test-00001-of-00002.parquet has the columns question, x1, and test-00000"
    ):
        load_benchmark(tmp_path)


def test_two_splits_are_not_joined(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [{"question": "?"}])
    with pytest.raises(
        UserError, match=r"several tables \(data/test-00000.*, data/train-00000.*name the one"
    ):
        load_benchmark(tmp_path)


def test_two_pictures_of_one_name_are_not_guessed_at(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(jpeg(1))
    row = {"image": "1.jpg", "caption": "The cat is on it.", "label": 1, "relation": "on"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"two pictures named '1.jpg'"):
        load_benchmark(tmp_path / "t.jsonl")
