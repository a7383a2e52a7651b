"""Contact sheets for people: pairs with their question and answers, and every way an object of a kind can look."""

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from eyechart.core.errors import unknown
from eyechart.world.facts import Facts
from eyechart.world.kinds import KINDS, part_id
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.sets import png
from eyechart.world.sets_plan import ScenePair

_INK, _GREY, _PAPER, _BLANK = (20, 20, 20), (110, 110, 110), (255, 255, 255), (235, 235, 235)
_GAP = 10
_ACROSS = 6

_TINTS = (
    (230, 60, 60),
    (60, 150, 230),
    (250, 200, 40),
    (90, 190, 90),
    (170, 90, 200),
    (245, 140, 40),
    (60, 200, 200),
)
"""Colours of a kind's parts on its map, in the order of the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A picture with a line under it."""

    image: Image.Image
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Pictures side by side under a heading."""

    heading: str
    tiles: tuple[Tile, ...]


def strips_of_pairs(pairs: Sequence[ScenePair], size: int) -> tuple[Strip, ...]:
    """A strip a pair: the question with its options above, both pictures, the right answer under each."""
    return tuple(
        Strip(
            heading=f"{pair.question} ({' / '.join(pair.options)})",
            tiles=tuple(
                Tile(image=_picture(facts, nonce, size), label=pair.options[answer])
                for facts, nonce, answer in zip(pair.facts, pair.nonces, pair.answers, strict=True)
            ),
        )
        for pair in pairs
    )


def strip_of_kind(name: str, size: int, *, nonce: int = 0) -> Strip:
    """An object of a kind: as it usually is, with each fact otherwise, and the map of its parts.

    Raises:
        UserError: there is no such kind.
    """
    if name not in KINDS:
        raise unknown("kind", name, KINDS)
    looks = _looks(name)
    tiles = [Tile(image=_picture(facts, nonce, size), label=label) for label, facts in looks]
    parts = _part_map(name, render(lay_out(looks[0][1], nonce), size).parts)
    tiles += [Tile(image=parts, label="its parts"), Tile(image=_part_names(name, size), label="")]
    return Strip(heading=f"{name}: {', '.join(KINDS[name].parts)}", tiles=tuple(tiles))


def file_of(title: str, strips: Sequence[Strip], suffix: str) -> bytes:
    """The strips as an `.html` page, or a `.png` or `.jpg` picture (strips of pairs two side by side).

    Raises:
        UserError: none of these was asked for.
    """
    if suffix == ".html":
        return web_page(title, strips).encode()
    if suffix not in (".png", ".jpg"):
        raise unknown("form of a contact sheet", suffix, (".html", ".png", ".jpg"))
    page = sheet(strips, columns=2 if all(len(strip.tiles) == 2 for strip in strips) else 1)
    if suffix == ".png":
        return png(np.asarray(page))
    out = io.BytesIO()
    page.save(out, "JPEG", quality=85, optimize=True)
    return out.getvalue()


def sheet(strips: Sequence[Strip], *, columns: int) -> Image.Image:
    """The strips as one picture, so many beside each other."""
    blocks = [_block(strip) for strip in strips]
    width = max(block.width for block in blocks)
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    heights = [max(block.height for block in row) for row in rows]
    across = min(columns, len(blocks))
    page = Image.new("RGB", (across * (width + 2 * _GAP), sum(heights) + _GAP * (len(rows) + 1)), _PAPER)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for place, block in enumerate(row):
            page.paste(block, (_GAP + place * (width + 2 * _GAP), top))
        top += height + _GAP
    return page


def web_page(title: str, strips: Sequence[Strip]) -> str:
    """The strips as one self-contained HTML page."""
    body = "\n".join(_section(strip) for strip in strips)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


_STYLE = (
    "body{font:16px/1.4 system-ui,sans-serif;margin:2rem;color:#141414;background:#fff}"
    "h2{font-size:1rem;margin:1.5rem 0 .5rem}section div{display:flex;flex-wrap:wrap;gap:12px}"
    "figure{margin:0}figcaption{color:#555}img{display:block}"
)


def _section(strip: Strip) -> str:
    figures = "".join(
        f'<figure><img alt="{html.escape(tile.label)}" width="{tile.image.width}" height="{tile.image.height}" '
        f'src="data:image/png;base64,{_base64(tile.image)}"><figcaption>{html.escape(tile.label)}</figcaption></figure>'
        for tile in strip.tiles
    )
    return f"<section><h2>{html.escape(strip.heading)}</h2><div>{figures}</div></section>"


def _base64(image: Image.Image) -> str:
    return base64.b64encode(png(np.asarray(image))).decode()


def _picture(facts: Facts, nonce: int, size: int) -> Image.Image:
    return Image.fromarray(render(lay_out(facts, nonce), size).image)


def _block(strip: Strip) -> Image.Image:
    """A strip drawn: heading, then pictures with their labels, at most six a line."""
    side = strip.tiles[0].image.width
    letter = max(11, min(18, side // 10))
    font = ImageFont.load_default(letter)
    across = min(_ACROSS, len(strip.tiles))
    width = across * (side + _GAP) - _GAP
    lines = textwrap.wrap(strip.heading, max(12, int(width / (letter * 0.55))))
    head, tall = len(lines) * (letter + 5) + 4, side + letter + 10
    block = Image.new("RGB", (width, head + tall * -(-len(strip.tiles) // across)), _PAPER)
    pen = ImageDraw.Draw(block)
    pen.text((0, 0), "\n".join(lines), fill=_INK, font=font)
    for place, tile in enumerate(strip.tiles):
        left, top = place % across * (side + _GAP), head + place // across * tall
        block.paste(tile.image, (left, top))
        pen.text((left, top + side + 2), tile.label, fill=_GREY, font=font)
    return block


def _looks(name: str) -> list[tuple[str, Facts]]:
    """The object as it usually is, then with one fact otherwise; each with what is otherwise."""
    kind = KINDS[name]
    usual = Facts(
        kind=name,
        color="red",
        accent="blue",
        material="matte",
        facing="right",
        state=kind.state.words[0] if kind.state is not None else None,
        shape=kind.shape.words[0],
        missing=None,
        view="side",
    )
    said = [word for word in (usual.state, usual.shape) if word is not None]
    looks = [(", ".join(said), usual)]
    if kind.state is not None:
        looks.append((_of(kind.state.words[1], kind.state.part), replace(usual, state=kind.state.words[1])))
    looks.append((_of(kind.shape.words[1], kind.shape.part), replace(usual, shape=kind.shape.words[1])))
    looks += [(f"no {part}", replace(usual, missing=part)) for part in kind.optional]
    looks.append(("facing left" if kind.has_front else "turned round", replace(usual, facing="left")))
    if kind.has_front:
        looks += [
            ("from the front", replace(usual, facing="front")),
            ("from behind", replace(usual, facing="back")),
        ]
    return [*looks, ("from above", replace(usual, view="above"))]


def _of(word: str, part: str | None) -> str:
    return f"{part} {word}" if part is not None else word


def _part_map(name: str, ids: UInt8[ndarray, "row column"]) -> Image.Image:
    """The parts of a kind, each in its tint."""
    picture = Image.new("RGB", (ids.shape[1], ids.shape[0]), _BLANK)
    for part, tint in zip(KINDS[name].parts, _TINTS, strict=False):
        picture.paste(tint, (0, 0), Image.fromarray(ids == part_id(name, part)))
    return picture


def _part_names(name: str, size: int) -> Image.Image:
    """The names of a kind's parts beside their tints."""
    picture = Image.new("RGB", (size, size), _PAPER)
    pen = ImageDraw.Draw(picture)
    letter = max(4, min(18, size // 10))
    for place, (part, tint) in enumerate(zip(KINDS[name].parts, _TINTS, strict=False)):
        top = 2 + place * (letter + 5)
        pen.rectangle((0, top, letter, top + letter), fill=tint)
        pen.text((letter + 6, top - 1), part, fill=_INK, font=ImageFont.load_default(letter))
    return picture
