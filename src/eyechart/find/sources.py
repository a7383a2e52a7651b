"""Collections of pictures: a folder, tar shards, Parquet or a dataset; what is in them, and how to read one.

A listing says where each picture's bytes lie and reads none of them, so that processes beside this one can.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from eyechart.core.errors import UserError
from eyechart.core.images import BadImage, shown
from eyechart.core.records import Quarantined
from eyechart.find.listing import Listing, Picture, listing_of
from eyechart.find.tables import DATASET, list_dataset, list_tables, read_cell

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .png .gif .webp .tif .tiff .bmp .ppm .pgm .pbm .jp2 .j2k .avif .jfif".split()
)
"""What a picture's name ends in; other files of a folder or an archive are counted and not read."""

KINDS: Mapping[str, str] = {
    "folder": "all pictures below it; the folder a picture lies in is its label",
    "tar": "a .tar file, or a folder of them, in WebDataset form: files that share a name up to the first dot belong"
    " together, and .cls or .json tell the label",
    "parquet": "a .parquet file, or a folder of them, with an image column (bytes, or a struct of bytes and path)",
    "dataset": f"a folder of datasets.save_to_disk, or {DATASET}ORG/NAME[:SPLIT] from the hub",
}
"""What `list_pictures` reads, for people."""


def list_pictures(
    source: str, *, image_column: str | None = None, label_column: str | None = None, limit: int | None = None
) -> Listing:
    """List what is in a source.

    Args:
        source: a path, or `hf:ORG/NAME[:SPLIT]`; see `KINDS`.
        image_column: of a table; by itself it is the one named `image`, or the first that holds pictures.
        label_column: of a table; by itself it is the one named `label`.
        limit: only so many, the first.

    Raises:
        UserError: there is no such source, it holds no picture, or a column that was named is not there.
    """
    if source.startswith(DATASET):
        listing = list_dataset(source, image_column, label_column)
    else:
        root = Path(source).expanduser()
        if not root.exists():
            raise UserError(
                f"there is no {source}; give a folder, .tar or .parquet files, or {DATASET}ORG/NAME"
            )
        listing = _of_path(source, root, image_column, label_column)
    pictures = listing.pictures[:limit]
    if not pictures:
        raise UserError(f"{source} holds no picture ({listing.passed_over} other files); {_expected()}")
    return Listing(
        source=source,
        pictures=pictures,
        sha256=listing.sha256,
        passed_over=listing.passed_over,
        quarantined=listing.quarantined,
    )


def read_picture(picture: Picture) -> bytes:
    """The bytes of one picture.

    Raises:
        BadImage: they cannot be read; the reason is one of `core.images.REASONS`.
    """
    try:
        if picture.kind == "file":
            return Path(picture.file).read_bytes()
        if picture.kind == "tar":
            with Path(picture.file).open("rb") as handle:
                handle.seek(picture.place[0])
                return handle.read(picture.place[1])
        return read_cell(picture)
    except FileNotFoundError as error:
        raise BadImage(picture.id, "missing", str(error.strerror)) from None
    except (OSError, pa.ArrowException) as error:
        raise BadImage(picture.id, "unreadable", str(error)) from None


def _expected() -> str:
    return "there can be: " + "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())


def _of_path(source: str, root: Path, image_column: str | None, label_column: str | None) -> Listing:
    if root.is_dir() and (root / "dataset_info.json").exists():
        return list_dataset(str(root), image_column, label_column)
    there = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [path for path in there if path.is_file()]
    suffixes = {path.suffix.lower() for path in files}
    if ".parquet" in suffixes and not suffixes & SUFFIXES:
        return list_tables(source, [f for f in files if f.suffix == ".parquet"], image_column, label_column)
    if ".tar" in suffixes and not suffixes & SUFFIXES:
        return _of_tars(source, root, [f for f in files if f.suffix == ".tar"])
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    below = root if root.is_dir() else root.parent
    return listing_of(
        source,
        [_file(path, below) for path in pictures],
        [path.stat().st_size for path in pictures],
        len(files) - len(pictures),
        [_no_file(path, below) for path in there if _should_be_one(path)],
    )


def _should_be_one(path: Path) -> bool:
    """Whether something is named like a picture and is neither a file nor a folder: a broken link, a pipe."""
    return path.suffix.lower() in SUFFIXES and not path.is_file() and not path.is_dir()


def _no_file(path: Path, root: Path) -> Quarantined:
    if path.is_symlink():
        return Quarantined(
            path=shown(path.relative_to(root)), reason="missing", detail=f"a link to {shown(path.readlink())}"
        )
    return Quarantined(path=shown(path.relative_to(root)), reason="not_a_file", detail="pipe or device")


def _file(path: Path, root: Path) -> Picture:
    inside = path.relative_to(root)
    label = shown(inside.parent.name) if inside.parent.name else None
    return Picture(id=shown(inside), kind="file", file=str(path), label=label)


def _of_tars(source: str, root: Path, files: Sequence[Path]) -> Listing:
    """Every picture of every archive; an archive that ends too soon gives what comes before."""
    pictures: list[Picture] = []
    sizes: list[int] = []
    broken: list[Quarantined] = []
    others = 0
    for path in files:
        inside = shown(path.relative_to(root)) if root.is_dir() else path.name
        members, damage = _members(path)
        if damage:
            broken.append(
                Quarantined(path=inside, reason="damaged", detail=f"{damage}; what comes before is read")
            )
        found = [member for member in members if Path(member.name).suffix.lower() in SUFFIXES]
        others += len(members) - len(found)
        labels = _labels(path, members)
        for member in found:
            name = shown(member.name)
            label = labels.get(_key(member.name))
            place = member.offset_data, member.size
            pictures.append(
                Picture(id=f"{inside}/{name}", kind="tar", file=str(path), place=place, label=label)
            )
            sizes.append(member.size)
    return listing_of(source, pictures, sizes, others, broken)


def _members(path: Path) -> tuple[list[tarfile.TarInfo], str | None]:
    """The files in an archive, and what is wrong with it. One that was cut between two files lacks its end mark."""
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:") as archive:
            members.extend(member for member in archive if member.isfile())
    except (tarfile.TarError, EOFError) as error:
        return members, str(error)
    end = max(
        (one.offset_data + -(-one.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for one in members),
        default=0,
    )
    with path.open("rb") as handle:
        handle.seek(end)
        mark = handle.read(tarfile.BLOCKSIZE)
    whole = len(mark) == tarfile.BLOCKSIZE and not mark.strip(b"\0")
    return members, None if whole else "it ends without an end mark"


def _key(name: str) -> str:
    """What the files of one WebDataset sample share: the path up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _labels(path: Path, members: Sequence[tarfile.TarInfo]) -> dict[str, str]:
    """The label of each sample, from its `.cls` file, or `label` or `cls` in its `.json`."""
    found: dict[str, str] = {}
    with path.open("rb") as handle:
        for member in members:
            if not member.name.endswith((".cls", ".json")):
                continue
            handle.seek(member.offset_data)
            text = handle.read(member.size).decode("utf-8", "replace").strip()
            label = text if member.name.endswith(".cls") else _from_json(text)
            if label:
                found[_key(member.name)] = label
    return found


def _from_json(text: str) -> str | None:
    try:
        said = json.loads(text)
    except ValueError:
        return None
    values = [said.get(name) for name in ("label", "cls")] if isinstance(said, dict) else []
    return next((str(value) for value in values if isinstance(value, str | int)), None)
