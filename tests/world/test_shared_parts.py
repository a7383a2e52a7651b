"""Shared parts: at one place under both names, seen alike there, and without the shadows of what they are part of."""

import dataclasses
import itertools

import numpy as np
import pytest

from eyechart.recipes.world_certificate import inside
from eyechart.world.facts import Facts
from eyechart.world.kinds import KINDS, SHARED, part_id
from eyechart.world.kinds.kind import Look, pieces_of
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.scene import Light
from eyechart.world.solids import solids_of

NONCES = range(2)
FIRST, SECOND = 0, 1

pairs = pytest.mark.parametrize("pair", SHARED, ids=lambda pair: f"{pair[0][1]} {pair[1][1]}")


def facts(kind, *, state, shape, **changes):
    spec = KINDS[kind]
    assert spec.state is not None
    usual = Facts(
        kind=kind, color="red", accent="blue", material="shiny", facing="right", missing=None, view="side",
        state=spec.state.words[state], shape=spec.shape.words[shape],
    )  # fmt: skip
    return dataclasses.replace(usual, **changes)


def seen(name, nonce, **changes):
    """The picture of an object alone, and where the part is seen, as a stack of one."""
    kind, part = name
    rendered = render(lay_out(facts(kind, **changes), nonce))
    return rendered.image, (rendered.parts == part_id(kind, part))[None]


@pairs
def test_in_every_look_the_part_is_at_the_same_place(pair):
    meshes = []
    for kind, part in pair:
        spec = KINDS[kind]
        for state, shape in itertools.product(spec.state.words, spec.shape.words):
            for missing in (None, *spec.optional):
                look = Look(state=state, shape=shape, missing=missing)
                meshes += [piece.mesh for piece in pieces_of(spec, look) if piece.part == part]
    assert len(meshes) > 8
    for mesh in meshes[1:]:
        np.testing.assert_array_equal(mesh.vertices, meshes[0].vertices)
        np.testing.assert_array_equal(mesh.faces, meshes[0].faces)


@pairs
@pytest.mark.parametrize(("facing", "view"), [("left", "side"), ("right", "above")])
def test_scenes_of_one_nonce_show_the_same_of_the_part_under_both_names(pair, facing, view):
    for nonce, (state, shape) in zip(NONCES, ((FIRST, SECOND), (SECOND, FIRST)), strict=True):
        (one, there), (other, too) = (
            seen(name, nonce, state=state, shape=shape, facing=facing, view=view) for name in pair
        )
        assert (there ^ too).sum() <= 0.04 * (there | too).sum()
        within = (inside(there) & inside(too))[0]
        assert within.sum() > 40
        np.testing.assert_array_equal(one[within], other[within])


@pairs
def test_parts_are_two_patches_large_seen_from_the_side(pair):
    for name in pair:
        sizes = [seen(name, nonce, state=FIRST, shape=FIRST)[1].sum() for nonce in NONCES]
        assert np.mean(sizes) >= 288, (name, sizes)


def test_no_shadow_falls_on_a_shared_part_and_one_on_what_is_beside_it():
    scene = lay_out(facts("house", state=FIRST, shape=FIRST), 3)
    light = Light(azimuth=80.0, elevation=35.0, strength=1.0, ambient=0.4, warmth=0.0)
    house = dataclasses.replace(scene.things[0], x=0.0, z=0.0, scale=1.0)
    tall = dataclasses.replace(house, kind="lamp", look=Look(state="on", shape="round"), x=1.6, scale=2.0)
    alone, behind = (
        render(dataclasses.replace(scene, light=light, things=things)) for things in ((house,), (house, tall))
    )
    for part, shaded in (("roof", False), ("wall", True)):
        mask = ((alone.parts == part_id("house", part)) & (behind.objects == 1))[None]
        within = inside(mask)[0]
        assert within.any()
        changed = (alone.image[within] != behind.image[within]).any(axis=1)
        assert changed.any() == shaded, part


def test_what_takes_no_shadow_is_the_shared_parts_alone():
    for name in KINDS:
        solids = solids_of(lay_out(facts(name, state=FIRST, shape=FIRST), 1))
        mine = {part_id(kind, part) for pair in SHARED for kind, part in pair if kind == name}
        assert set(np.unique(solids.parts[solids.unshaded])) == mine
