"""The layouts of a VLM's two towers, measured on the model: nothing is read off a config.

Which token is which patch is found by changing pixels (`models.token_places`); rows are the rows that the
tower's first block is given; which edges the language tower has is read off the attention calls of a pass
(`models.attention`).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray
from PIL import Image

from eyechart.core.errors import Incapable
from eyechart.core.geometry import Cell, Geometry
from eyechart.core.records import Capability, Prompt
from eyechart.locate.layout import LanguageLayout, VisionLayout
from eyechart.models.attention import Call, taking_calls
from eyechart.models.geometry import tower_geometry
from eyechart.models.token_places import patch_of_token, reading_order
from eyechart.models.vlms import VLM
from eyechart.models.vlms.objects import undisturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredVision:
    """A vision tower's layout with its map from pixels to patches."""

    layout: VisionLayout
    geometry: Geometry
    """Position k of it is `layout.patches[k]`."""


def vision_layout(vlm: VLM, image: Image.Image) -> MeasuredVision:
    """What stands where in the vision tower for an image of this size.

    Raises:
        Incapable: the tower's tokens are no single patches, or not those of the processor's geometry.
    """
    vlm.require(Capability.FED_FEATURES, for_="a layout of the vision tower")
    states = vlm.vision_states([image], layers=[0])[0].layers[0]
    inputs = vlm.inputs([Prompt(text="a", images=(image,))])
    with undisturbed(vlm.model, vlm.processor):
        found, why = patch_of_token(vlm.model, vlm.processor.image_processor, inputs, vlm.towers)
        geometry = tower_geometry(vlm.processor, vlm.model, image)
    if found is None:
        raise Incapable(f"{vlm.id}: the tokens of its vision tower have no places: {why}")
    rows, length = states.shape[0], states.shape[0] * states.shape[1]
    order = [token for token in reading_order(found).tolist() if found[token, 1] >= 0]
    if len(found) != length or len(order) != geometry.length:
        raise Incapable(
            f"{vlm.id}: its vision tower has {length} tokens, of {len(found)} the place was measured; its processor made"
            f" {geometry.length} patches, of which {len(order)} were found"
        )
    special = sorted(set(range(length)) - set(order))
    cells = tuple(Cell(*(int(number) for number in found[token])) for token in order)
    layout = VisionLayout(length=length, patches=tuple(order), special=tuple(special), rows=rows, cells=cells)
    return MeasuredVision(layout=layout, geometry=geometry)


def language_layout(vlm: VLM, prompt: Prompt) -> LanguageLayout:
    """What stands where in the language tower for a prompt with an image.

    Raises:
        Incapable: the image does not stand in the sequence, attention cannot be seen, or the edges it has
            are none of the kinds a layout knows.
    """
    calls: list[Bool[ndarray, "query key"]] = []

    def note(call: Call) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not calls:
            size = call.query.shape[2]
            calls.append(call.allowed()[0, 0].expand(size, size).cpu().numpy().astype(np.bool))
        return call.run()

    with taking_calls(vlm.self_attentions("language"), note):
        states = vlm.hidden_states(prompt, positions="all", layers=[0])
    if not calls:
        raise Incapable(f"{vlm.id}: no attention call of its language tower was seen")
    bare = places(len(states.positions), states.image_positions)
    for kind in (
        bare,
        replace(bare, image_both_ways=True),
        replace(bare, causal=False),
    ):
        if calls[0].shape == (bare.length, bare.length) and bool((kind.existing() == calls[0]).all()):
            return kind
    raise Incapable(
        f"{vlm.id}: the attention of its first language block is neither causal, nor causal with an image that sees itself both"
        " ways, nor full; which edges a cut would meet is not known"
    )


def places(length: int, image: tuple[int, ...]) -> LanguageLayout:
    """The layout of a causal sequence whose image stands at these positions."""
    first, last, held = min(image), max(image), set(image)
    return LanguageLayout(
        length=length,
        image=tuple(sorted(image)),
        before=tuple(range(first)),
        between=tuple(place for place in range(first, last) if place not in held),
        question=tuple(range(last + 1, length)),
    )
