"""Conversations about images, as people have them on disk: LLaVA JSON, TRL messages, Parquet of either.

A row that cannot be learnt from is set aside with its reason, never dropped in silence and never guessed at.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from eyechart.core.errors import UserError
from eyechart.core.images import OpenedImage, open_bytes, open_image

Role = Literal["system", "user", "assistant"]

MARK = "<image>"
"""Where an image stands in a LLaVA conversation, or in a TRL message that is plain text."""

SPEAKERS: Mapping[str, Role] = {
    "human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system",
}  # fmt: skip
"""Who speaks, by the words of LLaVA and of TRL."""

REASONS: Mapping[str, str] = {
    "not_json": "the line is no JSON object",
    "no_turns": "there is no list `conversations` or `messages` in it",
    "bad_turn": "a turn has no known speaker, or what it says is neither text nor a list of parts",
    "no_answer": "nothing in it is said by the assistant, so there is nothing to learn",
    "image_count": f"as many images are named as {MARK} marks, or none of the marks: this row has other numbers",
    "bad_image": "an image is missing, damaged or no image",
    "melted": "an answer's first token reaches into the prompt, so it cannot be learnt alone",
    "mark_in_text": "a text holds the token that stands for an image",
    "unstable_template": "the chat template writes a turn otherwise when more turns follow",
    "too_long": "after cutting to max_length no token of an answer is left",
}
"""Why a row is set aside: the word that stands in `quarantined.jsonl`, and its sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An image in a cell of a Parquet file."""

    table: Path
    column: str
    group: int
    """Of the file's row groups."""

    row: int
    """In the row group."""

    place: int
    """Among the cell's images."""


Picture = Path | Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one speaker says: texts, and an `int` where the image of that number stands."""

    role: Role
    parts: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation to learn from."""

    id: str
    """As the row names itself, else FILE:NUMBER."""

    file: str
    row: int
    """Counted from 0."""

    turns: tuple[Turn, ...]
    images: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that was set aside."""

    file: str
    row: int
    """Counted from 0."""

    id: str
    reason: str
    """One of `REASONS`."""

    detail: str


class Bad(Exception):
    """A row cannot be learnt from; it is caught here and in the collation, and listed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{REASONS[reason]}: {detail}")
        self.reason, self.detail = reason, detail


def read_samples(file: Path, images: Path | None = None) -> Iterator[Sample | Rejected]:
    """The rows of a data file in order, each a sample or the reason why it is none. No image is opened.

    Args:
        file: `.json` (a list), `.jsonl` (a line a row) or `.parquet`; a row has `conversations` (LLaVA) or `messages`
            (TRL). Images are named in `image` or `images`, or in the parts of TRL's messages.
        images: the folder that images' paths start from; the file's own unless given.

    Raises:
        UserError: the file is missing or is not of its kind.
    """
    folder = images or file.parent
    for number, row in enumerate(_rows(file)):
        named = (
            str(row.get("id", f"{file.name}:{number}")) if isinstance(row, dict) else f"{file.name}:{number}"
        )
        try:
            turns, pictures = _conversation(row, folder)
            yield Sample(id=named, file=str(file), row=number, turns=turns, images=pictures)
        except Bad as bad:
            yield Rejected(file=str(file), row=number, id=named, reason=bad.reason, detail=bad.detail)


def open_picture(picture: Picture) -> OpenedImage:
    """The picture, upright and in RGB, with the hash of its file's bytes.

    Raises:
        BadImage: there is no right picture.
    """
    if isinstance(picture, Path):
        return open_image(picture)
    name = f"{picture.table}[{picture.group}:{picture.row}].{picture.column}[{picture.place}]"
    cell = _group(picture.table, picture.column, picture.group)[picture.row].as_py()
    data = _bytes_of((cell if isinstance(cell, list) else [cell])[picture.place])
    assert data is not None  # it was when the row was read
    return open_bytes(data, name)


