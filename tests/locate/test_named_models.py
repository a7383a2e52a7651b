"""Named edges cut in real architectures: exactly nothing leaks where theory says so, and something where it
does not.

A change of pixels far from a part must leave the part's states bit-identical when the part's tokens may not
see the rest; the table of what leaks and what does not is that of the notes on arXiv 2506.05439, section 4.
"""

from pathlib import Path

import pytest
import torch
from PIL import Image

from eyechart.core.records import Prompt
from eyechart.locate.edge_names import Choices
from eyechart.locate.layout_of_vlm import language_layout, vision_layout
from eyechart.locate.named import named_edges
from eyechart.locate.named_layers import named_layers, usable_layers
from eyechart.models.attention import Cut, cutting
from eyechart.models.vlms import VLM, load_vlm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["llava", "qwen2_vl", "smolvlm"])
def vlm(request: pytest.FixtureRequest, checkpoint_dir) -> VLM:
    found: Path = checkpoint_dir(request.param)
    return load_vlm(str(found))


def painted(image: Image.Image) -> Image.Image:
    """The same picture with another top left corner."""
    other = image.copy()
    other.paste((255, 0, 200), (0, 0, 8, 8))
    return other


def vision_cut(
    vlm: VLM, image: Image.Image, name: str, layers: str, **choices
) -> tuple[Cut, tuple[int, ...]]:
    """The cut, and the tokens of the part: the patches of the image's last position."""
    layout, geometry = vision_layout(vlm, image).layout, vlm.geometry(image)
    part = layout.patches_of([geometry.tiles[-1].positions[-1][-1]], geometry)
    blocks = [site.layer for site in vlm.self_attentions("vision")]
    usable = usable_layers(blocks, fed=vlm.fed([image])[0].layer)
    edges = named_edges(name, layout, part=part, choices=Choices(**choices))
    return edges.cut(named_layers(layers, usable).sets[0].layers), part


def leak(vlm: VLM, image: Image.Image, cut: Cut, part: tuple[int, ...]) -> float:
    """How much the part's fed states move when the far corner does."""
    layer = vlm.fed([image])[0].layer
    assert isinstance(layer, int)
    states = []
    for shown in (image, painted(image)):
        with cutting(vlm.towers, [(cut,)]):
            found = vlm.vision_states([shown], layers=[layer])[0].layers[0].flatten(0, 1)
        states.append(found[list(part)])
    return float((states[0] - states[1]).abs().max())


def test_the_whole_cut_leaks_nothing(vlm, square_picture) -> None:
    cut, part = vision_cut(vlm, square_picture, "part<-rest", "all")
    assert leak(vlm, square_picture, cut, part) == 0.0


def test_what_leaves_a_way_leaks(checkpoint_dir, square_picture) -> None:
    llava = load_vlm(str(checkpoint_dir("llava")))
    for name, layers, choices in [
        ("part<-rest", "all", {"special_is_rest": False}),
        ("rest<-part", "all", {}),
        ("part<-rest", "first:1", {}),
        ("random:part<-rest", "all", {"match": "other queries"}),
    ]:
        cut, part = vision_cut(llava, square_picture, name, layers, **choices)
        assert leak(llava, square_picture, cut, part) > 0, (name, layers, choices)


def test_both_towers_cut_leave_the_part_alone_at_every_layer(vlm, square_picture) -> None:
    prompt = Prompt(text="what is it", images=(square_picture,))
    layout = language_layout(vlm, prompt)
    place = layout.image[vlm.geometry(square_picture).tiles[-1].positions[-1][-1]]
    seen, _ = vision_cut(vlm, square_picture, "part<-rest", "all")
    blocks = [site.layer for site in vlm.self_attentions("language")]
    heard = named_edges("part<-earlier image", layout, part=(place,)).cut(blocks)
    moved = {}
    for name, cuts in {"both": (seen, heard), "vision": (seen,), "language": (heard,)}.items():
        states = []
        for shown in (square_picture, painted(square_picture)):
            with cutting(vlm.towers, [cuts]):
                asked = Prompt(text="what is it", images=(shown,))
                states.append(vlm.hidden_states(asked, positions=[place]).layers)
        moved[name] = (states[0] - states[1]).abs().flatten(1).max(dim=1).values
    assert torch.equal(moved["both"], torch.zeros_like(moved["both"]))
    assert moved["vision"][0] == 0.0  # layer 0 is what the projector gives
    assert moved["vision"][-1] > 0
    assert moved["language"][0] > 0


def test_text_between_tiles_is_a_way_back(checkpoint_dir, square_picture) -> None:
    """Marks of tiles and rows read the image, and a part that may read them sees it all the same."""
    tiled = load_vlm(str(checkpoint_dir("smolvlm")))
    prompt = Prompt(text="what is it", images=(square_picture,))
    layout = language_layout(tiled, prompt)
    assert layout.between
    place = layout.image[-1]
    seen, _ = vision_cut(tiled, square_picture, "part<-rest", "all")
    left = Choices(special_is_rest=False)
    blocks = [site.layer for site in tiled.self_attentions("language")]
    heard = named_edges("part<-earlier image", layout, part=(place,), choices=left).cut(blocks)
    states = []
    for shown in (square_picture, painted(square_picture)):
        with cutting(tiled.towers, [(seen, heard)]):
            asked = Prompt(text="what is it", images=(shown,))
            states.append(tiled.hidden_states(asked, positions=[place]).layers)
    assert not torch.equal(states[0], states[1])


def test_a_tower_that_looks_both_ways_needs_the_text_cut_as_well(checkpoint_dir, square_picture) -> None:
    prefix = load_vlm(str(checkpoint_dir("paligemma")))
    prompt = Prompt(text="what is it", images=(square_picture,))
    layout = language_layout(prefix, prompt)
    place = layout.image[-1]
    seen, _ = vision_cut(prefix, square_picture, "part<-rest", "all")
    blocks = [site.layer for site in prefix.self_attentions("language")]
    everything = "part<-rest+part<-text before+part<-question"
    moved = {}
    for name in ("part<-rest", everything):
        heard = named_edges(name, layout, part=(place,), choices=Choices(sink=True)).cut(blocks)
        states = []
        for shown in (square_picture, painted(square_picture)):
            with cutting(prefix.towers, [(seen, heard)]):
                asked = Prompt(text="what is it", images=(shown,))
                states.append(prefix.hidden_states(asked, positions=[place]).layers)
        moved[name] = float((states[0] - states[1]).abs().max())
    assert moved["part<-rest"] > 0
    assert moved[everything] == 0.0
