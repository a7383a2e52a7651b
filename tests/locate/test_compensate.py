"""The 2x2 of knockouts: closed forms without noise, planted truths with it, and what must stay undefined."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.locate.compensate import Arm, Readouts, compensation
from eyechart.locate.compensate_words import CAUTION, summary
from eyechart.locate.readable_scale import SCALES, readability

LAYERS = (0, 1, 2)


def planted(
    seed: int,
    *,
    images: int = 30,
    recovered: tuple[float, ...] = (0.0, 0.3, 0.8),
    both: float = 0.4,
    language: float = 1.0,
    noise: float = 0.0,
    controls: bool = False,
) -> Readouts:
    """Part instances in images: B = both I, L = language I after layer 0, V = B + recovered (I - B)."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), rng.integers(1, 4, images))
    size = (len(groups), len(LAYERS))
    intact = 3 + rng.normal(size=images)[groups][:, None] * 0.5 + 0.2 * np.arange(3)

    def noisy(cell, before=None):
        """With noise of its own, but at layer 0 that of the cell which a language cut cannot change there."""
        made = cell + noise * rng.normal(size=size)
        if before is not None:
            made[:, 0] = before[:, 0]
        return made

    low = both * intact
    vision = low + np.array(recovered) * (intact - low)
    whole, cut = noisy(intact), noisy(vision)
    share = np.array([1.0, language, language])
    main = Arm(
        name="part<-rest",
        vision_cut=cut,
        both_cut=noisy(low, cut),
        language_cut=noisy(share * intact, whole),
    )
    reverse = noisy(vision * 0.9)
    others = (
        Arm(name="random:part<-rest", vision_cut=noisy(0.95 * intact)),
        Arm(name="part<-rest+rest<-part", vision_cut=reverse, both_cut=noisy(low * 0.9, reverse)),
    )
    return Readouts(
        intact=whole,
        main=main,
        images=tuple(groups.tolist()),
        layers=LAYERS,
        controls=others if controls else (),
    )


def test_without_noise_every_share_is_the_planted_one() -> None:
    found = compensation(planted(0, language=0.9, controls=True), resamples=200)
    assert (found.images, found.at(1).retained["vision cut"].clusters) == (30, 30)
    assert found.n == found.at(1).means["both cut"].n > 30
    for layer, share in zip(LAYERS, (0.0, 0.3, 0.8), strict=True):
        here = found.at(layer)
        assert here.recovered is not None
        assert here.recovered.value == pytest.approx(share, abs=1e-12)
        assert here.retained["vision cut"].value == pytest.approx(0.4 + share * 0.6)
        assert here.retained["both cut"].value == pytest.approx(0.4)
        kept = 0.9 if layer else 1.0
        assert here.retained["language cut"].value == pytest.approx(kept)
        intact = found.intact[layer].value
        assert here.interaction is not None
        assert here.interaction.value == pytest.approx((share * 0.6 - (1 - kept)) * intact, abs=1e-12)
        assert here.effects["vision cut"].value == pytest.approx(intact * (1 - 0.4 - share * 0.6))
    reverse = found.at(2, "part<-rest+rest<-part")
    assert reverse.recovered is not None
    assert reverse.recovered.value == pytest.approx(0.9 * 0.48 / (1 - 0.36))
    random = found.at(1, "random:part<-rest")
    assert (random.recovered, random.interaction, random.reached) == (None, None, None)
    assert random.retained["vision cut"].value == pytest.approx(0.95)
    assert set(random.retained) == {"vision cut"}


def test_ratios_are_of_means_and_not_means_of_ratios() -> None:
    intact = np.array([[1.0], [9.0], [2.0], [8.0]] * 5)
    cut = np.array([[1.0], [0.9], [2.0], [0.8]] * 5)
    readouts = Readouts(
        intact=intact,
        main=Arm(name="x", vision_cut=cut, both_cut=cut * 0.5, language_cut=intact),
        images=tuple(range(20)),
        layers=(1,),
    )
    kept = compensation(readouts, resamples=200).at(1).retained["vision cut"]
    assert kept.value == pytest.approx(4.7 / 20)
    assert np.mean(cut / intact) == pytest.approx(0.55)


def test_where_nothing_was_taken_recovered_is_undefined() -> None:
    found = compensation(planted(1, both=1.0, noise=0.3), resamples=300)
    here = found.at(2)
    assert here.recovered is not None
    assert here.recovered.value is None
    assert "touches 0" in here.recovered.undefined
    assert here.retained["vision cut"].value == pytest.approx(1, abs=0.05)


