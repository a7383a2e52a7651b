"""What every page's reader of files has in common: records that are checked, and errors that say how to mend a folder."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from eyechart.core.errors import UserError


class Record(BaseModel):
    """A frozen record from a file; keys it does not know are left alone, NaN is refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True, allow_inf_nan=False)


Row = TypeVar("Row", bound=BaseModel)


def read_object(path: Path, *, mend: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: the file.
        mend: what the error says to do.

    Raises:
        UserError: there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path.parent} holds no {path.name} that can be read. {mend}") from None
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object. {mend}")
    return value


def validated(kind: type[Row], value: Any, *, where: str, mend: str) -> Row:
    """A value from a file as a record.

    Args:
        kind: of the record.
        value: what stood there.
        where: file and place, for the error.
        mend: what the error says to do.

    Raises:
        UserError: a key is missing or of a wrong value; key, given and expected are named.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    key, given = ".".join(str(part) for part in first["loc"]), repr(first["input"])
    if first["type"] == "missing":
        raise UserError(f"{where}: the key {key!r} is missing. {mend}")
    raise UserError(f"{where}: {key!r} is {given[:80]}: {first['msg']}. {mend}")
