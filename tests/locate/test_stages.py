"""Stages of a VLM: the same numbers as its own methods give one by one, whatever the batch, and small enough to hold."""

from dataclasses import replace

import pytest
import torch
from pair_items import items_of

from eyechart.core.errors import Incapable
from eyechart.core.images import open_image
from eyechart.core.records import Prompt
from eyechart.locate.probes import StageName
from eyechart.locate.stages import StageLayers, StageReader, _even, _split
from eyechart.models import load_vlm
from pictures import picture


def drawn(folder, count=4, size=(96, 96)):
    """Items with pictures of their own, their questions of different lengths."""
    items = []
    for number, item in enumerate(items_of(count // 2)):
        path = folder / f"{item.id}.png"
        picture(*(size if isinstance(size[0], int) else size[number % len(size)]), number).save(path)
        items.append(replace(item, image=path, question="Which way " + "now " * number + "?"))
    return items


def put(item):
    return Prompt(text=item.question, images=(open_image(item.image).image,))


@pytest.fixture(scope="module")
def llava(checkpoint_dir):
    return load_vlm(str(checkpoint_dir("llava")))


@pytest.mark.slow
def test_every_stage_is_what_the_model_itself_gives(llava, tmp_path):
    items = drawn(tmp_path)
    layers = StageLayers.all_of(llava.towers)
    held = StageReader(vlm=llava, put=put, layers=layers, batch=3)(items)
    assert [StageName.of(name).name for name in held] == list(held)
    kinds = [StageName.of(name).kind for name in held]
    assert kinds == sorted(kinds, key=["vision", "fed", "image", "last"].index)
    for place, item in enumerate(items):
        image = put(item).images[0]
        vision, language = llava.vision_states([image])[0], llava.hidden_states(put(item))
        last = llava.hidden_states(put(item), positions=[-1])
        assert held["fed"][place] == pytest.approx(llava.fed([image])[0].features.numpy(), abs=1e-4)
        for number in layers.vision:
            expected = vision.layers[number].flatten(0, 1).numpy()
            assert held[f"vision {number}"][place] == pytest.approx(expected, abs=1e-4)
        for number in layers.image[:-1]:  # the last layer's are given normed by the model, and not here
            expected = language.layers[number].numpy()
            assert held[f"language {number} image"][place] == pytest.approx(expected, abs=1e-4)
        for number in layers.last[:-1]:
            expected = last.layers[number].numpy()
            assert held[f"language {number} last"][place] == pytest.approx(expected, abs=1e-4)
        norm = llava.towers.final_norm(torch.from_numpy(held[f"language {layers.last[-1]} last"][place]))
        assert norm.detach().numpy() == pytest.approx(last.layers[-1].numpy(), abs=1e-4)


@pytest.mark.slow
def test_a_batch_plays_no_part(llava, tmp_path):
    items, layers = drawn(tmp_path), StageLayers.few(llava.towers)
    reader = StageReader(vlm=llava, put=put, layers=layers, batch=4)
    together, apart = reader(items), StageReader(vlm=llava, put=put, layers=layers, batch=1)(items)
    assert reader.notes == []
    assert list(together) == list(apart)
    for name in apart:
        assert together[name] == pytest.approx(apart[name], abs=1e-4)


@pytest.mark.slow
def test_a_model_that_mixes_up_its_batch_is_read_one_by_one(llava, tmp_path, monkeypatch):
    items, layers = drawn(tmp_path), StageLayers.few(llava.towers)
    reader = StageReader(vlm=llava, put=put, layers=layers, batch=4)
    monkeypatch.setattr("eyechart.locate.stages._padding", lambda inputs, prompts: [0] * prompts)
    held = reader(items)
    assert reader.notes == ["items were read one by one"]
    monkeypatch.undo()
    apart = StageReader(vlm=llava, put=put, layers=layers, batch=1)(items)
    for name in apart:
        assert held[name] == pytest.approx(apart[name], abs=1e-5)


def test_nothing_is_left_on_the_model(llava, tmp_path):
    before = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in llava.model.modules()]
    StageReader(vlm=llava, put=put, layers=StageLayers.all_of(llava.towers))(drawn(tmp_path, count=2))
    after = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in llava.model.modules()]
    assert before == after


