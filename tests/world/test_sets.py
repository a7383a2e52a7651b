"""Sets of scenes: read back by an independent reader, the same from any number of workers, whole after a kill."""

import csv
import json
import operator
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, fields, is_dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.lock import FolderLock
from eyechart.score import load_benchmark
from eyechart.world import sets
from eyechart.world.draw import draw_facts
from eyechart.world.facts import PATTERNS
from eyechart.world.kinds import KINDS
from eyechart.world.layout import lay_out, nonces
from eyechart.world.render import render
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan, draw_pairs, draw_set, facts_of, record_of
from eyechart.world.sets_pool import in_order

FACT_OF = {
    "orientation": [{"facing"}],
    "presence": [{"missing"}],
    "state": [{"state"}],
    "quantity": [{"items.number"}],
    "position": [{"other.place"}],
    "color": [{"color", "other.color"}],
    "structure": [{"shape"}],
    "text": [{"letter"}],
    "viewpoint": [{"view"}, {"facing"}],
}
"""The fields in which two scenes of a pair may differ: for color two objects change colours with one another."""

SCENE_OF = {
    "orientation": {"things.0.yaw"},
    "presence": {"things.0.look.missing"},
    "state": {"things.0.look.state"},
    "quantity": {"items"},
    "position": {"things.0.x", "things.1.x", "things.1.z", "things.1.scale"},
    "color": {"things.0.color", "things.1.color", "things.1.accent"},
    "structure": {"things.0.look.shape"},
    "text": {"sign.letter"},
    "viewpoint": {"camera.eye.0", "camera.eye.1", "camera.eye.2"},
}
"""Where twins' scenes may differ besides in their facts."""


def flat(value: object, name: str = "") -> dict[str, object]:
    """Dotted names to values, through records and tuples alike."""
    if is_dataclass(value):
        inner = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, tuple | list):
        inner = [(str(place), each) for place, each in enumerate(value)]
    else:
        return {name: value}
    found: dict[str, object] = {}
    for key, each in inner:
        found |= flat(each, f"{name}.{key}" if name else str(key))
    return found


def differing(first: object, second: object) -> set[str]:
    a, b = flat(first), flat(second)
    return {key for key in a.keys() | b.keys() if a.get(key, "absent") != b.get(key, "absent")}


def truth(question: str, facts: dict, options: list[str]) -> str:
    """The right option by a reader that knows only the words of the question and the fields of the facts."""
    words = question.lower().rstrip("?").replace(":", " ").replace(",", " ").split()
    other, items = facts["other"], facts["items"]
    named = {word for word in words if word in KINDS}
    if set(options) <= {"left", "right"} and other is not None and len(named) == 2:
        asked = next(word for word in words if word in KINDS)
        asked = (
            words[words.index("is", 1 if words[0] == "is" else 0) + 2]
            if words[:2] == ["on", "which"]
            else asked
        )
        flipped = {"left": "right", "right": "left"}
        return other["place"] if asked == other["kind"] else flipped[other["place"]]
    if set(options) <= {"front", "behind"} and other is not None and len(named) == 2:
        asked = next(word for word in words if word in KINDS)
        flipped = {"front": "behind", "behind": "front"}
        return other["place"] if asked == other["kind"] else flipped[other["place"]]
    if set(options) == {"closer", "farther"}:
        asked = next(word for word in words if word in KINDS)
        main_is_closer = other["place"] == "behind"
        return "closer" if (asked == facts["kind"]) == main_is_closer else "farther"
    if set(options) <= {"left", "right"}:
        return facts["facing"]
    if set(options) <= {"front", "behind"}:
        return {"front": "front", "back": "behind"}[facts["facing"]]
    if set(options) <= {"above", "side"}:
        return facts["view"]
    if set(options) <= {"high", "low"}:
        return {"above": "high", "side": "low"}[facts["view"]]
    if set(options) in ({"yes", "no"}, {"with", "without"}):
        there = facts["missing"] not in words
        return {True: ("yes", "with"), False: ("no", "without")}[there]["with" in options]
    if set(options) <= {"one", "two", "three", "four"}:
        return ("one", "two", "three", "four")[items["number"] - 1]
    if "color" in words:
        return other["color"] if other["kind"] in words else facts["color"]
    if "letter" in words:
        return facts["letter"]
    return facts["state"] if facts["state"] in options else facts["shape"]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf8").splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf8").splitlines()))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    """Two pairs of each pattern as twins with maps, rendered once."""
    folder = tmp_path_factory.mktemp("pairs") / "twins"
    return render_pairs(folder, PairPlan(pairs=2, relation="twins"), size=48, workers=1, maps=True)


