"""Image files opened safely: a right RGB picture, or a refusal with its reason.

A picture comes out as 8-bit RGB, upright (EXIF orientation applied), with transparency laid on white. Of an
animation or a file of several pages the first is taken, and a note says so. Samples of more than 8 bits are
scaled, not clipped. Embedded colour profiles are left alone: the values are what the file stores.

What cannot be noticed: damage that still decodes in a format without checksums (JPEG, GIF, WebP, BMP, ...).
Pillow's own switches (`MAX_IMAGE_PIXELS`, `LOAD_TRUNCATED_IMAGES`) are not touched. libtiff and libjpeg may
write a line of their own to stderr about a broken file; that is beyond Python's reach.
"""

import hashlib
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from PIL import ExifTags, Image, UnidentifiedImageError

from .errors import UserError
from .integrity import CutShort, check_not_filled, check_whole, pillow_warnings
from .pixels import NoColour, fit_transparency, to_rgb, upright
from .records import Quarantined

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
"""The formats that are read: raster pictures with a signature; nothing that runs a program, as EPS does."""

MAX_PIXELS = 178_956_970
"""The most pixels (width x height) decoded by default: the size from which Pillow itself refuses."""

MAX_BYTES = 2**30
"""The largest file that is read."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "there is no such file",
        "not_a_file": "this is a folder, a pipe or a device, not a file",
        "unreadable": "the file cannot be read",
        "empty": "the file holds no bytes",
        "not_an_image": f"no picture in a format that is read here ({', '.join(FORMATS)})",
        "too_large": "more pixels, bytes or memory than the limit allows",
        "truncated": "the file ends before its picture does",
        "damaged": "the picture is damaged, or of a kind that Pillow cannot read",
        "unsupported": "the pixel values cannot be shown as 8-bit colour without guessing",
    }
)
"""Why a file is refused: the word that stands in `quarantine.parquet`, and its sentence."""

BROKEN: tuple[type[Exception], ...] = (
    OSError,  # decoder errors, cut data, UnidentifiedImageError
    SyntaxError,  # "not a ... file", checksums that do not fit
    ValueError,  # impossible header fields, text that unpacks too far, UnicodeDecodeError
    TypeError,  # a tag of another type than expected
    LookupError,  # KeyError of unknown modes and compressions, IndexError at the end of data
    AttributeError,  # a field that a broken header never set
    AssertionError,  # Pillow's own, on values only a broken file can have
    EOFError,  # no first frame
    ArithmeticError,  # ZeroDivisionError and OverflowError from header fields
    RuntimeError,  # AVIF and WebP decoders that could not be set up
    struct.error,  # fields cut short
    zlib.error,  # compressed text and profiles
    Image.DecompressionBombError,  # too many pixels by Pillow's own count
)
"""What Pillow raises on broken files, from its source and from mutated files: so many kinds, no common base."""


class BadImage(UserError):
    """A file that gives no right picture: its `path`, a `reason` out of `REASONS`, and a `detail`."""

    def __init__(self, path: str, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is no reason to refuse an image; there are: {', '.join(REASONS)}")
        super().__init__(path, reason, detail)
        self.path, self.reason, self.detail = path, reason, detail

    def __str__(self) -> str:
        return f"{self.path}: {REASONS[self.reason]} ({self.detail})"

    def row(self) -> Quarantined:
        """This refusal as a row of `quarantine.parquet`."""
        return Quarantined(path=self.path, reason=self.reason, detail=self.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """A picture that was read whole."""

    path: Path
    image: Image.Image
    """RGB, 8 bits, upright, without metadata, apart from its file."""

    sha256: str
    """Of the file's bytes."""

    size_on_disk: tuple[int, int]
    """(width, height) in pixels as stored, before EXIF turns it."""

    orientation: int
    """How EXIF turned it: 1 for not at all, to 8; `core.pixels.upright` turns what belongs to it likewise."""

    notes: tuple[str, ...]
    """What was decided or noticed: orientation, frames, transparency, scaling, Pillow's warnings."""


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be stored and printed: what is no UTF-8 becomes `\\udcNN`."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def open_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Read one picture; its header is checked against `max_pixels` before anything is decoded.

    Pillow refuses pictures of more than twice its `Image.MAX_IMAGE_PIXELS`, whatever `max_pixels` says. Reading
    takes up to about nine bytes of memory a pixel: 1.5 GB at the default limit.

    Raises:
        BadImage: there is no right picture in the file; the reason is one of `REASONS`.
    """
    name = shown(path)
    return _opened_image(Path(path), name, lambda: _read(path, name), max_pixels)


def open_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Read one picture that lies in memory, as `open_image` reads a file of these bytes.

    Args:
        name: what the picture is called, for messages; the result's `path`.

    Raises:
        BadImage: there is no right picture in the bytes; the reason is one of `REASONS`.
    """
    return _opened_image(Path(name), name, lambda: (data, _kind(data[:16], name)), max_pixels)


def _opened_image(
    path: Path, name: str, read: Callable[[], tuple[bytes, str]], max_pixels: int
) -> OpenedImage:
    with pillow_warnings() as warned:
        try:
            data, kind = read()
            size, orientation, image, notes = _decode(name, data, kind, max_pixels)
        except MemoryError:
            raise BadImage(name, "too_large", "not enough memory to decode it") from None
        except NoColour as error:
            raise BadImage(name, "unsupported", str(error)) from None
        except CutShort as error:
            raise BadImage(name, "truncated", str(error)) from None
    return OpenedImage(
        path=path,
        image=image,
        sha256=hashlib.sha256(data).hexdigest(),
        size_on_disk=size,
        orientation=orientation,
        notes=(*notes, *warned),
    )


