"""Pairs read by probes: planted facts are found, their absence is not called knowledge, and labels mean one thing."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import png
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.core.records import Benchmark, Item
from eyechart.models import load_encoder
from eyechart.score.readable import read_covered, read_pairs
from eyechart.train.pair_labels import covered
from eyechart.train.pair_reading import coarser

pytestmark = pytest.mark.slow


def a_pair(
    number, *, pattern="orientation", options=("left", "right"), question="Which way?", images=None, first=0
):
    names = images or (f"{pattern}{number}a", f"{pattern}{number}b")
    return [
        Item(
            id=f"{pattern}-{number}{side}",
            pair_id=f"{pattern}-{number}",
            question=question,
            options=options,
            answer=first if side == "a" else 1 - first,
            image=Path(f"{name}.png"),
            image_sha256=name,
            pattern=pattern,
        )
        for side, name in zip("ab", names, strict=True)
    ]


def pairs_of(count, **more):
    """Pairs whose first item is as often one answer as the other."""
    return [item for number in range(count) for item in a_pair(number, first=number % 2, **more)]


def features(signal, *, alike=0.0, seed=0, dim=12):
    """Noise with the answer in one direction, `signal` strong; pairs share a part of it, `alike` strong."""

    def make(chosen):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((len(chosen.items), dim))
        shared = rng.standard_normal((len(chosen.items) // 2, dim)).repeat(2, axis=0)
        answers = np.array([1.0 if label == max(options) else -1.0 for label, options in chosen.words])
        rows = rows * (1 - alike) + shared * alike
        rows[:, 3] += signal * answers
        return {"cls": rows.astype(np.float32)}

    return make


def only(result):
    (pattern,) = result.patterns
    (reading,) = pattern.readings
    return reading


def test_a_planted_fact_is_read_in_pairs_it_was_not_trained_on():
    reading = only(read_covered(covered(pairs_of(40)), features(3.0), repeats=1))
    assert reading.pairs.value > 0.9
    assert reading.control.value < 0.5
    assert reading.verdict == "readable"
    assert reading.difference.low > 0.3
    assert (reading.pairs.n, reading.pairs.unit, reading.pairs.chance) == (40, "pairs", 0.25)


def test_where_nothing_was_planted_nothing_is_decided():
    result = read_covered(covered(pairs_of(40)), features(0.0), repeats=1)
    reading = only(result)
    assert reading.verdict == "undecided"
    assert reading.pairs.low <= reading.control.value <= reading.pairs.high
    (note,) = result.notes
    assert note.startswith("undecided: orientation; not shown to be readable")
    assert "does not mean that it is not there" in note


def test_siblings_that_look_alike_are_not_read_by_guessing_and_the_control_says_so():
    reading = only(read_covered(covered(pairs_of(60)), features(0.0, alike=0.97), repeats=1))
    assert reading.pairs.value < 0.15  # a guess gives both the same answer, not a quarter
    assert reading.control.value < 0.15
    assert reading.verdict == "undecided"


def test_the_verdict_is_after_holm_over_patterns():
    items = [item for name in "abcd" for item in pairs_of(20, pattern=name)]
    result = read_covered(covered(items), features(0.0), repeats=1)
    assert not any(row.readings[0].verdict == "readable" for row in result.patterns)
    assert result.measures[0].n == 80


def test_a_set_as_small_as_mmvp_is_told_to_be_out_of_reach():
    items = [
        item
        for number in range(15)
        for item in a_pair(number, question=f"Is thing {number} here?", options=("Yes", "No"))
    ]
    result = read_covered(covered(items), features(9.0))
    (pattern,) = result.patterns
    assert (pattern.in_set, pattern.covered, pattern.readings) == (15, 0, ())
    row = result.to_dict()["patterns"][0]
    assert (row["value"], row["n"], row["verdict"]) == (None, 0, "undecided")
    assert result.to_dict()["measures"][0]["value"] is None
    assert result.notes[0].startswith("15 of 15 pairs have a label that too few others share")


def test_yes_and_no_are_one_label_only_under_one_question():
    same = pairs_of(20, options=("Yes", "No"), question="Is the door open?")
    other = [
        item
        for number in range(20)
        for item in a_pair(number, options=("Yes", "No"), question=f"Is it {number}?")
    ]
    assert covered(same)[0].labels == {"is the door open? no": 20, "is the door open? yes": 20}
    assert covered(other)[0].labels == {}


def test_a_label_that_is_shared_in_other_company_counts():
    counts = [("1", "2"), ("2", "3"), ("1", "3")]
    items = [
        item
        for place, options in enumerate(counts)
        for number in range(10)
        for item in a_pair(100 * place + number, pattern="quantity", options=options)
    ]
    assert covered(items, least=20)[0].labels == {"1": 20, "2": 20, "3": 20}
    assert covered(items, least=21)[0].labels == {}


def test_a_pair_that_goes_may_take_others_with_it():
    items = pairs_of(20) + [
        item for number in range(100, 112) for item in a_pair(number, options=("left", "up"))
    ]
    items += [item for number in range(200, 208) for item in a_pair(number, options=("up", "right"))]
    found = covered(items, least=20)[0]
    assert found.labels == {"left": 32, "right": 28, "up": 20}
    found = covered(items[:-2], least=20)[0]
    assert found.labels == {"left": 20, "right": 20}


def test_spelling_of_options_plays_no_part():
    items = pairs_of(10, options=("Left.", "right")) + [
        item for number in range(50, 60) for item in a_pair(number, options=("Right", " left"))
    ]
    assert covered(items)[0].labels == {"left": 20, "right": 20}


def test_pairs_that_share_a_picture_are_never_on_both_sides_of_a_split():
    items = [
        item for number in range(24) for item in a_pair(number, images=(f"hub{number // 2}", f"own{number}"))
    ]
    (found,) = covered(items)
    assert len(set(found.groups)) == 12
    assert all(found.groups[2 * k] == found.groups[2 * k + 1] for k in range(12))
    one = [item for number in range(24) for item in a_pair(number, images=("hub", f"own{number}"))]
    assert covered(one)[0].items == ()  # all of one group: nothing can be held out


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(13, 25)), min_size=12, max_size=40))
@settings(max_examples=40, deadline=None)
def test_groups_are_the_connected_parts_of_the_pictures(edges):
    items = [item for number, (a, b) in enumerate(edges) for item in a_pair(number, images=(str(a), str(b)))]
    (found,) = covered(items, least=1)
    reached = {a: {a, b} for a, b in edges} | {b: {a, b} for a, b in edges}
    for _ in range(len(edges)):
        for a, b in edges:
            reached[a] = reached[b] = reached[a] | reached[b]
    if not found.items:
        assert len({tuple(sorted(reached[a])) for a, _ in edges}) < 10
        return
    for i, (a, _) in enumerate(edges):
        for j, (c, _) in enumerate(edges):
            assert (found.groups[i] == found.groups[j]) == (c in reached[a])


def test_labels_that_are_known_take_the_place_of_options():
    items = pairs_of(20, options=("Yes", "No"), question="Anything?")
    labels = {item.id: ("red", "blue")[item.answer] for item in items}
    assert covered(items, labels=labels)[0].labels == {"blue": 20, "red": 20}
    with pytest.raises(UserError, match="no label is given for item"):
        covered(items, labels={})


def test_more_pairs_than_wanted_are_drawn_and_the_draw_is_the_same_again():
    found = covered(pairs_of(60))
    first, again = (read_covered(found, features(3.0), most=30, repeats=1) for _ in range(2))
    assert first == again
    assert len(first.patterns[0].pair_ids) == only(first).pairs.n == 30
    assert first.patterns[0].covered == 60


def test_an_interval_has_a_width_where_every_pair_is_read():
    reading = only(read_covered(covered(pairs_of(30)), features(30.0), repeats=1))
    assert reading.pairs.value == reading.pairs.high == 1
    assert 0.8 < reading.pairs.low < 0.95


def test_patches_are_averaged_until_they_fit():
    import torch

    patches = torch.arange(2 * 30 * 3, dtype=torch.float32).reshape(2, 30, 3)
    coarse = coarser(patches, (5, 6), items=8, room=100)
    assert coarse.shape == (2, 4, 3)
    laid = patches.reshape(2, 5, 6, 3)
    assert coarse[:, 0] == pytest.approx(laid[:, :3, :3].mean(dim=(1, 2)))
    assert coarse[:, 3] == pytest.approx(laid[:, 3:, 3:].mean(dim=(1, 2)))


@pytest.fixture
def drawn_pairs(tmp_path):
    """Pairs of plain pictures: one kind is red on the left, the other on the right."""
    from PIL import Image

    items = []
    for number in range(12):
        for item in a_pair(number, first=number % 2):
            picture = Image.new("RGB", (32, 32), (number * 9, 80, 80))
            picture.paste(
                (250, 0, 0), (0, 0, 16, 32) if item.options[item.answer] == "left" else (16, 0, 32, 32)
            )
            path = tmp_path / f"{item.id}.png"
            picture.save(path)
            items.append(
                Item(
                    id=item.id,
                    pair_id=item.pair_id,
                    question=item.question,
                    options=item.options,
                    answer=item.answer,
                    image=path,
                    image_sha256=item.image_sha256,
                    pattern=item.pattern,
                )
            )
    return Benchmark(name="drawn", source="s", sha256="0" * 64, items=tuple(items), in_source=24)


@pytest.mark.slow
def test_an_encoder_without_texts_is_read_from_patches_and_pooled_vectors(drawn_pairs):
    encoder = load_encoder("zoo:mae")
    told = []
    result = read_pairs(
        encoder, drawn_pairs, least=12, repeats=1, batch=7, progress=lambda *what: told.append(what)
    )
    assert [one.of for one in result.measures[::2]] == [
        "patches linear",
        *(f"{p} linear" for p in encoder.poolings),
    ]
    assert result.measures[0].value > 0.9
    assert told == [("reading patterns", 1, 1)]
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_a_set_without_pairs_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(png(1))
    item = Item(
        id="1",
        pair_id="",
        question="q",
        options=("a", "b"),
        answer=0,
        image=tmp_path / "x.png",
        image_sha256="0",
    )
    alone = Benchmark(name="alone", source="s", sha256="0" * 64, items=(item,), in_source=1)
    with pytest.raises(UserError, match="alone has no pairs"):
        read_pairs(load_encoder("zoo:mae"), alone)
