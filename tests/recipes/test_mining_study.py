"""Truth that was planted in vectors is found by the study of mining, and where none was, none is reported."""

from dataclasses import fields, replace

import numpy as np
import pytest

from eyechart.core.files import read_table
from eyechart.core.stats import wilson
from eyechart.find.config import MineConfig
from eyechart.find.join import mine_pairs
from eyechart.find.keep import Columns
from eyechart.find.listing import Picture
from eyechart.find.select import AHEAD, select
from eyechart.models import load_encoder
from eyechart.recipes.mine import mine, view_of
from eyechart.recipes.mining_layout import ASPECTS, laid_out_otherwise, what_of_layout_moves
from eyechart.recipes.mining_lists import (
    LIMITS,
    Wishes,
    by_chance,
    found_more,
    joined,
    listed_at,
    most_alike,
    score,
    without,
)
from eyechart.recipes.mining_pictures import Collection, Told, collection, said, silent
from eyechart.recipes.mining_scores import (
    AllPairs,
    ordered_as_told,
    partner_ranks,
    standing_out,
    what_moves,
)
from eyechart.recipes.mining_study import chosen
from eyechart.world.captions import BIASED, PERMUTED, TOLD_ALL
from eyechart.world.facts import PATTERNS
from eyechart.world.layout import lay_out
from eyechart.world.sets_pairs import items_of
from eyechart.world.sets_plan import PairPlan, draw_pairs

SILENT = silent(BIASED)
PAIRS = 6
WISHES = Wishes(min_semantic="p90", max_reference="p60", centred=False)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def planted(*, near=(), relation="siblings", first=None, seed=0, width=48, apart=0.1):
    """A collection of drawn vectors in which the pairs of some patterns are near under `blind`; `sharp` sees nothing alike.

    Args:
        near: the patterns whose pairs are near.
        first: another collection, whose first pictures these have, too.
        apart: how far the two of a near pair are.
    """
    rng = np.random.default_rng(seed)
    drawn = draw_pairs(PairPlan(pairs=PAIRS, relation=relation))
    named = [
        (f"{item}.png", pair, facts)
        for pair in drawn
        for item, facts in zip(items_of(pair), pair.facts, strict=True)
    ]
    blind, sharp = (rng.normal(size=(len(named), width)) for _ in range(2))
    if first is not None:
        blind[::2] = first.vectors["blind", False][::2]
    for place, pair in enumerate(drawn):
        if pair.pattern in near:
            blind[2 * place + 1] = blind[2 * place] + apart * blind[2 * place + 1]
    vectors = {"blind": unit(blind), "sharp": unit(sharp)}
    return Collection(
        split="test",
        relation=relation,
        pictures=tuple(
            Picture(id=name, kind="file", file=name, pair=pair.id, pattern=pair.pattern)
            for name, pair, _ in named
        ),
        hashes=tuple(f"{name} {'' if name.endswith('a.png') else relation}" for name, _, _ in named),
        facts=tuple(facts for _, _, facts in named),
        bits=rng.choice([-1.0, 1.0], size=(len(named), 64)).astype(np.float32),
        vectors={(name, centred): rows for name, rows in vectors.items() for centred in (False, True)},
    )


@pytest.fixture(scope="module")
def known():
    return planted(near=SILENT)


@pytest.fixture(scope="module")
def told(known):
    return Told.by(known.facts, BIASED)


def rows_of(pairs):
    return list(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))


def true_pairs(known):
    return [(row, row + 1) for row in range(0, len(known.pictures), 2) if known.patterns[row] in SILENT]


def test_what_captions_are_silent_about():
    assert set(PATTERNS) - set(SILENT) == {"quantity", "color"}
    assert set(PATTERNS) - set(silent(PERMUTED)) == {"position", "orientation"}
    assert silent(TOLD_ALL) == ()


@pytest.mark.parametrize("rates", [BIASED, PERMUTED], ids=["biased", "permuted"])
def test_made_pairs_differ_in_silent_facts_alone_where_their_pattern_is_silent(rates):
    pairs = draw_pairs(PairPlan(pairs=12))
    facts = [facts for pair in pairs for facts in pair.facts]
    first = np.arange(0, len(facts), 2)
    found = Told.by(facts, rates).silent_only(first, first + 1)
    assert found.tolist() == [pair.pattern in silent(rates) for pair in pairs]
    assert all(said(pair.facts[0], [pair.pattern]) != said(pair.facts[1], [pair.pattern]) for pair in pairs)


def test_pairs_that_differ_in_silent_facts_are_counted(known, told):
    first, second = np.triu_indices(len(known.pictures), k=1)
    assert told.count() == told.silent_only(first, second).sum() >= len(true_pairs(known))