@pytest.mark.parametrize("relation", ["twins", "siblings"])
def test_pairs_differ_in_one_fact_and_answer_their_question_in_opposite_ways(relation):
    for pair in draw_pairs(PairPlan(pairs=25, relation=relation)):
        assert differing(*pair.facts) in FACT_OF[pair.pattern], pair
        assert set(pair.answers) == {0, 1}
        for facts, answer in zip(pair.facts, pair.answers, strict=True):
            assert truth(pair.question, asdict(facts), list(pair.options)) == pair.options[answer], pair


def test_twins_scenes_differ_only_where_the_fact_is():
    for pair in draw_pairs(PairPlan(pairs=25, relation="twins")):
        scenes = [lay_out(facts, nonce) for facts, nonce in zip(pair.facts, pair.nonces, strict=True)]
        places = {name for name in differing(*scenes) if not name.startswith("facts.")}
        allowed = SCENE_OF[pair.pattern]
        strange = {
            name for name in places if not any(name == one or name.startswith(f"{one}.") for one in allowed)
        }
        assert not strange, pair
        assert places, "nothing to be seen differs"


def test_siblings_have_their_own_camera_light_and_floor():
    for pair in draw_pairs(PairPlan(pairs=5, relation="siblings")):
        first, second = (lay_out(facts, nonce) for facts, nonce in zip(pair.facts, pair.nonces, strict=True))
        assert first.camera != second.camera
        assert first.light != second.light
        assert (first.floor, first.backdrop) != (second.floor, second.backdrop)


def test_twins_and_siblings_of_one_seed_are_of_the_same_facts():
    twins, siblings = (draw_pairs(PairPlan(pairs=4, relation=one)) for one in ("twins", "siblings"))
    assert [(a.facts, a.question, a.answers) for a in twins] == [
        (b.facts, b.question, b.answers) for b in siblings
    ]
    assert all(a.nonces[0] == b.nonces[0] for a, b in zip(twins, siblings, strict=True))


def test_a_patterns_pairs_depend_neither_on_the_other_patterns_nor_on_how_many_there_are():
    long = [pair for pair in draw_pairs(PairPlan(pairs=6)) if pair.pattern == "text"]
    short = draw_pairs(PairPlan(pairs=3, patterns=("text",)))
    assert long[:3] == short
    assert draw_pairs(PairPlan(pairs=3, patterns=("text",), seed=1)) != short


def test_neither_the_place_of_an_option_nor_its_name_tells_the_answer():
    pairs = draw_pairs(PairPlan(pairs=40))
    for pattern in PATTERNS:
        firsts = Counter(pair.answers[0] for pair in pairs if pair.pattern == pattern)
        assert firsts[0] == firsts[1] == 20
    named = Counter(
        (pair.options[answer], place) for pair in pairs for place, answer in enumerate(pair.answers)
    )
    for option in {pair.options[0] for pair in pairs}:
        assert abs(named[option, 0] - named[option, 1]) <= 4 * (named[option, 0] + named[option, 1]) ** 0.5


def test_no_scene_is_in_two_splits():
    drawn = {
        split: {nonce for seed in range(3) for nonce in islice(nonces(split, seed), 200)}
        for split in ("train", "selection", "test")
    }
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["selection"]
    assert not drawn["selection"] & drawn["test"]
    seen = {split: set() for split in drawn}
    for split in drawn:
        seen[split] |= {record.nonce for record in draw_set(SetPlan(split=split, scenes=100))}
        seen[split] |= {nonce for pair in draw_pairs(PairPlan(split=split, pairs=5)) for nonce in pair.nonces}
        assert seen[split] <= {nonce for nonce in islice(nonces(split, 0), 5000)}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))


