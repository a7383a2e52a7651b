"""The certificate of shared parts: a patch of one cannot be told from a patch of the other, with context it can.

For each pair of parts with one mesh and one paint, patches are cut from pictures of the objects alone, facing left or
right. *Alone* is what lies on the part: all other pixels, and those at the part's edge that mix in a neighbour's
colour, are blanked. *Crop* and *picture* are the surroundings of the same patches, unblanked. Readers are trained on
train scenes, chosen on selection scenes and reported on test scenes, with both names equally often.

*Window* is a control that says why: patches of the two parts are put together two by two, and of either only those
pixels are kept that are seen in both. What stands before a part and cuts its outline then tells nothing; how the part
is lit, and which place of it is seen, still do.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, UInt8
from numpy import ndarray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn
from torch.nn import functional

from eyechart.core.stats import Rate, cluster_rate
from eyechart.recipes.world_scenes import PartPictures, part_pictures
from eyechart.world.kinds import SHARED
from eyechart.world.sets import Progress

PATCH = 12
"""Side of the zoo's patches, in pixels."""

CROP = 48
"""Side of the surroundings shown as context, in pixels, the patch in their middle."""

COVERS, ENOUGH = (0.9, 0.75, 0.6, 0.5), 200
"""Least share of a patch that lies on the part: the largest of these that leaves enough patches of either part in the
train scenes, or the last: thin parts (handle, tail, pole) never fill a patch."""

OVERLAP, TRIED = 36, 40
"""Least number of pixels of a common window, and among how many patches the like of a patch is looked for."""

MOST = 1_200
"""The most patches of a part that are kept, at random."""

ALONE_BOUND, CONTEXT_BOUND = 0.55, 0.8
"""Chance and five points, which a patch alone may not exceed; and what context must reach."""

Shown = Literal["alone", "window", "crop", "picture"]

_READERS = ("trees", "network")
_BATCH, _EPOCHS, _PATIENCE = 64, 16, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Patches of two parts, equally many of either, and what stands around them."""

    alone: Float32[ndarray, "patch channel 12 12"]
    """sRGB in 0..1, 0 where blanked; the same divided by the patch's mean brightness; and what is not blanked."""

    crop: UInt8[ndarray, "patch 48 48 3"]
    picture: UInt8[ndarray, "patch size size 3"]
    label: Int[ndarray, " patch"]
    """0 for the first part of the pair, 1 for the second."""

    scene: Int[ndarray, " patch"]
    """Its place in the set; patches of one scene, and the scenes of both kinds with one nonce, share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How often the names of two parts were told apart on test scenes."""

    first: tuple[str, str]
    second: tuple[str, str]
    shown: Shown
    reader: str
    """Which of the readers did best on selection scenes."""

    accuracy: Rate
    """Of patches, the interval from drawing scenes anew; chance is 1/2."""

    scenes: int

    @property
    def verdict(self) -> Literal["holds", "fails", "undecided"]:
        """Whether the interval lies on the right side of the bound, on the wrong one, or across it."""
        rate = self.accuracy
        if self.shown in ("alone", "window"):
            return "holds" if rate.high <= ALONE_BOUND else "fails" if rate.low > ALONE_BOUND else "undecided"
        return "holds" if rate.low >= CONTEXT_BOUND else "fails" if rate.high < CONTEXT_BOUND else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def certify(
    data: Path,
    *,
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]] = SHARED,
    scenes: tuple[int, int, int] = (300, 60, 400),
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> list[Certificate]:
    """Render the scenes of every pair, train the readers, and report what they do on test scenes.

    Args:
        data: where rendered scenes are kept; those that are there are used again.
        pairs: which shared parts.
        scenes: of each kind for train, selection and test.
        seed: of scenes and readers.
        workers: processes that render.
        progress: told how far rendering is.
    """
    found = []
    for first, second in pairs:
        splits = [
            tuple(
                part_pictures(data, *name, split, count, seed=seed, workers=workers, progress=progress)
                for name in (first, second)
            )
            for split, count in zip(("train", "selection", "test"), scenes, strict=True)
        ]
        cover = widest_cover(*splits[0])
        cut = [cut_patches(*both, cover=cover, seed=seed) for both in splits]
        windows = [same_windows(patches, seed=seed) for patches in cut]
        found += [
            certificate(first, second, shown, *(windows if shown == "window" else cut), seed=seed)
            for shown in get_args(Shown)
        ]
    return found


def certificate(
    first: tuple[str, str],
    second: tuple[str, str],
    shown: Shown,
    train: Patches,
    selection: Patches,
    test: Patches,
    *,
    seed: int = 0,
) -> Certificate:
    """Train readers on what is shown of the patches and report the better one on test scenes."""
    readers = _READERS if shown in ("alone", "window") else ("network",)
    tried = [_read(reader, shown, train, selection, test, seed) for reader in readers]
    chosen = max(range(len(tried)), key=lambda place: tried[place][0])
    right = tried[chosen][1] == test.label
    return Certificate(
        first=first,
        second=second,
        shown=shown,
        reader=readers[chosen],
        accuracy=cluster_rate(right, test.scene, seed=seed),
        scenes=len(np.unique(test.scene)),
    )