def test_where_nothing_is_readable_retained_is_undefined() -> None:
    silent = planted(2, noise=0.5)
    flat = {name: cell - silent.intact for name, cell in silent.main.cells().items()}
    rng = np.random.default_rng(0)
    nothing = replace(
        silent,
        intact=rng.normal(size=silent.intact.shape),
        main=Arm(
            name="x",
            vision_cut=flat["vision cut"],
            both_cut=flat["both cut"],
            language_cut=flat["language cut"],
        ),
    )
    kept = compensation(nothing, resamples=300).at(1).retained["vision cut"]
    assert kept.value is None


def test_a_floor_is_taken_off_every_cell_and_a_ceiling_is_a_denominator() -> None:
    bare = planted(3)
    floor = np.full_like(bare.intact, 0.7)
    raised = replace(
        bare,
        intact=bare.intact + floor,
        main=Arm(name="part<-rest", **{k.replace(" ", "_"): v + floor for k, v in bare.main.cells().items()}),
        floor=floor,
        ceiling=bare.intact * 2 + floor,
    )
    plain, above = compensation(bare, resamples=200), compensation(raised, resamples=200)
    for layer in LAYERS:
        mine, theirs = plain.at(layer), above.at(layer)
        assert theirs.retained["vision cut"].value == pytest.approx(mine.retained["vision cut"].value)
        assert theirs.recovered is not None
        assert mine.recovered is not None
        assert theirs.recovered.value == pytest.approx(mine.recovered.value, abs=1e-12)
        assert theirs.reached is not None
        assert theirs.reached.value == pytest.approx((0.0, 0.3, 0.8)[layer] * 0.6 / 1.6, abs=1e-12)
    assert [one.value for one in above.floor] == pytest.approx([0.7] * 3)
    assert above.ceiling[0].value == pytest.approx(2 * plain.intact[0].value)


def test_layers_that_no_language_cut_can_change_are_checked() -> None:
    good = planted(4, controls=True)
    assert compensation(good, resamples=200).notes == ()
    wrong = replace(good.main, both_cut=good.main.both_cut - np.array([0.5, 0, 0]))
    notes = compensation(replace(good, main=wrong), resamples=200).notes
    assert notes == (
        "part<-rest: both cut and vision cut differ by up to 0.5 at layer 0, which no language cut can change but by rounding",
    )
    late = Readouts(intact=good.intact, main=good.main, images=good.images, layers=(1, 2, 3))
    assert "layer 0 was not read" in compensation(late, resamples=200).notes[0]


def test_words_claim_recovery_under_ablation_only_where_it_is_shown() -> None:
    shown = compensation(planted(5, noise=0.2, controls=True), resamples=300)
    text = summary(shown, 2)
    assert "can recover under ablation 8" in text or "can recover under ablation 7" in text
    assert "takes" in text
    assert "Control random:part<-rest: vision cut retains 9" in text
    assert text.endswith(CAUTION)
    assert "recovers" not in text
    none = summary(compensation(planted(5, recovered=(0, 0, 0), noise=0.2), resamples=300), 2)
    assert "no recovery by language attention is shown" in none
    whole = summary(compensation(planted(5, both=1.0, noise=0.2), resamples=300), 2)
    assert "is not shown to take anything before the language model" in whole
    assert "undefined" in whole
    with pytest.raises(UserError, match=r"no arm 'part<-rest' at layer 9"):
        summary(shown, 9)


def test_nothing_missing_at_layer_0_is_no_recovery_even_where_language_attention_matters() -> None:
    """The vision cut takes nothing; the language cut hurts: V is far above B, and yet nothing was made up for."""
    base = planted(6)
    both = base.intact * np.array([1.0, 0.5, 0.5])
    rng = np.random.default_rng(1)
    vision = base.intact + 0.1 * rng.normal(size=base.intact.shape)
    readouts = replace(base, main=Arm(name="x", vision_cut=vision, both_cut=both, language_cut=both))
    text = summary(compensation(readouts, resamples=300), 2)
    assert "recovery is no word for it" in text
    assert "can recover" not in text


def test_the_record_is_plain_json() -> None:
    found = compensation(planted(7, noise=0.1, controls=True), resamples=200).to_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["scale_says"] == SCALES["log_rank"]
    assert again["arms"]["part<-rest"][2]["recovered"]["n"] == again["n"]
    assert set(again["arms"]) == {"part<-rest", "random:part<-rest", "part<-rest+rest<-part"}


def test_cells_that_do_not_fit_are_refused() -> None:
    good = planted(8)
    with pytest.raises(UserError, match="2x2 needs all its cells, and language cut is missing"):
        replace(good, main=Arm(name="x", vision_cut=good.intact, both_cut=good.intact))
    with pytest.raises(UserError, match=r"intact has shape \(\d+, 3\); expected \(\d+, 2\)"):
        replace(good, layers=(0, 1))
    with pytest.raises(UserError, match="intact holds a number that is not finite"):
        replace(good, intact=good.intact * np.nan)
    with pytest.raises(UserError, match="two arms have one name"):
        replace(good, controls=(Arm(name="part<-rest", vision_cut=good.intact),))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 3.0), st.permutations(range(30)))
