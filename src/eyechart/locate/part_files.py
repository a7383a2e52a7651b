"""Find the pictures of a layout: by the stem of a file's name, in one folder and those below it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eyechart.core.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""How the names of pictures end."""

FOLDERS = ("JPEGImages", "images", "photos")
"""Where pictures are looked for when nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of a folder."""

    folder: Path
    by_stem: dict[str, tuple[Path, ...]]

    def of(self, stem: str) -> tuple[Path, ...]:
        """Every picture with this stem; where there is none, the one place where it was expected."""
        return self.by_stem.get(stem, (self.folder / f"{stem}.jpg",))


def pictures_of(root: Path, images: Path | None, folders: Iterable[str] = FOLDERS) -> Pictures:
    """The pictures that go with the masks in `root`.

    Args:
        root: the folder with the masks.
        images: where the pictures are; None looks for one of `folders` in `root` and beside it.
        folders: names of folders to look for.

    Raises:
        UserError: there is no such folder.
    """
    tried = (
        [images] if images is not None else [base / name for base in (root, root.parent) for name in folders]
    )
    folder = next((one for one in tried if one.is_dir()), None)
    if folder is None:
        listed = ", ".join(str(one) for one in tried)
        raise UserError(f"{root}: no folder of pictures; looked for {listed}. Say where with images=FOLDER")
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            found[path.stem] = (*found.get(path.stem, ()), path)
    return Pictures(folder=folder, by_stem=found)


def files_below(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """All files with one of these endings, in the order of their paths."""
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes)
