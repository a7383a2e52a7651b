"""Contact sheets: every pair with its pictures and answers, every kind with every way it can look."""

import base64
import io
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.world.captions import BIASED, PERMUTED, TOLD_ALL
from eyechart.world.facts import PATTERNS
from eyechart.world.kinds import KINDS, part_id
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.sets_plan import PairPlan, draw_pairs
from eyechart.world.sheets import Strip, Tile, file_of, sheet, strip_of_kind, strips_of_pairs, web_page

PLAN = PairPlan(pairs=3, patterns=("position",), relation="twins")


def contains(page: Image.Image, picture: Image.Image) -> bool:
    """Whether a picture lies in another, pixel for pixel."""
    whole, part = np.asarray(page), np.asarray(picture)
    high, wide = part.shape[:2]
    starts = np.argwhere((whole[: -high or None, : -wide or None] == part[0, 0]).all(-1))
    return any(np.array_equal(whole[top : top + high, left : left + wide], part) for top, left in starts)


def test_a_strip_shows_the_pair_and_names_the_answers():
    pairs = draw_pairs(PLAN)
    for pair, strip in zip(pairs, strips_of_pairs(pairs, 40), strict=True):
        assert pair.question in strip.heading
        assert all(option in strip.heading for option in pair.options)
        assert [tile.label for tile in strip.tiles] == [pair.options[answer] for answer in pair.answers]
        for tile, facts, nonce in zip(strip.tiles, pair.facts, pair.nonces, strict=True):
            assert np.array_equal(np.asarray(tile.image), render(lay_out(facts, nonce), 40).image)


def test_a_sheet_holds_every_picture_whole():
    strips = strips_of_pairs(draw_pairs(PLAN), 40)
    page = Image.open(io.BytesIO(file_of("position", strips, ".png")))
    assert all(contains(page, tile.image) for strip in strips for tile in strip.tiles)
    assert not contains(page, Image.new("RGB", (40, 40), "red"))
    narrow = sheet(strips, columns=1)
    assert narrow.width < page.width
    assert narrow.height > page.height
    assert Image.open(io.BytesIO(file_of("position", strips, ".jpg"))).size == page.size


def test_a_page_holds_every_picture_and_escapes_its_words():
    strips = (Strip(heading="<b> & co", tiles=(Tile(image=Image.new("RGB", (9, 9), "red"), label='"x"'),)),)
    page = web_page("a <title>", strips)
    assert "&lt;b&gt; &amp; co" in page
    assert "a &lt;title&gt;" in page
    assert "http" not in page
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), strips[0].tiles[0].image
    )
    assert file_of("a <title>", strips, ".html").decode() == page


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kinds_strip_shows_each_way_it_can_look(name):
    kind = KINDS[name]
    strip = strip_of_kind(name, 48)
    labels = [tile.label for tile in strip.tiles]
    assert all(part in strip.heading for part in kind.parts)
    assert all(f"no {part}" in labels for part in kind.optional)
    for choice in (kind.state, kind.shape):
        for word in choice.words if choice is not None else ():
            assert any(word in label for label in labels)
    assert ("from behind" in labels) == kind.has_front
    pictures = [
        np.asarray(tile.image) for tile in strip.tiles if tile.label not in ("its parts", "", "turned round")
    ]
    for place, picture in enumerate(pictures):
        assert not any(np.array_equal(picture, other) for other in pictures[:place]), labels[place]


def test_the_map_of_parts_is_the_renderers():
    strip = strip_of_kind("house", 64)
    tinted = np.asarray(strip.tiles[[tile.label for tile in strip.tiles].index("its parts")].image)
    from eyechart.world.sheets import _looks

    parts = render(lay_out(_looks("house")[0][1], 0), 64).parts
    for part in KINDS["house"].parts:
        tints = np.unique(tinted[parts == part_id("house", part)], axis=0)
        assert len(tints) == 1
    rest = tinted[~np.isin(parts, [part_id("house", part) for part in KINDS["house"].parts])]
    assert (rest == rest[0]).all()


def test_unknown_kinds_and_forms_are_named():
    with pytest.raises(UserError, match=r"no kind named 'huose'. Did you mean 'house'"):
        strip_of_kind("huose", 48)
    with pytest.raises(UserError, match=r"no form of a contact sheet named '.gif'"):
        file_of("x", (), ".gif")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_the_docs_tell_of_every_kind_pattern_and_rate_as_they_are():
    docs = Path(__file__).parents[2] / "docs"
    rows = {
        cells(row)[0]: cells(row)
        for row in (docs / "world.md").read_text("utf8").splitlines()
        if row[:1] == "|"
    }
    for name in (*KINDS, *PATTERNS):
        assert f"[{name}](world/{name}.jpg)" in rows
        with Image.open(docs / f"world/{name}.jpg") as image:
            assert image.width > 300
    for name, kind in KINDS.items():
        _, parts, optional, state, shape, front = rows[f"[{name}](world/{name}.jpg)"]
        assert (parts, optional, front) == (
            ", ".join(kind.parts), ", ".join(kind.optional), "yes" if kind.has_front else "no",
        )  # fmt: skip
        for said, choice in ((state, kind.state), (shape, kind.shape)):
            assert choice is None or said == " / ".join(choice.words) + (
                f" ({choice.part})" if choice.part else ""
            )
    for field in fields(BIASED):
        wanted = [f"{getattr(rates, field.name):g}" for rates in (BIASED, TOLD_ALL, PERMUTED)]
        assert next(row[1:] for name, row in rows.items() if name == field.name) == wanted
