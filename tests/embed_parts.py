"""What tests of the embedding pass share: pictures in portions of six, an encoder that counts, and one start of the pass."""

import numpy as np
import torch

from broken_images import encoded, scene
from eyechart.core.runs import RunFolder
from eyechart.find import embed
from eyechart.find.embed import View, embed_pictures
from eyechart.find.sources import list_pictures


def mean_colour(image):
    return np.asarray(image, np.float32).mean(axis=(0, 1))


class Counted:
    """A view that counts what it is asked, and may fail."""

    def __init__(self, key="colour", room=1000, stop_after=10**9):
        self.key, self.name, self.room, self.stop_after = key, key, room, stop_after
        self.seen, self.sizes, self.batches = 0, [], []

    def __call__(self, images, size):
        if size > self.room:
            raise torch.OutOfMemoryError("no room")
        self.seen += len(images)
        self.sizes.append(size)
        if self.seen > self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(b"".join(image.tobytes() for image in images))
        return np.stack([mean_colour(image) for image in images])

    @property
    def view(self):
        return View(name=self.name, key=self.key, embed=self)


def six_a_portion(folder, monkeypatch):
    """Twenty pictures, one of them twice, and three damaged ones, in portions of six."""
    monkeypatch.setattr(embed, "PORTION", 6)
    folder.mkdir()
    for place in range(20):
        (folder / f"{place:02d}.png").write_bytes(encoded(scene(seed=place), "PNG"))
    (folder / "20.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "21.jpg").write_bytes(b"")
    (folder / "22.jpg").write_bytes(b"no picture at all")
    (folder / "23.png").write_bytes((folder / "04.png").read_bytes()[:200])
    return list_pictures(str(folder)).pictures


def run_pass(pictures, views, folder, *, out="run", batch_size=4, workers=0):
    """One start of the pass; what it gives, and what it told of its progress."""
    told = []
    with RunFolder.open(folder / out, config={}, command=[]) as run:
        seen = embed_pictures(
            pictures,
            views,
            cache=folder / "cache",
            run=run,
            batch_size=batch_size,
            workers=workers,
            progress=lambda stage, done, total: told.append((done, total)),
        )
    return seen, told
