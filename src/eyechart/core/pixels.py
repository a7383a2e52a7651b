"""Decoded Pillow pictures of any mode as 8-bit RGB.

Every rule is a stated one: transparency is laid on white, integer samples are scaled from their full range to
0..255, floating-point samples are read as 0..1, CMYK goes through Pillow's plain formula (no profile). Pixel
values that have no stated white are refused, never stretched.
"""

import numpy as np
from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the EXIF orientation it was stored with (CIPA DC-008, tag 274)."""

_SIGNED = 2
"""TIFF's SampleFormat for two's-complement integers."""


_BAND = 2**22
"""About how many pixels are scaled at a time."""


class NoColour(Exception):
    """The pixel values have no stated black and white; the text says which values they are."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as EXIF `orientation` (1 to 8) asks; any other value changes nothing."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def fit_transparency(image: Image.Image, bits: int) -> None:
    """Bring the transparent colour of a PNG of `bits` per sample in line with its pixels, in place.

    Pillow scales samples of 2, 4 and 16 bits to 8 when it decodes, but leaves the colour as it is stored.
    """
    colour = image.info.get("transparency")
    if image.mode == "RGB" and bits == 16 and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif image.mode == "L" and bits < 8 and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // (2**bits - 1)


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """`image`, decoded and of any mode, as RGB without metadata; what was decided is added to `notes`.

    Raises:
        NoColour: its values cannot be placed between black and white without guessing.
    """
    if image.mode.startswith("I") or image.mode == "F":
        rgb = _grey(image, notes).convert("RGB")
    elif image.has_transparency_data:
        rgb = _on_white(image, notes)
    else:
        rgb = image.convert("RGB")
    if image.mode == "CMYK":
        notes.append("CMYK, converted without a colour profile")
    plain = rgb.copy() if rgb is image else rgb
    plain.info = {}
    return plain


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode == "La":  # grey, already multiplied by its alpha
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return rgba.convert("RGB")
    notes.append("transparent parts laid on white")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=alpha)
    return white


def _grey(image: Image.Image, notes: list[str]) -> Image.Image:
    """One channel of integers or floats as 8-bit grey; in bands, so that memory stays near the picture's own."""
    white = _white(image)
    tags = getattr(image, "tag_v2", None)
    white_is_zero = tags is not None and tags.get(ExifTags.Base.PhotometricInterpretation, 0) == 0
    transparent = image.info.get("transparency")
    grey, rows = Image.new("L", image.size), max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        if np.isnan(values).any():
            raise NoColour("floating-point values that are no numbers (NaN)")
        shares = values.astype(np.float32) / white
        band = np.rint(255 * (1 - shares if white_is_zero else shares)).astype(np.uint8)
        if isinstance(transparent, int):
            band[values == transparent] = 255
        grey.paste(Image.fromarray(band), (0, top))
    notes.append(f"grey values 0..{white} scaled to 0..255")
    if isinstance(transparent, int):
        notes.append("transparent parts laid on white")
    return grey


def _white(image: Image.Image) -> int:
    """The value that means white: from the samples' width, or 1 for floating point."""
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(ExifTags.Base.BitsPerSample, (16,)))
    if image.mode.startswith("I;16"):
        return int(2**bits - 1)
    low, high = image.getextrema()
    assert isinstance(low, int | float)  # one channel has one pair, not a pair for each channel
    if image.mode == "F":
        if not 0 <= low <= high <= 1:  # type: ignore[operator]
            raise NoColour(f"floating-point values from {low:g} to {high:g}; only 0 to 1 is read")
        return 1
    signed = _SIGNED in tags.get(ExifTags.Base.SampleFormat, (1,))
    if bits > 16 or signed or not 0 <= low <= high < 2**bits:  # type: ignore[operator]
        kind = f"{bits}-bit {'signed ' if signed else ''}integers"
        raise NoColour(f"{kind} from {low} to {high}; only unsigned ones of up to 16 bits are read")
    return int(2**bits - 1)
