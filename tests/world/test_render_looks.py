"""What is shown: colours, letters, materials and parts, as a person would tell them from the picture."""

import dataclasses
import random

import numpy as np
import pytest

from eyechart.world.draw import draw_facts
from eyechart.world.facts import COLORS, LETTERS, Facts
from eyechart.world.kinds import KINDS, PARTS, part_id
from eyechart.world.kinds.kind import pieces_of
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.scene import Light
from eyechart.world.solids import SIGN, sign_frame
from eyechart.world.surfaces import glyph
from eyechart.world.views import view_of


def facts_of(family, seed):
    return draw_facts(random.Random(seed), family=family)


def scene_of(family, seed):
    return lay_out(facts_of(family, seed), 1000 + seed)


def bare(scene, **changes):
    """The scene on a plain floor without rugs, evenly coloured."""
    plain = dataclasses.replace(scene.floor, pattern="plain", first=(0.6, 0.6, 0.6))
    return dataclasses.replace(scene, **{"floor": plain, "rugs": (), **changes})


def first_look(kind):
    state = KINDS[kind].state
    return {"state": state.words[0] if state else None, "shape": KINDS[kind].shape.words[0]}


def mean_color(facts, nonce, color):
    scene = lay_out(dataclasses.replace(facts, color=color, material="matte"), nonce)
    seen = render(scene)
    main = {
        piece.part for piece in pieces_of(KINDS[facts.kind], scene.things[0].look) if piece.slot == "main"
    }
    mask = np.isin(seen.parts, [part_id(facts.kind, part) for part in main])
    return seen.image[mask].mean(0)


@pytest.mark.parametrize("nonce", range(5))
def test_spoken_colors_stay_apart_under_every_light(nonce):
    facts = facts_of("solo", nonce)
    means = np.array([mean_color(facts, nonce, color) for color in COLORS])
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1) + 1000 * np.eye(len(COLORS))
    assert apart.min() > 40, (COLORS[apart.argmin() // len(COLORS)], COLORS[apart.argmin() % len(COLORS)])


def lettered(letter, nonce):
    base = draw_facts(random.Random(nonce), family="letter")
    return lay_out(dataclasses.replace(base, letter=letter), nonce)


@pytest.mark.parametrize("letter", LETTERS)
def test_a_letter_is_fourteen_pixels_high(letter):
    seen = render(lettered(letter, LETTERS.index(letter)))
    rows = np.nonzero((seen.parts == part_id("sign", "letter")).any(1))[0]
    assert rows[-1] - rows[0] + 1 >= 14
    assert set(np.unique(seen.parts[seen.objects == SIGN])) >= {
        part_id("sign", "letter"),
        part_id("sign", "board"),
    }


@pytest.mark.parametrize("letter", ["C", "E", "K", "L", "N", "S", "Z"])
def test_a_letter_reads_the_right_way_round(letter):
    """Each texel's place in space, worked out from the sign's record, shows ink just where the glyph has it."""
    scene = lettered(letter, 7)
    seen, view = render(scene, 384), view_of(scene.camera, 384)
    middle, axes = sign_frame(scene.sign)
    texels = glyph(letter)
    rows, columns = np.mgrid[4 : texels.shape[0] : 12, 4 : texels.shape[1] : 12]
    across = (columns + 0.5 - texels.shape[1] / 2) / texels.shape[0] * scene.sign.height
    up = (texels.shape[0] / 2 - rows - 0.5) / texels.shape[0] * scene.sign.height
    points = middle + across.reshape(-1, 1) * axes[0] + up.reshape(-1, 1) * axes[1]
    column, row, _ = view.project(points).T
    within = (column >= 0) & (column < 384) & (row >= 0) & (row < 384)
    shown = seen.parts[row[within].astype(int), column[within].astype(int)] == part_id("sign", "letter")
    inked, mirrored = (glyphs[rows, columns].ravel()[within] > 0 for glyphs in (texels, texels[:, ::-1]))
    assert (shown == inked).mean() > 0.9
    assert (shown == inked).mean() > (shown == mirrored).mean() + 0.1


def test_the_signs_letter_is_dark_on_a_light_board():
    seen = render(lettered("H", 3), 192)
    ink, board = (
        seen.image[seen.parts == part_id("sign", part)].astype(float).mean() for part in ("letter", "board")
    )
    assert ink < 0.5 * board


def test_a_glowing_paint_shines_in_the_dark():
    found = [
        (name, state)
        for name, kind in KINDS.items()
        for state in (kind.state.words if kind.state else (None,))
        if any(
            piece.slot == "glow"
            for piece in pieces_of(
                kind,
                dataclasses.replace(
                    scene_of("solo", 1).things[0].look, state=state, shape=kind.shape.words[0]
                ),
            )
        )
    ]
    assert found
    name, state = found[0]
    scene = scene_of("solo", 1)
    look = dataclasses.replace(
        scene.things[0].look, state=state, shape=KINDS[name].shape.words[0], missing=None
    )
    dark = Light(azimuth=0.0, elevation=45.0, strength=0.0, ambient=0.0, warmth=0.0)
    thing = dataclasses.replace(scene.things[0], kind=name, look=look)
    seen = render(bare(scene, things=(thing,), light=dark))
    glowing = {piece.part for piece in pieces_of(KINDS[name], look) if piece.slot == "glow"}
    mask = np.isin(seen.parts, [part_id(name, part) for part in glowing])
    floor = (seen.objects == 0) & np.isfinite(seen.depth) & (seen.depth < 4)
    assert seen.image[mask].mean() > 2 * seen.image[floor].mean()


def test_shiny_things_have_a_highlight_and_matte_ones_none():
    facts = Facts(
        kind="tree", color="blue", accent="red", material="matte", facing="right", missing=None, view="side",
        **first_look("tree"),
    )  # fmt: skip
    light = Light(azimuth=20.0, elevation=40.0, strength=0.9, ambient=0.4, warmth=0.0)
    matte, shiny = (
        render(bare(lay_out(dataclasses.replace(facts, material=material), 5), light=light)).image.astype(int)
        for material in ("matte", "shiny")
    )
    assert (shiny >= matte).all()
    assert (shiny - matte).max() > 60


def test_a_part_that_is_missing_is_nowhere_in_the_map():
    kind = next(kind for kind in KINDS.values() if kind.optional)
    part = kind.optional[0]
    facts = Facts(
        kind=kind.name, color="blue", accent="red", material="matte", facing="right", missing=None, view="side",
        **first_look(kind.name),
    )  # fmt: skip
    there, gone = (render(lay_out(dataclasses.replace(facts, missing=one), 5)) for one in (None, part))
    assert (there.parts == part_id(kind.name, part)).any()
    assert not (gone.parts == part_id(kind.name, part)).any()


def test_parts_fit_the_map():
    assert len(PARTS) < 256
