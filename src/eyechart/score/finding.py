"""Which files a source names: a table, the shards of one split, or the files that make up a known set.

Nothing is guessed: several tables that do not belong together are an error that lists them.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from eyechart.core.errors import UserError
from eyechart.score.tables import can_read, endings, is_saved_dataset

CSV_NAME = "questions.csv"
"""The name of MMVP's table, in any case; where a folder has one, it is the table."""

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})")

FAMILIES: Mapping[str, str] = {
    "CV-Bench": r"test_[23]d",
    "POPE": r".*pope_(adversarial|popular|random)",
    "SugarCrepe": r"(add|replace|swap)_(att|obj|rel)",
}
"""Files that are one set together, by their names without the ending."""


def find_tables(source: Path) -> list[Path]:
    """The files of a benchmark's table, in order.

    A file stands for itself; one shard (`test-00000-of-00003.parquet`) stands for all of its split. In a folder
    `Questions.csv` comes first, then the only table file there, the shards of the only split, or the files of a
    set in `FAMILIES`; then the same one level down, where a folder `data` comes before others.

    Raises:
        UserError: nothing is there, several tables are there that do not belong together, or a shard is missing.
    """
    if not source.exists():
        raise UserError(
            f"no benchmark at {str(source)!r}: it is neither a file nor a folder here. "
            "Give an MMVP-shaped folder or a table; nothing is downloaded."
        )
    if source.is_file():
        shard = _SHARD.fullmatch(source.stem)
        return _whole(source, shard) if shard else [source]
    if is_saved_dataset(source):
        return [source]
    below = [folder for folder in sorted(source.iterdir()) if folder.is_dir()]
    data = [folder for folder in below if folder.name == "data"]
    for level in ([source], data, below):
        files = [file for folder in level for file in sorted(folder.iterdir()) if file.is_file()]
        named = [file for file in files if file.name.lower() == CSV_NAME]
        found = named or [file for file in files if can_read(file)]
        if found:
            return _together(source, found)
    raise UserError(
        f"{source}: no table in this folder. An MMVP-shaped folder holds Questions.csv beside its images; "
        f"tables are read from {endings()}."
    )


def _together(source: Path, found: Sequence[Path]) -> list[Path]:
    """The files, if they are one table."""
    shards = [_SHARD.fullmatch(file.stem) for file in found]
    if all(shards) and len({shard["split"] for shard in shards if shard}) == 1:
        folders: defaultdict[Path, Path] = defaultdict()
        for file in found:
            folders.setdefault(file.parent, file)
        return [path for first in folders.values() for path in _whole(first, _SHARD.fullmatch(first.stem))]
    if len(found) == 1:
        return list(found)
    for pattern in FAMILIES.values():
        if all(re.fullmatch(pattern, file.stem) for file in found) and len({f.suffix for f in found}) == 1:
            return list(found)
    names = ", ".join(str(file.relative_to(source)) for file in found)
    raise UserError(f"{source}: several tables ({names}); name the one that is the benchmark")


def _whole(one: Path, shard: re.Match[str] | None) -> list[Path]:
    """All shards of the split that one is of."""
    assert shard is not None
    total = int(shard["total"])
    names = [f"{shard['split']}-{number:05d}-of-{shard['total']}{one.suffix}" for number in range(total)]
    missing = [name for name in names if not (one.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{one.parent}: of the {total} files of this split some are missing: {', '.join(missing)}"
        )
    return [one.parent / name for name in names]
