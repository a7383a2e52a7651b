"""Every path against a slow, obvious scan, and what is said about wrong arguments."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eyechart_kernels as kernels

HUGE = 2**63 - 1
COLUMNS = (32, 64, 96, 128, 256)


def scan_by_hand(codes, bound, semantic, min_single, reference, max_single, start, stop):
    """So plain that it can be checked by reading. Rows are eighths, so that their dot products have no rounding."""
    found, bounded, near = set(), 0, 0
    wide = codes.astype(np.int64)
    for x in range(start, stop):
        for y in range(x + 1, len(codes)):
            if ((wide[x] - wide[y]) ** 2).sum() > bound:
                continue
            bounded += 1
            if not np.dot(semantic[x], semantic[y]) > min_single:
                continue
            near += 1
            if reference is None or np.dot(reference[x], reference[y]) < max_single:
                found.add((x, y))
    return found, bounded, near


def scanned(*arguments, isa):
    """The same from the package, after checking what holds for every answer."""
    i, j, bounded, near = kernels.scan(*arguments, isa=isa)
    assert (i.dtype, j.dtype, i.shape) == (np.int32, np.int32, j.shape)
    pairs = set(zip(i.tolist(), j.tolist(), strict=True))
    assert len(pairs) == len(i), "a pair was returned twice"
    assert type(bounded) is type(near) is int
    return pairs, bounded, near


def check(*arguments):
    expected = scan_by_hand(*arguments)
    for isa in kernels.available_isas():
        assert scanned(*arguments, isa=isa) == expected, isa
    return expected


def eighths(random, rows, dim):
    return (random.integers(-8, 9, size=(rows, dim)) / 8).astype(np.float32)


def close_codes(random, rows, columns, spread=6):
    return np.rint(random.normal(size=(rows, columns)) * spread).clip(-127, 127).astype(np.int8)


def typical_bound(codes):
    """About half of all pairs lie within it."""
    wide = codes[:60].astype(np.int64)
    return int(np.median(((wide[:, None] - wide) ** 2).sum(-1))) if len(codes) else 0


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 16, 17, 63, 64, 65, 66, 130, 200])
def test_random_rows(rows, columns):
    random = np.random.default_rng([rows, columns])
    codes = close_codes(random, rows, columns)
    pairs, bounded, near = check(
        codes, typical_bound(codes), eighths(random, rows, 21), 0.25, eighths(random, rows, 40), 0.5, 0, rows
    )
    if rows > 60:
        assert 0 < len(pairs) < near < bounded < rows * (rows - 1) // 2


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_rows(data):
    columns = data.draw(st.sampled_from(COLUMNS))
    rows = data.draw(st.integers(0, 90))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kinds = np.array([close_codes(random, rows, columns), random.integers(-128, 128, (rows, columns))])
    codes = kinds[random.integers(0, 2, rows), np.arange(rows)].astype(np.int8)
    if rows and data.draw(st.booleans()):
        codes = codes[random.integers(0, data.draw(st.integers(1, rows)), rows)]  # many rows alike
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    typical = typical_bound(codes)
    bound = data.draw(st.sampled_from([-1, 0, 1, typical - 1, typical, 2 * typical, HUGE]))
    semantic, reference = (eighths(random, rows, data.draw(st.integers(1, 70))) for _ in range(2))
    check(
        codes,
        bound,
        semantic,
        data.draw(st.sampled_from([-np.inf, -0.5, 0.0, 1.0])),
        data.draw(st.sampled_from([reference, None])),
        data.draw(st.sampled_from([np.inf, 0.5, 0.0, -1.0])),
        start,
        stop,
    )


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_parts_of_rows_in_another_order(data):
    """Codes in an order of their own; some rows, wherever they lie, against a range; and a range within itself."""
    rows, columns = data.draw(st.integers(1, 90)), data.draw(st.sampled_from(COLUMNS))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ids = random.permutation(rows).astype(np.int32)
    codes = close_codes(random, rows, columns)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    until = data.draw(st.integers(stop, rows))
    right = random.integers(0, rows, data.draw(st.integers(0, 150))).astype(np.int32)
    semantic, bound = eighths(random, rows, 20), typical_bound(codes)
    wide = codes.astype(np.int64)

    def expected(pairs):
        close = [(x, y) for x, y in pairs if ((wide[x] - wide[y]) ** 2).sum() <= bound]
        near = [(x, y) for x, y in close if semantic[ids[x]] @ semantic[ids[y]] > 0.25]
        return sorted(near), len(close), len(near)

    for isa in kernels.available_isas():
        i, j, bounded, near = kernels.between(
            codes, bound, semantic, 0.25, None, 0.0, start, stop, right, ids=ids, isa=isa
        )
        found = sorted(zip(i.tolist(), j.tolist(), strict=True)), bounded, near
        assert found == expected([(x, int(y)) for x in range(start, stop) for y in right])
        i, j, bounded, near = kernels.scan(
            codes, bound, semantic, 0.25, None, 0.0, start, stop, until=until, ids=ids, isa=isa
        )
        found = sorted(zip(i.tolist(), j.tolist(), strict=True)), bounded, near
        assert found == expected([(x, y) for x in range(start, stop) for y in range(x + 1, until)])


def test_places_that_are_not_there_are_refused():
    codes, ones = np.zeros((4, 32), np.int8), np.ones((4, 3), np.float32)
    for right, words in (
        (np.array([0, 4], np.int32), "right holds 0 to 4, expected rows from 0 to 3"),
        (np.array([-1], np.int32), "right holds -1 to -1"),
        (np.array([0], np.int64), "right is int64 of shape"),
        ([0], "right is list, expected an int32 array"),
        (np.zeros(8, np.int32)[::2], "right has strides"),
    ):
        with pytest.raises(ValueError, match=words):
            kernels.between(codes, 0, ones, 0.0, None, 0.0, 0, 4, right)
    with pytest.raises(ValueError, match="ids has 3 entries, expected 4"):
        kernels.scan(codes, 0, ones, 0.0, None, 0.0, 0, 4, ids=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="stop is 3 and until is 2"):
        kernels.scan(codes, 0, ones, 0.0, None, 0.0, 0, 3, until=2)
    with pytest.raises(ValueError, match="start is 3 and stop is 2"):
        kernels.between(codes, 0, ones, 0.0, None, 0.0, 3, 2, np.zeros(1, np.int32))


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("value", [0, 1, -127, 127, -128])
def test_identical_rows(value, columns):
    rows = 110  # more pairs than are decided at a time
    codes = np.full((rows, columns), value, np.int8)
    ones = np.ones((rows, 3), np.float32)
    pairs, bounded, near = check(codes, 0, ones, 2.5, ones, 3.5, 0, rows)
    assert len(pairs) == near == bounded == rows * (rows - 1) // 2 == 5995
    assert check(codes, -1, ones, 2.5, ones, 3.5, 0, rows) == (set(), 0, 0)


@pytest.mark.parametrize("columns", [*COLUMNS, 4096])
@pytest.mark.parametrize("lowest", [-127, -128])
def test_codes_as_far_apart_as_can_be(lowest, columns):
    codes = np.full((20, columns), 127, np.int8)
    codes[::3] = lowest
    furthest = columns * (127 - lowest) ** 2
    ones = np.ones((20, 1), np.float32)
    together = 7 * 6 // 2 + 13 * 12 // 2
    for bound, expected in ((furthest, 190), (furthest - 1, together), (HUGE, 190), (-(2**63), 0)):
        assert check(codes, bound, ones, 0.5, None, 0.0, 0, 20)[1] == expected


@pytest.mark.parametrize("columns", COLUMNS)
def test_the_bound_is_kept_to_the_last_unit_in_every_column(columns):
    codes = np.zeros((columns + 1, columns), np.int8)
    codes[np.arange(columns), np.arange(columns)] = 9  # each row in a column of its own, and one of zeros
    ones = np.ones((columns + 1, 1), np.float32)
    every = columns * (columns + 1) // 2
    for isa in kernels.available_isas():
        for bound, expected in ((80, 0), (81, columns), (161, columns), (162, every)):
            assert kernels.scan(codes, bound, ones, 0.5, None, 0.0, 0, columns + 1, isa=isa)[2] == expected


@pytest.mark.parametrize("columns", [32, 64])
def test_a_single_pair_is_found_wherever_it_stands(columns):
    random = np.random.default_rng(columns)
    codes = random.integers(-127, 128, (100, columns)).astype(np.int8)  # thousands apart
    ones = np.ones((100, 1), np.float32)
    places = [(0, y) for y in range(1, 100)] + [(x, 99) for x in range(99)]
    for x, y in places:
        planted = codes.copy()
        planted[y] = planted[x]
        for isa in kernels.available_isas():
            assert scanned(planted, 100, ones, 0.5, None, 0.0, 0, 100, isa=isa) == ({(x, y)}, 1, 1)


@pytest.mark.parametrize("columns", [32, 64, 256])
def test_clumps_among_strangers(columns):
    random = np.random.default_rng(columns)
    codes = random.integers(-127, 128, (260, columns)).astype(np.int8)
    for first, last in ((0, 9), (50, 90), (123, 125), (250, 260)):
        codes[first:last] = codes[first] // 2 + random.integers(-1, 2, (last - first, columns))
    semantic, reference = eighths(random, 260, 8), eighths(random, 260, 100)
    _, bounded, _ = check(codes, 8 * columns, semantic, 0.0, reference, 0.0, 0, 260)
    assert bounded == 36 + 780 + 1 + 45


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("listed", [False, True])
def test_first_columns_that_rule_out_nothing(columns, listed):
    """A path may look later then. Enough rows for it to notice."""
    random = np.random.default_rng([columns, listed])
    rows, stop = 1300, 70
    codes = np.zeros((rows, columns), np.int8)
    codes[:, -3:] = random.integers(-128, 128, (rows, 3))
    ones = np.ones((rows, 1), np.float32)
    wide = codes.astype(np.int64)
    apart = ((wide[:stop, None] - wide[None]) ** 2).sum(-1)
    if not listed:
        apart[np.arange(stop)[:, None] >= np.arange(rows)] = HUGE
    bound = int(np.quantile(apart[apart < HUGE], 0.02))
    expected = set(zip(*(places.tolist() for places in np.nonzero(apart <= bound)), strict=True))
    order = np.arange(rows, dtype=np.int32)
    rest = (codes, bound, ones, 0.5, None, 0.0, 0, stop)
    for isa in kernels.available_isas():
        i, j, bounded, _ = kernels.between(*rest, order, isa=isa) if listed else kernels.scan(*rest, isa=isa)
        assert (bounded, set(zip(i.tolist(), j.tolist(), strict=True))) == (len(expected), expected)


@pytest.mark.parametrize("dim", [1, 3, 7, 8, 9, 16, 100, 768])
def test_dots_are_summed_in_the_order_that_is_laid_down(dim):
    random = np.random.default_rng(dim)
    rows = random.normal(size=(9, dim)).astype(np.float32)
    i, j = (random.integers(0, 9, 40).astype(np.int32) for _ in range(2))

    def by_hand(a, b):
        lanes = [0.0] * 8
        for k in range(dim):
            lanes[k % 8] += float(a[k]) * float(b[k])
        fours = [lanes[k] + lanes[k + 4] for k in range(4)]
        twos = [fours[k] + fours[k + 2] for k in range(2)]
        return twos[0] + twos[1]

    assert kernels.dots(rows, i, j).tolist() == [by_hand(rows[x], rows[y]) for x, y in zip(i, j, strict=True)]


def test_dots_of_no_pairs_and_of_wrong_ones():
    rows, none = np.ones((4, 3), np.float32), np.zeros(0, np.int32)
    assert kernels.dots(rows, none, none).shape == (0,)
    for i, j, words in (
        (none, np.zeros(1, np.int32), "i has 0 entries and j 1"),
        (np.array([4], np.int32), np.zeros(1, np.int32), "i holds 4 to 4, expected rows from 0 to 3"),
        (np.zeros(1, np.int32), np.zeros(1), "j is float64 of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            kernels.dots(rows, i, j)
    with pytest.raises(ValueError, match="rows is float64"):
        kernels.dots(rows.astype(np.float64), none, none)


@pytest.mark.parametrize("cuts", [(0, 200), (0, 1, 2, 200), (0, 15, 16, 17, 100, 100, 199, 200), range(201)])
def test_ranges_add_up(cuts):
    random = np.random.default_rng(5)
    codes = close_codes(random, 200, 64)
    rest = (typical_bound(codes), eighths(random, 200, 33), 0.0, eighths(random, 200, 16), 0.0)
    whole, bounded, near = scan_by_hand(codes, *rest, 0, 200)
    for isa in kernels.available_isas():
        parts = [scanned(codes, *rest, a, b, isa=isa) for a, b in itertools.pairwise(cuts)]
        assert sum(len(pairs) for pairs, _, _ in parts) == len(whole)
        assert set().union(*(pairs for pairs, _, _ in parts)) == whole
        assert (sum(part[1] for part in parts), sum(part[2] for part in parts)) == (bounded, near)


@pytest.mark.parametrize("dim", [1, 7, 8, 15, 16, 31, 32, 33, 64, 79, 768, 1024])
def test_both_thresholds_are_strict_whatever_the_rows_length(dim):
    codes = np.zeros((2, 32), np.int8)
    random = np.random.default_rng(dim)
    rows = eighths(random, 2, dim)
    dot = float(np.dot(rows[0].astype(np.float64), rows[1].astype(np.float64)))
    below, above = np.nextafter(dot, -np.inf), np.nextafter(dot, np.inf)  # closer than float32 can tell
    for isa in kernels.available_isas():
        for low, high, expected in ((below, above, (1, 1)), (dot, above, (0, 0)), (below, dot, (1, 0))):
            i, _, _, near = kernels.scan(codes, 0, rows, low, rows, high, 0, 2, isa=isa)
            assert (near, len(i)) == expected


def test_dot_products_that_are_rounded_stay_within_their_error():
    random = np.random.default_rng(1)
    rows = random.normal(size=(300, 768))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    true = (rows.astype(np.float64) @ rows.astype(np.float64).T)[np.triu_indices(300, 1)]
    error = 770 * 2.0**-24
    for isa in kernels.available_isas():
        for value in (0.0, 0.05):
            near = kernels.scan(np.zeros((300, 32), np.int8), 0, rows, value, None, 0.0, 0, 300, isa=isa)[3]
            assert (true > value + error).sum() <= near <= (true > value - error).sum()


def test_rows_that_are_not_numbers_are_never_near():
    codes = np.zeros((3, 32), np.int8)
    rows = np.full((3, 40), np.nan, np.float32)
    for isa in kernels.available_isas():
        assert scanned(codes, 0, rows, -np.inf, None, 0.0, 0, 3, isa=isa) == (set(), 3, 0)


def test_rows_may_be_read_only_and_memory_mapped(tmp_path: Path):
    random = np.random.default_rng(3)
    arrays = {
        "codes": close_codes(random, 90, 64),
        "semantic": eighths(random, 90, 24),
        "reference": eighths(random, 90, 9),
    }
    bound = typical_bound(arrays["codes"])
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays}
    for array in arrays.values():
        array.flags.writeable = False
    for given_ in (arrays, mapped):
        codes, semantic, reference = given_.values()
        pairs, _, _ = check(codes, bound, semantic, 0.0, reference, 0.0, 0, 90)
        assert pairs


def test_ranges_can_be_scanned_at_the_same_time():
    random = np.random.default_rng(4)
    codes = close_codes(random, 2_000, 64)
    rest = (typical_bound(codes), eighths(random, 2_000, 16), 1.0, eighths(random, 2_000, 16), 0.0)
    for isa in kernels.available_isas():
        whole = scanned(codes, *rest, 0, 2_000, isa=isa)
        with ThreadPoolExecutor(4) as pool:
            started = [
                pool.submit(scanned, codes, *rest, start, start + 100, isa=isa)
                for start in range(0, 2_000, 100)
            ]
        parts = [one.result() for one in started]
        assert set().union(*(part[0] for part in parts)) == whole[0]
        assert (sum(part[1] for part in parts), sum(part[2] for part in parts)) == whole[1:]


def test_others_run_meanwhile():
    codes, rows = np.zeros((8_000, 32), np.int8), np.ones((8_000, 16), np.float32)
    begun, done = threading.Event(), threading.Event()

    def work():
        begun.set()
        kernels.scan(codes, 0, rows, 99.0, None, 0.0, 0, 8_000)
        done.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(60)  # so that this thread goes on only when the other one lets it
    try:
        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        assert not done.is_set()
    finally:
        sys.setswitchinterval(before)
        thread.join()


def test_the_fastest_path_is_the_default():
    assert kernels.isa() == kernels.available_isas()[0]
    assert kernels.available_isas()[-1] == "portable"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert ("avx2" in kernels.available_isas()) or " avx2 " not in flags or " fma " not in flags
    assert ("avx512" in kernels.available_isas()) or " avx512_vnni " not in flags or " avx512vl " not in flags


def good_arguments():
    return {
        "codes": np.zeros((4, 64), np.int8),
        "bound": 10,
        "semantic": np.ones((4, 8), np.float32),
        "min_single": 0.9,
        "reference": np.ones((4, 5), np.float32),
        "max_single": 0.6,
        "start": 0,
        "stop": 4,
    }


UNALIGNED = np.frombuffer(bytearray(4 * 8 * 4 + 1), np.uint8)[1:].view(np.float32).reshape(4, 8)
TABLE = "expected an aligned C-contiguous {} array of two axes"
CODES, SINGLES = TABLE.format("int8"), TABLE.format("float32")
WRONG = [
    ("codes", [[0] * 64] * 4, f"codes is of type list, {CODES}"),
    ("codes", np.zeros((4, 64), np.uint8), f"codes is uint8, {CODES}"),
    ("codes", np.zeros(64, np.int8), rf"codes has shape \(64,\), {CODES}"),
    ("codes", np.zeros((64, 4), np.int8).T, rf"codes has strides \(1, 4\) for shape \(4, 64\), {CODES}"),
    (
        "codes",
        np.zeros((4, 48), np.int8),
        "48 columns, expected a multiple of 32 up to 4096: fill up with zeros",
    ),
    ("codes", np.zeros((4, 0), np.int8), "codes has 0 columns, expected a multiple of 32 up to 4096"),
    ("codes", np.zeros((4, 4128), np.int8), "codes has 4128 columns, expected a multiple of 32 up to 4096"),
    ("semantic", None, f"semantic is of type NoneType, {SINGLES}"),
    ("semantic", np.ones((4, 8), np.float16), f"semantic is float16, {SINGLES}"),
    ("semantic", np.ones((4, 8), ">f4"), f"semantic is >f4, {SINGLES}"),
    ("semantic", np.ones((4, 2, 4), np.float32), rf"semantic has shape \(4, 2, 4\), {SINGLES}"),
    (
        "semantic",
        np.ones((4, 6), np.float32)[:, ::2],
        rf"has strides \(24, 8\) for shape \(4, 3\), {SINGLES}",
    ),
    ("semantic", UNALIGNED, f"semantic does not lie at a multiple of 4 bytes in memory, {SINGLES}"),
    ("semantic", np.ones((5, 8), np.float32), "semantic has 5 rows, expected 4, as many as codes"),
    ("reference", np.ones((4, 5)), f"reference is float64, {SINGLES}"),
    ("reference", np.ones((3, 5), np.float32), "reference has 3 rows, expected 4, as many as codes"),
    ("bound", 2**63, "bound is 9223372036854775808, expected a whole number of 64 bits"),
    ("min_single", float("nan"), "min_single is nan, expected a number"),
    ("max_single", float("nan"), "max_single is nan, expected a number"),
    ("start", -1, "start is -1, stop is 4 and until is 4, expected 0 <= start <= stop <= until <= 4 rows"),
    ("stop", 5, "start is 0, stop is 5 and until is 4, expected 0 <= start <= stop <= until <= 4 rows"),
    ("start", 5, "start is 5, stop is 4 and until is 4, expected 0 <= start <= stop <= until <= 4 rows"),
    ("isa", "avx9", "isa is 'avx9', expected one of those available here: .*portable"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_what_is_said_about_wrong_arguments(name, value, words):
    kernels.scan(**good_arguments())
    with pytest.raises(ValueError, match=words):
        kernels.scan(**{**good_arguments(), name: value})


@pytest.mark.parametrize("name", ["bound", "start", "stop"])
def test_whole_numbers_are_asked_for(name):
    with pytest.raises(TypeError, match="float"):
        kernels.scan(**{**good_arguments(), name: 2.0})


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(kernels, "_MAX_ROWS", 3)  # the real limit would take 64 GB
    with pytest.raises(ValueError, match="codes has 4 rows, expected 3 at most"):
        kernels.scan(**good_arguments())