@pytest.mark.parametrize("relation", ["twins", "siblings"])
def test_families_differ_by_single_facts(relation):
    records = list(draw_set(SetPlan(split="train", scenes=120, members=6, relation=relation)))
    assert [record.index for record in records] == list(range(120))
    assert [record.family for record in records] == [place // 6 for place in range(120)]
    for start in range(0, 120, 6):
        family = records[start : start + 6]
        assert len({record.facts for record in family}) == 6
        assert len({record.nonce for record in family}) == (1 if relation == "twins" else 6)
        assert family[0].changed is None
        for place, record in enumerate(family[1:], start=1):
            ways = [differing(record.facts, earlier.facts) for earlier in family[:place]]
            assert any(way in FACT_OF[record.changed] for way in ways)


def test_the_beginning_of_a_long_set_is_the_short_one():
    long = list(draw_set(SetPlan(split="selection", scenes=40, members=2)))
    assert long[:12] == list(draw_set(SetPlan(split="selection", scenes=12, members=2)))
    assert long[:12] != list(draw_set(SetPlan(split="selection", scenes=12, members=2, seed=1)))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_facts_come_back_from_json(seed):
    facts = draw_facts(random.Random(seed))
    assert facts_of(json.loads(json.dumps(asdict(facts)))) == facts


def test_a_set_holds_what_its_records_say(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "_SHARD_PIXELS", 4 * 32 * 32)
    seen = []
    plan = SetPlan(split="train", scenes=10, members=2, relation="twins")
    made = render_set(
        tmp_path / "set", plan, size=32, workers=1, maps=True, progress=lambda *told: seen.append(told)
    )
    assert seen == [("rendering", done, 10) for done in (0, 4, 8, 10)]
    lines = (tmp_path / "set/scenes.jsonl").read_text().splitlines()
    assert tuple(record_of(json.loads(line)) for line in lines) == made.scenes == tuple(draw_set(plan))
    assert made.families.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for place, record in enumerate(made.scenes):
        alone = render(lay_out(record.facts, record.nonce), 32)
        assert np.array_equal(made.images[place], alone.image)
        assert np.array_equal(made.parts[place], alone.parts)
        assert np.array_equal(made.objects[place], alone.objects)
        assert np.array_equal(made.depth[place], alone.depth.astype(np.float16))
    before = (tmp_path / "set/images.npy").stat().st_mtime_ns
    again = render_set(tmp_path / "set", plan, size=32, workers=1, maps=True)
    assert np.array_equal(again.images, made.images)
    assert (tmp_path / "set/images.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another config:\n  seed: 0 → 5"):
        render_set(
            tmp_path / "set",
            SetPlan(split="train", scenes=10, members=2, relation="twins", seed=5),
            size=32,
            maps=True,
        )
    other = SetPlan(split="train", scenes=4)
    assert render_set(tmp_path / "set", other, size=32, workers=1, fresh=True).parts is None


KILLED = """
import sys
from pathlib import Path
from eyechart.world import sets, sets_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan

if __name__ == "__main__":
    sets._SHARD_PIXELS = 8 * 32 * 32
    what, folder = sys.argv[1:]
    tell = lambda stage, done, total: print(done, flush=True)
    if what == "set":
        sets.render_set(folder, SetPlan(split="train", scenes=36, members=3), size=32, maps=True, progress=tell)
    else:
        sets_pairs.render_pairs(folder, PairPlan(pairs=3, patterns=("state", "text", "color", "position")), size=32, progress=tell)
"""


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("what", ["set", "pairs"])
def test_a_killed_run_goes_on_and_ends_the_same_to_the_byte(what, tmp_path, monkeypatch):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    words = [sys.executable, str(script), what, str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) > 0:
                break
        workers = children_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.1)
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "workers outlived their parent"
    with pytest.raises(UserError, match="holds no finished set"):
        load_set(tmp_path / "run")
    monkeypatch.setattr(sets, "_SHARD_PIXELS", 8 * 32 * 32)
    started = []
    tell = lambda stage, done, total: started.append(done)  # noqa: E731
    for folder in ("run", "whole"):
        if what == "set":
            plan = SetPlan(split="train", scenes=36, members=3)
            render_set(tmp_path / folder, plan, size=32, workers=1, maps=True, progress=tell)
        else:
            render_pairs(
                tmp_path / folder,
                PairPlan(pairs=3, patterns=("state", "text", "color", "position")),
                size=32,
                workers=1,
                progress=tell,
            )
    assert 0 < started[0] < max(started), "nothing was kept, or nothing was left to do"
    told = [json.loads((tmp_path / one / "manifest.json").read_text()) for one in ("run", "whole")]
    assert told[0]["sha256"] == told[1]["sha256"]
    assert told[0]["resumes"] == 1
    files = {
        path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()
    }
    assert files == {
        path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*") if path.is_file()
    }
    for name in files - {Path("manifest.json")}:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_two_never_write_in_one_folder(tmp_path):
    plan = SetPlan(split="train", scenes=2)
    lock = FolderLock(tmp_path / "set")
    try:
        with pytest.raises(UserError, match=f"in use by another process \\(pid {os.getpid()}\\)"):
            render_set(tmp_path / "set", plan, size=32)
    finally:
        lock.release()


