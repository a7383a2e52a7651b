"""Part identification on a VLM: pictures with part masks in, ranks out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from eyechart.core.images import BadImage, open_image
from eyechart.core.records import Capability, Prompt, Quarantined
from eyechart.locate.identify import (
    Identified,
    ImageStates,
    MaskedPart,
    NotRanked,
    Settings,
    identify_parts,
    not_ranked,
)
from eyechart.locate.labels import LabelRule, LabelSet, labels_of, speller_of
from eyechart.locate.lens import Lens
from eyechart.locate.lens_of_vlm import already_normed, lens_of
from eyechart.models.vlms import VLM
from eyechart.train.prompts import DESCRIBE

logger = logging.getLogger(__name__)


@runtime_checkable
class PicturedParts(Protocol):
    """A picture in a file, and the masks of its parts."""

    @property
    def id(self) -> str:
        """The picture's name."""

    @property
    def image(self) -> Path:
        """Its file."""

    @property
    def parts(self) -> Sequence[MaskedPart]:
        """What is marked in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiedOnVLM:
    """Ranks, and all that is to be said about how they came about."""

    found: Identified
    labels: LabelSet
    lens: Lens
    quarantined: tuple[Quarantined, ...]
    """Pictures that could not be read; their parts are in `found.not_ranked` too."""


def identify_on(
    vlm: VLM,
    images: Sequence[PicturedParts],
    *,
    rule: LabelRule = LabelRule.WHOLE,
    names: Mapping[str, Sequence[str]] | None = None,
    layers: Sequence[int] | None = None,
    text: str = DESCRIBE,
    settings: Settings | None = None,
) -> IdentifiedOnVLM:
    """Rank the parts of pictures on a VLM, one picture at a time.

    Args:
        vlm: with hidden states and a spatial map.
        images: read once for the parts' names where `names` is None, and once for their ranks.
        rule: which tokens stand for a name.
        names: of each object the names of all its parts; None for those that occur in `images`.
        layers: numbers of layers, 0 for what the first block reads; None for all.
        text: the question under which the picture is read. It plays a part only where image positions see it, as in
            models whose attention goes both ways (PaliGemma).
        settings: of masks and controls.

    Raises:
        Incapable: the model gives no hidden states, spatial map or lens.
        UserError: there is no such layer.
    """
    for capability in (Capability.HIDDEN_STATES, Capability.SPATIAL_MAP):
        vlm.require(capability, for_="part identification")
    of_object = part_names(images) if names is None else names
    words = [name for some in of_object.values() for name in some]
    labels = labels_of(words, speller_of(vlm.tokenizer), rule=rule)
    lens = lens_of(vlm)
    quarantined: list[Quarantined] = []
    unread: list[NotRanked] = []
    read = _read(vlm, images, layers, text, quarantined, unread)
    found = identify_parts(read, lens, labels, of_object, settings=settings)
    return IdentifiedOnVLM(
        found=Identified(parts=found.parts, not_ranked=(*unread, *found.not_ranked)),
        labels=labels,
        lens=lens,
        quarantined=tuple(quarantined),
    )


def part_names(images: Sequence[PicturedParts]) -> dict[str, tuple[str, ...]]:
    """Of each object the names of its parts that occur, both in alphabetical order."""
    found: dict[str, set[str]] = {}
    for image in images:
        for part in image.parts:
            found.setdefault(part.object, set()).add(part.part)
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def _read(
    vlm: VLM,
    images: Sequence[PicturedParts],
    layers: Sequence[int] | None,
    text: str,
    quarantined: list[Quarantined],
    unread: list[NotRanked],
) -> Iterator[ImageStates]:
    for image in images:
        try:
            picture = open_image(image.image).image
        except BadImage as error:
            logger.warning("left out: %s", error)
            quarantined.append(error.row())
            unread += [not_ranked(image.id, part, "unreadable", str(error)) for part in image.parts]
            continue
        states = vlm.hidden_states(Prompt(text=text, images=(picture,)), layers=layers)
        yield ImageStates(
            image=image.id,
            states=states.layers,
            layers=states.layer_numbers,
            normed=already_normed(states),
            geometry=vlm.geometry(picture),
            parts=image.parts,
        )