def test_tokens_are_averaged_where_they_would_not_fit(llava, tmp_path):
    items = drawn(tmp_path)
    layers = StageLayers(vision=(), image=(0,), last=(1,), fed=False)
    whole = StageReader(vlm=llava, put=put, layers=layers)(items)["language 0 image"]
    tokens, dim = whole.shape[1:]
    side = int(tokens**0.5)
    small = StageReader(vlm=llava, put=put, layers=layers, room=2 * (len(items) * tokens * dim - 1))
    held = small(items)["language 0 image"]
    half = -(-side // 2)
    assert held.shape == (len(items), half**2, dim)
    laid = whole.reshape(len(items), side, side, dim)
    assert held[:, 0] == pytest.approx(laid[:, :2, :2].mean(axis=(1, 2)), abs=1e-5)
    assert any("neighbouring tokens were averaged" in note for note in small.notes)


@pytest.mark.slow
def test_pictures_of_different_sizes_are_read_from_their_mean(checkpoint_dir, tmp_path):
    vlm = load_vlm(str(checkpoint_dir("qwen2_5_vl")))
    items = drawn(tmp_path, size=((112, 112), (168, 112)))
    reader = StageReader(vlm=vlm, put=put, layers=StageLayers.few(vlm.towers))
    held = reader(items)
    assert held["language 0 image"].shape[1] == 1
    one = vlm.hidden_states(put(items[1]), layers=[0]).layers[0].numpy().mean(axis=0)
    assert held["language 0 image"][1, 0] == pytest.approx(one, abs=1e-4)
    assert any("different numbers of tokens" in note for note in reader.notes)


@pytest.mark.parametrize(
    ("given_", "steps"),
    [((1, 6, 2), (1, 6)), ((4, 8, 3), (4, 6, 8)), ((1, 2, 5), (1, 2)), ((3, 3, 1), (3,)), ((1, 9, 1), (9,))],
)
def test_layers_are_spread_from_the_first_to_the_last(given_, steps):
    assert _even(*given_) == steps


def test_few_layers_begin_at_the_middle_where_an_answer_may_be_formed(llava):
    few = StageLayers.few(llava.towers, vision=1, image=1, last=2)
    n = len(llava.towers.language_blocks)
    assert few.image[0] == 0
    assert few.last == tuple(dict.fromkeys((-(-n // 2), n)))
    assert few.vision == (len(llava.towers.vision_blocks),)


def test_states_are_shared_out_by_rows_or_by_packed_tokens():
    tiles = torch.arange(24.0).reshape(4, 3, 2)
    first, second = _split(tiles, 2)
    assert first.shape == second.shape == (6, 2)
    assert torch.equal(torch.cat([first, second]), tiles.flatten(0, 1))
    packed = torch.arange(12.0).reshape(6, 2)
    assert [len(one) for one in _split(packed, 3)] == [2, 2, 2]
    with pytest.raises(Incapable, match=r"shape \(1, 5, 2\) cannot be shared out among 2"):
        _split(torch.zeros(1, 5, 2), 2)


def test_a_model_without_states_is_refused(checkpoint_dir):
    vlm = load_vlm(str(checkpoint_dir("llava")))
    vlm.__dict__["_missing"] = {**vlm._missing, "hidden_states": "it was told so"}
    layers = StageLayers(vision=(), image=(), last=(), fed=False)
    with pytest.raises(Incapable, match="reading stages needs the capability 'hidden_states'"):
        StageReader(vlm=vlm, put=put, layers=layers)