def test_a_world_that_has_changed_does_not_go_on_in_an_old_folder(tmp_path, monkeypatch):
    plan = SetPlan(split="train", scenes=2)
    render_set(tmp_path / "set", plan, size=32, workers=1)
    monkeypatch.setattr(sets, "fingerprint", lambda: "another")
    with pytest.raises(UserError, match=r'world: .* → "another"'):
        render_set(tmp_path / "set", plan, size=32, workers=1)


def test_a_benchmark_is_read_by_the_exam_as_it_was_planned(benchmarks):
    plan = draw_pairs(PairPlan(pairs=2, relation="twins"))
    read = load_benchmark(benchmarks)
    assert not read.quarantined
    assert [note for note in read.notes if "not used" in note or "balanced" in note] == []
    items = {item.id: item for item in read.items}
    assert len(items) == 4 * len(PATTERNS)
    facts = {line["id"]: line for line in lines_of(benchmarks / "facts.jsonl")}
    for pair in plan:
        for place, end in enumerate("ab"):
            item, line = items[f"{pair.id}{end}"], facts[f"{pair.id}{end}"]
            assert (item.pair_id, item.pattern, item.question) == (pair.id, pair.pattern, pair.question)
            assert item.options[item.answer] == pair.options[pair.answers[place]]
            assert truth(item.question, line["facts"], list(item.options)) == item.options[item.answer]
            assert (facts_of(line["facts"]), line["nonce"]) == (pair.facts[place], pair.nonces[place])
            assert line["told"]
            picture = pixels_of(item.image)
            assert np.array_equal(picture, render(lay_out(pair.facts[place], pair.nonces[place]), 48).image)


def test_maps_say_what_the_renderer_says(benchmarks):
    pair = draw_pairs(PairPlan(pairs=2, relation="twins"))[0]
    rendered = render(lay_out(pair.facts[0], pair.nonces[0]), 48)
    assert np.array_equal(pixels_of(benchmarks / f"maps/{pair.id}a-parts.png"), rendered.parts)
    assert np.array_equal(pixels_of(benchmarks / f"maps/{pair.id}a-objects.png"), rendered.objects)
    depth = pixels_of(benchmarks / f"maps/{pair.id}a-depth.png")
    assert depth.dtype == np.uint16
    assert np.array_equal(depth == 65_535, np.isinf(rendered.depth))
    finite = rendered.depth < 65.5
    assert np.abs(depth[finite] / 1000 - rendered.depth[finite]).max() <= 0.0005 + 1e-6
    names = json.loads((benchmarks / "maps/parts.json").read_text())
    shown = {tuple(names[str(number)]) for number in np.unique(rendered.parts) if number}
    assert {part for kind, part in shown if kind == pair.facts[0].kind} <= set(
        KINDS[pair.facts[0].kind].parts
    )
    assert any(kind == pair.facts[0].kind for kind, _ in shown)


def test_twins_pictures_differ_only_on_what_the_fact_is_of(benchmarks):
    """Letters change the sign alone; colours the two objects alone: no shadow, no floor, no other thing."""
    for pattern, allowed in (("text", {200}), ("color", {1, 2})):
        for number in (1, 2):
            images, objects = [], []
            for end in "ab":
                images.append(pixels_of(benchmarks / f"images/{pattern}-{number:04d}{end}.png").astype(int))
                objects.append(pixels_of(benchmarks / f"maps/{pattern}-{number:04d}{end}-objects.png"))
            assert np.array_equal(*objects)
            near = np.isin(objects[0], list(allowed))
            for axis in (0, 1):  # a pixel at an edge mixes both sides of it
                near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
            changed = np.abs(images[0] - images[1]).max(-1) > 0
            assert changed.any()
            assert not (changed & ~near).any()


