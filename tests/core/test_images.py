"""Opening pictures: healthy ones come out right, broken ones with a reason, and nothing else happens."""

import hashlib
import io
import os
import random
import struct
import time
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from broken_images import (
    broken_folder,
    chunk,
    encoded,
    healthy,
    mutated,
    not_pictures,
    oriented,
    png,
    scene,
    tiff,
)
from eyechart.core.images import (
    MAX_BYTES,
    MAX_PIXELS,
    REASONS,
    BadImage,
    OpenedImage,
    each_image,
    open_image,
    open_images,
    sha256_of,
    shown,
    thumbnail_jpeg,
)
from eyechart.core.integrity import pillow_warnings
from eyechart.core.records import Quarantined


def opened(folder: Path, data: bytes, **options: int) -> OpenedImage:
    path = folder / "picture"
    path.write_bytes(data)
    return open_image(path, **options)


def refused(folder: Path, data: bytes, **options: int) -> BadImage:
    with pytest.raises(BadImage, match="picture: ") as caught:
        opened(folder, data, **options)
    return caught.value


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in row) for row in np.asarray(image).reshape(-1, 3)]


class TestHealthy:
    @pytest.mark.parametrize("name", sorted(healthy()))
    def test_every_kind_opens_to_rgb_with_hash_and_size(self, name, tmp_path):
        data = healthy()[name]
        one = opened(tmp_path, data)
        small = (20, 15) if name in ("deep.png", "deep.tiff", "real.tiff") else (64, 48)
        assert one.image.mode == "RGB"
        assert type(one.image) is Image.Image
        assert one.image.info == {}
        assert one.size_on_disk == small
        assert one.sha256 == hashlib.sha256(data).hexdigest()
        assert one.path == tmp_path / "picture"

    @pytest.mark.parametrize(
        "name", ["plain.png", "raw.tiff", "lzw.tiff", "plain.bmp", "plain.ppm", "alpha.png"]
    )
    def test_lossless_kinds_keep_every_pixel(self, name, tmp_path):
        assert opened(tmp_path, healthy()[name]).image.tobytes() == scene().tobytes()

    @pytest.mark.parametrize(
        "name",
        ["progressive.jpg", "cmyk.jpg", "plain.webp", "plain.jp2", "plain.avif", "lab.tiff", "phone.mpo"],
    )
    def test_lossy_kinds_look_the_same(self, name, tmp_path):
        if name not in healthy():
            pytest.skip(f"this Pillow does not write {name}")
        seen = np.asarray(opened(tmp_path, healthy()[name]).image, dtype=float)
        assert abs(seen - np.asarray(scene(), dtype=float)).mean() < 12

    def test_the_picture_is_apart_from_its_file(self, tmp_path):
        one = opened(tmp_path, healthy()["plain.png"])
        (tmp_path / "picture").unlink()
        one.image.putpixel((0, 0), (1, 2, 3))
        assert one.image.getpixel((0, 0)) == (1, 2, 3)

    def test_a_large_metadata_block_or_trailing_bytes_do_no_harm(self, tmp_path):
        one = opened(tmp_path, encoded(scene(), "JPEG", comment=b"x" * 60_000) + b"motion photo" * 100)
        assert one.image.size == (64, 48)


