"""The generated drawings: a benchmark in good order, one difference in each pair, nothing that leaks the answer."""

import csv
import io
import random

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.score import load_benchmark
from eyechart.world import MOTIFS, draw_pictures
from eyechart.world.drawings import draw_look
from eyechart.world.pictures import picture

NINE = ["orientation", "presence", "state", "quantity", "position", "color", "structure", "text", "viewpoint"]
EVERY = [motif for motifs in MOTIFS.values() for motif in motifs]


def pixels(motif, answer, *, size=96, seed=3):
    look = draw_look(random.Random(seed))
    return np.asarray(Image.open(io.BytesIO(picture(motif, look, answer, size))).convert("RGB")).astype(int)


def test_the_folder_is_a_benchmark(tmp_path):
    bench = load_benchmark(draw_pictures(tmp_path / "drawn", pairs=18))
    assert (len(bench.items), bench.quarantined, bench.name) == (36, (), "drawn")
    assert bench.notes == ("all pictures are 160 x 160 pixels",)
    pairs = [bench.items[place : place + 2] for place in range(0, 36, 2)]
    assert [pair[0].pattern for pair in pairs] == NINE * 2
    assert len({pair[0].question for pair in pairs}) == 18
    for first, second in pairs:
        assert first.pair_id == second.pair_id
        assert first.options == second.options
        assert {first.answer, second.answer} == {0, 1}
    assert len({item.image_sha256 for item in bench.items}) == 36


@pytest.mark.parametrize("pairs", [1, 2, 9, 27])
def test_neither_side_nor_place_nor_words_give_the_answer_away(pairs, tmp_path):
    draw_pictures(tmp_path, pairs=pairs, size=96, seed=5)
    with (tmp_path / "questions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * pairs
    firsts = [row["answer"] for row in rows[::2]]
    assert abs(firsts.count("A") - firsts.count("B")) <= 1
    known = {motif.question: motif.options for motif in EVERY}
    turned = [
        row["options"] != f"(a) {known[row['question']][0]} (b) {known[row['question']][1]}"
        for row in rows[::2]
    ]
    assert abs(turned.count(True) - turned.count(False)) <= 1
    if pairs == 27:
        both = {(first, turn) for first, turn in zip(firsts, turned, strict=True)}
        assert len(both) == 4  # the two balances are not one


def test_every_answer_shows_what_it_says(tmp_path):
    """The picture of an item is the drawing of the option that is right, whatever order options stand in."""
    bench = load_benchmark(draw_pictures(tmp_path, pairs=18, size=96, seed=2))
    known = {motif.question: motif for motif in EVERY}
    rng = random.Random(2)
    for _ in range(2):
        order = [True] * 18
        rng.shuffle(order)
    for place in range(18):
        look = draw_look(rng)
        for item in bench.items[2 * place : 2 * place + 2]:
            motif = known[item.question]
            right = motif.options.index(item.options[item.answer])
            assert item.image.read_bytes() == picture(motif, look, right, 96), item


@pytest.mark.parametrize("motif", EVERY, ids=lambda motif: motif.question)
@pytest.mark.parametrize("size", [96, 224])
def test_the_two_drawings_of_a_motif_differ_in_part_only(motif, size):
    first, second = pixels(motif, 0, size=size), pixels(motif, 1, size=size)
    assert first.shape == second.shape == (size, size, 3)
    differ = (np.abs(first - second).max(axis=2) > 24).mean()
    assert 0.01 < differ < 0.5
    for corner in ((0, 0), (0, -1)):
        assert (first[corner] == second[corner]).all()


@pytest.mark.parametrize("motif", EVERY, ids=lambda motif: motif.question)
def test_nothing_is_drawn_over_the_edge(motif):
    """But for the ground of two of them, which runs on below."""
    for seed in range(6):
        for answer in (0, 1):
            drawn = pixels(motif, answer, seed=seed)
            paper = drawn[0, 0]
            assert (np.abs(drawn[0] - paper) < 8).all()
            if motif.question not in (
                "Is there a sun in the sky?",
                "Is the ball to the left or to the right of the tree?",
            ):
                assert (np.abs(drawn[:, 0] - paper) < 8).all()
                assert (np.abs(drawn[:, -1] - paper) < 8).all()


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        draw_pictures(tmp_path / name, pairs=4, size=96, seed=seed)

    def content(name):
        folder = tmp_path / name
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}

    assert content("one") == content("two") != content("three")
    assert len(content("one")) == 9


def test_more_pairs_than_motifs_are_other_drawings(tmp_path):
    bench = load_benchmark(draw_pictures(tmp_path, pairs=36, size=96))
    assert len({item.image_sha256 for item in bench.items}) == 72
    assert not bench.quarantined


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(UserError, match="0 pairs of pictures cannot be drawn"):
        draw_pictures(tmp_path, pairs=0)
    for size in (95, 225):
        with pytest.raises(UserError, match=f"96 to 224 pixels wide, got {size}"):
            draw_pictures(tmp_path, size=size)
