"""How fast pictures of the world are rendered, and how far that is from the time Embree alone needs for their rays.

Run: python bench/world_render.py [PICTURES [ROUNDS]]. Per size: processor milliseconds for a picture, split into
placing triangles and building the tree, tracing, and everything else, beside tracing alone, the floor that no renderer
over Embree can beat. At 96 pixels also pictures per second of one and of two processes, which take turns and must
give the same bytes. Minimum, median and maximum over the rounds; 50 pictures per second on two cores is the goal.
"""

import hashlib
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from embreex.rtcore_scene import EmbreeScene

from eyechart.world import render as room
from eyechart.world.draw import draw_facts
from eyechart.world.layout import lay_out, nonces
from eyechart.world.scene import Scene

SIZES = (96, 336, 672)

spent = {"tree": 0.0, "trace": 0.0, "rays": 0.0}


class Timed(EmbreeScene):
    """An Embree scene that adds up its time; the tree is built at the first ray, so one is sent ahead."""

    def run(self, origins: np.ndarray, directions: np.ndarray, **options: object) -> object:
        start = time.process_time()
        if not self.is_committed:
            super().run(origins[:1], directions[:1])
        between = time.process_time()
        found = super().run(origins, directions, **options)
        spent["tree"] += between - start
        spent["trace"] += time.process_time() - between
        spent["rays"] += len(origins)
        return found


def scenes(count: int) -> list[Scene]:
    """Scenes of every family, the same on each call."""
    rng, stream = random.Random(0), nonces("train", 0)
    return [lay_out(draw_facts(rng), next(stream)) for _ in range(count)]


def digest(chosen: Sequence[int]) -> tuple[str, float]:
    """The bytes of some pictures at 96 pixels, hashed, and the seconds they took."""
    drawn = scenes(max(chosen) + 1)
    room.render(drawn[0])
    start = time.perf_counter()
    pictures = [room.render(drawn[index]).image.tobytes() for index in chosen]
    return "".join(hashlib.sha256(one).hexdigest() for one in pictures), time.perf_counter() - start


def split(size: int, drawn: Sequence[Scene]) -> dict[str, float]:
    """Milliseconds for a picture by what they went into."""
    room.EmbreeScene = Timed
    spent.update(tree=0.0, trace=0.0, rays=0.0)
    start = time.process_time()
    for scene in drawn:
        room.render(scene, size)
    everything = time.process_time() - start
    room.EmbreeScene = EmbreeScene
    shares = {"all": everything, "tree": spent["tree"], "trace": spent["trace"]}
    shares["rest"] = everything - spent["tree"] - spent["trace"]
    return {name: 1000 * seconds / len(drawn) for name, seconds in shares.items()} | {
        "rays": spent["rays"] / len(drawn),
        "ratio": everything / spent["trace"],
    }


def three(values: Sequence[float], digits: int = 1) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{value:8.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def per_second(count: int, rounds: int) -> None:
    """Pictures per second at 96 pixels of one process and of two, in turns."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    bytes_seen = set()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(digest, [range(2)] * 2, chunksize=1)
        for _ in range(rounds):
            for processes in speeds:
                parts = [range(start, count, processes) for start in range(processes)]
                answers = pool.map(digest, parts, chunksize=1)
                speeds[processes].append(count / max(seconds for _, seconds in answers))
                each = [[text[at : at + 64] for at in range(0, len(text), 64)] for text, _ in answers]
                order = {
                    index: one
                    for part, texts in zip(parts, each, strict=True)
                    for index, one in zip(part, texts, strict=True)
                }
                bytes_seen.add(tuple(order[index] for index in range(count)))
    if len(bytes_seen) != 1:
        raise SystemExit("one and two processes gave different pictures")
    for processes, values in speeds.items():
        print(f"{processes} process{'es' if processes > 1 else '  '}   96 px, pictures/s  {three(values)}")


def main() -> None:
    """All tables, for so many pictures a round and so many rounds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    per_second(count, rounds)
    drawn = scenes(count)
    triangles = [len(room.solids_of(scene).faces) for scene in drawn]
    print(f"triangles in a scene           {three(triangles, 0)}")
    print(f"\n{'processor ms for a picture':<31}{'min':>8} {'median':>8} {'max':>8}")
    for size in SIZES:
        few = drawn[: max(4, count * 96 // size // 2)]
        measured = [split(size, few) for _ in range(rounds)]
        for name, label in (
            ("all", "all in"),
            ("tree", "  building the tree"),
            ("trace", "  tracing: the limit"),
            ("rest", "  placing, shading, maps"),
        ):
            print(f"{size:4} px {label:<23} {three([one[name] for one in measured])}")
        print(f"{size:4} px {'all in / limit':<23} {three([one['ratio'] for one in measured], 2)}")
        print(f"{size:4} px {'rays traced':<23} {measured[0]['rays']:8.0f}")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
