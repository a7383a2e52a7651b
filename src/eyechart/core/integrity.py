"""Is a picture file whole? Checks that Pillow leaves out, and Pillow's warnings collected instead of shown."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A JPEG marker in compressed data: not a stuffed zero, not a restart (ITU-T T.81, B.1.1)."""

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FILL = bytes(range(17, 241, 7)) * 2
_JPEG2000_DATA, _JPEG2000_END = b"\xff\x93", b"\xff\xd9"


class CutShort(Exception):
    """The file ends before its picture does; the text says how that shows."""


def check_whole(data: bytes, kind: str, image: Image.Image) -> None:
    """Check the bytes of a file of format `kind` (Pillow's name) beyond what decoding checks.

    `image` is the file as opened by Pillow and not decoded yet.

    JPEG: the marker that ends the image is there, so that a download filled up with zeros does not pass as a
    picture that is half grey. PNG: every chunk's checksum. JPEG 2000: the end marker. TIFF: strips or tiles
    as far as the lower right corner.

    Raises:
        CutShort: the end is missing.
        SyntaxError, OSError, ValueError: Pillow's, for a PNG whose checksums do not fit.
    """
    if kind == "JPEG" and _jpeg_end(data) is None:
        raise CutShort("no end-of-image marker after the compressed data")
    if kind == "JPEG2000" and data.rfind(_JPEG2000_END) < data.find(_JPEG2000_DATA):
        raise CutShort("no end-of-codestream marker after the compressed data")
    if kind == "TIFF" and not any(_reaches(tile, image) for tile in image.tile):  # type: ignore[attr-defined]
        raise CutShort("the strips or tiles do not reach the end of the picture")
    if kind == "PNG":
        with Image.open(io.BytesIO(data), formats=["PNG"]) as again:
            again.verify()


def _reaches(tile: Any, image: Image.Image) -> bool:
    """Whether a strip or tile holds the last pixel; a TIFF on its side is turned only when it is decoded."""
    extents = tile[1]
    return extents is None or extents[2] * extents[3] >= image.width * image.height


def check_not_filled(data: bytes, image: Image.Image) -> None:
    """Check that the end of a decoded JPEG is picture, not the grey that libjpeg fills in when data end early.

    Only a picture whose last block is that grey is looked at: it is decoded again with extra data before its end
    marker. A whole picture has no use for them; one that was cut and closed takes them in and changes.

    Raises:
        CutShort: the picture changed.
    """
    right, bottom = image.size
    corner = image.crop((max(right - 8, 0), max(bottom - 8, 0), right, bottom))
    end = _jpeg_end(data)
    if end is None or any(min(band) < 127 or max(band) > 128 for band in _extrema(corner)):
        return
    with Image.open(io.BytesIO(data[:end] + _FILL + data[end:]), formats=["JPEG"]) as again:
        if again.tobytes() != image.tobytes():
            raise CutShort("the compressed data end early; the rest would be plain grey")


def _extrema(image: Image.Image) -> list[tuple[Any, Any]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]


def _jpeg_end(data: bytes) -> int | None:
    """Where the first image in a JPEG file has its end marker; walks the segments, decodes nothing."""
    at, in_scan = 2, False
    while True:
        found = _MARKER.search(data, at) if in_scan else _MARKER.match(data, at)
        if found is None:
            return None
        marker = found[1][0]
        if marker == _END_OF_IMAGE:
            return found.start()
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        at = found.end() + max(length, 2)
        in_scan = in_scan or marker == _START_OF_SCAN


_lock = threading.Lock()
_mine = threading.local()
_inside = 0
_shield: Any = None


@contextmanager
def pillow_warnings() -> Iterator[list[str]]:
    """Collect what Pillow warns of in this thread while the block lasts; nothing of it is shown.

    `warnings.catch_warnings` alone mixes up filters when threads overlap, so the first thread in sets it up and
    the last one out takes it down. Warnings of other modules and other threads go their usual way. Pillow's
    warning of a large picture is dropped: callers have a limit of their own.
    """
    heard: list[str] = []
    before = getattr(_mine, "heard", None)
    _enter()
    _mine.heard = heard
    try:
        yield heard
    finally:
        _mine.heard = before
        _leave()


def _enter() -> None:
    global _inside, _shield
    with _lock:
        if _inside == 0:
            _shield = warnings.catch_warnings()
            _shield.__enter__()
            warnings.filterwarnings("always", module=r"PIL(\.|$)")
            warnings.showwarning = _listening(warnings.showwarning)
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            _shield.__exit__(None, None, None)


def _listening(show: Any) -> Any:
    """`show`, a `warnings.showwarning`, but what Pillow says inside a block is kept for that block."""

    def listen(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        heard = getattr(_mine, "heard", None)
        if heard is None or "PIL" not in filename:
            show(message, category, filename, lineno, *rest)
        elif not issubclass(category, Image.DecompressionBombWarning) and str(message).strip() not in heard:
            heard.append(str(message).strip())

    return listen
