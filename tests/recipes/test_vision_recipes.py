"""The vision-only recipes, from scenes to an encoder that Eyechart reads: a few steps on a few scenes."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from eyechart.core.errors import UserError
from eyechart.models.encoders.loading import load_encoder
from eyechart.recipes.masked import train_masked
from eyechart.recipes.two_view import render_families, train_two_view
from eyechart.train.loop import Settings
from eyechart.train.towers import TowerShape
from eyechart.world.sets import load_set

SHAPE = TowerShape(
    image_size=32,
    patch_size=8,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
)
FEW = Settings(max_steps=2, per_device_train_batch_size=4, warmup_steps=1, save_steps=2)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    return render_families(tmp_path_factory.mktemp("families"), scenes=8, size=32, workers=1)


def _is_read(folder, picture):
    encoder = load_encoder(str(folder))
    assert encoder.kind == "vision_only"
    assert encoder.embed([Image.fromarray(picture)], pooling="mean_patch").shape == (1, 32)
    assert encoder.patches([Image.fromarray(picture)], layer=-2).grid == (4, 4)


def test_families_are_the_same_scenes_rendered_twice(families):
    twins, siblings = load_set(families / "twins"), load_set(families / "siblings")
    assert [scene.facts for scene in twins.scenes] == [scene.facts for scene in siblings.scenes]
    assert [len({scene.nonce for scene in twins.scenes[start : start + 4]}) for start in (0, 4)] == [1, 1]
    assert len({scene.nonce for scene in siblings.scenes}) == 8


def test_masked_recipe(families, tmp_path):
    folder = train_masked(
        scenes=families / "twins", work=tmp_path / "work", out=tmp_path, settings=FEW, shape=SHAPE
    )
    assert folder == tmp_path / "mae"
    _is_read(folder, load_set(families / "twins").images[0])


def test_two_view_recipe(families, tmp_path):
    folder = train_two_view(
        families=families, work=tmp_path / "work", out=tmp_path, settings=FEW, shape=SHAPE
    )
    assert folder == tmp_path / "two-view"
    _is_read(folder, load_set(families / "twins").images[0])


def test_two_view_goes_on_from_the_masked_encoder(families, tmp_path):
    masked = train_masked(
        scenes=families / "twins", work=tmp_path / "work", out=tmp_path, settings=FEW, shape=SHAPE
    )
    still = replace(FEW, learning_rate=0.0, weight_decay=0.0)
    folder = train_two_view(
        families=families, begun=masked, work=tmp_path / "work", out=tmp_path, settings=still, shape=SHAPE
    )
    first, second = (load_file(each / "model.safetensors") for each in (masked, folder))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    wide = replace(SHAPE, hidden_size=64)
    with pytest.raises(UserError, match="an encoder of another shape than TowerShape"):
        train_two_view(families=families, begun=masked, work=tmp_path, out=tmp_path, settings=FEW, shape=wide)


def test_half_a_family_is_no_batch(families, tmp_path):
    odd = replace(FEW, per_device_train_batch_size=6)
    with pytest.raises(UserError, match="batches of 6 scenes are no whole families of 4"):
        train_two_view(families=families, work=tmp_path, out=tmp_path, settings=odd, shape=SHAPE)


def test_sets_of_other_scenes_are_refused(families, tmp_path):
    other = render_families(tmp_path / "other", scenes=12, size=32, workers=1)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "twins").symlink_to(families / "twins")
    (tmp_path / "mixed" / "siblings").symlink_to(other / "siblings")
    with pytest.raises(UserError, match=r"mixed: the twins and the siblings are not the same scenes"):
        train_two_view(families=tmp_path / "mixed", work=tmp_path, out=tmp_path, settings=FEW, shape=SHAPE)
