"""The world's scenes as pictures with part masks: the maps themselves, name by name."""

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.locate.part_images import WorldScenes, open_parts
from eyechart.locate.parts_world import parts_of
from eyechart.world.kinds import KINDS, PARTS
from eyechart.world.sets import load_set, render_set
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan
from part_makers import same, seen


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A folder with three rendered scenes."""
    folder = tmp_path_factory.mktemp("bundled")
    open_parts("world", bundled=folder, scenes=WorldScenes(scenes=3, size=48))
    return folder


def test_a_table_of_names_and_two_maps_give_the_parts(tmp_path):
    parts = np.array([[0, 1, 1, 2], [7, 1, 2, 2]], np.uint8)
    objects = np.array([[0, 1, 2, 2], [1, 1, 2, 1]], np.uint8)
    read = parts_of(parts, objects, {1: ("mug", "body"), 2: ("mug", "handle")}, tmp_path)
    wanted = {
        ("mug", 1, "body"): (parts == 1) & (objects == 1),
        ("mug", 2, "body"): (parts == 1) & (objects == 2),
        ("mug", 1, "handle"): (parts == 2) & (objects == 1),
        ("mug", 2, "handle"): (parts == 2) & (objects == 2),
    }
    same(seen(read), wanted)
    assert [(one.reason, one.path) for one in read.quarantined] == [("unknown_code", str(tmp_path))]


@pytest.mark.slow
def test_scenes_of_the_test_split_come_with_their_maps(bundled):
    found = open_parts("world", bundled=bundled, scenes=WorldScenes(scenes=3, size=48))
    scenes = load_set(next(bundled.glob("world-parts-*")))
    assert found.images.ids == ("test-0-00000", "test-0-00001", "test-0-00002")
    assert found.notes == ("scenes of the world's test split, seed 0",)
    assert found.quarantined == ()
    for place, image in enumerate(found.images):
        np.testing.assert_array_equal(np.asarray(Image.open(image.image)), scenes.images[place])
        seen_parts, seen_objects = scenes.parts[place], scenes.objects[place]
        rebuilt = np.zeros(seen_parts.shape, int)
        for part in image.parts:
            number = PARTS.index((part.object, part.part)) + 1
            assert (seen_parts[part.mask] == number).all()
            assert (seen_objects[part.mask] == part.instance).all()
            rebuilt[part.mask] = number
        np.testing.assert_array_equal(rebuilt, seen_parts)
        main = scenes.scenes[place].facts.kind
        assert {part.object for part in image.parts if part.instance == 1} == {main}
        assert {part.part for part in image.parts if part.instance == 1} <= set(KINDS[main].parts)


@pytest.mark.slow
def test_a_folder_of_a_set_is_told_from_its_files(bundled, tmp_path):
    folder = next(bundled.glob("world-parts-*"))
    asked = open_parts("world", bundled=bundled, scenes=WorldScenes(scenes=3, size=48))
    for options in ({}, {"bundled": tmp_path}):
        found = open_parts(folder, **options)
        assert found.sha256 == asked.sha256
    assert found.images[0].image.is_relative_to(tmp_path)
    assert open_parts(folder, limit=1).images.ids == ("test-0-00000",)


@pytest.mark.slow
def test_another_seed_gives_other_scenes_and_a_damaged_picture_is_made_again(bundled):
    first = open_parts("world", bundled=bundled, scenes=WorldScenes(scenes=3, size=48))
    other = open_parts("world", bundled=bundled, scenes=WorldScenes(scenes=3, size=48, scene_seed=1))
    assert other.sha256 != first.sha256
    first.images[0].image.write_bytes(b"broken")
    assert open_parts("world", bundled=bundled, scenes=WorldScenes(scenes=3, size=48)).sha256 == first.sha256


@pytest.mark.slow
def test_pairs_with_maps(tmp_path):
    root = render_pairs(
        tmp_path / "pairs", PairPlan(pairs=1, patterns=("state",)), size=48, workers=1, maps=True
    )
    found = open_parts(root)
    assert len(found.images) == 2
    for image in found.images:
        raw = np.asarray(Image.open(root / "maps" / f"{image.id}-parts.png"))
        assert sum(part.mask for part in image.parts).max() == 1
        np.testing.assert_array_equal(sum(part.mask for part in image.parts) == 1, raw > 0)
        assert {(part.object, part.part) for part in image.parts} <= set(PARTS)
    assert "test split" in found.notes[0]


@pytest.mark.slow
def test_a_set_without_maps_is_refused(tmp_path):
    render_set(tmp_path / "bare", SetPlan(split="test", scenes=1), size=32, workers=1)
    with pytest.raises(UserError, match="rendered without maps"):
        open_parts(tmp_path / "bare")


def test_where_scenes_are_to_lie_has_to_be_said(tmp_path):
    with pytest.raises(UserError, match="bundled=FOLDER"):
        open_parts("world")
    with pytest.raises(UserError, match="give 1 scene or more"):
        open_parts("world", bundled=tmp_path, scenes=WorldScenes(scenes=0))
