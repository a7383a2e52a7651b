"""Pictures whose pixel values are numbers of labels: read as they are stored, never as colours.

What would change a number on the way is undone or refused. Pillow scales grey PNG samples of 1, 2 and 4 bits to 8,
which is taken back; a palette's colours play no part, its indices count; a file with transparency, of compressed
colour (JPEG), or turned by EXIF is refused.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from numpy import ndarray
from PIL import ExifTags, Image

from eyechart.core.images import BROKEN, MAX_PIXELS, BadImage, shown
from eyechart.core.integrity import CutShort, check_whole, pillow_warnings

FORMATS = ("PNG", "TIFF")
"""The formats that keep numbers."""


def label_values(path: Path, *, colour: bool = False) -> Integer[ndarray, "row column"]:
    """The number in each pixel of a PNG or TIFF.

    Args:
        path: the file; grey of 1 to 32 bits, or with a palette.
        colour: also take 24-bit colour, as red + 256 green + 65536 blue.

    Raises:
        BadImage: there is no such file, it is damaged, or its values are no numbers of labels.
    """
    name = shown(path)
    try:
        if not path.is_file():
            there = path.exists()
            raise BadImage(
                name, *(("not_a_file", "folder, pipe or device") if there else ("missing", "no such file"))
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(name, "unreadable", str(error.strerror)) from None
    try:
        with pillow_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, data, name)
            image.load()
            return _numbers(image, data, name, colour=colour)
    except CutShort as error:
        raise BadImage(name, "truncated", str(error)) from None
    except BROKEN as error:
        raise BadImage(name, "damaged", " ".join(str(error).split())[:200]) from None


def _check(image: Image.Image, data: bytes, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(name, "too_large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}")
    check_whole(data, str(image.format), image)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        raise BadImage(name, "unsupported", f"masks turned by EXIF (orientation {orientation})")


def _numbers(image: Image.Image, data: bytes, name: str, *, colour: bool) -> Integer[ndarray, "row column"]:
    values = np.asarray(image)
    if image.mode in ("L", "P", "1", "I") or image.mode.startswith("I;16"):
        values = values.astype(np.int64)
        bits = data[24] if image.format == "PNG" else 8  # IHDR's bit depth
        return values * (2**bits - 1) // 255 if image.mode == "L" and bits < 8 else values
    if image.mode == "RGB" and colour and not (image.format == "PNG" and data[24] != 8):
        values = values.astype(np.int64)
        number: Integer[ndarray, "row column"] = (
            values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]
        )
        return number
    wanted = "grey, with a palette or 24-bit colour" if colour else "grey or with a palette"
    raise BadImage(name, "unsupported", f"masks of mode {image.mode}; expected {wanted}")
