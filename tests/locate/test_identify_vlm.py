"""Part identification on a small real VLM: from files to ranks, with what cannot be read listed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Bool
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Prompt
from eyechart.locate.identify import Settings
from eyechart.locate.identify_vlm import identify_on, part_names
from eyechart.locate.labels import LabelRule
from eyechart.models.vlms import load_vlm
from pictures import picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """A part with its mask."""

    object: str
    part: str
    instance: int
    mask: Bool[ndarray, "height width"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictured:
    """A picture with its parts."""

    id: str
    image: Path
    parts: tuple[Marked, ...]


@pytest.fixture(scope="module")
def llava(checkpoint_dir):
    return load_vlm(str(checkpoint_dir("llava")), device="cpu")


@pytest.fixture
def pictured(tmp_path):
    """Two pictures of 84 x 56 pixels, of which the model sees the middle 56; one more file is no picture."""
    found = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        picture(84, 56, number).save(path)
        found.append(
            Pictured(
                id=str(number),
                image=path,
                parts=(box("color", 20, 44), box("left", 0, 12), box("windows", 44, 62)),
            )
        )
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found.append(Pictured(id="broken", image=tmp_path / "broken.png", parts=(box("color", 20, 44),)))
    return found


def box(part, left, right, *, object="car"):
    mask = np.zeros((56, 84), dtype=bool)
    mask[8:40, left:right] = True
    return Marked(object=object, part=part, instance=0, mask=mask)


def slow(vlm, path, mask, token):
    """Best rank by full logits and an argsort, over patches of 8 pixels of the middle square."""
    states = vlm.hidden_states(
        Prompt(text="Describe the picture.", images=(Image.open(path).convert("RGB"),))
    )
    layers = [
        state if number == states.last_layer and states.last_is_normed else vlm.towers.final_norm(state)
        for number, state in zip(states.layer_numbers, states.layers, strict=True)
    ]
    cells = mask[:, 14:70].reshape(7, 8, 7, 8).mean(axis=(1, 3)).ravel() > 0.5
    best = []
    for layer in layers:
        logits = vlm.towers.lm_head(layer)[:, : len(vlm.tokenizer)]
        order = logits.argsort(dim=-1, descending=True).argsort(dim=-1) + 1
        best.append(int(order[cells, token].min()))
    return best


def test_ranks_on_a_vlm_are_those_of_full_logits(llava, pictured):
    found = identify_on(llava, pictured, rule=LabelRule.FIRST, settings=Settings(regions=3))
    parts = {(one.image, one.part): one for one in found.found.parts}
    assert set(parts) == {(image, part) for image in "01" for part in ("color", "windows")}
    tokens = {label.word: label.tokens[0] for label in found.labels.labels}
    for (image, name), one in parts.items():
        mask = next(part.mask for part in pictured[int(image)].parts if part.part == name)
        assert one.mask.tolist() == slow(llava, pictured[int(image)].image, mask, tokens[name])
        others = [slow(llava, pictured[int(image)].image, mask, tokens[other]) for other in one.others]
        assert one.wrong.tolist() == np.median(others, axis=0).tolist()
        assert one.layers == tuple(range(len(llava.towers.language_blocks) + 1))
        assert one.regions == 3
    missing = {(one.image, one.part): one.reason for one in found.found.not_ranked}
    assert missing == {
        ("0", "left"): "lost_to_crop",
        ("1", "left"): "lost_to_crop",
        ("broken", "color"): "unreadable",
    }
    assert [(Path(row.path).name, row.reason) for row in found.quarantined] == [
        ("broken.png", "not_an_image")
    ]
    assert "gives the model's own last logits back" in found.lens.note


def test_layers_and_names_can_be_chosen(llava, pictured):
    names = {"car": ("color", "left", "right")}
    found = identify_on(llava, pictured[:1], rule=LabelRule.FIRST, names=names, layers=[-1, 1])
    (color,) = found.found.parts
    assert color.layers == (3, 1)
    assert color.others == ("left", "right")
    assert {(one.part, one.reason) for one in found.found.not_ranked} == {
        ("left", "lost_to_crop"),
        ("windows", "no_label"),
    }
    with pytest.raises(UserError, match="no layer 9"):
        identify_on(llava, pictured[:1], rule=LabelRule.FIRST, layers=[9])


def test_names_are_gathered_by_object(pictured):
    more = Pictured(id="cat", image=pictured[0].image, parts=(box("tail", 0, 9, object="cat"),))
    assert part_names([*pictured, more]) == {"car": ("color", "left", "windows"), "cat": ("tail",)}


def test_a_model_without_a_spatial_map_is_refused(checkpoint_dir, pictured):
    blip = load_vlm(str(checkpoint_dir("instructblip")), device="cpu")
    with pytest.raises(Incapable, match="part identification needs the capability 'spatial_map'"):
        identify_on(blip, pictured)