def test_planted_pairs_are_all_that_is_listed_first(known, told):
    both = joined(known, "blind", "sharp", lowest="p50", centred=False)
    tight = Wishes(min_semantic="p99.282", max_reference="p100", centred=False)
    listed = listed_at(both, tight).pairs
    found = score(known, listed, told, SILENT)
    assert sorted(rows_of(listed)) == true_pairs(known)
    assert (found.recall, found.precision) == (wilson(42, 42), wilson(42, 42))
    assert found.silent_only == wilson(42, 42)
    assert found.f1 == 1
    assert {pattern: rate.hits for pattern, rate in found.patterns.items()} == {
        pattern: PAIRS if pattern in SILENT else 0 for pattern in PATTERNS
    }


def test_what_lists_are_read_beside(known, told):
    both = joined(known, "blind", "sharp", lowest="p50", centred=False)
    assert sorted(rows_of(most_alike(both, 42))) == true_pairs(known)
    other = joined(known, "sharp", "blind", lowest="p50", centred=False)
    assert score(known, most_alike(other, 42), told, SILENT).recall.hits <= 2
    listed = listed_at(both, WISHES).pairs
    assert len(without(listed, listed)) == 0
    assert rows_of(without(listed, listed.at(np.arange(3)))) == rows_of(listed)[3:]
    more = found_more(known, listed.at(np.arange(3)), listed, SILENT)
    hits = [score(known, each, told, SILENT).recall.hits for each in (listed.at(np.arange(3)), listed)]
    assert (more.n, more.fixes, more.regressions) == (42, hits[1] - hits[0], 0)
    chance = by_chance(known, told, SILENT)
    assert chance["precision"] == 42 / (108 * 107 / 2)
    assert chance["silent_only"] >= chance["precision"]


def test_an_empty_list_has_no_precision(known, told):
    none = Columns(
        i=np.zeros(0, np.int32), j=np.zeros(0, np.int32), semantic=np.zeros(0), reference=np.zeros(0)
    )
    found = score(known, none, told, SILENT)
    assert (found.recall.hits, found.precision, found.silent_only, found.f1) == (0, None, None, 0)


@pytest.mark.parametrize(("low", "high"), [("p90", "p60"), ("p98", "p20"), ("p95", "p100")])
def test_one_join_gives_the_lists_of_many(low, high):
    """As a join at these thresholds would, with bursts and near-duplicates among the pictures."""
    known = planted(near=PATTERNS[:4])
    alike = dict(known.vectors)
    alike["sharp", False] = alike["blind", False].copy()
    marks = known.bits.copy()
    marks[1:20:2] = marks[0:20:2]
    known = replace(known, vectors=alike, bits=marks)
    both = joined(known, "blind", "sharp", lowest="p90", centred=False)
    first, second = (
        np.percentile(getattr(both.drawn, name), float(wish[1:]))
        for name, wish in (("semantic", low), ("reference", high))
    )
    mined = mine_pairs(
        known.vectors["blind", False],
        known.vectors["sharp", False],
        min_semantic=float(first),
        max_reference=float(second),
        per_image=AHEAD * LIMITS.per_image,
        min_alike=LIMITS.min_alike,
    )
    wanted = select(
        mined.pairs,
        mined.alike,
        marks,
        min_alike=LIMITS.min_alike,
        most_bits=LIMITS.most_bits,
        per_image=LIMITS.per_image,
        per_burst=LIMITS.per_burst,
        budget=LIMITS.budget,
    )
    found = listed_at(both, Wishes(min_semantic=low, max_reference=high, centred=False))
    assert rows_of(found.pairs) == rows_of(wanted.pairs)
    assert found.set_apart == wanted.set_apart
    assert len(found.near_duplicates) == len(wanted.near_duplicates)


def test_planted_pairs_stand_out_and_others_do_not(known):
    area = standing_out(AllPairs.of(known, "blind", "sharp", centred=False), SILENT)
    assert area["semantic"]["silent"]["value"] > 0.99
    assert area["ranked gap"]["silent"]["value"] > 0.7
    assert area["semantic"]["silent"]["n"] == 42
    assert area["reference"]["silent"]["low"] < 0.5 < area["reference"]["silent"]["high"]
    assert area["semantic"]["color"]["value"] < 0.9 < area["semantic"]["text"]["value"]
    assert area["semantic below"]["left"]["n"] == 42
    assert area["semantic below"]["area"]["value"] > 0.99
    free = standing_out(AllPairs.of(planted(), "blind", "sharp", centred=False), SILENT)
    assert free["semantic"]["silent"]["low"] < 0.5 < free["semantic"]["silent"]["high"]