def cut_patches(
    first: PartPictures, second: PartPictures, *, cover: float = COVERS[-1], most: int = MOST, seed: int = 0
) -> Patches:
    """The patches of both parts that lie on the part far enough, the commoner part's thinned out at random.

    Raises:
        ValueError: one of the parts has no such patch.
    """
    rng = np.random.default_rng(seed)
    cut = [_cut(pictures, cover) for pictures in (first, second)]
    count = min(most, *(len(places) for places in cut))
    if not count:
        raise ValueError(f"no patch of {first.kind} or of {second.kind} lies by {cover:.0%} on the part")
    kept = [places[np.sort(rng.permutation(len(places))[:count])] for places in cut]
    views = [_views(pictures, places) for pictures, places in zip((first, second), kept, strict=True)]
    alone, crop, picture = (np.concatenate(parts) for parts in zip(*views, strict=True))
    return Patches(
        alone=alone,
        crop=crop,
        picture=picture,
        label=np.repeat([0, 1], count),
        scene=np.concatenate(kept)[:, 0],
    )


def widest_cover(first: PartPictures, second: PartPictures) -> float:
    """The largest of `COVERS` at which either part has `ENOUGH` patches, or the least of them."""
    counts = {cover: min(len(_cut(pictures, cover)) for pictures in (first, second)) for cover in COVERS}
    return next((cover for cover, count in counts.items() if count >= ENOUGH), COVERS[-1])