class TestColour:
    def test_transparency_is_laid_on_white(self, tmp_path):
        rgba = Image.new("RGBA", (3, 1))
        rgba.putdata([(200, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 128)])
        one = opened(tmp_path, encoded(rgba, "PNG"))
        assert pixels(one.image) == [(200, 0, 0), (255, 255, 255), (127, 127, 127)]
        assert one.notes == ("transparent parts laid on white",)

    def test_grey_with_alpha(self, tmp_path):
        la = Image.new("LA", (2, 1))
        la.putdata([(50, 255), (50, 0)])
        assert pixels(opened(tmp_path, encoded(la, "PNG")).image) == [(50,) * 3, (255,) * 3]

    def test_premultiplied_tiff(self, tmp_path):
        data = tiff(
            2,
            1,
            bytes([50, 100, 0, 0]),
            {258: ("H", (8, 8)), 262: ("H", (1,)), 277: ("H", (2,)), 338: ("H", (1,))},
        )
        one = opened(tmp_path, data)
        assert pixels(one.image)[1] == (255, 255, 255)
        assert abs(pixels(one.image)[0][0] - (50 + 155)) <= 1  # 50 is what shows of the grey, the rest white

    def test_palette_with_and_without_transparency(self, tmp_path):
        image = Image.new("P", (3, 1))
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        image.putdata([0, 1, 2])
        plain = opened(tmp_path, encoded(image, "PNG"))
        assert pixels(plain.image) == [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
        assert plain.notes == ()
        for transparency in (1, bytes([255, 0, 255])):
            one = opened(tmp_path, encoded(image, "PNG", transparency=transparency))
            assert pixels(one.image) == [(10, 20, 30), (255, 255, 255), (70, 80, 90)]
        half = opened(tmp_path, encoded(image, "PNG", transparency=bytes([255, 128, 255])))
        assert pixels(half.image)[1] == tuple(round((v * 128 + 255 * 127) / 255) for v in (40, 50, 60))

    def test_gif_with_a_transparent_entry(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.putdata([0, 1])
        one = opened(tmp_path, encoded(image, "GIF", transparency=1))
        assert pixels(one.image) == [(10, 20, 30), (255, 255, 255)]

    @pytest.mark.parametrize(
        ("bits", "row", "colour", "shown_as"),
        [(1, b"\xa0", 1, [255, 0, 255, 0]), (2, b"\x1b", 1, [0, 255, 170, 255]), (4, b"\x05\xf5", 5, [0, 255, 255, 255]),
         (8, b"\0\x05\xff\x07", 5, [0, 255, 255, 7])],
    )  # fmt: skip
    def test_transparent_grey_of_few_bits(self, bits, row, colour, shown_as, tmp_path):
        one = opened(tmp_path, png((4, 1), bits, 0, [row], chunk(b"tRNS", struct.pack(">H", colour))))
        assert [pixel[0] for pixel in pixels(one.image)] == shown_as

    def test_transparent_colour_of_16_bits(self, tmp_path):
        row = struct.pack(">9H", 0x1234, 0x1234, 0x1234, 0x3434, 0x3434, 0x3434, 0xFFFF, 0, 0)
        rgb = opened(tmp_path, png((3, 1), 16, 2, [row], chunk(b"tRNS", struct.pack(">3H", *[0x1234] * 3))))
        assert pixels(rgb.image) == [(255,) * 3, (0x34,) * 3, (255, 0, 0)]
        row = struct.pack(">3H", 0x1234, 0x3434, 0)
        grey = opened(tmp_path, png((3, 1), 16, 0, [row], chunk(b"tRNS", struct.pack(">H", 0x1234))))
        assert pixels(grey.image) == [(255,) * 3, (0x34,) * 3, (0,) * 3]
        assert "transparent parts laid on white" in grey.notes

    def test_one_bit(self, tmp_path):
        image = Image.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        assert pixels(opened(tmp_path, encoded(image, "PNG")).image) == [(0,) * 3, (255,) * 3]

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_16_bits_are_scaled_not_clipped(self, kind, tmp_path):
        values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
        one = opened(tmp_path, encoded(Image.fromarray(values), kind))
        assert [pixel[0] for pixel in pixels(one.image)] == [round(int(v) / 257) for v in values[0]]
        assert one.notes == ("grey values 0..65535 scaled to 0..255",)

    def test_big_endian_and_white_is_zero_16_bit_tiff(self, tmp_path):
        values = struct.pack("<3H", 0, 32768, 65535)
        tags = {258: ("H", (16,)), 262: ("H", (0,))}
        assert [p[0] for p in pixels(opened(tmp_path, tiff(3, 1, values, tags)).image)] == [255, 127, 0]
        big = encoded(Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 32768, 65535)), "TIFF")
        assert [p[0] for p in pixels(opened(tmp_path, big).image)] == [0, 128, 255]

    def test_12_bit_tiff_has_white_at_4095(self, tmp_path):
        one = opened(tmp_path, tiff(2, 1, b"\x00\x0f\xff", {258: ("H", (12,)), 262: ("H", (1,))}))
        assert pixels(one.image) == [(0,) * 3, (255,) * 3]

    def test_16_bit_colour(self, tmp_path):
        row = struct.pack(">6H", 0, 32768, 65535, 257, 514, 65278)
        one = opened(tmp_path, png((2, 1), 16, 2, [row]))
        assert pixels(one.image) == [(0, 128, 255), (1, 2, 254)]

    def test_bands_of_a_tall_deep_picture_meet(self, tmp_path, monkeypatch):
        monkeypatch.setattr("eyechart.core.pixels._BAND", 40)
        values = np.random.default_rng(0).integers(0, 65536, (37, 20)).astype(np.uint16)
        seen = np.asarray(opened(tmp_path, encoded(Image.fromarray(values), "PNG")).image)[..., 0]
        assert (seen == np.rint(values / 257)).all()

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            (np.float32([[0.5, 3.0]]), "floating-point values from 0.5 to 3"),
            (np.float32([[-0.25, 1.0]]), "from -0.25 to 1"),
            (np.float32([[0.5, np.nan]]), "no numbers"),
            (np.float32([[np.nan, 0.5]]), "nan"),
            (np.float32([[0.5, np.inf]]), "to inf"),
            (np.int32([[0, 70000]]), "32-bit signed integers from 0 to 70000|integers from 0 to 70000"),
            (np.int32([[-5, 100]]), "from -5 to 100"),
        ],
    )
    def test_values_without_a_white_are_refused(self, values, why, tmp_path):
        error = refused(tmp_path, encoded(Image.fromarray(values), "TIFF"))
        assert error.reason == "unsupported"
        with pytest.raises(BadImage, match=why):
            raise error

    def test_floats_from_0_to_1(self, tmp_path):
        one = opened(tmp_path, encoded(Image.fromarray(np.float32([[0, 0.5, 1]])), "TIFF"))
        assert [pixel[0] for pixel in pixels(one.image)] == [0, 128, 255]

    def test_adobe_inverted_cmyk(self, tmp_path):
        cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
        data = encoded(cmyk, "JPEG", quality=95)
        assert b"Adobe" in data  # so its samples are stored inverted
        one = opened(tmp_path, data)
        red = one.image.getpixel((8, 8))
        assert red[0] > 240
        assert max(red[1:]) < 15
        assert one.notes == ("CMYK, converted without a colour profile",)
        assert pixels(opened(tmp_path, encoded(cmyk, "TIFF")).image)[0] == (255, 0, 0)

    def test_a_colour_profile_changes_no_value(self, tmp_path):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
        one = opened(tmp_path, encoded(scene(), "PNG", icc_profile=profile))
        assert one.image.tobytes() == scene().tobytes()


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
    def test_all_eight_come_out_upright(self, orientation, kind, tmp_path):
        upright = scene(64, 48)
        stored = {
            1: upright,
            2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            3: upright.transpose(Image.Transpose.ROTATE_180),
            4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
            5: upright.transpose(Image.Transpose.TRANSPOSE),
            6: upright.transpose(Image.Transpose.ROTATE_90),
            7: upright.transpose(Image.Transpose.TRANSVERSE),
            8: upright.transpose(Image.Transpose.ROTATE_270),
        }[orientation]
        one = opened(tmp_path, encoded(stored, kind, exif=oriented(orientation)))
        assert one.size_on_disk == stored.size
        assert one.image.size == upright.size
        difference = abs(np.asarray(one.image, dtype=float) - np.asarray(upright, dtype=float)).mean()
        assert difference < 8 if kind == "JPEG" else difference == 0
        assert one.notes == (
            () if orientation == 1 else (f"turned upright (EXIF orientation {orientation})",)
        )

    @pytest.mark.parametrize("orientation", [0, 9, 77])
    def test_nonsense_turns_nothing(self, orientation, tmp_path):
        one = opened(tmp_path, encoded(scene(), "PNG", exif=oriented(orientation)))
        assert one.image.tobytes() == scene().tobytes()

    def test_metadata_that_cannot_be_read_spoil_no_picture(self, tmp_path):
        one = opened(tmp_path, encoded(scene(), "PNG", exif=b"Exif\0\0nonsense here"))
        assert one.image.tobytes() == scene().tobytes()
        assert any("EXIF" in note for note in one.notes)


