"""A card's logit lens on planted truth: names are found where they are, and the numbers are those of full logits."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eyechart.core.errors import UserError
from eyechart.locate.identify_score import best_layer
from eyechart.locate.lens import Lens
from eyechart.models.vlms import VLM, HiddenStates
from eyechart.recipes import card_lens
from eyechart.recipes.card_lens import lens_score, part_masks, scene_ranks
from eyechart.world.kinds import part_id
from eyechart.world.sets import SceneSet
from eyechart.world.sets_plan import SetPlan, draw_set


def test_masks_are_the_patches_mostly_covered_of_all_parts_of_a_name():
    parts = np.zeros((24, 24), dtype=np.uint8)
    parts[:12, :12] = part_id("car", "wheel")
    parts[12:, 12:18] = part_id("house", "roof")
    parts[12:, 18:] = part_id("sign", "board")
    parts[:12, 12:17] = part_id("rocket", "nose")
    masks = part_masks(parts, (2, 2))
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "wheel": [[True, False], [False, False]],
        "roof": [[False, False], [False, True]],
    }
    with pytest.raises(ValueError, match="24 pixels does not fall into 5 x 5 whole patches"):
        part_masks(parts, (5, 5))


class FakeVLM(VLM):
    """Image positions whose states name parts at their places from layer 1 on."""

    id = "fake"
    device = "cpu"
    words = ("wheel", "roof", "door", "window", *(f"word{number}" for number in range(60)))

    def __init__(self, shown):
        self.shown = shown
        self.place = 0

    def tokenizer(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [self.words.index(word) if word in self.words else 0 for word in text.split()]}

    tokenizer.convert_ids_to_tokens = str

    def hidden_states(self, prompt, *, positions="image", layers=None):
        names = self.shown[self.place]
        self.place += 1
        generator = torch.Generator().manual_seed(self.place)
        layers = torch.rand(3, len(names), len(self.words), generator=generator)
        for position, name in enumerate(names):
            if name is not None:
                layers[1:, position, self.words.index(name)] = 3.0
        return HiddenStates(
            layers=layers, layer_numbers=(0, 1, 2), last_layer=2, last_is_normed=True, grid=(4, 4),
            positions=tuple(range(16)), image_positions=tuple(range(16)), input_ids=(), of_encoder=False,
        )  # fmt: skip


def lens_set(count, *, maps=True):
    """Scenes of 16 patches: a wheel at some, a roof at others."""
    rng = np.random.default_rng(3)
    parts = np.zeros((count, 48, 48), dtype=np.uint8)
    shown = []
    for place in range(count):
        names = [None] * 16
        for name, owner in (("wheel", "car"), ("roof", "house")):
            patch = int(rng.choice([free for free in range(16) if names[free] is None]))
            names[patch] = name
            row, column = divmod(patch, 4)
            parts[place, row * 12 : row * 12 + 12, column * 12 : column * 12 + 12] = part_id(owner, name)
        shown.append(names)
    scenes = SceneSet(
        folder=Path("somewhere"),
        images=np.zeros((count, 48, 48, 3), dtype=np.uint8),
        scenes=tuple(draw_set(SetPlan(split="test", scenes=count))),
        families=np.arange(count, dtype=np.int32),
        parts=parts if maps else None,
        objects=None,
        depth=None,
    )
    return scenes, shown


@pytest.fixture(autouse=True)
def doubling_lens(monkeypatch):
    """A lens that norms by doubling and unembeds by multiplying with ten."""
    lens = Lens(norm=lambda states: states * 2, head=lambda states: states * 10, tokens=len(FakeVLM.words))
    monkeypatch.setattr(card_lens, "lens_of", lambda vlm: lens)


def by_hand(states, mask, token):
    """Best rank over a mask by all logits and a count, equal ones as likelier."""
    logits = torch.cat([states.layers[:-1] * 20, states.layers[-1:] * 10])
    ranks = (logits >= logits[..., token : token + 1]).sum(dim=-1).numpy()
    return ranks[:, mask.reshape(-1)].min(axis=1)


def test_ranks_and_regions_are_those_of_all_logits_and_one_stream_of_moves():
    """As cards were made before ranks were counted without logits: one generator for all scenes and parts in turn."""
    scenes, shown = lens_set(6)
    found = scene_ranks(FakeVLM(shown), scenes, seed=4)
    rng, again, wanted = np.random.default_rng(4), FakeVLM(shown), []
    for place in range(6):
        states = again.hidden_states(None)
        for name, mask in part_masks(np.asarray(scenes.parts[place]), (4, 4)).items():
            moves = [(down, right) for down in range(4) for right in range(4)]
            rolled = [np.roll(mask, moves[number], axis=(0, 1)) for number in rng.permutation(16)]
            apart = [region for region in rolled if not (region & mask).any()][:8]
            token = FakeVLM.words.index(name)
            random = np.median([by_hand(states, region, token) for region in apart], axis=0)
            wanted.append((str(place), name, by_hand(states, mask, token).tolist(), random.tolist()))
    assert [(one.image, one.part, one.mask.tolist(), one.random.tolist()) for one in found] == wanted
    assert {(one.cells, one.regions, one.wrong) for one in found} == {(1, 8, None)}


def test_the_lens_finds_names_where_they_are_and_nowhere_else():
    scenes, shown = lens_set(30)
    found = scene_ranks(FakeVLM(shown), scenes)
    assert Counter(one.part for one in found) == {"wheel": 30, "roof": 30}
    assert all(one.mask[1:].tolist() == [1, 1] for one in found)
    assert best_layer(found) in (1, 2)
    score = lens_score(found, 1)
    assert score["ratio"]["low"] > 10
    assert score["median_rank_mask"] == 1
    assert score["by_part"]["wheel"]["n"] == 30
    assert lens_score(found, 1) == score
    before = lens_score(found, 0)["ratio"]
    assert before["low"] < 1 < before["high"]

    blind = scene_ranks(FakeVLM([[None] * 16] * 30), scenes)
    ratio = lens_score(blind, 1)["ratio"]
    assert 0.5 < ratio["value"] < 2
    for empty in (lambda: lens_score([], 0), lambda: best_layer([])):
        with pytest.raises(ValueError, match="no part was ranked"):
            empty()


def test_equal_logits_are_the_worst_rank():
    class Flat(FakeVLM):
        def hidden_states(self, prompt, *, positions="image", layers=None):
            found = super().hidden_states(prompt)
            return replace(found, layers=found.layers * 0)

    scenes, shown = lens_set(2)
    assert {float(one.mask.min()) for one in scene_ranks(Flat(shown), scenes)} == {len(FakeVLM.words)}


@pytest.mark.parametrize("order", ["named first", "named second"])
def test_a_cell_of_two_positions_has_the_better_rank(order):
    """A mixture that interleaves: one position of each cell names what is there, the other says nothing but `word0`."""

    class Interleaved(FakeVLM):
        model = SimpleNamespace(config=SimpleNamespace(grid=[4, 4], tokens_per_cell=2))

        def hidden_states(self, prompt, *, positions="image", layers=None):
            found = super().hidden_states(prompt)
            mute = torch.zeros_like(found.layers)
            mute[..., : len(self.words[:4])] = -1.0
            both = [found.layers, mute] if order == "named first" else [mute, found.layers]
            return replace(found, layers=torch.stack(both, dim=2).flatten(1, 2), grid=None)

    scenes, shown = lens_set(4)
    one, two = (scene_ranks(made(shown), scenes, seed=4) for made in (FakeVLM, Interleaved))
    assert [each.part for each in one] == [each.part for each in two]
    for single, double in zip(one, two, strict=True):
        assert np.array_equal(single.mask, double.mask)
        assert np.array_equal(single.random, double.random)


def test_what_the_lens_cannot_read_is_said():
    scenes, shown = lens_set(1, maps=False)
    with pytest.raises(UserError, match="somewhere has no maps of parts"):
        scene_ranks(FakeVLM(shown), scenes)
    scenes, shown = lens_set(1)

    class Wordless(FakeVLM):
        def tokenizer(self, text, *, add_special_tokens):
            return {
                "input_ids": [
                    *super().tokenizer(text, add_special_tokens=False)["input_ids"],
                    *(len(text) > 1) * [9],
                ]
            }

        tokenizer.convert_ids_to_tokens = str

    with pytest.raises(
        UserError, match="'wheel' is 2 tokens, '0', '9', and the rule 'whole' reads single ones"
    ):
        scene_ranks(Wordless(shown), scenes)

    class Gridless(FakeVLM):
        def hidden_states(self, prompt, *, positions="image", layers=None):
            found = super().hidden_states(prompt)
            return replace(found, grid=None)

    with pytest.raises(UserError, match="fake: its image positions are no single grid"):
        scene_ranks(Gridless(shown), scenes)