def test_a_planted_partner_is_the_nearest(known):
    assert partner_ranks(known, "blind", SILENT)["nearest"]["value"] == 1
    drawn = partner_ranks(known, "sharp", SILENT)
    assert drawn["nearest"]["value"] < 0.1
    assert 30 < drawn["median"] < 80


def test_what_moves_a_vector_is_told_apart():
    """Facts move nothing here; another layout is another vector altogether."""
    siblings = planted()
    twins = planted(near=PATTERNS, relation="twins", first=siblings, apart=0.02, seed=1)
    found = what_moves(siblings, twins, "blind")
    assert found["layout moves more"]["all"] == wilson(54, 54).to_dict()
    assert found["layout moves more"]["text"] == wilson(PAIRS, PAIRS).to_dict()
    assert found["fact"]["cosine"]["value"] > 0.9 > abs(found["layout"]["cosine"]["value"])
    assert found["fact"]["place"]["low"] > 0.8
    assert found["fact"]["below"]["hits"] == 0
    assert found["layout"]["below"]["low"] < 0.6 < found["layout"]["below"]["high"]
    with pytest.raises(ValueError, match="are two pictures"):
        what_moves(siblings, replace(twins, hashes=tuple(f"{each} again" for each in twins.hashes)), "blind")


def test_the_order_of_patterns():
    rates = {pattern: getattr(BIASED, pattern) for pattern in PATTERNS}
    assert ordered_as_told(
        BIASED, {pattern: -rate for pattern, rate in rates.items()}
    ).value == pytest.approx(-1)
    assert ordered_as_told(BIASED, dict.fromkeys(PATTERNS, 0.5)) is None
    assert ordered_as_told(TOLD_ALL, rates) is None


def test_the_best_thresholds_are_chosen_and_of_equals_the_first():
    rows = [
        {"wishes": {"min_semantic": low, "max_reference": "p60", "centred": False}, "f1": f1}
        for low, f1 in (("p90", 0.1), ("p95", 0.3), ("p99", 0.3))
    ]
    assert str(chosen(rows)) == "p95, p60"


@pytest.mark.parametrize("aspect", ASPECTS)
def test_one_aspect_of_a_layout_changes(aspect):
    pair = draw_pairs(PairPlan(pairs=1, patterns=("position",)))[0]
    own, other = (lay_out(pair.facts[0], nonce) for nonce in pair.nonces)
    mixed = laid_out_otherwise(pair.facts[0], pair.nonces, aspect)
    for field in fields(own):
        source = other if field.name in ASPECTS[aspect] else own
        assert getattr(mixed, field.name) == getattr(source, field.name)


def test_all_aspects_are_the_other_layout():
    pair = draw_pairs(PairPlan(pairs=1, patterns=("state",)))[0]
    mixed = laid_out_otherwise(pair.facts[0], pair.nonces, "all four")
    assert replace(mixed, nonce=pair.nonces[1]) == lay_out(pair.facts[0], pair.nonces[1])


def test_cosines_of_changed_layouts():
    pairs = draw_pairs(PairPlan(pairs=1, patterns=("state", "color")))
    views = {"clip-biased": view_of(load_encoder("zoo:clip-biased"))}
    found = what_of_layout_moves(
        pairs, views, size=96, batch_size=8, progress=lambda stage, done, total: None
    )
    assert set(found["clip-biased"]) == {"fact", *ASPECTS}
    assert all(-1 <= each["value"] < 0.9999 and each["n"] == 2 for each in found["clip-biased"].values())


@pytest.mark.slow
def test_a_list_is_that_of_a_mine(tmp_path):
    """The study's pictures, vectors, thresholds and limits are those of `eyechart mine world:`."""
    mined = mine(
        MineConfig(source="world:", pairs=2, min_semantic="p90", max_reference="p60", workers=0),
        out=tmp_path / "run",
    )
    views = {name: view_of(load_encoder(f"zoo:{name}")) for name in ("clip-biased", "two-view")}
    known = collection(
        tmp_path, PairPlan(pairs=2), views, batch_size=32, progress=lambda stage, done, total: None
    )
    listed = listed_at(joined(known, "clip-biased", "two-view", lowest="p90", centred=False), WISHES).pairs
    wanted = [(row["image_a"], row["image_b"]) for row in read_table(tmp_path / "run" / "pairs.parquet")]
    assert [(known.pictures[i].id, known.pictures[j].id) for i, j in rows_of(listed)] == wanted
    found = score(known, listed, Told.by(known.facts, BIASED), PATTERNS)
    assert found.recall.to_dict() == mined.results["truth"]["recall"]
    assert found.precision.to_dict() == mined.results["truth"]["precision"]
