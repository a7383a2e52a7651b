"""A plan for mining a million to a billion pictures on a Ray cluster: rates measured here (find_rates.py), the rest arithmetic.

Run: python bench/find_plan.py [--cores 1000] [--images-per-second 500]. Takes a minute or two on an idle machine and 1 GB of
disk; prints Markdown. What sketches leave of pairs of unrelated pictures is taken to grow with the number of pairs, and what
they leave beyond that, nearly equal pictures, with the number of pictures. How fast encoders are is given, not measured.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from find_rates import PER_IMAGE, Joined, Kept, Tile, joined, kept
from threadpoolctl import threadpool_limits

from eyechart.find import blocks
from eyechart.find.tiles import one_thread_each

IMAGES = (10**6, 10**7, 10**8, 10**9)
SPECTRA = ("steep", "flat")
WIDTHS = (768, 1024)
"""Columns of the two encoders of the published rule."""

PICTURES = 1024
"""Pictures that are taken in, two portions of them."""

HELD = 24
"""Bytes of a pair in memory: two int32 and two float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How an engine gets on with rows of one spectrum, on one core."""

    compare: float
    """Seconds to compare the codes of a pair."""

    look: float
    """Seconds to look at a pair that is left ..."""

    settle: float
    """... and for one that is found, beyond that."""

    left: float
    """The share of pairs of unrelated pictures that sketches leave."""

    near: float
    """Pairs left for each picture beyond that share."""

    found: float
    """Pairs found for each picture ..."""

    share: float
    """... which was this share of the pairs there were."""


def speed(within: Tile, across: Tile, look: float, block: int) -> Speed:
    """From the tile of a block with itself, and that of two blocks."""
    left, share, others = across.left / across.compared, within.found / within.compared, (block - 1) / 2
    settling = within.whole - within.codes - look * within.left
    return Speed(
        compare=across.codes / across.compared,
        look=look,
        settle=max(0.0, settling / max(1, within.found)),
        left=left,
        near=max(0.0, within.left / within.compared - left) * others,
        found=share * others,
        share=share,
    )


def speeds(measured: Mapping[str, Joined]) -> dict[str, dict[str, Speed]]:
    """By engine and spectrum; a look is timed where most pairs are left."""
    found = {}
    for engine in next(iter(measured.values())).tiles:
        most = max((one.tiles[engine][1] for one in measured.values()), key=lambda tile: tile.left)
        look = max(0.0, most.whole - most.codes) / max(1, most.left)
        found[engine] = {name: speed(*one.tiles[engine], look, one.block) for name, one in measured.items()}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """So many pictures in blocks, and every two blocks a tile."""

    images: int
    block: int

    @classmethod
    def of(cls, images: int) -> "Tiling":
        """As `ray_join.mine_pairs_on_ray` cuts them by itself."""
        return cls(images=images, block=max(blocks.BLOCK, -(-images // blocks.MOST)))

    @property
    def blocks(self) -> int:
        """How many."""
        return -(-self.images // self.block)

    @property
    def tiles(self) -> int:
        """Every two blocks, and each with itself."""
        return self.blocks * (self.blocks + 1) // 2

    @property
    def pairs(self) -> int:
        """Of pictures."""
        return self.images * (self.images - 1) // 2

    @property
    def shipped(self) -> int:
        """Rows of the blocks of all tiles together."""
        return self.images * self.blocks

    def left(self, speed: Speed) -> float:
        """Pairs that sketches leave."""
        return self.pairs * speed.left + self.images * speed.near

    def found(self, speed: Speed, *, same_share: bool) -> float:
        """Pairs found: so many for each picture as where it was measured, or the same share of all pairs."""
        return self.pairs * speed.share if same_share else self.images * speed.found

    def read(self, speed: Speed, *, same_share: bool) -> float:
        """Of these, pairs in the files of tiles, at most: each tile keeps to the limit of a picture by itself."""
        return min(self.found(speed, same_share=same_share), PER_IMAGE * self.shipped)

    def held(self, speed: Speed, *, same_share: bool) -> float:
        """Of these, pairs that the driver still holds when it has read all files, at most."""
        return min(self.found(speed, same_share=same_share), PER_IMAGE * self.images)

    def fetched(self, speed: Speed) -> float:
        """Rows of an encoder that tiles read at most: two for each pair left, and each once a tile."""
        return self.shipped * min(1.0, self.left(speed) / self.pairs * self.block)

    def seconds(self, speed: Speed) -> float:
        """Of one core, for all tiles."""
        settled = self.found(speed, same_share=False) * speed.settle
        return self.pairs * speed.compare + self.left(speed) * speed.look + settled

    def wall(self, speed: Speed, cores: int) -> float:
        """Seconds with so many cores, the last of which begins a tile when the others are done."""
        return self.seconds(speed) / min(cores, self.tiles) + self.seconds(speed) / self.tiles


def size(value: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 999.5 or unit == "PB":
            break
        value /= 1000
    return f"{value:.2g} {unit}" if value < 99.5 else f"{value:.0f} {unit}"


def number(value: float) -> str:
    """Short, in as many figures as mean something."""
    if value == 0 or 0.01 <= value < 10_000:
        return f"{value:,.2g}" if value < 99.5 else f"{value:,.0f}"
    figures, power = f"{value:.1e}".split("e")
    return f"{figures}e{int(power)}"


def lasting(seconds: float) -> str:
    """A time for people."""
    for unit, length in (("s", 1), ("min", 60)):
        if seconds / length < 99.5:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds / 3600)} h"


def row(name: str, *values: Iterable[str]) -> str:
    """A line of a table; several values of a column are set beside each other."""
    return f"| {name} | {' | '.join(map(' / '.join, zip(*values, strict=True)))} |"


def heading(name: str, columns: Sequence[str]) -> Iterator[str]:
    """The first two lines of a table."""
    yield row(name, columns)
    yield f"| --- |{' --- |' * len(columns)}"


def rate_rows(measured: Mapping[str, Joined], one: Kept) -> Iterator[str]:
    """What was measured."""
    yield from heading("measured", list(measured))
    for engine, by_spectrum in speeds(measured).items():
        sides = list(by_spectrum.values())
        yield row(f"{engine}: pairs compared in a second", (number(1 / s.compare) for s in sides))
        times = [(s.look, s.settle) for s in sides]
        yield row(f"{engine}: µs for a pair left / found", *_columns(times, 1e6))
    yield row("unrelated pairs that sketches leave, as a share", (number(s.left) for s in sides))
    yield row("nearly equal pairs of a picture: left / found", *_columns([(s.near, s.found) for s in sides]))
    yield row("pictures sketched in a second", (number(1 / j.sketching) for j in measured.values()))
    yield row(
        "bytes of a sketch / of a pair found", *_columns([(j.sketch, j.pair) for j in measured.values()])
    )
    yield row("µs to merge a pair", (number(1e6 * j.merging) for j in measured.values()))
    colds = [j.cold for j in measured.values()]
    yield row("read from the disk for a tile at first", ("?" if c is None else size(c) for c in colds))


def _columns(values: Sequence[tuple[float, ...]], times: float = 1) -> Iterator[list[str]]:
    for each in zip(*values, strict=True):
        yield [number(times * value) for value in each]


def data_rows(sizes: Sequence[Tiling], measured: Mapping[str, Joined], one: Kept) -> Iterator[str]:
    """Blocks, bytes and pairs."""
    _, fastest = speeds(measured).popitem()
    sides, sketch = list(fastest.values()), next(iter(measured.values())).sketch

    def disk(name: str, *each: float) -> str:
        return row(f"disk: {name}", *([size(t.images * value) for t in sizes] for value in each))

    yield row("blocks of rows", (f"{t.blocks} of {t.block:,}" for t in sizes))
    yield row("tiles", (f"{t.tiles:,}" for t in sizes))
    yield disk("vectors / and again as two tables", one.vectors, one.tables)
    yield disk("hashes / portions / sketches", one.hashes, one.portions, sketch)
    yield row("files", (number(t.images * one.files + t.blocks + t.tiles) for t in sizes))
    yield row("sketches shipped, at most", (size(t.shipped * blocks.COLUMNS) for t in sizes))
    yield row("both encoders' rows in float16 instead", (size(t.shipped * 2 * sum(WIDTHS)) for t in sizes))
    yield row("pairs left by sketches, steep / flat", *([number(t.left(s)) for t in sizes] for s in sides))
    rows = ([size(t.fetched(s) * 4 * WIDTHS[0]) for t in sizes] for s in sides)
    yield row("rows read for them, at most, steep / flat", *rows)
    found = ([number(t.found(sides[0], same_share=same)) for t in sizes] for same in (False, True))
    yield row("pairs found, as many of a picture / as large a share", *found)


def time_rows(
    sizes: Sequence[Tiling], measured: Mapping[str, Joined], one: Kept, cores: int, rate: float
) -> Iterator[str]:
    """Time of machines, and what the driver has to do and to hold."""
    by_engine, some = speeds(measured), next(iter(measured.values()))
    yield row(f"embedding at {rate:g} a second: time of one GPU", (lasting(t.images / rate) for t in sizes))
    yield row("decoding: time of one core", (lasting(t.images * one.taking) for t in sizes))
    yield row("sketching: time of one core", (lasting(t.images * some.sketching) for t in sizes))
    for name, sides in by_engine.items():
        each = ([lasting(t.seconds(s)) for t in sizes] for s in sides.values())
        yield row(f"join, {name}: time of one core, steep / flat", *each)
    _, sides = by_engine.popitem()
    walls = ([lasting(t.wall(s, cores)) for t in sizes] for s in sides.values())
    yield row(f"the same on {cores:,} cores, steep / flat", *walls)
    speed, both = next(iter(sides.values())), (False, True)
    yield row("driver: writing the two tables", (lasting(t.images * one.serial) for t in sizes))
    yield row("driver: memory before the join", (size(t.images * one.driver) for t in sizes))
    yield row("an actor that starts at the end: memory", (size(t.images * one.actor) for t in sizes))
    yield row("driver: memory for sketches", (size(2 * t.images * blocks.COLUMNS) for t in sizes))
    held = ([size(HELD * t.held(speed, same_share=same)) for t in sizes] for same in both)
    yield row("driver: memory for pairs, as many / as large a share", *held)
    merging = ([lasting(some.merging * t.read(speed, same_share=same)) for t in sizes] for same in both)
    yield row("driver: merging, as many / as large a share", *merging)


def main(
    images: Sequence[int], cores: int, rate: float, block: int, widths: Sequence[int], pictures: int
) -> None:
    """Measure, and print both tables."""
    with tempfile.TemporaryDirectory() as place, threadpool_limits(1), one_thread_each():
        one = kept(Path(place), pictures, widths)
        measured = {}
        for spectrum in SPECTRA:
            folder = Path(place) / spectrum
            folder.mkdir()
            measured[spectrum] = joined(folder, spectrum, block)
            shutil.rmtree(folder)
    sizes = [Tiling.of(count) for count in images]
    print(*rate_rows(measured, one), sep="\n", end="\n\n")
    print(*heading("pictures", [number(count) for count in images]), sep="\n")
    print(*data_rows(sizes, measured, one), *time_rows(sizes, measured, one, cores, rate), sep="\n")
    print(
        f"\nMeasured with blocks of {block:,} rows of {widths[0]:,} and {widths[1]:,} columns, at a load of"
        f" {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, this run's own included."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(".")[0])
    parser.add_argument("--images", type=float, nargs="+", default=IMAGES, help="how many pictures")
    parser.add_argument("--cores", type=int, default=1000, help="that join at the same time")
    parser.add_argument(
        "--images-per-second", type=float, default=500, help="that a GPU embeds under both encoders"
    )
    parser.add_argument("--block", type=int, default=blocks.BLOCK, help="rows of a block that is measured")
    given = parser.parse_args()
    main(
        [int(count) for count in given.images],
        given.cores,
        given.images_per_second,
        given.block,
        WIDTHS,
        PICTURES,
    )
