"""Processes that decode end with the one that started them, however it ended."""

import subprocess
import sys
import textwrap

import pytest

from broken_images import encoded, scene
from eyechart.core.lock import FolderLock

SCRIPT = textwrap.dedent(
    """
    import sys
    import time
    from pathlib import Path

    from eyechart.core.lock import FolderLock
    from eyechart.find.decode import decoded
    from eyechart.find.sources import list_pictures

    held = FolderLock(Path(sys.argv[2]))
    stream = decoded(list_pictures(sys.argv[1]).pictures, known=(), workers=2)
    for _ in range(int(sys.argv[3])):
        next(stream)
    print("ready", flush=True)
    time.sleep(600)
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("taken", [1, 40])  # with pictures waiting to be taken, and with none left
def test_workers_end_at_once_when_their_parent_is_killed_and_hold_no_lock(tmp_path, taken):
    """Till its last process ends, a pipe has no end and a lock is not free. By itself torch looks every five seconds."""
    (tmp_path / "photos").mkdir()
    for place in range(41):
        (tmp_path / "photos" / f"{place:02d}.png").write_bytes(encoded(scene(seed=place), "PNG"))
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "photos"), str(tmp_path / "locked"), str(taken)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"ready\n"
        running.kill()
        running.communicate(timeout=2.5)
    FolderLock(tmp_path / "locked").release()
