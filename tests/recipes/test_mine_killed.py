"""`eyechart mine` killed at random moments of every phase and started again: the same files, and nothing is embedded twice.

`EYECHART_TEST_KILLED` says of how many pictures; 5,000 take some minutes.
"""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from broken_images import encoded, scene
from eyechart.core.files import TEMPORARY, read_table
from eyechart.find.embed import PORTION

log = logging.getLogger(__name__)

PICTURES = int(os.environ.get("EYECHART_TEST_KILLED", "240"))
IN_PORTION = min(PORTION, PICTURES // 8)

KILLS = (
    ("listing", 0.3),
    *[("embedding", 0.6)] * 4,
    *[("joining", 0.5)] * 2,
    *[("writing", 0.5)] * 2,
    ("page", 0.5),
)
"""The phase of each kill, and in what share of it (or of what is left of it) the moment is drawn, so that none comes too late."""

OPTIONS = (
    "--semantic",
    "zoo:clip-biased",
    "--reference",
    "zoo:two-view",
    "--min-semantic",
    "p97",
    "--max-reference",
    "p60",
)

WATCHED = """
import os
import sys
import time

from eyechart.cli import main
from eyechart.find import embed
from eyechart.recipes import mine as recipe

notes = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
embed.PORTION = int(sys.argv[2])


def noted(words, real):
    def told(*given, **named):
        os.write(notes, f"{time.monotonic()} {words(*given)}\\n".encode())
        return real(*given, **named)

    return told


phases = {"listed": "listing", "embed_pictures": "embedding", "mine_pairs": "joining", "pair_rows": "writing"}
for name, phase in (phases | {"write_gallery": "page"}).items():
    setattr(recipe, name, noted(lambda *_, phase=phase: phase, getattr(recipe, name)))
embed.Taker._fitting = noted(lambda _, view, images: f"{view.key} {len(images)}", embed.Taker._fitting)
main(["mine", *sys.argv[3:]])
"""
"""The command itself, which notes when a phase begins and how many pictures an encoder is given."""


class Start:
    """One start of the command, in a process of its own."""

    def __init__(self, source: Path, out: Path, notes: Path) -> None:
        words = [sys.executable, "-c", WATCHED, str(notes), str(IN_PORTION), str(source)]
        self.notes = notes
        self.process = subprocess.Popen(
            [*words, *OPTIONS, "--out", str(out), "--quiet"], stdout=subprocess.PIPE
        )

    def ended(self) -> int:
        """How it ended, once all its processes have: each of them holds the pipe open."""
        self.process.communicate(timeout=3600)
        return self.process.returncode

    def killed(self, phase: str, after: float) -> bool:
        """Kill the process, not those that it started, so long after a phase has begun; whether it was still there."""
        while phase not in self.phases() and self.process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        self.process.kill()
        code = self.ended()
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def phases(self) -> dict[str, float]:
        """When each phase began."""
        found: dict[str, float] = {}
        for words in self._lines():
            if len(words) == 2:
                found.setdefault(words[1], float(words[0]))
        return found

    def embedded(self) -> Counter[str]:
        """How many pictures each encoder was given."""
        found: Counter[str] = Counter()
        for words in self._lines():
            if len(words) == 3:
                found[words[1]] += int(words[2])
        return found

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Different pictures, and of every fifty a damaged one, an exact copy of an earlier one and a compressed copy."""
    folder = tmp_path_factory.mktemp("killed") / "photos"
    folder.mkdir()
    for place in range(PICTURES):
        seed = place // 2 if place % 50 in (1, 2) else place
        content = encoded(scene(96, 96, seed=seed), "JPEG" if place % 50 == 2 else "PNG")
        (folder / f"{place:06d}.png").write_bytes(content[:300] if place % 50 == 0 else content)
    return folder


def contents(folder, *names):
    """What is in files; of a shard the header as an object, since the order of what it says is none."""
    found = {}
    for path in (path for name in names for path in sorted(folder.glob(name))):
        data = path.read_bytes()
        found[str(path.relative_to(folder))] = data
        if path.suffix == ".safetensors":
            end = 8 + int.from_bytes(data[:8], "little")
            found[str(path.relative_to(folder))] = json.loads(data[8:end]), data[end:]
    return found


def written(folder):
    """Tables and shards that are complete, and when they were."""
    return {
        path: path.stat().st_mtime_ns
        for name in ("run/images/*.parquet", "embeddings/*/*.safetensors")
        for path in folder.glob(name)
    }


def left(folder):
    """How many pictures lie in portions that are not complete."""
    done = [int(path.stem) for path in (folder / "run" / "images").glob("*.parquet")]
    return PICTURES - sum(min(IN_PORTION, PICTURES - number * IN_PORTION) for number in done)


@pytest.mark.slow
def test_killed_at_random_moments_of_every_phase_it_ends_alike(photos, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unbroken = Start(photos, whole / "run", tmp_path / "unbroken")
    assert unbroken.ended() == 0
    begun = unbroken.phases()
    ends = dict(zip(begun, [*list(begun.values())[1:], time.monotonic()], strict=True))
    drawn, complete, kills, embedded = random.Random(0), {}, 0, Counter()
    for number, (phase, share) in enumerate([*KILLS, (None, 0)]):
        before = left(killed)
        start = Start(photos, killed / "run", tmp_path / f"notes-{number}")
        if phase is None:
            assert start.ended() == 0
        else:
            length = (ends[phase] - begun[phase]) * (before / PICTURES if phase == "embedding" else 1)
            kills += start.killed(phase, drawn.uniform(0, share) * length)
        done = before - left(killed)
        given = start.embedded()
        assert all(count <= min(before, done + IN_PORTION) for count in given.values())
        assert complete.items() <= written(killed).items()  # nothing complete was written again
        complete = written(killed)
        embedded += given
        log.info(
            "%s: %d pictures left, given to encoders: %s", [*start.phases()][-1], left(killed), dict(given)
        )
    assert kills >= 8
    tables = ("run/*.parquet", "run/images/*", "run/results.json", "embeddings/*/*")
    assert contents(killed, *tables) == contents(whole, *tables)
    for name in ("pairs.parquet", "alike.parquet", "quarantine.parquet"):
        assert read_table(killed / "run" / name)
    assert not [path for path in killed.rglob(".*") if path.name.endswith((TEMPORARY, ".lock"))]
    log.info("%d kills; given to encoders: %s, unbroken %s", kills, dict(embedded), dict(unbroken.embedded()))
