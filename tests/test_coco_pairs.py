"""The benchmark built from COCO photos, held against annotations it was not made from, and against made-up ones."""

import csv
import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.exam import examine
from eyechart.score import load_benchmark


def _script() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "coco_pairs.py"
    spec = importlib.util.spec_from_file_location("coco_pairs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["coco_pairs"] = module
    spec.loader.exec_module(module)
    return module


coco_pairs = _script()


@pytest.fixture(scope="module")
def coco(shared_data):
    folder = shared_data / "coco-open-subset"
    if not folder.is_dir():
        pytest.skip(f"no coco-open-subset in {shared_data}")
    return folder


@pytest.fixture(scope="module")
def built(coco, tmp_path_factory):
    return coco_pairs.build(coco, tmp_path_factory.mktemp("coco"), pairs=60, seed=0)


@pytest.fixture(scope="module")
def bench(built):
    return load_benchmark(built)


def test_it_is_a_benchmark_in_good_order(bench):
    assert (len(bench.items), bench.quarantined) == (120, ())
    counts = Counter(item.pattern for item in bench.items)
    assert set(counts) == {"presence", "position", "quantity"}
    assert min(counts.values()) >= 20
    assert not any("balanced" in note or "lower id" in note for note in bench.notes)
    uses = Counter(item.image.name for item in bench.items)
    assert max(uses.values()) <= coco_pairs.MOST_USES
    asked = Counter((item.question, item.image.name) for item in bench.items)
    assert max(asked.values()) == 1


def test_first_and_yes_are_balanced_and_not_the_same(built):
    with (built / "questions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    yes = [(row["answer"] == "A") == row["options"].startswith("(a) Yes") for row in rows]
    assert all(first != second for first, second in zip(yes[::2], yes[1::2], strict=True))
    assert sum(yes[::2]) == 30
    assert sum(row["options"].startswith("(a) Yes") for row in rows[::2]) == 30
    assert Counter(row["answer"] for row in rows) == {"A": 60, "B": 60}
    assert 20 <= sum(row["answer"] == "A" for row in rows[::2]) <= 40


def test_every_photo_has_its_attribution(built, bench, coco):
    with (built / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as file:
        credits = {row["file"]: row for row in csv.DictReader(file)}
    copied = {path.name for path in (built / "images").iterdir()}
    assert credits.keys() == copied == {item.image.name for item in bench.items}
    for name, row in credits.items():
        assert row["license_url"].startswith("http"), name
        assert row["flickr_url"].startswith("http"), name
        assert (built / "images" / name).read_bytes() == (coco / "images" / name).read_bytes()


def truths(bench):
    """Question, photo and whether the answer is yes."""
    return [(item.question, item.image.name, item.options[item.answer] == "Yes") for item in bench.items]


def noun(question):
    singular = {plural: name for name, plural in coco_pairs.PLURALS.items()}
    for start, end in (
        ("Is there a ", " in the"),
        ("Is there an ", " in the"),
        ("Are there two or more ", " in the"),
    ):
        if question.startswith(start):
            word = question.removeprefix(start).partition(end)[0]
            return singular.get(word, word)
    raise AssertionError(question)


def test_the_boxes_of_another_source_agree(bench, coco):
    """`boxes.json` comes from another repository than instances and panoptic; it holds 61 of the photos."""
    boxes = json.loads((coco / "boxes.json").read_text())
    checked = Counter()
    for question, name, yes in truths(bench):
        if name not in boxes:
            continue
        there = [box["bbox_xywh"] for box in boxes[name] if box["class"] == noun(question)]
        with Image.open(coco / "images" / name) as image:
            size = image.size
        if "half" in question:
            half = question.split(" half")[0].split()[-1]
            along, sign = {"left": (0, -1), "right": (0, 1), "upper": (1, -1), "lower": (1, 1)}[half]
            assert there
            beyond = [sign * (box[along] + box[along + 2] / 2 - size[along] / 2) for box in there]
            assert any(place > 0 for place in beyond) == yes, (question, name)
        elif "two or more" in question:
            assert (len(there) >= 2) == yes, (question, name)
        else:
            assert bool(there) == yes, (question, name)
        checked[question.split()[0], yes] += 1
    assert min(checked.values()) >= 5
    assert sum(checked.values()) >= 40


def test_no_caption_speaks_of_what_is_said_to_be_absent(bench, coco):
    captions = json.loads((coco / "captions.json").read_text())
    seen = 0
    for question, name, yes in truths(bench):
        if not yes and "half" not in question and "two or more" not in question and name in captions:
            text = " ".join(captions[name]).lower().replace(".", " ").replace(",", " ").split()
            assert noun(question) not in text, (question, name)
            seen += 1
    assert seen >= 10


def test_the_same_seed_gives_the_same_files_and_another_gives_others(coco, tmp_path):
    content = {}
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        folder = coco_pairs.build(coco.parent, tmp_path / name, pairs=8, seed=seed)
        content[name] = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))
        }
    assert content["one"] == content["two"] != content["three"]


def test_a_smaller_build_leaves_no_photos_of_a_larger_one(coco, tmp_path):
    coco_pairs.build(coco, tmp_path, pairs=12, seed=0)
    (tmp_path / "images" / "mine.jpg").touch()
    coco_pairs.build(coco, tmp_path, pairs=2, seed=0)
    with (tmp_path / "ATTRIBUTION.csv").open(newline="") as file:
        used = {row["file"] for row in csv.DictReader(file)}
    assert {path.name for path in (tmp_path / "images").iterdir()} == used | {"mine.jpg"}