def _rows(file: Path) -> Iterator[Any]:
    kind = file.suffix.lower()
    if kind not in (".json", ".jsonl", ".parquet"):
        raise UserError(f"{file} is no data file that is read here; expected .json, .jsonl or .parquet")
    if not file.is_file():
        raise UserError(f"there is no data file {file}")
    if kind == ".parquet":
        yield from _table_rows(file)
    elif kind == ".jsonl":
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield _parsed(line)
    else:
        found = _parsed(file.read_bytes())
        if not isinstance(found, list):
            raise UserError(f"{file} must hold a JSON list of conversations; it holds {type(found).__name__}")
        yield from found


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _table_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows without the bytes of their images, which are read when they are needed."""
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as a Parquet table: {error}") from None
    for group in range(table.num_row_groups):
        for place, row in enumerate(table.read_row_group(group).to_pylist()):
            for column in ("image", "images"):
                if row.get(column) is not None:
                    cell = row[column] if isinstance(row[column], list) else [row[column]]
                    row[column] = [
                        Stored(table=file, column=column, group=group, row=place, place=number)
                        if _bytes_of(one) is not None
                        else one
                        for number, one in enumerate(cell)
                    ]
            yield row


@lru_cache(maxsize=2)
def _group(file: Path, column: str, group: int) -> Any:
    return pq.ParquetFile(file).read_row_group(group, columns=[column]).column(0)


def _bytes_of(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else None


def _conversation(row: Any, folder: Path) -> tuple[tuple[Turn, ...], tuple[Picture, ...]]:
    if not isinstance(row, dict):
        raise Bad("not_json", f"{row!r:.60}")
    told = row.get("conversations") or row.get("messages")
    if not isinstance(told, list) or not told:
        raise Bad("no_turns", f"it has {', '.join(map(str, row))}"[:100])
    beside = [_picture(one, folder) for key in ("image", "images") for one in _listed(row.get(key))]
    pictures: list[Picture] = []
    turns = [_turn(turn, beside, pictures, folder) for turn in told]
    if beside and not pictures:
        turns, pictures = _put_first(turns, len(beside)), beside
    if beside and len(pictures) != len(beside):
        raise Bad("image_count", f"{len(beside)} images beside the text, {len(pictures)} places in it")
    if not any(turn.role == "assistant" and any(turn.parts) for turn in turns):
        raise Bad("no_answer", f"{len(turns)} turns")
    return tuple(turns), tuple(pictures)


def _turn(turn: Any, beside: Sequence[Picture], pictures: list[Picture], folder: Path) -> Turn:
    """One turn; the images that stand in it are appended to `pictures`, those without a name taken from `beside`."""
    if not isinstance(turn, dict):
        raise Bad("bad_turn", f"{turn!r:.60}")
    role = SPEAKERS.get(str(turn.get("from", turn.get("role"))))
    said = turn.get("value", turn.get("content"))
    if role is None or not isinstance(said, str | list):
        raise Bad("bad_turn", f"{turn!r:.60}")
    parts: list[str | int] = []
    for part in _split(said) if isinstance(said, str) else said:
        if isinstance(part, str):
            parts.append(part)
            continue
        if not isinstance(part, dict) or part.get("type") not in ("text", "image"):
            raise Bad("bad_turn", f"a part {part!r:.60}")
        if part["type"] == "text":
            if not isinstance(part.get("text"), str):
                raise Bad("bad_turn", f"a part {part!r:.60}")
            parts.append(part["text"])
            continue
        own = next((part[key] for key in ("image", "path", "url") if part.get(key)), None)
        if own is None and len(pictures) >= len(beside):
            raise Bad("image_count", f"{len(beside)} images beside the text, and more places in it")
        parts.append(len(pictures))
        pictures.append(beside[len(pictures)] if own is None else _picture(own, folder))
    return Turn(role=role, parts=tuple(part for part in parts if part != ""))


def _split(text: str) -> Iterator[str | dict[str, str]]:
    """A text at its `<image>` marks; the line break that LLaVA writes beside a mark is the template's affair."""
    pieces = text.split(MARK)
    for number, piece in enumerate(pieces):
        if number:
            yield {"type": "image"}
            piece = piece.removeprefix("\n")
        yield re.sub(r"\n$", "", piece) if number < len(pieces) - 1 else piece


def _put_first(turns: list[Turn], count: int) -> list[Turn]:
    """Images that nothing places stand before what the user says first, as TRL puts them."""
    asked = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if asked is None:
        raise Bad("image_count", f"{count} images and no turn of the user to put them in")
    first = turns[asked]
    turns[asked] = Turn(role="user", parts=(*range(count), *first.parts))
    return turns


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _picture(value: Any, folder: Path) -> Picture:
    if isinstance(value, Stored):
        return value
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        raise Bad("bad_image", f"{value!r:.60} is no path")
    if "://" in path:
        raise Bad("bad_image", f"{path} is an address; download it and give its path")
    return folder / path