def test_no_unit_and_no_order_matters(seed: int, factor: float, order: list[int]) -> None:
    base = planted(seed, noise=0.2)
    rows = [row for image in order for row in np.flatnonzero(np.array(base.images) == image)]

    def turned(cell):
        return factor * cell[rows]

    cells = {name.replace(" ", "_"): turned(cell) for name, cell in base.main.cells().items()}
    other = replace(
        base,
        intact=turned(base.intact),
        main=Arm(name="part<-rest", **cells),
        images=tuple(base.images[row] for row in rows),
    )
    first, second = compensation(base, resamples=200).at(1), compensation(other, resamples=200).at(1)
    assert first.recovered is not None
    assert second.recovered is not None
    assert second.recovered.value == pytest.approx(first.recovered.value)
    assert second.retained["both cut"].value == pytest.approx(first.retained["both cut"].value)
    assert second.interaction is not None
    assert first.interaction is not None
    assert second.interaction.value == pytest.approx(factor * first.interaction.value)


@pytest.mark.slow
def test_planted_shares_are_held_by_their_intervals_as_often_as_they_say() -> None:
    held = {"retained": 0, "recovered": 0, "interaction": 0}
    for seed in range(200):
        found = compensation(planted(seed, images=50, noise=0.6), resamples=400)
        here = found.at(2)
        kept, share, more = here.retained["vision cut"], here.recovered, here.interaction
        held["retained"] += kept.low <= 0.4 + 0.8 * 0.6 <= kept.high
        held["recovered"] += share.low <= 0.8 <= share.high
        # intact has the mean 3.4 at layer 2, V - B = 0.48 I and I - L = 0
        held["interaction"] += more.low <= 0.48 * 3.4 <= more.high
    assert all(0.89 <= count / 200 <= 0.99 for count in held.values()), held


# ------------------------------------------------------------------------------ scales


def test_scales_have_their_zero_where_they_say() -> None:
    ranks = np.array([[1.0, 10.0], [100.0, 1000.0]])
    assert np.array_equal(readability(ranks, control=ranks), np.zeros((2, 2)))
    assert np.array_equal(readability(ranks, scale="reciprocal_rank", control=ranks), np.zeros((2, 2)))
    assert readability(ranks, scale="log_vocabulary", vocabulary=1000)[1, 1] == 0
    assert readability(ranks, control=np.full((2, 2), 100.0))[0, 1] == pytest.approx(np.log(10))
    assert readability(ranks, scale="reciprocal_rank", control=np.full((2, 2), 4.0))[0, 0] == 0.75
    right, control = np.array([[1.0]]), np.array([[0.25]])
    assert readability(right, scale="accuracy", control=control)[0, 0] == 0.75


def test_a_control_takes_the_size_of_a_region_out() -> None:
    """The best of n random ranks falls with n: without a control big regions look readable by size alone."""
    rng = np.random.default_rng(0)

    def best(n: int) -> np.ndarray:
        return rng.integers(1, 32_001, size=(4000, n)).min(axis=1).astype(float)[:, None]

    bare = [readability(best(n), scale="log_vocabulary", vocabulary=32_000).mean() for n in (1, 50)]
    assert bare[0] == pytest.approx(1.0, abs=0.1)  # -log of one uniform number
    assert bare[1] == pytest.approx(sum(1 / k for k in range(1, 51)), abs=0.1)  # the 50th harmonic number
    for n in (1, 50):
        assert readability(best(n), control=best(n)).mean() == pytest.approx(0, abs=0.1)


def test_scales_refuse_what_is_no_rank_or_share() -> None:
    with pytest.raises(UserError, match=r"ranks lie in 1..inf, got 0"):
        readability(np.array([[0.0]]), control=np.array([[1.0]]))
    with pytest.raises(UserError, match=r"ranks lie in 1..10, got 11"):
        readability(np.array([[11.0]]), scale="log_vocabulary", vocabulary=10)
    with pytest.raises(UserError, match=r"shares read rightly lie in 0..1, got 2"):
        readability(np.array([[2.0]]), scale="accuracy", control=np.array([[1.0]]))
    with pytest.raises(UserError, match="needs the control's readout"):
        readability(np.array([[2.0]]))
    with pytest.raises(UserError, match="needs the number of tokens ranked"):
        readability(np.array([[2.0]]), scale="log_vocabulary")
