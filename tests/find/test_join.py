"""The exact join against a brute force that rounds nothing: random rows, clumps, thresholds exactly on a pair, odd input."""

import math
import sys
import tracemalloc
from itertools import combinations
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.find import cells, compiled, exact, join, mine_pairs, native, sketch, tiles
from eyechart.find.exact import threshold


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles and sketches so small that a few dozen rows take many of them."""
    monkeypatch.setattr(tiles, "TILE", (8, 16))
    monkeypatch.setattr(native, "ROWS", 7)
    monkeypatch.setattr(sketch, "TRIED", 8)
    monkeypatch.setattr(sketch, "WIDTHS", (6, 12))


def unit(rows, dtype=np.float32):
    """Rows of length 1."""
    wide = np.asarray(rows, np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(dtype)


def noise(images, dim, seed):
    return np.random.default_rng(seed).normal(size=(images, dim))


def clumps(images, dim, seed, *, spread=0.2):
    """Rows in a few groups, so that many pairs are near."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, images // 6), dim))
    return unit(centres[rng.integers(0, len(centres), images)] + spread * rng.normal(size=(images, dim)))


def side(x, y, value):
    """The sign of a dot product minus a value, without any rounding."""
    terms = [float(a) * float(b) for a, b in zip(x, y, strict=True)]
    return math.fsum([*terms, -value])


def by_hand(semantic, reference, low, high):
    """All pairs that satisfy both conditions, one by one."""
    return {
        (i, j)
        for i, j in combinations(range(len(semantic)), 2)
        if side(semantic[i], semantic[j], low) > 0 and side(reference[i], reference[j], high) < 0
    }


def found(mined):
    return set(zip(mined.pairs.i.tolist(), mined.pairs.j.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(0, 70),
    dim=st.sampled_from([3, 16, 40]),
    seed=st.integers(0, 10**6),
    low=st.sampled_from([-1.1, -0.2, 0.5, 0.9, 0.95, 0.99, 1.1]),
    high=st.sampled_from([-1.1, 0.1, 0.6, 0.97, 1.1]),
    half=st.booleans(),
    threads=st.integers(1, 3),
)
def test_no_pair_is_missed_and_none_invented(images, dim, seed, low, high, half, threads):
    dtype = np.float16 if half else np.float32
    semantic = clumps(images, dim, seed).astype(dtype) if images else np.zeros((0, dim), dtype)
    reference = clumps(images, dim + 1, seed + 1).astype(dtype) if images else np.zeros((0, dim + 1), dtype)
    mined = mine_pairs(semantic, reference, min_semantic=low, max_reference=high, threads=threads)
    assert found(mined) == by_hand(semantic, reference, low, high)
    assert mined.certificate.found == mined.certificate.kept == len(mined.pairs)


needs_kernels = pytest.mark.skipif(compiled.installed() is None, reason="eyechart-kernels is not installed")


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(8, 70),
    dim=st.sampled_from([16, 40, 70]),
    seed=st.integers(0, 10**6),
    low=st.sampled_from([-0.2, 0.5, 0.9, 0.95, 0.99, 1.1]),
    high=st.sampled_from([0.1, 0.6, 0.97, 1.1]),
    threads=st.integers(1, 3),
    in_cells=st.booleans(),
)
def test_the_native_engine_finds_the_same(images, dim, seed, low, high, threads, in_cells):
    had, native.MANY = native.MANY, 0 if in_cells else 10**9
    try:
        compare_engines(images, dim, seed, low, high, threads)
    finally:
        native.MANY = had


def compare_engines(images, dim, seed, low, high, threads):
    """Both engines and all pairs one by one."""
    semantic, reference = clumps(images, dim, seed), clumps(images, dim + 1, seed + 1)
    options = {"min_semantic": low, "max_reference": high, "min_alike": 0.9, "threads": threads}
    mined = mine_pairs(semantic, reference, engine="native", **options)
    other = mine_pairs(semantic, reference, engine="portable", **options)
    assert mined.certificate.engine.startswith("native")
    assert found(mined) == by_hand(semantic, reference, low, high)
    for name in ("i", "j", "semantic", "reference"):
        for one in ("pairs", "alike"):
            assert (
                getattr(getattr(mined, one), name).tobytes() == getattr(getattr(other, one), name).tobytes()
            )
    assert mined.certificate.semantic == other.certificate.semantic