def each_image(
    paths: Iterable[str | os.PathLike[str]], *, max_pixels: int = MAX_PIXELS
) -> Iterator[OpenedImage | Quarantined]:
    """One by one, in order: each path's picture, or the row that says why there is none."""
    for path in paths:
        try:
            yield open_image(path, max_pixels=max_pixels)
        except BadImage as error:
            yield error.row()


def open_images(
    paths: Iterable[str | os.PathLike[str]], *, max_pixels: int = MAX_PIXELS
) -> tuple[list[OpenedImage], list[Quarantined]]:
    """All the pictures that can be read, in order, and the rest with their reasons. Holds all in memory."""
    opened: list[OpenedImage] = []
    quarantined: list[Quarantined] = []
    for one in each_image(paths, max_pixels=max_pixels):
        if isinstance(one, OpenedImage):
            opened.append(one)
        else:
            quarantined.append(one)
    return opened, quarantined


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits; the file is streamed.

    Raises:
        BadImage: it is missing, no file, or cannot be read.
    """
    with _opened(path, shown(path)) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def thumbnail_jpeg(image: Image.Image, side: int = 320) -> bytes:
    """A JPEG of `image` that fits into `side` x `side` pixels; never enlarged, no metadata.

    The same picture gives the same bytes under the same Pillow.
    """
    small = image.convert("RGB")
    small = small.copy() if small is image else small
    small.info = {}
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


@contextmanager
def _opened(path: str | os.PathLike[str], name: str) -> Iterator[io.BufferedReader]:
    """An open regular file; a pipe or device is never opened, since reading it could wait for ever."""
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise BadImage(name, "not_a_file", "folder" if file.is_dir() else "pipe or device")
        with file.open("rb") as handle:
            yield handle
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"a link to {shown(file.readlink())}" if file.is_symlink() else error.strerror
        raise BadImage(name, "missing", str(why)) from None
    except OSError as error:
        raise BadImage(name, "unreadable", str(error.strerror)) from None
    except ValueError as error:  # a name no file can have: with a zero byte, or not encodable
        raise BadImage(name, "missing", str(error)) from None


def _read(path: str | os.PathLike[str], name: str) -> tuple[bytes, str]:
    """The file's bytes and its format by signature; nothing more than that is read of a file of no format."""
    with _opened(path, name) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > MAX_BYTES:
            raise BadImage(name, "too_large", f"{size} bytes; the limit is {MAX_BYTES}")
        prefix = handle.read(16)
        kind = _kind(prefix, name)
        return prefix + handle.read(), kind


def _kind(prefix: bytes, name: str) -> str:
    """The format that a file's first 16 bytes tell."""
    if not prefix:
        raise BadImage(name, "empty", "0 bytes")
    kind = _format(prefix)
    if kind is None:
        raise BadImage(name, "not_an_image", f"it starts with {prefix[:8]!r}")
    return kind


def _format(prefix: bytes) -> str | None:
    """The one of `FORMATS` whose signature the first 16 bytes bear, by Pillow's own tests."""
    Image.init()
    for kind in FORMATS:
        accept = Image.OPEN[kind][1] if kind in Image.OPEN else None
        if accept is not None and accept(prefix.ljust(16, b"\0")):
            return kind
    return None


def _decode(
    name: str, data: bytes, kind: str, max_pixels: int
) -> tuple[tuple[int, int], int, Image.Image, list[str]]:
    """Size as stored, EXIF's orientation, the picture upright in RGB, and notes."""
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            size = _stored_size(image)
            if size[0] * size[1] > max_pixels:
                raise BadImage(name, "too_large", f"{size[0]} x {size[1]} pixels; the limit is {max_pixels}")
            check_whole(data, kind, image)
            if kind == "TIFF":  # Pillow turns it while decoding, and forgets how
                orientation = _orientation(image, notes)
            image.load()
            if kind == "JPEG":
                check_not_filled(data, image)
            if kind == "PNG":
                fit_transparency(image, bits=data[24])  # IHDR's bit depth
            rgb = to_rgb(image, notes)
            if kind != "TIFF":
                orientation = _orientation(image, notes)
                rgb = upright(rgb, orientation)
            if _has_more(image):
                notes.append("several frames or pages; the first is taken")
    except Image.DecompressionBombError as error:
        raise BadImage(name, "too_large", _plain(error)) from None
    except UnidentifiedImageError:
        raise BadImage(
            name, "damaged", f"it starts like {kind}, but Pillow makes no sense of its header"
        ) from None
    except BROKEN as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise BadImage(name, "truncated" if cut else "damaged", _plain(error)) from None
    return size, orientation, rgb, notes


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as stored; Pillow swaps them for a TIFF that lies on its side."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return image.size
    return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """EXIF's orientation, 1 where there is none; metadata that cannot be read spoil no picture."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN as error:
        notes.append(f"EXIF cannot be read, so the picture is not turned ({_plain(error)})")
        return 1
    if value in range(2, 9):
        notes.append(f"turned upright (EXIF orientation {value})")
        return int(value)
    return 1


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except BROKEN:  # a second frame is there and broken
        return True


def _plain(error: Exception) -> str:
    """What Pillow says, on one line and without addresses in memory, so that equal files read equal."""
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", " ".join(str(error).split()))
    return text[:200] or type(error).__name__