def same_windows(patches: Patches, *, seed: int = 0) -> Patches:
    """Patches of the two parts two by two, each blanked where its partner is.

    Each patch of the first part takes that patch of the second, of `TRIED` drawn at random among those not yet
    taken, with which most of what is seen is common; those with less than `OVERLAP` pixels in common are left out.

    Raises:
        ValueError: no two patches have so much in common.
    """
    half = len(patches.label) // 2
    couples = _couples(patches.alone[:half, 4] > 0, patches.alone[half:, 4] > 0, seed)
    if not couples:
        raise ValueError(f"no two of {half} patches of either part have {OVERLAP} pixels in common")
    first, second = np.array(couples).T
    chosen, partner = np.concatenate([first, second + half]), np.concatenate([second + half, first])
    colors = np.rint(patches.alone[chosen, :3] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    common = (patches.alone[chosen, 4] > 0) & (patches.alone[partner, 4] > 0)
    return replace(
        patches,
        alone=np.stack([blanked(color, seen) for color, seen in zip(colors, common, strict=True)]),
        crop=patches.crop[chosen],
        picture=patches.picture[chosen],
        label=patches.label[chosen],
        scene=patches.scene[chosen],
    )


def _couples(
    first: Bool[ndarray, "patch 12 12"], second: Bool[ndarray, "patch 12 12"], seed: int
) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    free, couples = np.ones(len(second), dtype=np.bool_), []
    for place in rng.permutation(len(first)):
        left = np.flatnonzero(free)
        left = rng.choice(left, min(TRIED, len(left)), replace=False)
        common = (first[place] & second[left]).sum(axis=(1, 2))
        best = int((common / np.maximum((first[place] | second[left]).sum(axis=(1, 2)), 1)).argmax())
        if common[best] >= OVERLAP:
            couples.append((int(place), int(left[best])))
            free[left[best]] = False
    return couples


def _cut(pictures: PartPictures, cover: float) -> Int[ndarray, "patch 3"]:
    """Scene, row and column (of the grid of patches) of those that lie on the part far enough."""
    count, side, _ = pictures.masks.shape
    grid = side // PATCH
    share = pictures.masks.reshape(count, grid, PATCH, grid, PATCH).mean(axis=(2, 4))
    return np.argwhere(share >= cover)


def _views(
    pictures: PartPictures, places: Int[ndarray, "patch 3"]
) -> tuple[
    Float32[ndarray, "patch channel 12 12"],
    UInt8[ndarray, "patch 48 48 3"],
    UInt8[ndarray, "patch size size 3"],
]:
    margin = (CROP - PATCH) // 2
    padded = np.pad(pictures.images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    inner = inside(pictures.masks)
    alone, crop = [], []
    for scene, row, column in places:
        top, left = row * PATCH, column * PATCH
        window = (scene, slice(top, top + PATCH), slice(left, left + PATCH))
        alone.append(blanked(pictures.images[window], inner[window]))
        crop.append(padded[scene, top : top + CROP, left : left + CROP])
    return np.stack(alone), np.stack(crop), pictures.images[places[:, 0]]


def inside(masks: Bool[ndarray, "scene row column"]) -> Bool[ndarray, "scene row column"]:
    """Pixels of a mask all of whose eight neighbours are of it: none mixes in the colour of what is beside the part."""
    _, rows, columns = masks.shape
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    shifted = [padded[:, top : top + rows, left : left + columns] for top in range(3) for left in range(3)]
    inner: Bool[ndarray, "scene row column"] = np.logical_and.reduce(shifted)
    return inner


def blanked(
    patch: UInt8[ndarray, "12 12 3"], seen: Bool[ndarray, "12 12"]
) -> Float32[ndarray, "channel 12 12"]:
    """What a reader gets of a patch alone: colours, brightness beside the mean, and which pixels are seen."""
    colors = patch.astype(np.float32) / 255 * seen[..., None]
    bright = colors.mean(axis=2)
    relative = np.where(seen, bright / max(float(bright.sum() / max(seen.sum(), 1)), 1e-3) - 1, 0)
    return np.concatenate([colors, relative[..., None], seen[..., None]], axis=2, dtype=np.float32).transpose(
        2, 0, 1
    )


def _read(
    reader: str, shown: Shown, train: Patches, selection: Patches, test: Patches, seed: int
) -> tuple[float, Int[ndarray, " patch"]]:
    """Accuracy on selection scenes, and the labels read off test scenes."""
    if reader == "trees":
        return _read_with_trees(train, selection, test, seed)
    return _read_with_network(shown, train, selection, test, seed)


def _read_with_trees(
    train: Patches, selection: Patches, test: Patches, seed: int
) -> tuple[float, Int[ndarray, " patch"]]:
    """Gradient-boosted trees on pixels and simple statistics, the size chosen on selection scenes."""
    best = (0.0, test.label)
    for leaves, rounds in ((7, 120), (31, 60)):
        trees = HistGradientBoostingClassifier(
            max_iter=rounds,
            max_leaf_nodes=leaves,
            learning_rate=0.07,
            l2_regularization=1.0,
            random_state=seed,
        ).fit(statistics(train.alone), train.label)
        score = float((trees.predict(statistics(selection.alone)) == selection.label).mean())
        if score > best[0]:
            best = (score, trees.predict(statistics(test.alone)))
    return best


def statistics(alone: Float32[ndarray, "patch channel 12 12"]) -> Float32[ndarray, "patch number"]:
    """Pixels of relative brightness, and mean, spread and slopes of colours over what is seen."""
    count = len(alone)
    seen, relative = alone[:, 4], alone[:, 3]
    area = np.maximum(seen.sum(axis=(1, 2)), 1)
    axis = np.linspace(-1, 1, PATCH, dtype=np.float32)
    mean = alone[:, :3].sum(axis=(2, 3)) / area[:, None]
    spread = np.sqrt(np.maximum((alone[:, :4] ** 2).sum(axis=(2, 3)) / area[:, None], 0))
    along = [
        (relative * ramp).sum(axis=(1, 2)) / area for ramp in (axis[:, None], axis[None], axis[:, None] ** 2)
    ]
    place = [(seen * ramp).sum(axis=(1, 2)) / area for ramp in (axis[:, None], axis[None])]
    extremes = np.stack([relative.max(axis=(1, 2)), relative.min(axis=(1, 2)), area], axis=1)
    columns = [relative.reshape(count, -1), mean, spread, np.stack(along + place, axis=1), extremes]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _read_with_network(
    shown: Shown, train: Patches, selection: Patches, test: Patches, seed: int
) -> tuple[float, Int[ndarray, " patch"]]:
    """A small convolutional network, stopped where it does best on selection scenes."""
    torch.manual_seed(seed)
    sets = [(_input(part, shown), torch.from_numpy(part.label)) for part in (train, selection, test)]
    (pixels, labels), (held, truth), (asked, _) = sets
    net = _network(pixels.shape[1], pixels.shape[2])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    best, answers, since = 0.0, np.zeros(len(asked), dtype=np.int64), 0
    for _ in range(_EPOCHS):
        net.train()
        for batch in torch.split(torch.randperm(len(pixels)), _BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(pixels[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        score = int((_answers(net, held) == truth).sum()) / len(truth)
        since += 1
        if score > best:
            best, answers, since = score, _answers(net, asked).numpy(), 0
        if since >= _PATIENCE:
            break
    return best, answers


def _input(patches: Patches, shown: Shown) -> Tensor:
    if shown in ("alone", "window"):
        return torch.from_numpy(patches.alone)
    pixels = torch.from_numpy(patches.crop if shown == "crop" else patches.picture)
    halves = pixels.permute(0, 3, 1, 2).float() / 255 - 0.5
    return functional.avg_pool2d(halves, 2 if shown == "crop" else 4)


def _network(channels: int, side: int) -> nn.Sequential:
    """Convolutions, halving until six pixels or fewer a side are left."""
    layers: list[nn.Module] = []
    width = 16
    while True:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        if side <= 6:
            break
        layers.append(nn.MaxPool2d(2))
        channels, width, side = width, min(96, width * 3 // 2), side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * side * side, 2))


@torch.no_grad()
def _answers(net: nn.Module, pixels: Tensor) -> Tensor:
    net.eval()
    return torch.cat([net(batch).argmax(dim=1) for batch in torch.split(pixels, 512)])