def test_statements_and_computer_vision_questions_lie_beside_the_benchmark(benchmarks):
    rows = pq.read_table(benchmarks / "captions.parquet").to_pylist()
    assert len(rows) == 2 * len(PATTERNS)
    for row in rows:
        assert row["statement_a"] != row["statement_b"]
        assert all((benchmarks / row[name]).is_file() for name in ("image_a", "image_b"))
    asked = pq.read_table(benchmarks / "cv.parquet").to_pylist()
    assert [row["idx"] for row in asked] == list(range(len(asked)))
    assert len(asked) >= len(PATTERNS)
    for row in asked:
        assert row["type"] == {"Count": "2D", "Relation": "2D", "Depth": "3D", "Distance": "3D"}[row["task"]]
        assert row["answer"] in [f"({letter})" for letter in "ABCD"[: len(row["choices"])]]
        assert (benchmarks / row["image"]).is_file()
        assert all(
            f"({letter}) {choice}" in row["prompt"]
            for letter, choice in zip("ABCD", row["choices"], strict=False)
        )


def test_another_size_shows_the_same_scenes_and_asks_the_same(benchmarks, tmp_path):
    other = render_pairs(
        tmp_path / "large",
        PairPlan(pairs=2, relation="twins", patterns=("state", "text")),
        size=64,
        workers=1,
    )
    rows = {row["id"]: row for row in rows_of(benchmarks / "questions.csv")}
    for row in rows_of(other / "questions.csv"):
        assert row == rows[row["id"]]
    lines = {line["id"]: line for line in lines_of(benchmarks / "facts.jsonl")}
    for line in lines_of(other / "facts.jsonl"):
        assert line == lines[line["id"]]
    assert pixels_of(other / "images/text-0001a.png").shape == (64, 64, 3)
    manifest = json.loads((other / "manifest.json").read_text())
    assert (manifest["seed"], manifest["split"], len(manifest["sha256"])) == (0, "test", 64)


def test_workers_results_come_in_order():
    assert list(in_order(operator.neg, range(20), workers=2)) == [-number for number in range(20)]
    assert list(in_order(operator.neg, range(3), workers=1)) == [0, -1, -2]


def test_a_worker_that_is_ended_from_outside_is_said():
    with pytest.raises(UserError, match="one of 2 rendering processes was ended"):
        list(in_order(os._exit, [3], workers=2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SetPlan(split="trian", scenes=1), "no split named 'trian'. Did you mean 'train'"),
        (lambda: SetPlan(split="train", scenes=1, relation="twin"), "no relation named 'twin'"),
        (lambda: SetPlan(split="train", scenes=0), "0 scenes in families of 1: give 1 scene or more"),
        (
            lambda: SetPlan(split="train", scenes=10, members=3),
            "do not fill families of 3; give a multiple, such as 12",
        ),
        (lambda: PairPlan(patterns=("colour",)), "no pattern named 'colour'. Did you mean 'color'"),
        (lambda: PairPlan(patterns=("color", "color")), "patterns color, color: name each once"),
        (lambda: PairPlan(patterns=()), "patterns \\(none\\)"),
        (lambda: PairPlan(pairs=0), "0 pairs of a pattern"),
        (lambda: list(in_order(operator.neg, [1], workers=0)), "0 workers do nothing"),
        (
            lambda: render_set("x", SetPlan(split="train", scenes=1), size=31),
            "32 to 672 pixels a side, got 31",
        ),
        (lambda: render_pairs("x", PairPlan(), size=673), "32 to 672 pixels a side, got 673"),
        (lambda: load_set("./nowhere"), "nowhere holds no finished set"),
        (lambda: SetPlan(split="train", scenes=9, members=9), "families of 9: .* 1 to 8 members"),
    ],
)
def test_what_a_person_can_mend_is_said(make, said):
    with pytest.raises(UserError, match=said):
        make()
