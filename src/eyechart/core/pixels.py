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


class NoColour(Exception):
    """The pixel values have no stated black and white; the text says which values they are."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as EXIF `orientation` (1 to 8) asks; any other value changes nothing."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


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
    """One channel of integers or floats as 8-bit grey."""
    values = np.asarray(image)
    white = _white(image, values)
    shown = values.astype(np.float32) / white
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and tags.get(ExifTags.Base.PhotometricInterpretation, 0) == 0:
        shown = 1 - shown  # white is zero
    notes.append(f"grey values 0..{white} scaled to 0..255")
    grey = np.rint(shown * 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and (values == transparent).any():
        grey[values == transparent] = 255
        notes.append("transparent parts laid on white")
    return Image.fromarray(grey)


def _white(image: Image.Image, values: np.ndarray) -> int:
    """The value that means white: from the sample's width, or 1 for floating point."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # also true of NaN
            raise NoColour(f"floating-point values from {low:g} to {high:g}; only 0 to 1 is read")
        return 1
    bits = max(tags.get(ExifTags.Base.BitsPerSample, (16,)))
    signed = _SIGNED in tags.get(ExifTags.Base.SampleFormat, (1,))
    low, high = int(values.min()), int(values.max())
    white = 2**bits - 1
    if bits > 16 or signed or not 0 <= low <= high <= white:
        kind = f"{bits}-bit {'signed ' if signed else ''}integers"
        raise NoColour(f"{kind} from {low} to {high}; only unsigned ones of up to 16 bits are read")
    return int(white)