class TestFrames:
    @pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
    def test_the_first_frame_is_taken_and_noted(self, kind, tmp_path):
        first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
        data = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
        one = opened(tmp_path, data)
        assert one.image.getpixel((8, 8))[0] > 240
        assert one.image.getpixel((8, 8))[2] < 15
        assert one.notes == ("several frames or pages; the first is taken",)

    def test_a_broken_second_frame_does_not_matter(self, tmp_path):
        first = encoded(scene(), "GIF")
        both = encoded(scene(), "GIF", save_all=True, append_images=[scene(seed=1)])
        assert opened(tmp_path, both[: len(first) + 200]).image.size == (64, 48)


class TestTruncated:
    @pytest.mark.parametrize("name", sorted(healthy()))
    def test_a_file_cut_anywhere_is_refused_or_whole(self, name, tmp_path):
        data = healthy()[name]
        whole = opened(tmp_path, data).image.tobytes()
        rng = random.Random(name)
        ends = {*range(1, 9), *rng.sample(range(1, len(data)), 25), *range(len(data) - 8, len(data))}
        kept = 0
        for end in sorted(ends):
            (tmp_path / "picture").write_bytes(data[:end])
            one = next(each_image([tmp_path / "picture"]))
            if isinstance(one, OpenedImage):
                kept += 1
                assert one.image.tobytes() == whole
            else:
                assert one.reason in ("truncated", "damaged", "not_an_image")
        may_lose_a_tail = name.startswith(("moving.gif", "pages", "phone"))
        assert kept <= 8 or may_lose_a_tail

    @pytest.mark.parametrize("name", ["plain.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg"])
    def test_a_jpeg_filled_up_with_zeros_is_truncated(self, name, tmp_path):
        data = healthy()[name]
        half = data[: len(data) * 2 // 3]
        error = refused(tmp_path, half + bytes(len(data) - len(half)))
        assert (error.reason, error.detail) == (
            "truncated",
            "no end-of-image marker after the compressed data",
        )

    @pytest.mark.parametrize("name", ["plain.jpg", "grey.jpg", "cmyk.jpg"])
    def test_a_jpeg_cut_and_closed_is_truncated(self, name, tmp_path):
        data = healthy()[name]
        for share in (0.7, 0.8, 0.9):
            error = refused(tmp_path, data[: int(len(data) * share)] + b"\xff\xd9")
            assert error.reason == "truncated"
            assert "end early" in error.detail

    @pytest.mark.parametrize("colour", [(128, 128, 128), (127, 127, 127), (0, 0, 0)])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_plain_grey_jpeg_is_whole(self, colour, progressive, tmp_path):
        image = scene()
        image.paste(colour, (0, 24, 64, 48))
        assert opened(tmp_path, encoded(image, "JPEG", progressive=progressive)).image.size == (64, 48)

    def test_a_tiff_without_its_later_strips_is_truncated(self, tmp_path):
        short = tiff(20, 400, bytes(20 * 40), {258: ("H", (8,)), 262: ("H", (1,)), 278: ("L", (40,))})
        error = refused(tmp_path, short)
        assert (error.reason, "strips or tiles" in error.detail) == ("truncated", True)

    def test_a_flipped_bit_in_a_png_is_noticed(self, tmp_path):
        data = bytearray(healthy()["plain.png"])
        for at in range(40, len(data) - 12, 97):
            data[at] ^= 4
            assert refused(tmp_path, bytes(data)).reason in ("damaged", "truncated")
            data[at] ^= 4


class TestBombs:
    @pytest.mark.parametrize("name", sorted(name for name in not_pictures() if name.startswith("bomb")))
    def test_a_header_that_promises_billions_is_refused_at_once(self, name, tmp_path):
        started = time.perf_counter()
        error = refused(tmp_path, not_pictures()[name])
        assert error.reason == "too_large"
        assert "60000" in error.detail or "3600000000" in error.detail
        assert time.perf_counter() - started < 1

    def test_the_limit_is_an_argument_and_includes_itself(self, tmp_path):
        data = healthy()["plain.png"]
        assert opened(tmp_path, data, max_pixels=64 * 48).image.size == (64, 48)
        error = refused(tmp_path, data, max_pixels=64 * 48 - 1)
        assert (error.reason, error.detail) == ("too_large", "64 x 48 pixels; the limit is 3071")

    def test_nothing_is_decoded_before_the_limit_is_checked(self, tmp_path, monkeypatch):
        def never(self):
            raise AssertionError("decoded")

        monkeypatch.setattr(ImageFile.ImageFile, "load", never)
        assert refused(tmp_path, healthy()["plain.png"], max_pixels=10).reason == "too_large"

    def test_the_default_is_where_pillow_refuses(self):
        assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS

    def test_between_pillows_warning_and_the_limit_it_opens_without_a_word(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
        assert opened(tmp_path, healthy()["plain.png"]).notes == ()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        assert refused(tmp_path, healthy()["plain.png"]).reason == "too_large"

    def test_a_text_chunk_that_unpacks_too_far(self, tmp_path):
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
        assert refused(tmp_path, encoded(scene(), "PNG", pnginfo=info)).reason == "damaged"

    def test_too_many_bytes(self, tmp_path):
        path = tmp_path / "huge.jpg"
        path.write_bytes(b"\xff\xd8\xff")
        os.truncate(path, MAX_BYTES + 1)
        with pytest.raises(BadImage, match=rf"{MAX_BYTES + 1} bytes; the limit is {MAX_BYTES}") as caught:
            open_image(path)
        assert caught.value.reason == "too_large"

    def test_memory_that_runs_out(self, tmp_path, monkeypatch):
        def full(self):
            raise MemoryError

        monkeypatch.setattr(ImageFile.ImageFile, "load", full)
        error = refused(tmp_path, healthy()["plain.png"])
        assert (error.reason, error.detail) == ("too_large", "not enough memory to decode it")


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [("empty.jpg", "empty"), ("text.jpg", "not_an_image"), ("page.png", "not_an_image"), ("drawing.svg", "not_an_image"),
         ("script.eps", "not_an_image"), ("zeros.jpg", "not_an_image"), ("only_signature.png", "damaged"),
         ("bmw.bmp", "truncated")],
    )  # fmt: skip
    def test_what_is_no_picture(self, name, reason, tmp_path):
        assert refused(tmp_path, not_pictures()[name]).reason == reason

    def test_missing_folder_links_pipes_and_impossible_names(self, tmp_path):
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "dangling.png").symlink_to("gone.png")
        (tmp_path / "loop.png").symlink_to("loop.png")
        (tmp_path / "file").write_bytes(b"x")
        os.mkfifo(tmp_path / "pipe.png")
        wanted = {
            "gone.png": ("missing", "No such file or directory"),
            "folder.png": ("not_a_file", "folder"),
            "dangling.png": ("missing", "a link to gone.png"),
            "loop.png": ("unreadable", "Too many levels of symbolic links"),
            "pipe.png": ("not_a_file", "pipe or device"),
            "file/inside.png": ("missing", "Not a directory"),
            "zero\0byte.png": ("missing", "embedded null"),
            "half \ud800 pair.png": ("missing", "surrogates not allowed"),
            "n" * 300: ("unreadable", "File name too long"),
        }
        for name, (reason, detail) in wanted.items():
            with pytest.raises(BadImage, match=detail) as caught:
                open_image(tmp_path / name)
            assert caught.value.reason == reason, name

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_nobody_may_read(self, tmp_path):
        (tmp_path / "secret.png").write_bytes(b"x")
        (tmp_path / "secret.png").chmod(0)
        with pytest.raises(BadImage, match="Permission denied"):
            open_image(tmp_path / "secret.png")

    def test_a_disk_that_fails(self, tmp_path, monkeypatch):
        def fails(self, mode):
            raise PermissionError(13, "Permission denied")

        path = tmp_path / "picture.png"
        path.write_bytes(healthy()["plain.png"])
        monkeypatch.setattr(Path, "open", fails)
        with pytest.raises(BadImage, match=r"the file cannot be read \(Permission denied\)") as caught:
            open_image(path)
        assert caught.value.reason == "unreadable"

    def test_the_text_says_file_reason_and_detail(self, tmp_path):
        error = refused(tmp_path, b"")
        assert str(error) == f"{tmp_path / 'picture'}: the file holds no bytes (0 bytes)"
        assert error.row() == Quarantined(path=str(tmp_path / "picture"), reason="empty", detail="0 bytes")

    def test_an_unknown_reason_is_a_bug(self):
        with pytest.raises(ValueError, match="'tired' is no reason"):
            BadImage("a.png", "tired", "")

    def test_names_with_odd_bytes_can_be_stored(self):
        assert shown(os.fsdecode(b"a\xff.png")) == "a\\udcff.png"
        assert shown(Path("ünï ☃.png")) == "ünï ☃.png"


