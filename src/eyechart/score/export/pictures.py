"""The bytes of an item's pictures, checked against the hashes the set was loaded with."""

import hashlib
from pathlib import Path

from eyechart.core.errors import UserError

_MAGIC = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*": ".tif",
    b"MM": ".tif",
}


def read_picture(path: Path, sha256: str) -> bytes:
    """The file's bytes.

    Raises:
        UserError: the file is gone, or is not the one that was loaded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} was there when the set was loaded and cannot be read ({error})") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} has changed since the set was loaded; load it again")
    return content


def suffix_of(content: bytes) -> str:
    """The ending that fits a picture's first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((end for magic, end in _MAGIC.items() if content.startswith(magic)), ".img")
