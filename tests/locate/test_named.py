"""Named edges and layers, against sets of pairs written out, and their properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.errors import Incapable, NoEdges, UserError
from eyechart.locate.edge_names import NAMES, Choices
from eyechart.locate.layout import LanguageLayout, Layout, VisionLayout
from eyechart.locate.named import named_edges, refuse_blind
from eyechart.locate.named_layers import Usable, named_layers, usable_layers
from eyechart.locate.random_edges import random_like

VISION = VisionLayout(length=6, patches=(1, 2, 3, 4), special=(0, 5))
LANGUAGE = LanguageLayout(length=9, before=(0, 1), image=(2, 3, 5, 6), between=(4,), question=(7, 8))

BOTH = LanguageLayout(length=6, before=(0, 1), image=(2, 3), question=(4, 5), causal=False)


def pairs(name: str, layout: Layout, part: tuple[int, ...] = (), **choices) -> set[tuple[int, int]]:
    found = named_edges(name, layout, part=part, choices=Choices(**choices))
    return {(int(query), int(key)) for query, key in np.argwhere(found.edges)}


# Each name written out by hand: (layout, part, name) -> pairs of query and key.
BY_HAND = [
    (
        VISION,
        (2, 3),
        "part<-rest",
        {(2, 0), (2, 1), (2, 4), (2, 5), (3, 0), (3, 1), (3, 4), (3, 5)},
    ),
    (VISION, (2,), "rest<-part", {(0, 2), (1, 2), (3, 2), (4, 2), (5, 2)}),
    (VISION, (2, 3), "part<-part", {(2, 3), (3, 2)}),
    (VISION, (2,), "part<-cls", {(2, 0), (2, 5)}),
    (VISION, (), "patches<-cls", {(q, k) for q in (1, 2, 3, 4) for k in (0, 5)}),
    (VISION, (), "patches<-patches", {(q, k) for q in (1, 2, 3, 4) for k in range(6) if k != q}),
    (LANGUAGE, (), "patches<-patches", {(q, k) for q in (3, 5, 6) for k in (2, 3, 4, 5) if k < q}),
    (LANGUAGE, (3, 6), "part<-rest", {(3, 2), (6, 2), (6, 4), (6, 5)}),
    (LANGUAGE, (3, 6), "part<-earlier image", {(3, 2), (6, 2), (6, 4), (6, 5)}),
    (LANGUAGE, (3, 6), "part<-earlier part", {(6, 3)}),
    (LANGUAGE, (3, 6), "part<-part", {(6, 3)}),
    (LANGUAGE, (3, 6), "rest<-part", {(4, 3), (5, 3)}),
    (BOTH, (2,), "part<-question", {(2, 4), (2, 5)}),
    (LANGUAGE, (3, 6), "part<-text before", {(3, 1), (6, 1)}),
    (LANGUAGE, (), "question<-image", {(q, k) for q in (7, 8) for k in (2, 3, 4, 5, 6)}),
    (LANGUAGE, (3,), "question<-part", {(7, 3), (8, 3)}),
    (LANGUAGE, (), "last<-image", {(8, 2), (8, 3), (8, 4), (8, 5), (8, 6)}),
    (LANGUAGE, (3, 6), "last<-part", {(8, 3), (8, 6)}),
]


@pytest.mark.parametrize(("layout", "part", "name", "expected"), BY_HAND)
def test_a_name_is_the_pairs_written_out(layout, part, name, expected) -> None:
    assert pairs(name, layout, part) == expected


def test_every_name_is_written_out_above_and_says_what_it_is() -> None:
    assert {name for *_, name, _ in BY_HAND} == set(NAMES)
    assert all(row.says.endswith(".") for row in NAMES.values())


def test_choices_bring_in_what_is_spared() -> None:
    assert pairs("part<-rest", VISION, (2, 3), special_is_rest=False) == {(2, 1), (2, 4), (3, 1), (3, 4)}
    assert pairs("rest<-part", VISION, (2,), special_is_rest=False) == {(1, 2), (3, 2), (4, 2)}
    assert pairs("part<-earlier image", LANGUAGE, (6,), special_is_rest=False) == {(6, 2), (6, 3), (6, 5)}
    assert pairs("last<-image", LANGUAGE, special_is_rest=False) == {(8, k) for k in (2, 3, 5, 6)}
    assert pairs("part<-part", VISION, (2, 3), self_edges=True) == {(2, 2), (2, 3), (3, 2), (3, 3)}
    assert pairs("part<-text before", LANGUAGE, (3,), sink=True) == {(3, 0), (3, 1)}
    spared = named_edges("part<-text before", LANGUAGE, part=(3,))
    assert spared.note == "edges to the first position (text) stay"
    assert named_edges("part<-part", VISION, part=(2, 3)).note == "edges of tokens to themselves stay"
    assert named_edges("part<-rest", VISION, part=(2, 3)).note == ""


def test_a_tower_that_looks_both_ways_has_later_edges_but_earlier_stays_earlier() -> None:
    both = LanguageLayout(length=5, before=(0,), image=(1, 2, 3), question=(4,), causal=False)
    assert pairs("part<-rest", both, (2,)) == {(2, 1), (2, 3)}
    assert pairs("part<-earlier image", both, (2,)) == {(2, 1)}


def test_tiles_have_no_edges_to_each_other() -> None:
    tiled = VisionLayout(length=6, patches=(1, 2, 4, 5), special=(0, 3), rows=2)
    assert pairs("part<-rest", tiled, (1, 4)) == {(1, 0), (1, 2), (4, 3), (4, 5)}


def test_a_union_is_both_sets() -> None:
    both = pairs("part<-rest+rest<-part", VISION, (2,))
    assert both == pairs("part<-rest", VISION, (2,)) | pairs("rest<-part", VISION, (2,))


def test_an_image_that_comes_first_has_its_first_token_for_a_sink_and_says_so() -> None:
    first = LanguageLayout(length=4, image=(0, 1, 2), question=(3,))
    found = named_edges("part<-earlier image", first, part=(2,))
    assert np.argwhere(found.edges).tolist() == [[2, 1]]
    assert found.note == "edges to the first position (image) stay"


def test_empty_sets_say_why() -> None:
    with pytest.raises(NoEdges, match="1 queries and 0 keys in part<-cls"):
        named_edges("part<-cls", VisionLayout(length=2, patches=(0, 1)), part=(0,))
    with pytest.raises(NoEdges, match="none to later positions"):
        named_edges("part<-rest", LANGUAGE, part=(2,))
    with pytest.raises(NoEdges, match="none to later positions"):
        named_edges("part<-question", LANGUAGE, part=(2,))
    with pytest.raises(NoEdges, match="stay unless asked for"):
        named_edges("part<-part", VISION, part=(2,))
    with pytest.raises(NoEdges, match="no token in the vision tower"):
        named_edges("part<-rest", VISION)


def test_wrong_names_parts_and_towers_are_refused() -> None:
    with pytest.raises(UserError, match=r"no set of edges named 'part<-res'. Did you mean 'part<-rest'"):
        named_edges("part<-res", VISION, part=(2,))
    with pytest.raises(UserError, match="is of the language tower, and the layout given is of the vision"):
        named_edges("last<-image", VISION)
    with pytest.raises(UserError, match=r"places \[0\] hold none of the image"):
        named_edges("part<-rest", VISION, part=(0, 2))


def test_a_query_left_without_a_key_is_refused() -> None:
    with pytest.raises(UserError, match="leaves 2 queries without any key, the first at 2"):
        named_edges("part<-rest+part<-part", VISION, part=(2, 3), choices=Choices(self_edges=True))
    # a token that never had a key is no victim
    existing = np.zeros((2, 2), dtype=bool)
    existing[1, 1] = existing[1, 0] = True
    edges = np.zeros_like(existing)
    edges[1, 0] = True
    refuse_blind(edges, existing, "x")


def test_a_set_becomes_a_knockout() -> None:
    found = named_edges("part<-rest", VISION, part=(2,))
    cut = found.cut(range(2), heads=[1])
    assert (cut.name, cut.tower, cut.layers, cut.heads) == ("part<-rest", "vision", (0, 1), (1,))
    assert np.array_equal(cut.edges.numpy(), found.edges)
    with pytest.raises(NoEdges, match="names no layer"):
        found.cut(())


# ------------------------------------------------------------------------------ random controls


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, object]:
    """What a layout and a part are made of, in plain values: records are made in the test."""
    patches = draw(st.integers(3, 12))
    special = draw(st.integers(0, 3))
    return {
        "patches": patches,
        "special": special,
        "rows": draw(st.sampled_from([1, 2])) if (patches + special) % 2 == 0 else 1,
        "places": draw(st.permutations(range(patches + special))),
        "part": draw(st.permutations(range(patches)))[: draw(st.integers(1, patches - 1))],
        "text": (draw(st.integers(0, 4)), draw(st.integers(0, 4))),
        "ways": (draw(st.booleans()), draw(st.booleans())),
    }


def made(shape, tower) -> tuple[Layout, tuple[int, ...]]:
    patches = shape["patches"]
    if tower == "vision":
        places = tuple(shape["places"])
        vision = VisionLayout(
            length=len(places), patches=places[:patches], special=places[patches:], rows=shape["rows"]
        )
        return vision, tuple(vision.patches[k] for k in shape["part"])
    before, after = shape["text"]
    language = LanguageLayout(
        length=before + patches + after,
        before=tuple(range(before)),
        image=tuple(range(before, before + patches)),
        question=tuple(range(before + patches, before + patches + after)),
        causal=shape["ways"][0],
        image_both_ways=shape["ways"][1],
    )
    return language, tuple(language.image[k] for k in shape["part"])


@given(
    shapes(),
    st.sampled_from([(name, tower) for name in sorted(NAMES) for tower in NAMES[name].towers]),
    st.sampled_from(["total", "same queries", "other queries"]),
    st.integers(0, 3),
)
def test_what_is_cut_exists_and_a_control_is_as_large_and_apart(shape, named, match, seed) -> None:
    name, tower = named
    layout, part = made(shape, tower)
    choices = Choices(match=match, seed=seed)
    try:
        found = named_edges(name, layout, part=part, choices=choices)
    except NoEdges:
        return
    existing = layout.existing()
    assert found.edges.any()
    assert not (found.edges & ~existing).any()
    assert not found.edges.diagonal().any()
    assert (existing & ~found.edges)[existing.any(axis=1)].any(axis=1).all()
    if isinstance(layout, LanguageLayout):
        assert not found.edges[:, 0].any()
    try:
        control = named_edges(f"random:{name}", layout, part=part, choices=choices)
    except UserError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert "a random control of" in refused
        return
    assert control.count == found.count
    assert not (control.edges & found.edges).any()
    assert not (control.edges & ~existing).any()
    assert not control.edges.diagonal().any()
    counts, others = found.edges.sum(axis=1), control.edges.sum(axis=1)
    if match == "same queries":
        assert np.array_equal(counts, others)
    if match == "other queries":
        assert sorted(counts) == sorted(others)
        assert not (counts.astype(bool) & others.astype(bool)).any()
    if isinstance(layout, LanguageLayout):
        assert not control.edges[:, 0].any()


def test_a_control_is_drawn_wherever_there_is_one() -> None:
    """Against brute force: some assignment of other queries exists exactly when the control finds one."""
    for part in itertools.combinations(LANGUAGE.image, 2):
        if part == (5, 6):  # nothing of the image comes after
            continue
        found = named_edges("rest<-part", LANGUAGE, part=part).edges
        counts = found.sum(axis=1)
        free = (LANGUAGE.existing() & ~found & ~np.eye(9, dtype=bool))[:, 1:].sum(axis=1) * (counts == 0)
        wanted = counts[counts > 0]
        possible = any(
            all(free[q] >= c for q, c in zip(choice, wanted, strict=True))
            for choice in itertools.permutations(range(9), len(wanted))
        )
        try:
            named_edges("random:rest<-part", LANGUAGE, part=part, choices=Choices(match="other queries"))
            drawn = True
        except UserError:
            drawn = False
        assert drawn == possible, part


def test_the_largest_count_is_placed_first() -> None:
    """One query could lose one edge or three, the other one only: whichever is drawn, both counts find a place."""
    edges = np.zeros((4, 4), dtype=bool)
    edges[0, 1] = edges[1, 0] = edges[1, 2] = edges[1, 3] = True
    pool = np.zeros((4, 4), dtype=bool)
    pool[2, 0] = pool[3, 0] = pool[3, 1] = pool[3, 2] = True
    for seed in range(20):
        found = random_like(edges, pool, match="other queries", seed=seed)
        assert found.sum(axis=1).tolist() == [0, 0, 1, 3]


def test_seeds_differ_and_repeat() -> None:
    big = VisionLayout(length=30, patches=tuple(range(30)))
    one, again, other = (
        named_edges("random:part<-rest", big, part=(3, 4), choices=Choices(seed=seed)).edges
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_control_is_uniform_over_the_pool() -> None:
    drawn = np.zeros((6, 6))
    for seed in range(400):
        drawn += named_edges("random:part<-part", VISION, part=(2, 3), choices=Choices(seed=seed)).edges
    pool = ~np.eye(6, dtype=bool)
    pool[2, 3] = pool[3, 2] = False
    assert (drawn[~pool] == 0).all()
    expected = 400 * 2 / pool.sum()
    assert np.abs(drawn[pool] - expected).max() < 5 * expected**0.5


def test_controls_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UserError, match="at query 2, which has 1 left; match it by 'other queries'"):
        pairs("random:part<-rest", VISION, (2, 3), match="same queries")
    with pytest.raises(UserError, match="needs 4 other queries with up to 2 keys"):
        pairs("random:patches<-cls", VISION, match="other queries")
    with pytest.raises(UserError, match="needs 18 other edges, and there are 12"):
        pairs("random:part<-rest+rest<-part+part<-part", VISION, (1, 2))


# ------------------------------------------------------------------------------ layers


USABLE = Usable(layers=(0, 1, 2, 3, 4, 5), excluded=(6,), note="block 6 is dead")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", [(0, 1, 2, 3, 4, 5)]),
        ("last:2", [(4, 5)]),
        ("first:3", [(0, 1, 2)]),
        ("2-4", [(2, 3, 4)]),
        ("3", [(3,)]),
        ("0,2-3", [(0, 2, 3)]),
        ("each", [(0,), (1,), (2,), (3,), (4,), (5,)]),
        ("window:3", [(0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5)]),
        ("window:2", [(0,), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        ("window:1", [(0,), (1,), (2,), (3,), (4,), (5,)]),
        ("4-6", [(4, 5)]),
    ],
)
def test_layers_by_name(spec, expected) -> None:
    assert [one.layers for one in named_layers(spec, USABLE).sets] == expected


def test_windows_are_those_of_the_notebook_they_come_from() -> None:
    """Geva et al.: max(0, l - k // 2) to min(n, l + -(k // -2)) for odd windows, which is centred on l."""
    many = tuple(range(48))
    found = [one.layers for one in named_layers("window:9", Usable(layers=many)).sets]
    assert found == [tuple(range(max(0, layer - 4), min(48, layer + 5))) for layer in many]


def test_dead_layers_are_left_out_and_said() -> None:
    found = usable_layers(range(24), fed=23)
    assert (found.layers, found.excluded) == (tuple(range(23)), (23,))
    assert found.note == "blocks 23 left out: the projector reads layer 23, what block 22 gives"
    assert named_layers("last:2", found).sets[0].layers == (21, 22)
    assert named_layers("20-23", found).note == found.note
    assert named_layers("20-22", found).note == ""
    assert usable_layers((0, 2, 4), fed=(1, 3)).layers == (0, 2)
    assert usable_layers(range(4), fed=4).note == ""
    assert "not known" in usable_layers(range(4), fed=None).note
    with pytest.raises(Incapable, match="reads layer 0"):
        usable_layers(range(4), fed=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("6", "6 cannot be used; there are 0-5 .block 6 is dead"),
        ("9", "9 cannot be used"),
        ("4-9", "cannot be used"),
        ("last:0", "a number from 1 to 6"),
        ("last:7", "a number from 1 to 6"),
        ("middle:2", "no way to name layers named 'middle'"),
        ("4-2", "goes down; write 2-4"),
        ("some", "cannot be read at 'some'"),
    ],
)
def test_layers_that_are_not_there_are_refused(spec, message) -> None:
    with pytest.raises(UserError, match=message):
        named_layers(spec, USABLE)