def test_every_near_pair_counts_in_one_cell():
    """Against the rule itself, for all pairs of a few hundred rows."""
    rows = noise(300, 8, 3).astype(np.float32)
    made = cells.make_cells(rows)
    assert made.count == round(cells.CENTRES * 300**0.5)
    assert (rows[made.order] == made.rows.numpy()).all()
    distances = np.linalg.norm(rows[:, None].astype(float) - rows[None], axis=2)
    nearest = np.linalg.norm(rows[:, None] - made.centres.numpy()[None], axis=2).argmin(1)
    assert (nearest[made.order] == made.homes).mean() > 0.99
    reach = float(np.quantile(distances, 0.1))
    seen = []
    coming = [
        visiting
        for start in range(0, made.count, 7)
        for visiting in cells.visitors(made, slice(start, min(start + 7, made.count)), reach / 2)
    ]
    for cell, visiting in enumerate(coming):
        home = np.arange(*made.of(cell).indices(300)[:2])
        x, y = (places.ravel() for places in np.meshgrid(visiting, home, indexing="ij"))
        counted = cells.found_here(made, x, cell, y, reach / 2)
        seen += zip(x[counted].tolist(), y[counted].tolist(), strict=True)
    pairs = {tuple(sorted((int(made.order[x]), int(made.order[y])))) for x, y in seen}
    assert len(pairs) == len(seen)  # none twice
    place = np.empty(300, int)
    place[made.order] = np.arange(300)
    near = {
        (i, j)
        for i, j in combinations(range(300), 2)
        if distances[i, j] <= reach and made.homes[place[i]] != made.homes[place[j]]
    }
    assert near
    assert near <= pairs
    assert sum(map(len, coming)) < 0.9 * 300 * made.count  # and not everyone visits everyone


@pytest.mark.parametrize("kind", ["on planes", "alike", "in one point", "around one point", "tiny"])
@pytest.mark.parametrize("centres", [0.1, 0.8, 3.0])
def test_odd_rows_count_in_one_cell_too(kind, centres, monkeypatch):
    """One cell, empty ones, those of the same centre, rows of the wrong home; portions that end anywhere."""
    monkeypatch.setattr(cells, "CENTRES", centres)
    monkeypatch.setattr(cells, "STEP", 7)
    monkeypatch.setattr(cells, "FEW", 5)
    random = np.random.default_rng(3)
    rows = {
        "on planes": np.round(random.normal(size=(60, 2)) * 2) / 2,
        "alike": random.normal(size=(15, 8))[random.integers(0, 15, 60)],
        "in one point": np.zeros((60, 3)),
        "around one point": random.normal(size=(60, 3)) * 1e-3 + [1, 0, 0],
        "tiny": random.normal(size=(60, 3)) * 1e-24,
    }[kind].astype(np.float32)
    sound = cells.make_cells(rows)
    some = torch.from_numpy(random.integers(0, sound.count, 60))
    order = torch.argsort(some, stable=True)
    strange = cells._sorted(torch.from_numpy(rows)[order], sound.centres, some[order], order.numpy(), 1)
    for made in (sound, strange):
        wide = made.rows.numpy().astype(float)
        apart = np.linalg.norm(wide[:, None] - wide[None], axis=2)
        for reach in np.quantile(apart, [0.05, 0.3]).tolist():
            counts = np.zeros((60, 60), int)
            for cell, visiting in enumerate(cells.visitors(made, slice(0, made.count), reach / 2)):
                home = np.arange(*made.of(cell).indices(60)[:2])
                x, y = (places.ravel() for places in np.meshgrid(visiting, home, indexing="ij"))
                counted = cells.found_here(made, x, cell, y, reach / 2)
                np.add.at(counts, (np.minimum(x, y)[counted], np.maximum(x, y)[counted]), 1)
            other = np.triu(made.homes[:, None] != made.homes[None])
            assert counts.max() <= 1
            assert counts[other & (apart <= reach * (1 - 1e-12))].all()


def test_many_pairs_of_two_cells_take_little_memory():
    made = cells.make_cells(noise(600, 256, 5).astype(np.float32))
    x, y = (np.repeat(np.flatnonzero(made.homes == cell)[:1], 40_000) for cell in (0, 1))
    tracemalloc.start()
    try:
        cells.found_here(made, x, 1, y, 0.5)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 40_000 * 256 * 4  # not even their rows once


@needs_kernels
def test_nearly_equal_rows_of_one_cell_are_met_a_few_at_a_time():
    rows = np.concatenate([unit(noise(1, 24, 0) + 0.01 * noise(60, 24, 1)), unit(noise(40, 24, 2))])
    engine = native.NativeCells(rows, 0.9)
    some = [one for task in engine.tasks() for one in engine.candidates(task)]
    pairs = {pair for one in some for pair in zip(one.first.tolist(), one.second.tolist(), strict=True)}
    assert len(pairs) == sum(len(one.first) for one in some) >= 60 * 59 // 2
    assert max(len(one.first) for one in some) <= native.ROWS * len(rows)


