"""Open a set of pictures with part masks: the world's own, or files in one of the layouts that are known.

The paper that part identification comes from (Takishita and Gala et al., 2025, "LLMs Can Compensate for Deficiencies
in Visual Representations", figure 1) shows a part with its mask; which data set it used, how parts were filtered and
how labels were prepared is not known here. So the layout is an option, the tables of names are open to view
(`part_names`), nothing is filtered, and what cannot be used is listed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

from eyechart.core.errors import UserError, unknown
from eyechart.core.records import Quarantined
from eyechart.locate import parts_index, parts_pascal, parts_polygons, parts_ppp, parts_world
from eyechart.locate.part_gather import PartImages, gather
from eyechart.locate.part_names import Words
from eyechart.locate.part_records import REASONS, Draft, Part, PartImage, PartSet, Progress
from eyechart.locate.parts_polygons import Categories
from eyechart.locate.parts_world import DEFAULT, WorldScenes

__all__ = ["LAYOUTS", "REASONS", "Part", "PartImage", "PartImages", "PartSet", "WorldScenes", "open_parts"]

WORLD = "world"

_Drafted = tuple[list[Draft], list[Quarantined], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOptions:
    """How files are read; what a layout has no use for plays no part."""

    images: Path | None = None
    words: Words = "folded"
    labels: Path | None = None
    object_name: str | None = None
    categories: Categories = "auto"
    bundled: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which part masks come."""

    expects: str
    """What is looked for, in words."""

    fits: Callable[[Path], bool]
    draft: Callable[[Path, PartOptions], _Drafted]


def open_parts(
    source: str | Path,
    *,
    layout: str = "auto",
    images: str | Path | None = None,
    words: str = "folded",
    labels: str | Path | None = None,
    object_name: str | None = None,
    categories: str = "auto",
    limit: int | None = None,
    name: str | None = None,
    scenes: WorldScenes = DEFAULT,
    bundled: str | Path | None = None,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> PartSet:
    """Open a set of pictures with part masks; every picture and mask is looked at now and read again when used.

    Args:
        source: "world", or a folder or file in one of `LAYOUTS`.
        layout: which of these; "auto" takes the only one that fits.
        images: the folder of the pictures; beside the masks unless given.
        words: what parts are called in Pascal-Part and PASCAL Panoptic Parts: "folded" ("leg"), "full" ("left front
            leg") or "code" ("lfleg"). Parts of one object with one name are one part.
        labels: the table of an index layout; in its folder unless given.
        object_name: the object that plain labels of an index layout are parts of.
        categories: where a COCO-style file says object and part; see `parts_polygons`.
        limit: at most so many pictures, the first ones by id.
        name: what results call the set; the source's name unless given.
        scenes: which scenes "world" means.
        bundled: where rendered scenes lie.
        workers: processes that render.
        progress: told how far rendering and reading are.

    Raises:
        UserError: there is no such source or layout, it cannot be told which layout it is, or no picture is left.
    """
    options = PartOptions(
        images=_path(images),
        words=cast(Words, _one_of("kind of words", words, get_args(Words))),
        labels=_path(labels),
        object_name=object_name,
        categories=cast(Categories, _one_of("way to read categories", categories, get_args(Categories))),
        bundled=_path(bundled),
    )
    if str(source) == WORLD and layout in ("auto", WORLD):
        drafted, called = _world(scenes, options, workers, progress), WORLD
    else:
        root = Path(source).expanduser()
        drafted, called = LAYOUTS[_layout(root, layout)].draft(root, options), root.stem
    drafts, quarantined, notes = drafted
    return gather(
        drafts,
        name=name or called,
        source=str(source),
        notes=notes,
        quarantined=quarantined,
        limit=limit,
        progress=progress,
    )


def _layout(root: Path, layout: str) -> str:
    """The name of the layout of a source.

    Raises:
        UserError: there is no such source or layout, or not exactly one fits.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise unknown("layout of part masks", layout, LAYOUTS)
    if not root.exists():
        raise UserError(f"{root}: no such folder or file. Give one, or {WORLD!r} for scenes of the world")
    if layout != "auto":
        return layout
    fitting = [one for one, known in LAYOUTS.items() if known.fits(root)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"{root} fits several layouts: {', '.join(fitting)}. Say which with layout=NAME")
    expected = "; ".join(f"{one}: {known.expects}" for one, known in LAYOUTS.items())
    raise UserError(
        f"{root} is of no layout of part masks. Found: {_found(root)}. Expected one of: {expected}"
    )


def _found(root: Path) -> str:
    """What lies there, shortly."""
    if root.is_file():
        return f"a file {root.name}"
    entries = sorted(f"{one.name}/" if one.is_dir() else one.name for one in root.iterdir())
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    return ", ".join(entries[:8]) + more if entries else "an empty folder"


def _world(scenes: WorldScenes, options: PartOptions, workers: int, progress: Progress) -> _Drafted:
    if options.bundled is None:
        raise UserError(f"{WORLD!r}: say where rendered scenes are to lie with bundled=FOLDER")
    drafts, notes = parts_world.draft_scenes(scenes, options.bundled, workers=workers, progress=progress)
    return drafts, [], notes


def _one_of(what: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise unknown(what, given, known)
    return given


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _set(root: Path, options: PartOptions) -> _Drafted:
    drafts, notes = parts_world.draft_set(root, options.bundled)
    return drafts, [], notes


def _pairs(root: Path, options: PartOptions) -> _Drafted:
    drafts, notes = parts_world.draft_pairs(root)
    return drafts, [], notes


def _ppp(root: Path, options: PartOptions) -> _Drafted:
    return parts_ppp.draft_ppp(root, images=options.images, words=options.words), [], ()


def _pascal(root: Path, options: PartOptions) -> _Drafted:
    return parts_pascal.draft_pascal(root, images=options.images, words=options.words), [], ()


def _polygons(root: Path, options: PartOptions) -> _Drafted:
    return parts_polygons.draft_polygons(root, images=options.images, categories=options.categories)


def _index(root: Path, options: PartOptions) -> _Drafted:
    drafts = parts_index.draft_index(
        root, images=options.images, table=options.labels, object_name=options.object_name
    )
    return drafts, [], ()


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "world-set": Layout(
            expects="a rendered set of scenes with maps (scenes.jsonl, images.npy, parts.npy)",
            fits=lambda root: (root / "scenes.jsonl").is_file() and (root / "images.npy").is_file(),
            draft=_set,
        ),
        "world-pairs": Layout(
            expects="rendered pairs of scenes with maps (maps/parts.json)",
            fits=lambda root: (root / "maps" / "parts.json").is_file(),
            draft=_pairs,
        ),
        "panoptic-parts": Layout(
            expects="PASCAL Panoptic Parts (labels/**/*.tif, JPEGImages/)",
            fits=parts_ppp.fits,
            draft=_ppp,
        ),
        "pascal-part": Layout(
            expects="Pascal-Part (Annotations_Part/*.mat, JPEGImages/)",
            fits=lambda root: bool(parts_pascal.annotation_files(root)),
            draft=_pascal,
        ),
        "coco": Layout(
            expects="COCO-style polygons or run lengths (a .json with images, annotations and categories)",
            fits=lambda root: bool(parts_polygons.annotation_files(root)),
            draft=_polygons,
        ),
        "index": Layout(
            expects="index pictures (masks/*.png, labels.json, .yaml or .csv, images/)",
            fits=lambda root: parts_index.found_layout(root) is not None,
            draft=_index,
        ),
    }
)
"""The layouts of files, by name."""
