"""Healthy picture files of many kinds, and a folder of broken ones made from them, for tests."""

import functools
import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes Pillow writes for `image`; of copies, since saving leaves settings on the objects."""
    out = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(out, kind, **options)
    return out.getvalue()


def scene(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth random picture in RGB: no two corners alike, no plain regions."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(size: tuple[int, int], bits: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG written by hand: `colour` is its colour type, `rows` the packed samples, `extra` further chunks."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(width: int, height: int, data: bytes, tags: dict[int, tuple[str, tuple[int, ...]]]) -> bytes:
    """An uncompressed little-endian TIFF of one strip, written by hand; each tag has type ("H" or "L") and values."""
    wanted = {256: ("L", (width,)), 257: ("L", (height,)), 259: ("H", (1,)), 278: ("L", (height,))}
    wanted |= {273: ("L", (8,)), 279: ("L", (len(data),))} | tags
    entries, after = b"", b""
    directory = 8 + len(data) + len(data) % 2
    beyond = directory + 2 + 12 * len(wanted) + 4
    for tag, (kind, values) in sorted(wanted.items()):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        entries += struct.pack("<HHI", tag, {"H": 3, "L": 4}[kind], len(values))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", beyond + len(after))
            after += packed
    head = b"II*\0" + struct.pack("<I", directory) + data + b"\0" * (len(data) % 2)
    return head + struct.pack("<H", len(wanted)) + entries + b"\0\0\0\0" + after


def oriented(orientation: object) -> Image.Exif:
    """EXIF that says how the picture was stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@functools.cache
def healthy() -> dict[str, bytes]:
    """One file of each kind that is read, all of the same size but two."""
    image, others = scene(), [scene(seed=1), scene(seed=2)]
    deep = Image.fromarray(np.linspace(0, 65535, 300).astype(np.uint16).reshape(15, 20))
    real = Image.fromarray(np.linspace(0, 1, 300, dtype=np.float32).reshape(15, 20))
    files = {
        "plain.jpg": encoded(image, "JPEG", exif=oriented(6)),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "phone.mpo": encoded(image, "MPO", save_all=True, append_images=others),
        "plain.png": encoded(image, "PNG"),
        "palette.png": encoded(image.convert("P"), "PNG", transparency=3),
        "alpha.png": encoded(image.convert("RGBA"), "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "moving.png": encoded(image, "PNG", save_all=True, append_images=others),
        "still.gif": encoded(image, "GIF"),
        "moving.gif": encoded(image, "GIF", save_all=True, append_images=others),
        "raw.tiff": encoded(image, "TIFF"),
        "deep.tiff": encoded(deep, "TIFF"),
        "real.tiff": encoded(real, "TIFF"),
        "lzw.tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "jpeg.tiff": encoded(image, "TIFF", compression="jpeg"),
        "fax.tiff": encoded(image.convert("1"), "TIFF", compression="group4"),
        "pages.tiff": encoded(
            image, "TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=others
        ),
        "lab.tiff": encoded(image.convert("LAB"), "TIFF"),
        "plain.bmp": encoded(image, "BMP"),
        "plain.ppm": encoded(image, "PPM"),
    }
    for kind, name in (("WEBP", "plain.webp"), ("JPEG2000", "plain.jp2"), ("AVIF", "plain.avif")):
        if kind in Image.SAVE:
            files[name] = encoded(image, kind)
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one kind of damage: flipped bits, a new header, a cut, a hole, something put in, zeros."""
    out, at = bytearray(data), rng.randrange(len(data))
    way = rng.choice(["flip", "header", "cut", "hole", "insert", "zeros"])
    if way == "flip":
        for _ in range(rng.randrange(1, 8)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif way == "header":
        for _ in range(rng.randrange(1, 6)):
            out[rng.randrange(min(len(out), 100))] = rng.choice([0, 255, 128, rng.randrange(256)])
    elif way == "cut":
        del out[at:]
    elif way == "hole":
        del out[at : at + rng.randrange(1, 60)]
    elif way == "insert":
        out[at:at] = rng.randbytes(rng.randrange(1, 40))
    else:
        out[at : at + 200] = bytes(len(out[at : at + 200]))
    return bytes(out)


def not_pictures() -> dict[str, bytes]:
    """Files that only look like pictures, by name or by their first bytes, and headers that promise too much."""
    side = 60_000
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
    return {
        "empty.jpg": b"",
        "one.png": b"\x89",
        "text.jpg": b"The quick brown fox\n" * 20,
        "page.png": b"<!doctype html><title>404 Not Found</title>",
        "zeros.jpg": bytes(5000),
        "program.png": b"\x7fELF" + bytes(500),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "archive.webp": b"PK\3\4" + bytes(100),
        "only_signature.png": b"\x89PNG\r\n\x1a\n",
        "only_signature.jpg": b"\xff\xd8\xff",
        "only_signature.gif": b"GIF89a",
        "bmw.bmp": b"BMW is a maker of cars",
        "bomb.png": png((side, side), 8, 0, [b"\0" * side] * 2),
        "bomb.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.ppm": b"P6 60000 60000 255\n" + bytes(100),
        "bomb.gif": b"GIF89a" + struct.pack("<HH", side, side) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "bomb.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x0b" + frame + b"\xff\xd9",
        "bomb.tiff": tiff(side, side, b"\0" * 9, {258: ("H", (8,)), 262: ("H", (1,))}),
    }


def broken_folder(folder: Path, *, mutants: int, seed: int) -> list[Path]:
    """Fill `folder` with broken files, links, folders and names; the paths of all of them."""
    rng, files = random.Random(seed), healthy()
    kinds = sorted(files)
    for number in range(mutants):
        name = kinds[number % len(kinds)]
        data = mutated(files[name], rng)
        (folder / f"{number:04d}_{name}").write_bytes(
            mutated(data, rng) if data and number % 3 == 0 else data
        )
    for name, data in not_pictures().items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    os.mkfifo(folder / "pipe.jpg")
    odd = [Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe name\n.png")), folder / "ünï ☃ '\"$.png"]
    for path in odd:
        path.write_bytes(b"no picture")
    return [*sorted(folder.iterdir()), folder / "gone.jpg", folder / "text.jpg" / "inside.png"]