class TestQuiet:
    def test_pillows_warnings_become_notes(self, tmp_path):
        data = bytearray(encoded(scene(), "PNG", save_all=True, append_images=[scene(seed=1)]))
        frames = data.index(b"acTL")
        data[frames + 4 : frames + 8] = bytes(4)  # no frames at all
        data[frames + 12 : frames + 16] = struct.pack(">I", zlib.crc32(data[frames : frames + 12]))
        one = opened(tmp_path, bytes(data))
        assert one.notes == ("Invalid APNG, will use default PNG image if possible",)

    def test_other_threads_and_modules_are_heard_as_before(self):
        with pytest.warns(UserWarning, match="mine"), pillow_warnings() as heard:
            warnings.warn("mine", UserWarning, stacklevel=1)
        assert heard == []

    def test_filters_are_as_before_even_when_threads_overlap(self, tmp_path):
        before, show = list(warnings.filters), warnings.showwarning
        paths = []
        for number in range(40):
            paths.append(tmp_path / f"{number}.bin")
            paths[-1].write_bytes(mutated(sorted(healthy().items())[number % 20][1], random.Random(number)))
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda path: list(each_image([path])), paths))
        assert list(warnings.filters) == before
        assert warnings.showwarning is show
        alone = [list(each_image([path])) for path in paths]
        assert [[getattr(one, "sha256", one) for one in ones] for ones in together] == [
            [getattr(one, "sha256", one) for one in ones] for ones in alone
        ]

    def test_pillows_switches_are_left_alone(self, tmp_path):
        before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.WARN_POSSIBLE_FORMATS)
        open_images(broken_folder(tmp_path, mutants=10, seed=1))
        assert (
            Image.MAX_IMAGE_PIXELS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
            Image.WARN_POSSIBLE_FORMATS,
        ) == before


