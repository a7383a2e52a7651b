"""Numbers come out of a picture as they were put in, at every depth, or not at all."""

import struct
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from eyechart.core.images import BadImage
from eyechart.locate.part_labels import label_values


def png_by_hand(values, bits, kind=0, palette=b""):
    """A PNG written byte by byte: its samples are the numbers, whatever a picture library thinks of them."""
    height, width = values.shape
    rows = b""
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows += b"\0" + bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *([(b"PLTE", palette)] if palette else []),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_grey_numbers_of_every_depth(tmp_path_factory, bits, height, width, seed):
    values = np.random.default_rng(seed).integers(0, 2**bits, (height, width))
    path = tmp_path_factory.mktemp("grey") / "a.png"
    path.write_bytes(png_by_hand(values, bits))
    np.testing.assert_array_equal(label_values(path), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_gives_places_not_colours(tmp_path, bits):
    values = np.arange(12).reshape(3, 4) % 2**bits
    colours = bytes(200 - 3 * one for one in range(3 * min(2**bits, 16)))
    (tmp_path / "a.png").write_bytes(png_by_hand(values, bits, kind=3, palette=colours))
    np.testing.assert_array_equal(label_values(tmp_path / "a.png"), values)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_numbers_of_seven_digits_in_a_tiff(tmp_path, compression):
    values = np.array([[0, 15, 15003], [1500317, 9999999, 100000]], np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(label_values(tmp_path / "a.tif"), values)


def test_colour_holds_24_bits_where_it_is_asked_for(tmp_path):
    values = np.array([[0, 255, 256], [65536, 9999999, 16777215]])
    rgb = np.stack([values % 256, values // 256 % 256, values // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(label_values(tmp_path / "a.png", colour=True), values)
    with pytest.raises(BadImage, match="mode RGB"):
        label_values(tmp_path / "a.png")


def test_what_would_change_a_number_is_refused(tmp_path):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.save(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="damaged"):
        label_values(tmp_path / "a.jpg")
    grey.convert("LA").save(tmp_path / "la.png")
    with pytest.raises(BadImage, match="mode LA"):
        label_values(tmp_path / "la.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(BadImage, match="turned by EXIF"):
        label_values(tmp_path / "turned.png")
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(BadImage, match="mode F"):
        label_values(tmp_path / "f.tif")


def test_broken_files_are_named(tmp_path):
    with pytest.raises(BadImage, match="no such file") as missing:
        label_values(tmp_path / "none.png")
    assert missing.value.reason == "missing"
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(BadImage, match="damaged"):
        label_values(tmp_path / "text.png")
    data = png_by_hand(np.arange(400).reshape(20, 20) % 256, 8)
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage, match=r"damaged|truncated|ends before"):
        label_values(tmp_path / "cut.png")
    (tmp_path / "flipped.png").write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(BadImage, match="damaged"):
        label_values(tmp_path / "flipped.png")
    end = data.rindex(b"IEND") - 8  # the checksum of the pixels
    (tmp_path / "checksum.png").write_bytes(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :])
    with pytest.raises(BadImage, match="damaged"):
        label_values(tmp_path / "checksum.png")
    with pytest.raises(BadImage, match="folder"):
        label_values(tmp_path)