def test_the_first_product_in_a_thread_of_a_pool_takes_as_many_threads_as_torch_was_told():
    """With more of them small products took ten times as long."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    had = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with exact.pool_of(1) as pool:
            some = pool.submit(threadpoolctl.threadpool_info).result()
    finally:
        torch.set_num_threads(had)
    taken = [one["num_threads"] for one in some if "torch" in one["filepath"] and one["user_api"] == "openmp"]
    assert set(taken) <= {3}


@needs_kernels
def test_codes_lie_within_their_bound():
    numbers = noise(300, 32, 0).astype(np.float32)
    codes, step, error = native.coded(numbers)
    distances = np.linalg.norm(numbers.astype(float) - step * codes.astype(float), axis=1)
    assert 0.5 * error < distances.max() <= error
    assert np.abs(codes.astype(int)).max() == 127


def test_an_engine_that_cannot_be_had_says_why(monkeypatch):
    rows = clumps(40, 40, 0)
    monkeypatch.setattr(sketch, "WIDTHS", (32,))
    monkeypatch.setattr(compiled, "installed", lambda: None)
    with pytest.raises(UserError, match="native engine cannot be used: eyechart-kernels is not installed"):
        mine_pairs(rows, rows, engine="native")
    with pytest.raises(UserError, match="it reads float32 rows that lie one after another, not float16"):
        mine_pairs(rows.astype(np.float16), rows, engine="native")
    with pytest.raises(UserError, match="too few for codes"):
        mine_pairs(rows[:4], rows[:4], engine="native")
    assert mine_pairs(rows, rows).certificate.engine == "portable"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), which=st.integers(0, 10**6))
def test_a_threshold_exactly_on_a_pair_leaves_that_pair_out(seed, which):
    """Both conditions are strict, whatever way the dot product was summed up."""
    semantic, reference = clumps(40, 16, seed), unit(noise(40, 16, seed + 1))
    pairs = list(combinations(range(40), 2))
    i, j = pairs[which % len(pairs)]
    on = math.fsum(float(a) * float(b) for a, b in zip(semantic[i], semantic[j], strict=True))
    mined = mine_pairs(semantic, reference, min_semantic=on, max_reference=2.0)
    assert found(mined) == by_hand(semantic, reference, on, 2.0)
    below = np.nextafter(on, -2)
    assert (i, j) in found(mine_pairs(semantic, reference, min_semantic=below, max_reference=2.0)) or (
        side(semantic[i], semantic[j], below) <= 0
    )


def test_identical_rows_are_decided_by_their_own_length():
    row = unit(noise(1, 24, 3))
    same = np.repeat(row, 20, axis=0)
    squared = math.fsum(float(a) ** 2 for a in row[0])
    far = unit(noise(20, 24, 4))
    for value in (np.nextafter(squared, 0), squared, np.nextafter(squared, 2)):
        mined = mine_pairs(same, far, min_semantic=value, max_reference=2.0)
        assert len(mined.pairs) == (190 if side(row[0], row[0], value) > 0 else 0)
    assert side(row[0], row[0], np.nextafter(squared, 0)) > 0 > side(row[0], row[0], np.nextafter(squared, 2))


def test_the_cosines_and_the_order_are_those_of_the_rows():
    semantic, reference = clumps(60, 24, 5), unit(noise(60, 10, 6))
    pairs = mine_pairs(semantic, reference, min_semantic=0.9, max_reference=0.4).pairs
    assert len(pairs) > 20
    for i, j, near, far in zip(pairs.i, pairs.j, pairs.semantic, pairs.reference, strict=True):
        assert near == pytest.approx(float(semantic[i].astype(float) @ semantic[j].astype(float)), abs=1e-12)
        assert far == pytest.approx(float(reference[i].astype(float) @ reference[j].astype(float)), abs=1e-12)
    gaps = pairs.semantic - pairs.reference
    assert (np.diff(gaps) <= 0).all()


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_one_giant_clump_under_limits_counts_all_that_was_found(spread):
    semantic = clumps(5, 16, 0)[:1].repeat(120, axis=0) + spread * noise(120, 16, 1) / 10
    reference = unit(noise(120, 8, 2))
    every = mine_pairs(unit(semantic), reference, max_reference=0.9)
    limited = mine_pairs(unit(semantic), reference, max_reference=0.9, per_image=3, budget=50)
    assert limited.certificate.found == every.certificate.found > 5000
    assert len(limited.pairs) == limited.certificate.kept == 50
    assert np.bincount(np.r_[limited.pairs.i, limited.pairs.j]).max() <= 3


def test_kernels_of_an_older_version_are_not_used(monkeypatch):
    old = ModuleType("eyechart_kernels")
    old.scan = old.between = None
    monkeypatch.setitem(sys.modules, "eyechart_kernels", old)
    assert compiled.installed.__wrapped__() is None
    old.dots = None
    assert compiled.installed.__wrapped__() is old
    monkeypatch.setitem(sys.modules, "eyechart_kernels", None)
    assert compiled.installed.__wrapped__() is None


@given(st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_double_dots_are_the_same_bits_whoever_sums_them(dim, seed):
    """By the order that is laid down, by numpy and, where they are installed, by the kernels."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(6, dim)).astype(np.float32)
    first, second = rng.integers(0, 6, (2, 9))

    def by_hand(numbers):
        lanes = [0.0] * 8
        for place, number in enumerate(numbers):
            lanes[place % 8] += number
        fours = [lanes[k] + lanes[k + 4] for k in range(4)]
        return (fours[0] + fours[2]) + (fours[1] + fours[3])

    wide = rows.astype(np.float64)
    expected = [by_hand((wide[i] * wide[j]).tolist()) for i, j in zip(first, second, strict=True)]
    assert exact.double_dots(rows, first, second).tolist() == expected
    assert (
        exact.double_dots(rows[::-1], 5 - first, 5 - second).tolist() == expected
    )  # which kernels cannot read
    assert exact.lane_sums(wide[first] * wide[second]).tolist() == expected


