"""How a set of pictures with part masks is checked when it is opened, and read again when it is used.

A layout (`parts_ppp`, `parts_polygons`, ...) only drafts its pictures: an id, a file, and a function that reads the
masks. What holds for every layout is done here, once: each picture is opened and each mask is looked at when the set
is opened, what cannot be used is listed with its reason, and no masks stay in memory. They are read again whenever a
picture is asked for, and compared with what was seen first.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.images import BadImage, OpenedImage, open_image
from eyechart.core.pixels import upright
from eyechart.core.records import Quarantined
from eyechart.locate.part_records import (
    REASONS,
    BadMarks,
    Draft,
    Part,
    PartImage,
    PartSet,
    Progress,
    Reading,
    left_out,
    marks_hash,
    merged,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A picture that was found good."""

    draft: Draft
    sha256: str
    orientation: int
    size: tuple[int, int]
    marks_sha256: str


class PartImages(Sequence[PartImage]):
    """The pictures of a set in the order of their ids; masks are read when a picture is asked for."""

    def __init__(self, kept: Sequence[_Kept]) -> None:
        self._kept = tuple(kept)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> PartImage: ...

    @overload
    def __getitem__(self, place: slice) -> "PartImages": ...

    def __getitem__(self, place: int | slice) -> "PartImage | PartImages":
        """One picture with its masks, or a shorter sequence that is as lazy as this one.

        Raises:
            UserError: the masks are no longer what they were when the set was opened.
        """
        if isinstance(place, slice):
            return PartImages(self._kept[place])
        one = self._kept[place]
        try:
            parts = _checked(one.draft, one.size, one.orientation).parts
        except (BadMarks, BadImage):
            parts = ()
        if marks_hash(parts) != one.marks_sha256:
            raise UserError(f"{one.draft.marks} has changed since the set was opened; open it again")
        return PartImage(id=one.draft.id, image=one.draft.image, sha256=one.sha256, parts=parts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, without reading a mask."""
        return tuple(one.draft.id for one in self._kept)


def gather(
    drafts: Sequence[Draft],
    *,
    name: str,
    source: str,
    notes: Iterable[str] = (),
    quarantined: Iterable[Quarantined] = (),
    limit: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> PartSet:
    """Open every picture and look at every mask of a layout's drafts.

    Args:
        drafts: in any order; the set is in the order of ids.
        name: what results call the set.
        source: where it came from.
        notes: what the layout decided.
        quarantined: what the layout left out before it drafted.
        limit: at most so many pictures, the first ones by id; later files are not opened.
        progress: told how many pictures have been looked at.

    Raises:
        UserError: the limit is below 1, or no picture is left.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; at least 1 picture has to be read")
    taking = _Taking(quarantined=list(quarantined))
    single = _without_duplicates(drafts, taking)
    for done, draft in enumerate(single):
        if limit is not None and len(taking.kept) >= limit:
            taking.said.append(f"limit {limit}: {len(single) - done} more pictures were not looked at")
            break
        progress("reading masks", done, len(single))
        taking.take(draft)
    if not taking.kept:
        raise UserError(f"{source}: no picture with a part is left; {_summary(taking)}")
    progress("reading masks", len(single), len(single))
    return PartSet(
        name=name,
        source=source,
        sha256=_set_hash(taking.kept),
        images=PartImages(taking.kept),
        quarantined=tuple(taking.quarantined),
        notes=(*notes, *taking.notes()),
    )


def _set_hash(kept: Iterable[_Kept]) -> str:
    digest = hashlib.sha256()
    for one in kept:
        digest.update(json.dumps([one.draft.id, one.sha256, one.marks_sha256]).encode())
    return digest.hexdigest()


class _Taking:
    """What was kept and what was not, while pictures are looked at one by one."""

    def __init__(self, quarantined: list[Quarantined]) -> None:
        self.kept: list[_Kept] = []
        self.quarantined = quarantined
        self.said: list[str] = []
        self.bare = 0
        self.turned = 0

    def take(self, draft: Draft) -> None:
        """Look at one picture and its masks."""
        try:
            opened = open_image(draft.image)
            reading = _checked(draft, opened.size_on_disk, opened.orientation)
        except BadImage as error:
            self.quarantined.append(error.row())
            return
        except BadMarks as error:
            self.quarantined.append(left_out(draft, error.reason, error.detail))
            return
        self.quarantined += reading.quarantined
        if reading.parts:
            self._keep(draft, opened, reading.parts)
        elif not reading.quarantined:
            self.bare += 1

    def _keep(self, draft: Draft, opened: OpenedImage, parts: tuple[Part, ...]) -> None:
        self.turned += opened.orientation != 1
        self.kept.append(
            _Kept(
                draft=draft,
                sha256=opened.sha256,
                orientation=opened.orientation,
                size=opened.size_on_disk,
                marks_sha256=marks_hash(parts),
            )
        )

    def notes(self) -> list[str]:
        """What has to be said of the whole set."""
        found = list(self.said)
        if self.bare:
            found.append(f"{self.bare} pictures have no part marked and are not in the set")
        if self.turned:
            found.append(f"{self.turned} pictures are turned by EXIF; their masks are turned with them")
        return found


def _without_duplicates(drafts: Sequence[Draft], taking: _Taking) -> list[Draft]:
    """The drafts in the order of ids, less those whose id is another one's too."""
    times = Counter(draft.id for draft in drafts)
    for draft in drafts:
        if times[draft.id] > 1:
            detail = f"the id stands {times[draft.id]} times; this one is {draft.image}"
            taking.quarantined.append(left_out(draft, "duplicate_id", detail))
    return sorted((draft for draft in drafts if times[draft.id] == 1), key=lambda draft: draft.id)


def _checked(draft: Draft, size: tuple[int, int], orientation: int) -> Reading:
    """A picture's parts, merged and turned as the picture is; `size` is (width, height) as stored.

    Raises:
        BadMarks, BadImage: the masks cannot be read.
    """
    reading = draft.read()
    good, bad = [], list(reading.quarantined)
    for part in merged(reading.parts):
        called = f"{part.object} {part.instance}, {part.part}"
        if part.mask.shape != size[::-1]:
            height, width = part.mask.shape
            turned = "; EXIF turns the picture, masks have to fit what is stored" if orientation != 1 else ""
            detail = (
                f"{called}: the mask is {width} x {height} pixels, the picture {size[0]} x {size[1]}{turned}"
            )
            bad.append(left_out(draft, "size_mismatch", detail))
        elif not part.mask.any():
            bad.append(left_out(draft, "empty_mask", called))
        else:
            good.append(replace(part, mask=_turned(part.mask, orientation)))
    return Reading(parts=tuple(good), quarantined=tuple(bad))


def _turned(mask: Bool[ndarray, "row column"], orientation: int) -> Bool[ndarray, "height width"]:
    if orientation == 1:
        return mask
    return np.asarray(upright(Image.fromarray(mask.astype(np.uint8)), orientation)).astype(bool)


def _summary(taking: _Taking) -> str:
    """Why pictures and parts were left out, counted."""
    counts = Counter(one.reason for one in taking.quarantined)
    said = [f"{number} times: {REASONS.get(reason, reason)}" for reason, number in counts.most_common()]
    first = f" First: {taking.quarantined[0].path}: {taking.quarantined[0].detail}." if counts else ""
    return "; ".join([*said, *taking.notes()] or ["there were none to begin with"]) + "." + first