def test_too_many_pairs_and_no_data_are_errors(coco, tmp_path):
    with pytest.raises(
        UserError, match=r"the photos yield \d+ pairs with each used 4 times at most, not 5000"
    ):
        coco_pairs.build(coco, tmp_path, pairs=5000)
    with pytest.raises(UserError, match=r"no COCO photos with annotations at .*empty: instances.json"):
        coco_pairs.build(tmp_path / "empty", tmp_path / "out")


# ---- made-up photos: every rule by itself, without the shared data


def photo(file, *things, captions=""):
    return coco_pairs.Photo(file=file, width=100, height=100, things=things, captions=captions)


def thing(category, left=0, top=0, right=40, bottom=40, *, crowd=False):
    share = (right - left) * (bottom - top) / 10_000
    return coco_pairs.Thing(
        category=category, left=left, top=top, right=right, bottom=bottom, share=share, crowd=crowd
    )


def answered(photos, question):
    """The files that say yes, and those that say no; empty where the question is not asked."""
    found = [ask for ask in coco_pairs.asks(photos) if ask.question == question]
    return ({p.file for p in found[0].yes}, {p.file for p in found[0].no}) if found else (set(), set())


def test_presence_needs_a_large_thing_and_an_absence_without_doubt():
    photos = [
        photo("dog", thing("dog")),
        photo("small dog", thing("dog", right=10, bottom=10)),
        photo("dogs in a crowd", thing("dog", crowd=True)),
        photo("cat", thing("cat")),  # may be taken for a dog
        photo("captioned", thing("car"), captions="a car and a dog"),
        photo("car", thing("car"), captions="a hot dogma"),
        photo("nothing"),
    ]
    assert answered(photos, "Is there a dog in the picture?") == ({"dog"}, {"car", "nothing"})


def test_position_needs_things_wholly_on_one_side():
    photos = [
        photo("left", thing("dog", 0, 0, 50, 50)),
        photo("right", thing("dog", 50, 0, 90, 50)),
        photo("middle", thing("dog", 30, 0, 70, 50)),
        photo("both", thing("dog", 0, 0, 30, 30), thing("dog", 60, 0, 90, 30)),
        photo("right and crowd", thing("dog", 50, 0, 90, 50), thing("dog", 60, 0, 90, 50, crowd=True)),
        photo("tiny on the right", thing("dog", 90, 0, 95, 5)),
        photo("none"),
    ]
    assert answered(photos, "Is there a dog in the left half of the picture?") == (
        {"left", "both"},
        {"right"},
    )
    assert answered(photos, "Is there a dog in the right half of the picture?")[1] == {"left"}
    assert answered([photo("a", thing("cake"))], "Is there a cake in the left half of the picture?") == (
        set(),
        set(),
    )


def test_quantity_needs_each_thing_plain_and_no_crowd():
    photos = [
        photo("two", thing("dog", 0, 0, 30, 30), thing("dog", 50, 50, 80, 80)),
        photo("one", thing("dog")),
        photo("one and a speck", thing("dog"), thing("dog", 90, 90, 95, 95)),
        photo("two and a crowd", thing("dog"), thing("dog"), thing("dog", crowd=True)),
        photo("small", thing("dog", right=15, bottom=15)),
        photo("none"),
    ]
    assert answered(photos, "Are there two or more dogs in the picture?") == ({"two"}, {"one"})


def test_patterns_take_turns_and_a_question_asks_about_a_photo_once():
    photos = [photo(f"dog {n}", thing("dog", 0, 0, 30, 30), thing("dog", 50, 50, 80, 80)) for n in range(20)]
    photos += [photo("one", thing("dog", 0, 0, 45, 45)), photo("none")]
    chosen = coco_pairs.choose(coco_pairs.asks(photos), 3, random.Random(0))
    assert Counter(ask.pattern for ask, _, _ in chosen) == {"presence": 1, "position": 1, "quantity": 1}
    # "none" answers one question with no; "one" answers three: right half, lower half, two or more
    with pytest.raises(UserError, match="the photos yield 4 pairs"):
        coco_pairs.choose(coco_pairs.asks(photos), 30, random.Random(0))


def test_no_photo_is_used_too_often():
    photos = [photo("dog", thing("dog")), *(photo(f"none {n}") for n in range(9))]
    photos += [
        photo(f"{name}", thing(name), thing("dog", 60, 60, 95, 95)) for name in ("pizza", "kite", "vase")
    ]
    with pytest.raises(UserError, match="each used 4 times at most") as error:
        coco_pairs.choose(coco_pairs.asks(photos), 999, random.Random(0))
    most = int(str(error.value).split("yield ")[1].split()[0])
    uses = Counter(
        shown.file
        for _, *both in coco_pairs.choose(coco_pairs.asks(photos), most, random.Random(0))
        for shown in both
    )
    assert max(uses.values()) == coco_pairs.MOST_USES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smolvlm", "llava", "paligemma"])
def test_an_exam_on_real_photos_runs_end_to_end(name, checkpoint_dir, shared_data, tmp_path):
    on = coco_pairs.build(shared_data, tmp_path / "benchmark", pairs=9, seed=0)
    reference = str(checkpoint_dir("dinov2"))
    result = examine(str(checkpoint_dir(name)), on=str(on), reference=reference, out=tmp_path / "run")
    block = result.results["eyechart"]
    assert block["benchmark"]["pairs"] == 9
    assert {pattern["pattern"] for pattern in block["patterns"]} == {"presence", "position", "quantity"}
    assert block["find"]["compared"] == block["benchmark"]["images"] * (block["benchmark"]["images"] - 1) // 2
    assert block["model"]["fed"]["layer"] is not None
    page = result.page.read_text("utf8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