def test_the_sketches_bound_every_cosine_from_above():
    rows = clumps(200, 48, 8)
    axes = sketch.principal_axes(rows)
    truth = torch.from_numpy(rows.astype(np.float64) @ rows.astype(np.float64).T)
    tightest = []
    for columns in (6, 12, 24):
        short = sketch.sketched(rows, axes, columns)
        bound = (short.left @ short.right.T).double()
        assert (bound >= truth - short.slack).all()
        tightest.append(float((bound - truth).mean()))
    assert tightest == sorted(tightest, reverse=True)  # the more columns, the nearer the truth


@pytest.mark.slow
def test_in_bfloat16_the_sketches_still_bound_every_cosine_and_find_the_same(monkeypatch):
    """As on a GPU, but multiplied here."""
    rows, reference = clumps(900, 400, 8), unit(noise(900, 16, 9))
    truth = torch.from_numpy(rows.astype(np.float64) @ rows.astype(np.float64).T)
    for made in (sketch.sketched(rows, sketch.principal_axes(rows), 64), sketch.whole(rows)):
        short = sketch.in_bfloat16(made)
        assert made.slack < short.slack < made.slack + 0.05
        assert not short.exact
        bound = (short.left @ short.right.T).double()
        assert (bound >= truth - short.slack).all()
        assert not (bound >= truth - made.slack).all()  # the slack is needed
    wanted = mine_pairs(rows, reference, engine="portable")
    monkeypatch.setattr(tiles, "IN_BFLOAT16", {"cpu"})
    found = mine_pairs(rows, reference, engine="portable")
    assert found.certificate.found == wanted.certificate.found > 100
    for name in ("i", "j", "semantic", "reference"):
        assert (getattr(found.pairs, name) == getattr(wanted.pairs, name)).all()


def test_a_bound_that_is_too_low_would_be_noticed(monkeypatch):
    """The check above can fail: without the column for what is left out, pairs are missed."""
    whole = sketch.coordinates

    def without_rest(part, axes, count):
        found = whole(part, axes, count)
        found[:, -1] = 0
        return found

    monkeypatch.setattr(sketch, "coordinates", without_rest)
    rows = clumps(200, 48, 8)
    made = sketch.sketched(rows, sketch.principal_axes(rows), 6)
    truth = torch.from_numpy(rows.astype(np.float64) @ rows.astype(np.float64).T)
    assert not ((made.left @ made.right.T).double() >= truth - made.slack).all()


def test_sketches_are_used_where_they_save_time():
    rows = unit(noise(300, 400, 9) * np.geomspace(1, 0.02, 400))
    assert sketch.choose(rows, 0.95).columns < 400
    assert sketch.choose(rows[:4], 0.95).exact
    assert sketch.choose(rows, -0.5).exact  # where most pairs are left, the rows themselves are multiplied


