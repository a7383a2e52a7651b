"""Arms and cells: what is cut in each, what they share, and parts that have nothing to cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.locate.arms import (
    BOTH,
    LANGUAGE,
    VISION,
    WHOLE,
    Placed,
    Towered,
    arms_of,
    conditions_of,
    doses_of,
    positions_in,
)
from eyechart.locate.layout import LanguageLayout, VisionLayout
from eyechart.locate.named_layers import Usable

VISION_LAYOUT = VisionLayout(length=10, patches=tuple(range(1, 10)), special=(0,))
LANGUAGE_LAYOUT = LanguageLayout(length=14, image=tuple(range(2, 11)), before=(0, 1), question=(11, 12, 13))
TOWERS = Towered(
    vision=VISION_LAYOUT,
    language=LANGUAGE_LAYOUT,
    vision_layers=Usable(layers=(0, 1, 2), excluded=(3,)),
    language_layers=Usable(layers=(0, 1, 2, 3)),
)
EDGES = {"vision": "part<-rest", "language": "part<-earlier image"}
PART = Placed(vision=(5, 6), language=(6, 7))


def conditions(part=PART, **more):
    return conditions_of(part, TOWERS, arms_of(TOWERS, **EDGES, **more))


def test_the_2x2_cuts_each_tower_alone_and_both():
    cells = conditions().cells
    seen, said = cells["main", VISION].cuts[0], cells["main", LANGUAGE].cuts[0]
    assert cells[WHOLE].cuts == ()
    assert (seen.tower, seen.layers) == ("vision", (0, 1, 2))
    assert (said.tower, said.layers) == ("language", (0, 1, 2, 3))
    both = cells["main", BOTH].cuts
    assert [cut.tower for cut in both] == ["vision", "language"]
    assert (both[0].edges == seen.edges).all()
    assert (both[1].edges == said.edges).all()


def test_the_parts_tokens_read_nothing_else_and_all_others_read_as_before():
    edges = conditions().cells["main", VISION].cuts[0].edges.numpy()
    wanted = np.zeros((10, 10), dtype=bool)
    wanted[np.ix_([5, 6], [0, 1, 2, 3, 4, 7, 8, 9])] = True
    assert (edges == wanted).all()


def test_both_ways_adds_the_reverse_edges_and_no_language_cut_of_its_own():
    cells = conditions().cells
    edges = cells["both ways", VISION].cuts[0].edges.numpy()
    main = cells["main", VISION].cuts[0].edges.numpy()
    assert (edges == (main | main.T)).all()
    assert ("both ways", LANGUAGE) not in cells


def test_random_cuts_as_many_edges_and_none_of_the_same():
    cells = conditions().cells
    for place, cell in enumerate((VISION, LANGUAGE)):
        ours = cells["main", BOTH].cuts[place].edges
        theirs = cells["random", cell].cuts[0].edges
        assert ours.sum() == theirs.sum()
        assert not (ours & theirs).any()


def test_conditions_have_names_of_their_own():
    names = [one.name for one in conditions().cells.values()]
    assert len(set(names)) == len(names)


def test_a_part_in_the_first_cell_has_no_earlier_image_to_be_cut_off_from():
    found = conditions(Placed(vision=(1,), language=(2,)))
    assert list(found.cells) == [WHOLE]
    assert "main" in found.missing
    assert "cuts nothing" in found.missing["main"]


def test_windows_are_arms_of_their_own_and_the_main_arm_cuts_all():
    arms = arms_of(TOWERS, **EDGES, language_layers="window:2", controls=())
    assert arms[0].language_layers == (0, 1, 2, 3)
    assert [arm.name for arm in arms[1:]] == ["language 0±2", "language 1±2", "language 2±2", "language 3±2"]
    assert all(arm.cells == (LANGUAGE, BOTH) for arm in arms[1:])
    assert [arm.language_layers for arm in arms[1:]] == [(0,), (0, 1), (1, 2), (2, 3)]


def test_one_named_set_of_layers_is_the_main_arms():
    arms = arms_of(TOWERS, **EDGES, vision_layers="last:1", controls=())
    assert [arm.vision_layers for arm in arms] == [(2,)]


def test_no_such_control():
    with pytest.raises(UserError, match="Did you mean 'random'"):
        arms_of(TOWERS, **EDGES, controls=("randon",))


@pytest.mark.slow
@given(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, unique=True), st.integers(0, 9))
def test_doses_nest_and_the_full_dose_is_the_main_arm(shares, seed):
    main = arms_of(TOWERS, **EDGES, controls=())[0]
    for plan in doses_of(main, TOWERS, shares=sorted(shares), seed=seed):
        tower = plan.name.split()[0]
        found = conditions_of(PART, TOWERS, plan.arms)
        before = None
        for arm in plan.arms:
            cut = found.cells[arm.name, plan.cell].cuts[0]
            assert cut.tower == tower
            if before is not None:
                assert set(before.layers) <= set(cut.layers)
                assert not (before.edges & ~cut.edges).any()
            before = cut
        if plan.shares[-1] == 1:
            whole = conditions_of(PART, TOWERS, [main]).cells["main", plan.cell].cuts[0]
            assert before is not None
            assert (before.edges == whole.edges).all()
            assert before.layers == whole.layers


def test_image_positions_count_from_the_pictures_first():
    assert positions_in(LANGUAGE_LAYOUT, np.array([0, 8])) == (2, 10)