class TestFolderOfBrokenImages:
    def test_each_of_several_hundred_is_opened_to_rgb_or_refused_with_a_reason(self, tmp_path):
        paths = broken_folder(tmp_path, mutants=500, seed=20)
        assert len(paths) > 500
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            good, bad = open_images(paths)
        assert heard == []
        assert len(good) + len(bad) == len(paths)
        assert {one.image.mode for one in good} == {"RGB"}
        for one in good:
            width, height = one.image.size
            assert len(one.image.tobytes()) == 3 * width * height
        reasons = Counter(row.reason for row in bad)
        assert set(reasons) <= set(REASONS)
        assert {
            "truncated",
            "damaged",
            "not_an_image",
            "empty",
            "missing",
            "not_a_file",
            "too_large",
            "unreadable",
        } <= set(reasons)
        assert all(row.detail and " at 0x" not in row.detail and "\n" not in row.detail for row in bad)
        assert len(bad) > len(paths) / 2

    def test_the_same_folder_twice_gives_the_same_rows(self, tmp_path):
        paths = broken_folder(tmp_path, mutants=60, seed=3)
        first, second = open_images(paths), open_images(paths)
        assert first[1] == second[1]
        assert [one.image.tobytes() for one in first[0]] == [one.image.tobytes() for one in second[0]]