def test_many_pairs_in_a_tile_are_decided_alike(monkeypatch):
    semantic, reference = clumps(100, 16, 10, spread=0.05), unit(noise(100, 16, 11))
    dense, single = [], []
    for share, into in ((0.0, dense), (2.0, single)):
        monkeypatch.setattr(join, "DENSE", share)
        into.append(mine_pairs(semantic, reference, min_semantic=0.9))
    assert found(dense[0]) == found(single[0]) == by_hand(semantic, reference, 0.9, 0.6)
    assert dense[0].pairs.semantic.tobytes() == single[0].pairs.semantic.tobytes()


def test_what_both_encoders_take_for_the_same_is_listed_apart():
    base = unit(noise(30, 16, 12))
    semantic = np.r_[base, unit(base + 0.01 * noise(30, 16, 13))]
    reference = np.r_[base[:15], unit(noise(15, 16, 14)), base[:15], unit(noise(15, 16, 15))]
    mined = mine_pairs(semantic, reference, min_semantic=0.95, max_reference=0.6, min_alike=0.95)
    assert found(mined) == {(place, place + 30) for place in range(15, 30)} & by_hand(
        semantic, reference, 0.95, 0.6
    )
    assert set(zip(mined.alike.i.tolist(), mined.alike.j.tolist(), strict=True)) == {
        (place, place + 30) for place in range(15)
    }


def test_only_pairs_that_count_are_found():
    semantic, reference = clumps(60, 24, 5), unit(noise(60, 10, 6))
    kind = np.arange(60) % 3
    mined = mine_pairs(
        semantic, reference, min_semantic=0.9, where=lambda first, second: kind[first] == kind[second]
    )
    assert found(mined) == {(i, j) for i, j in by_hand(semantic, reference, 0.9, 0.6) if kind[i] == kind[j]}


def test_rows_are_read_from_disk_and_float64_is_refused(tmp_path):
    semantic, reference = clumps(50, 16, 1), unit(noise(50, 8, 2))
    np.save(tmp_path / "rows.npy", semantic)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert found(mine_pairs(mapped, reference, min_semantic=0.9)) == by_hand(semantic, reference, 0.9, 0.6)
    with pytest.raises(UserError, match="semantic is float64, expected float32 or float16"):
        mine_pairs(semantic.astype(np.float64), reference)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (np.nan, r"1 of 20 not finite \(photo-7\)"),
        (np.inf, r"1 of 20 not finite \(photo-7\)"),
        (0.0, r"1 of 20 all zeros \(photo-7\)"),
        (3.0, r"1 of 20 not of length 1 \(photo-7\)"),
    ],
)
def test_rows_without_a_cosine_are_refused_by_name(spoil, words):
    rows = unit(noise(20, 8, 0))
    bad = rows.copy()
    bad[7] = bad[7] * spoil if spoil in (0.0, 3.0) else spoil
    ids = [f"photo-{place}" for place in range(20)]
    with pytest.raises(UserError, match="rows of semantic have no cosine: " + words):
        mine_pairs(bad, rows, ids=ids)
    with pytest.raises(UserError, match="rows of reference have no cosine"):
        mine_pairs(rows, bad, ids=ids)


def test_limits_and_lengths_that_make_no_sense_are_refused():
    rows = unit(noise(20, 8, 0))
    with pytest.raises(UserError, match="20 semantic rows and 19 reference rows"):
        mine_pairs(rows, rows[:19])
    with pytest.raises(UserError, match="20 reference rows and 3 ids"):
        mine_pairs(rows, rows, ids=["a", "b", "c"])
    with pytest.raises(UserError, match="per_image is 0; it must be at least 1"):
        mine_pairs(rows, rows, per_image=0)
    with pytest.raises(UserError, match="budget is -1; it must be at least 1"):
        mine_pairs(rows, rows, budget=-1)


def test_progress_ends_with_all_pairs_and_torch_keeps_its_threads():
    rows, told, had = unit(noise(50, 8, 0)), [], torch.get_num_threads()
    mine_pairs(rows, rows, progress=lambda stage, done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 1
    assert torch.get_num_threads() == had


def test_an_error_in_a_worker_reaches_the_caller():
    rows = clumps(50, 8, 0)

    def broken(first, second):
        raise RuntimeError("no such class")

    with pytest.raises(RuntimeError, match="no such class"):
        mine_pairs(rows, unit(noise(50, 8, 1)), min_semantic=0.5, where=broken)


def test_float32_error_bounds_hold_for_long_rows():
    rows = unit(noise(40, 768, 0))
    test = threshold(rows, 0.5, above=True)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    assert np.abs(rows @ rows.T - exact).max() < test.error
