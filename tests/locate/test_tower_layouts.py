"""Layouts: which edges exist, which patches a cell has, and the layouts of real architectures."""

import numpy as np
import pytest
from PIL import Image

from eyechart.core.errors import Incapable, UserError
from eyechart.core.geometry import Box, Cell, Geometry, Tile
from eyechart.core.records import Prompt
from eyechart.locate.layout import LanguageLayout, VisionLayout
from eyechart.locate.layout_of_vlm import language_layout, places, vision_layout
from eyechart.models.vlms import load_vlm


def geometry(rows: int, columns: int) -> Geometry:
    positions = tuple(tuple(range(row * columns, (row + 1) * columns)) for row in range(rows))
    box = Box(0, 0, 16, 16)
    tile = Tile(
        box=box, shown=box, canvas=(16, 16), cell=(16 / rows, 16 / columns), positions=positions, whole=True
    )
    return Geometry(image_size=(16, 16), tiles=(tile,), length=rows * columns)


def grid_layout(side: int, *, special: int = 1) -> VisionLayout:
    count = side * side
    return VisionLayout(
        length=count + special,
        patches=tuple(range(special, count + special)),
        special=tuple(range(special)),
        cells=tuple(Cell(0, k // side, k % side) for k in range(count)),
    )


def test_vision_edges_join_the_tokens_of_a_row_and_no_others() -> None:
    layout = VisionLayout(length=6, patches=(1, 2, 4, 5), special=(0, 3), rows=2)
    block = np.ones((3, 3), dtype=bool)
    expected = np.block([[block, np.zeros_like(block)], [np.zeros_like(block), block]])
    assert np.array_equal(layout.existing(), expected)


@pytest.mark.parametrize(
    ("kind", "later_image", "later_text"),
    [({}, False, False), ({"image_both_ways": True}, True, False), ({"causal": False}, True, True)],
)
def test_language_edges(kind, later_image, later_text) -> None:
    layout = LanguageLayout(length=6, before=(0,), image=(1, 2, 3), question=(4, 5), **kind)
    edges = layout.existing()
    assert edges[5, 0]
    assert edges[3, 1]
    assert edges.diagonal().all()
    assert edges[1, 3] == later_image
    assert edges[4, 5] == edges[0, 1] == later_text
    assert (layout.last, layout.sink) == (5, 0)


def test_layouts_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="make no 4 tokens"):
        VisionLayout(length=4, patches=(0, 1))
    with pytest.raises(ValueError, match="different places"):
        VisionLayout(length=2, patches=(0, 2))
    with pytest.raises(ValueError, match="rows of one length"):
        VisionLayout(length=3, patches=(0, 1, 2), rows=2)
    with pytest.raises(ValueError, match="have 3 positions"):
        LanguageLayout(length=4, image=(1, 2), question=(3,))
    with pytest.raises(ValueError, match="go up"):
        LanguageLayout(length=3, image=(2, 1), before=(0,))


def test_a_cell_that_merges_patches_has_all_of_them() -> None:
    layout = grid_layout(4)
    assert layout.patches_of([3], geometry(2, 2)) == (11, 12, 15, 16)
    assert layout.patches_of([5], geometry(4, 4)) == (6,)
    with pytest.raises(UserError, match="4 x 4 patches and 3 x 3 cells"):
        layout.patches_of([0], geometry(3, 3))
    with pytest.raises(UserError, match="not known"):
        VisionLayout(length=1, patches=(0,)).patches_of([0], geometry(1, 1))


def test_text_between_tiles_is_neither_before_nor_after() -> None:
    layout = places(8, (2, 3, 5))
    assert (layout.before, layout.between, layout.question) == ((0, 1), (4,), (6, 7))


# ------------------------------------------------------------------------------ real architectures


KINDS = {
    "llava": (True, False),
    "gemma3": (True, True),
    "paligemma": (False, False),
    "smolvlm": (True, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm", "gemma3", "paligemma", "llava_next"])
def test_vision_layout_of_a_model_finds_every_patch_where_a_pixel_change_shows(
    name: str, checkpoint_dir, square_picture: Image.Image
) -> None:
    vlm = load_vlm(str(checkpoint_dir(name)))
    found = vision_layout(vlm, square_picture)
    layout, states = found.layout, vlm.vision_states([square_picture], layers=[0])[0].layers[0]
    assert layout.length == states.shape[0] * states.shape[1]
    assert layout.rows == states.shape[0]
    assert len(layout.patches) == found.geometry.length
    # an oracle from outside: paint one patch's own pixels, and see which tokens of the tower's input move
    place = len(layout.patches) // 2
    cell = next(iter(found.geometry.cells_of_position(place)))
    box = found.geometry.cell_box(*cell)
    painted = square_picture.copy()
    middle = (int((box.left + box.right) / 2), int((box.top + box.bottom) / 2))
    painted.paste((255, 0, 255), (middle[0] - 1, middle[1] - 1, middle[0] + 1, middle[1] + 1))
    moved = vlm.vision_states([painted], layers=[0])[0].layers[0] - states
    strength = moved.flatten(0, 1).abs().sum(dim=1)
    assert strength[layout.patches[place]] > 0
    assert all(strength[token] == 0 for token in layout.special)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KINDS))
def test_language_layout_of_a_model_is_what_its_attention_shows(
    name: str, checkpoint_dir, square_picture: Image.Image
) -> None:
    vlm = load_vlm(str(checkpoint_dir(name)))
    prompt = Prompt(text="what is it", images=(square_picture,))
    layout = language_layout(vlm, prompt)
    assert (layout.causal, layout.image_both_ways) == KINDS[name]
    assert layout.image == vlm.image_positions(prompt)
    assert layout.question[-1] == layout.last


@pytest.mark.slow
def test_attention_of_no_known_kind_is_refused(
    checkpoint_dir, square_picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(str(checkpoint_dir("llava")))
    monkeypatch.setattr(
        "eyechart.locate.layout.LanguageLayout.existing",
        lambda self: np.zeros((self.length, self.length), dtype=bool),
    )
    with pytest.raises(Incapable, match="neither causal"):
        language_layout(vlm, Prompt(text="a", images=(square_picture,)))
