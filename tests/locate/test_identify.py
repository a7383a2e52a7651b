"""Part identification on planted states: the name is found where it was put, the controls where it was not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool
from numpy import ndarray

from eyechart.core.errors import UserError
from eyechart.core.geometry import Box, Geometry, Tile, raster
from eyechart.locate.identify import ImageStates, Settings, height_of, identify_parts, not_ranked, wrong_names
from eyechart.locate.labels import Label, LabelRule, LabelSet
from eyechart.locate.lens import Lens, Ties, Unembedding
from eyechart.locate.regions import RegionRule

WORDS = ("head", "tail", "leg", "wheel", "door", *(f"word{number}" for number in range(25)))
NAMES = {"cat": ("head", "leg", "tail"), "car": ("door", "wheel")}
SIDE, CELL = 6, 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """A part with its mask."""

    object: str
    part: str
    instance: int
    mask: Bool[ndarray, "height width"]


def labels(words=WORDS[:5], **tokens):
    return LabelSet(
        rule=LabelRule.WHOLE,
        labels=tuple(
            Label(
                word=word,
                rule=LabelRule.WHOLE,
                tokens=(tokens.get(word, WORDS.index(word)),),
                spelled=(word,),
            )
            for word in words
        ),
    )


LENS = Lens(norm=lambda states: states * 2, head=Unembedding(weight=torch.eye(len(WORDS))), tokens=len(WORDS))


def geometry(*, rows=SIDE, columns=SIDE, crop=0):
    """A grid of cells of 4 pixels; with `crop` the picture reaches so many pixels further on both sides."""
    box = Box(float(crop), 0.0, float(crop + columns * CELL), float(rows * CELL))
    tile = Tile(
        box=box, shown=box, canvas=(rows * CELL, columns * CELL), cell=(CELL, CELL), positions=raster(rows, columns), whole=True
    )  # fmt: skip
    return Geometry(image_size=(rows * CELL, columns * CELL + 2 * crop), tiles=(tile,), length=rows * columns)


def marked(part, rows, columns, *, object="cat", instance=0, size=(SIDE * CELL, SIDE * CELL)):
    mask = np.zeros(size, dtype=bool)
    mask[rows[0] * CELL : rows[1] * CELL, columns[0] * CELL : columns[1] * CELL] = True
    return Marked(object=object, part=part, instance=instance, mask=mask)


def image(parts, *, name="one", shown=(), seed=0, where=None, layers=3):
    """Noise, and from layer 1 on the name of each part of `shown` at its cells."""
    place = where or geometry()
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(layers, place.length, len(WORDS), generator=generator)
    for part in shown:
        states[1:, place.positions_of(part.mask, threshold=0.5), WORDS.index(part.part)] = 4.0
    return ImageStates(
        image=name, states=states, layers=tuple(range(layers)), normed=(False,) * (layers - 1) + (True,),
        geometry=place, parts=parts,
    )  # fmt: skip


def run(images, known=None, **chosen):
    return identify_parts(images, LENS, known or labels(), NAMES, settings=Settings(**chosen))


HEAD, TAIL = marked("head", (0, 2), (1, 4)), marked("tail", (4, 5), (2, 6))


@pytest.mark.parametrize("control", [None, *RegionRule])
def test_a_name_is_first_over_its_mask_and_neither_elsewhere_nor_is_another(control):
    found = run([image([HEAD, TAIL], shown=[HEAD, TAIL])], control=control)
    head, tail = found.parts
    assert found.not_ranked == ()
    assert (head.part, head.cells, tail.cells) == ("head", 6, 4)
    for one in (head, tail):
        assert one.mask[1:].tolist() == [1, 1]
        assert one.random[1:].min() > 1.5
        assert one.wrong[1:].min() > 1.5
        assert one.control is (control or RegionRule.OUTLINE)
        assert one.regions == 8
    assert head.others == ("leg", "tail")
    assert head.row == pytest.approx(1 / 6)
    assert tail.row == pytest.approx(4.5 / 6)
    assert head.share == pytest.approx(6 / 36)
    assert head.visible == 1


def test_the_wrong_name_is_found_where_the_wrong_name_was_put():
    """At the head's mask the state says `tail`."""
    said = replace(HEAD, part="tail")
    (head,) = run([image([HEAD], shown=[said])]).parts
    assert head.mask[1] > 1
    assert head.wrong[1] == pytest.approx((1 + slow_best(image([HEAD], shown=[said]), "leg", HEAD)[1]) / 2)


