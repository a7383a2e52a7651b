"""The plan for very many pictures: its formulas against loops over the tiles that the code makes, its counts against a join."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from eyechart.core.runs import RunFolder
from eyechart.find import blocks, mine_pairs, ray_join
from eyechart.find.engine import pairs_between

BENCH = Path(__file__).parents[1] / "bench"
BLOCK, WIDTHS = 600, (80, 96)


def _script(name: str) -> ModuleType:
    """A module of bench/, where `find` is bench/find.py and not the folder of tests."""
    folder = sys.modules.pop("find", None)
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCH))
        sys.modules.pop("find", None)
        if folder is not None:
            sys.modules["find"] = folder


find_plan, find_rates = _script("find_plan"), _script("find_rates")


def tiles(images, block):
    """The rows of both sides of each tile."""
    parts = blocks.blocks_of(images, block)
    return [(parts[i], parts[j]) for i, j in blocks.pairs_of_blocks(len(parts))]


def rows_in(tile):
    """How many different rows a tile is of."""
    return len({row for part in tile for row in range(part.start, part.stop)})


@pytest.mark.parametrize(("images", "block"), [(1, 5), (10, 5), (23, 5), (500, 64), (64, 64)])
def test_tiles_pairs_and_rows_are_those_of_the_list_of_tiles(images, block):
    tiling, every = find_plan.Tiling(images=images, block=block), tiles(images, block)
    assert tiling.tiles == len(every)
    assert tiling.blocks == len({part.start for tile in every for part in tile})
    assert tiling.pairs == sum(pairs_between(*tile) for tile in every)
    assert tiling.shipped == sum(map(rows_in, every))


@pytest.mark.parametrize("images", [1000, 19_999_999, 20_000_001, 10**9])
def test_blocks_are_as_large_as_the_engine_makes_them(images, monkeypatch, tmp_path):
    cut = []

    def stop(semantic, reference, run, block):
        cut.append(block)
        raise InterruptedError

    rows = np.broadcast_to(np.float32(0), (images, 1))
    monkeypatch.setattr(blocks, "open_rows", lambda path: rows)
    monkeypatch.setattr(ray_join, "_plan", stop)
    with (
        RunFolder.open(tmp_path / "run", config={}, command=[]) as run,
        pytest.raises(InterruptedError),
    ):
        ray_join.mine_pairs_on_ray(tmp_path, tmp_path, run)
    assert cut == [find_plan.Tiling.of(images).block]


@pytest.mark.parametrize("left", [1e-9, 1e-5, 1e-2])
def test_seconds_and_rows_are_sums_over_the_tiles(left):
    images, block = 24_000, 3_000
    speed = find_plan.Speed(
        compare=3e-10, look=2e-6, settle=9e-6, left=left, near=0.25, found=0.125, share=1e-5
    )
    share = left + 0.25 * images / (images * (images - 1) / 2)
    seconds, fetched, held = images * 0.125 * 9e-6, 0.0, 0.0
    for tile in tiles(images, block):
        pairs, rows = pairs_between(*tile), rows_in(tile)
        seconds += pairs * 3e-10 + pairs * share * 2e-6
        fetched += min(2 * pairs * share, rows)
        held += min(pairs * 1e-5, find_plan.PER_IMAGE * rows)
    tiling = find_plan.Tiling(images=images, block=block)
    assert tiling.seconds(speed) == pytest.approx(seconds, rel=1e-9)
    assert tiling.wall(speed, 6) == pytest.approx(seconds / 6 + seconds / 36, rel=1e-9)
    assert tiling.fetched(speed) == pytest.approx(fetched, rel=1e-3)
    assert tiling.read(speed, same_share=True) == pytest.approx(held, rel=1e-3)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with made rows, and what was measured on them."""
    folder = tmp_path_factory.mktemp("made")
    return folder, find_rates.joined(folder, "flat", BLOCK)


def test_what_is_counted_is_what_a_join_counts(measured):
    folder, joined = measured
    rows = [np.load(folder / f"{name}.npy")[:BLOCK] for name in ("semantic", "reference")]
    wanted = mine_pairs(*rows).certificate.found
    assert wanted > 10
    for within, across in joined.tiles.values():
        assert within.compared == BLOCK * (BLOCK - 1) // 2
        assert (across.compared, within.found) == (BLOCK**2, wanted)
        assert within.left > within.found
    (speed,) = find_plan.speeds({"flat": joined})["portable"].values()
    here = find_plan.Tiling(images=BLOCK, block=BLOCK)
    within, _ = joined.tiles["portable"]
    assert here.left(speed) == pytest.approx(within.left)
    for same_share in (False, True):
        assert here.found(speed, same_share=same_share) == pytest.approx(wanted)


def test_bytes_are_those_of_the_files(measured):
    folder, joined = measured
    assert joined.sketch * BLOCK == next((folder / "run").rglob("000000.safetensors")).stat().st_size
    assert joined.sketch > blocks.COLUMNS
    kept = find_rates.kept(folder, 20, WIDTHS)
    header = 128 / 20
    assert kept.tables == pytest.approx(4 * sum(WIDTHS) + 2 * header)
    assert kept.vectors > 4 * sum(WIDTHS) + 2 * 64
    assert kept.hashes > 4 * 64 + 64
    assert kept.files == 4 / 20
    assert kept.driver > 4 * 64
    assert kept.actor > 3 * 64


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (25.7e12, "26 TB"), (1.43e15, "1.4 PB"), (2e18, "2000 PB")],
)
def test_sizes_for_people(value, text):
    assert find_plan.size(value) == text


@pytest.mark.slow
def test_the_tables_are_whole(capsys):
    find_plan.main([1000, 10**9], 1000, 500.0, BLOCK, WIDTHS, 10)
    rates, plan, about = capsys.readouterr().out.strip().split("\n\n")
    for table in (rates, plan):
        lines = table.splitlines()
        assert {line.count("|") for line in lines} == {4}
        assert "nan" not in table
        assert len({line.split("|")[1] for line in lines}) == len(lines)
    assert "| tiles | 1 | 80,200 |" in plan
    assert f"blocks of {BLOCK} rows of 80 and 96 columns" in about