def test_the_order_of_paths_is_kept_and_reading_is_lazy(tmp_path):
    (tmp_path / "a.png").write_bytes(healthy()["plain.png"])
    stream = each_image(iter([tmp_path / "no.png", tmp_path / "a.png"]))
    assert next(stream).reason == "missing"
    assert next(stream).path == tmp_path / "a.png"


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(BadImage, match=r"no\.png: there is no such file"):
        sha256_of(tmp_path / "no.png")


class TestThumbnail:
    def test_it_fits_keeps_its_shape_and_is_never_enlarged(self):
        for size, wanted in [
            ((640, 320), (320, 160)),
            ((100, 1000), (32, 320)),
            ((50, 20), (50, 20)),
            ((5000, 1), (320, 1)),
        ]:
            small = Image.open(io.BytesIO(thumbnail_jpeg(scene(*size))))
            assert (small.format, small.size) == ("JPEG", wanted)

    def test_same_picture_same_bytes_and_no_metadata(self):
        image = scene(400, 300)
        tagged = image.copy()
        tagged.info = {"comment": b"secret", "icc_profile": b"x", "exif": oriented(6).tobytes()}
        assert thumbnail_jpeg(image) == thumbnail_jpeg(tagged) == thumbnail_jpeg(image.copy())
        assert image.size == (400, 300)

    def test_the_side_is_an_argument(self):
        assert Image.open(io.BytesIO(thumbnail_jpeg(scene(400, 300), side=40))).size == (40, 30)


@pytest.mark.slow
def test_thousands_of_mutants(tmp_path):
    files, rng = sorted(healthy().items()), random.Random(99)
    for number in range(4_000):
        data = mutated(files[number % len(files)][1], rng)
        path = tmp_path / "mutant"
        path.write_bytes(mutated(data, rng) if data and number % 3 == 0 else data)
        for one in each_image([path]):
            assert isinstance(one, OpenedImage) or one.reason in REASONS


def test_real_photos_open_as_pillow_opens_them(shared_data):
    paths = sorted((shared_data / "coco-open-subset").rglob("*.jpg"))[:12]
    assert paths
    for path, one in zip(paths, each_image(paths), strict=True):
        with Image.open(path) as plain:
            assert one.image.tobytes() == plain.convert("RGB").tobytes()
        assert one.notes == ()