def slow_best(given, word, part):
    """Full logits, a loop over the cells that are covered by more than half."""
    best = []
    for layer, states in enumerate(given.states):
        logits = states if given.normed[layer] else states * 2
        ranks = []
        for cell in range(given.geometry.length):
            row, column = divmod(cell, SIDE)
            piece = part.mask[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            if piece.mean() > 0.5:
                ranks.append(1 + sum(value > logits[cell, WORDS.index(word)] for value in logits[cell]))
        best.append(int(min(ranks)))
    return best


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_ranks_are_those_of_a_loop_over_patches(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((SIDE * CELL, SIDE * CELL)) < 0.45
    mask[:CELL, :CELL] = True
    part = Marked(object="cat", part="head", instance=0, mask=mask)
    given_image = image([part], seed=seed)
    (found,) = run([given_image]).parts
    assert found.mask.tolist() == slow_best(given_image, "head", part)
    wrong = [slow_best(given_image, word, part) for word in ("leg", "tail")]
    assert found.wrong.tolist() == np.median(wrong, axis=0).tolist()


def test_regions_keep_off_every_part_of_the_name_in_the_picture():
    """Two cats' heads fill all but one column: no region of the first may lie on the second."""
    first, second = marked("head", (0, 6), (0, 1)), marked("head", (0, 6), (1, 5), instance=1)
    for control in RegionRule:
        one, other = run([image([first, second], shown=[first, second])], control=control).parts
        assert one.mask[1] == 1
        assert one.random[1] > 1
        assert one.regions == (6 if control is RegionRule.OUTLINE else 8), (
            "one column is left, reached by six moves"
        )
        assert other.random is None
        assert other.regions == 0


def test_regions_depend_on_the_part_and_the_seed_and_not_on_the_order():
    images = [image([HEAD, TAIL], name=str(number), seed=number, shown=[TAIL]) for number in range(4)]
    forward, backward = run(images), run(images[::-1])
    key = {(one.image, one.part): one for one in backward.parts}
    for one in forward.parts:
        assert (one.random == key[one.image, one.part].random).all()
    other = run(images, seed=1)
    assert any((a.random != b.random).any() for a, b in zip(forward.parts, other.parts, strict=True))
    assert all((a.mask == b.mask).all() for a, b in zip(forward.parts, other.parts, strict=True))


def test_parts_that_cannot_be_ranked_are_listed_with_the_reason():
    wide = geometry(crop=8)
    size = wide.image_size

    def box(part, left, right, rows=slice(4, 8)):
        mask = np.zeros(size, dtype=bool)
        mask[rows, left:right] = True
        return Marked(object="cat", part=part, instance=0, mask=mask)

    parts = [
        box("head", 0, 8),
        box("tail", 9, 11, slice(5, 6)),
        box("paw", 12, 20),
        box("leg", 4, 16),
        Marked(object="cat", part="leg", instance=1, mask=np.zeros(size, dtype=bool)),
        Marked(object="cat", part="leg", instance=2, mask=np.ones((3, 3), dtype=bool)),
    ]
    found = run([image(parts, where=wide)])
    assert [(one.part, one.reason) for one in found.not_ranked] == [
        ("head", "lost_to_crop"), ("tail", "no_cell"), ("paw", "no_label"), ("leg", "empty_mask"), ("leg", "size_mismatch"),
    ]  # fmt: skip
    assert "at most 0.125 of a cell is covered; more than 0.5" in found.not_ranked[1].detail
    (leg,) = found.parts
    assert leg.visible == pytest.approx(8 / 12)
    assert leg.cells == 2
    assert len(run([image(parts, where=wide)], threshold=0.1).parts) == 2
    only_lost = run([image(parts[:1], where=wide)])
    assert (len(only_lost.parts), len(only_lost.not_ranked)) == (0, 1)
    with pytest.raises(ValueError, match="'lost' is no reason"):
        not_ranked("one", parts[0], "lost", "")


def test_a_wrong_name_that_shares_a_token_or_has_no_label_is_no_control():
    known = labels(("head", "tail", "leg"), tail=WORDS.index("head"))
    (found,) = run([image([HEAD])], known).parts
    assert found.others == ("leg",)
    (alone,) = run([image([HEAD])], labels(("head",))).parts
    assert alone.wrong is None
    assert alone.others == ()
    by_word = {one.word: one for one in known.labels}
    assert wrong_names(TAIL, by_word, ("leg", "head", "leg", "tail")) == ("leg",)


def test_ties_are_settled_as_asked():
    flat = replace(image([HEAD]), states=torch.zeros(3, SIDE * SIDE, len(WORDS)))
    for ties, rank in ((Ties.PESSIMISTIC, 30), (Ties.OPTIMISTIC, 1), (Ties.AVERAGE, 15.5)):
        (found,) = run([flat], ties=ties).parts
        assert found.mask.tolist() == found.random.tolist() == found.wrong.tolist() == [rank] * 3


def tiles():
    """The picture whole in 2 x 2 cells, and its halves in 6 x 3 each."""

    def tile(left, right, start, rows, columns, whole):
        box = Box(left, 0.0, right, 24.0)
        return Tile(
            box=box, shown=box, canvas=(rows * 4, columns * 4), cell=(4, 4), whole=whole,
            positions=raster(rows, columns, start=start),
        )  # fmt: skip

    some = (
        tile(0.0, 24.0, 0, 2, 2, True),
        tile(0.0, 12.0, 4, 6, 3, False),
        tile(12.0, 24.0, 22, 6, 3, False),
    )
    return Geometry(image_size=(24, 24), tiles=some, length=40)


def test_several_tiles_take_connected_regions():
    found = run([image([HEAD, TAIL], where=tiles(), shown=[HEAD, TAIL])])
    assert [one.control for one in found.parts] == [RegionRule.CONNECTED] * 2
    assert found.parts[0].cells == 6
    assert found.parts[0].mask[1] == 1
    assert found.parts[0].random[1] > 1
    with pytest.raises(UserError, match="this model sees the picture in 3; take the control 'connected'"):
        run([image([HEAD], where=tiles())], control=RegionRule.OUTLINE)


def test_states_of_other_positions_are_refused():
    given_image = image([HEAD])
    with pytest.raises(UserError, match="one: states at 35 positions, but its geometry has 36"):
        run([replace(given_image, states=given_image.states[:, 1:])])


def test_the_height_of_a_mask():
    mask = np.zeros((10, 3), dtype=bool)
    mask[9, 1] = True
    assert height_of(mask) == 0.95
    assert height_of(~np.zeros((4, 4), dtype=bool)) == 0.5
