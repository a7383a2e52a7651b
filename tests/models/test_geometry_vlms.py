"""Where each patch stands in the language sequence, for every VLM of the test bed.

The oracle is the model: its vision attention silenced, the pixels of chosen cells are changed, and the positions that
change must be those of the cells (`proof.py`), and none else.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from checkpoint_parts import build, language, tower
from eyechart.core.errors import Incapable
from eyechart.core.geometry import DROPPED, Geometry
from eyechart.models.geometry import derive_geometry, layouts, tower_geometry, verify_geometry
from eyechart.models.geometry.inputs import picture_inputs, picture_positions
from eyechart.models.geometry.pixels import Packing, packing
from eyechart.models.geometry.proof import (
    NOTHING,
    SEVERAL,
    cells_read,
    language_input,
    prove_positions,
    regions,
    silenced,
)
from eyechart.models.geometry.views import derived_views
from eyechart.models.processors import load_processor
from eyechart.models.untrained import tiny_tokenizer
from eyechart.models.vlms.towers import Towers, resolve_towers
from pictures import picture

MAPPED = (
    "llava", "llava_next", "qwen2_5_vl", "smolvlm", "idefics3", "paligemma", "qwen2_vl", "qwen3_vl", "gemma3",
    "internvl", "llava_onevision", "aya_vision",
)  # fmt: skip
SIZES = [(150, 64), (48, 133)]


class Vlm(NamedTuple):
    model: Any
    processor: Any
    towers: Towers


@pytest.fixture(scope="module")
def load(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], Vlm]:
    loaded: dict[str, Vlm] = {}

    def get(name: str) -> Vlm:
        if name not in loaded:
            folder = checkpoint_dir(name)
            model = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
            processor = load_processor(str(folder))
            loaded[name] = resolved(model, processor)
        return loaded[name]

    return get


def resolved(model: Any, processor: Any) -> Vlm:
    inputs = picture_inputs(processor, picture(96, 96))
    with torch.no_grad():
        return Vlm(model, processor, resolve_towers(model, run=lambda: model(**inputs)))


def prove(vlm: Vlm, record: Geometry, image: Image.Image) -> None:
    inputs = picture_inputs(vlm.processor, image)
    positions = picture_positions(inputs, vlm.model.config, vlm.processor)
    held = packing(inputs, vlm.processor.image_processor)
    prove_positions(vlm.model, inputs, positions, record, held, vlm.towers)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MAPPED)
def test_each_position_reads_the_pixels_of_its_cell(
    name: str, size: tuple[int, int], load: Callable[[str], Vlm]
) -> None:
    vlm, image = load(name), picture(*size)
    record = derive_geometry(vlm.processor, vlm.model, image)
    assert record.image_size == (size[1], size[0])
    assert record == derive_geometry(vlm.processor, vlm.model.config, image)
    prove(vlm, record, image)
    verify_geometry(vlm.processor, record.image_size)
    everything = np.ones(record.image_size, dtype=bool)
    assert len(record.positions_of(everything, threshold=0)) + record.separators <= record.length
    assert sum(one.whole for one in record.tiles) == 1


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "internvl"])
def test_a_wrong_record_is_not_proved(name: str, load: Callable[[str], Vlm]) -> None:
    """Two neighbours swapped; the last tile's rows read as columns."""
    vlm, image = load(name), picture(96, 96)
    record = derive_geometry(vlm.processor, vlm.model, image)
    last = record.tiles[-1]
    first, *rest = last.positions
    swapped = ((first[1], first[0], *first[2:]), *rest)
    turned = tuple(zip(*last.positions, strict=True))
    for positions in (swapped, turned):
        wrong = replace(record, tiles=(*record.tiles[:-1], replace(last, positions=positions)))
        with pytest.raises(Incapable, match=rf"of {record.length} image positions .* should read cell \d+"):
            prove(vlm, wrong, image)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mllama", "mllama has no spatial map in its language sequence: .* by cross-attention"),
        ("instructblip", "instructblip has no spatial map .*Q-Former"),
        ("blip_2", "blip-2 has no spatial map .*Q-Former"),
        ("idefics2", "idefics2 has no spatial map .* Perceiver"),
        ("florence2", "florence2 has no spatial map .* overlap"),
        ("kosmos2", "kosmos-2 has no spatial map .* resampler"),
    ],
)
def test_a_model_without_a_map_says_why(name: str, words: str, load: Callable[[str], Vlm]) -> None:
    vlm = load(name)
    with pytest.raises(Incapable, match=words):
        derive_geometry(vlm.processor, vlm.model, picture(96, 96))


def test_an_unknown_model_with_queries_is_refused_by_its_config() -> None:
    assert "Q-Former" in layouts.no_map(SimpleNamespace(model_type="new", num_query_tokens=32))
    assert layouts.no_map(SimpleNamespace(model_type="new")) == ""


@pytest.mark.parametrize("name", ["instructblip", "blip_2", "idefics2", "llava", "internvl"])
def test_the_vision_tower_has_its_own_map(name: str, load: Callable[[str], Vlm]) -> None:
    """Patches before merging, also where the language sequence has no map: proved on the first block's input."""
    vlm, image = load(name), picture(96, 60)
    record = tower_geometry(vlm.processor, vlm.model, image)
    inputs = picture_inputs(vlm.processor, image)
    held = packing(inputs, vlm.processor.image_processor)

    def run(pixels: torch.Tensor) -> torch.Tensor:
        states = language_input(vlm.model, {**inputs, "pixel_values": pixels}, vlm.towers.vision_blocks[0])
        return states.reshape(-1, states.shape[-1])

    with torch.no_grad():
        read = cells_read(
            run, inputs["pixel_values"], held, regions(held.tiles, held.canvas, record.tiles[0].cell)
        )
    patches = read[read >= 0]
    assert patches.tolist() == list(range(record.length))
    assert record.separators == 0


def test_llava_next_drops_the_padding_and_ends_its_rows(load: Callable[[str], Vlm]) -> None:
    """48 x 133 in three tiles of 56 x 56, one above the other: 156 of 168 pixels hold picture, so 19 rows of 21."""
    vlm = load("llava_next")
    record = derive_geometry(vlm.processor, vlm.model, picture(48, 133))
    assert record.separators == 19
    assert record.length == 49 + 19 * 8
    assert record.tiles[1].positions[0] == record.tiles[3].positions[6] == (DROPPED,) * 7
    assert record.tiles[1].positions[1] == tuple(range(49, 56))
    assert record.cells_of_position(56) == ()
    assert record.tiles[1].positions[2] == tuple(range(57, 64))


@pytest.mark.parametrize("limit", [1, 2])
def test_onevision_interpolates_what_is_too_big(limit: int, load: Callable[[str], Vlm]) -> None:
    """Beyond `anyres_max_N` the tiles' grid is shrunk: each unit must answer to the pixels at its middle."""
    vlm = load("llava_onevision")
    config, processor = vlm.model.config, vlm.processor
    before = config.vision_aspect_ratio, processor.vision_aspect_ratio
    config.vision_aspect_ratio = processor.vision_aspect_ratio = f"anyres_max_{limit}"
    try:
        image = picture(120, 100)
        record = derive_geometry(processor, vlm.model, image)
        assert len(record.tiles) == 2
        rows, columns = record.tiles[1].grid
        assert record.length == 49 + rows * (columns + 1)
        inputs = picture_inputs(processor, image)
        positions = list(picture_positions(inputs, config, processor))
        for row, column in [(0, 0), (rows // 2, columns // 3), (rows - 1, columns - 1)]:
            box = record.cell_box(1, row, column)
            change = changed_by(
                vlm, inputs, positions, image, ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
            )
            assert int(change[49:].argmax()) + 49 == record.tiles[1].positions[row][column]
    finally:
        config.vision_aspect_ratio, processor.vision_aspect_ratio = before


def changed_by(
    vlm: Vlm, inputs: Any, positions: list[int], image: Image.Image, point: tuple[float, float]
) -> torch.Tensor:
    """How much each position changes when a few pixels round a point of the original picture do."""
    pixels = np.asarray(image).copy()
    x, y = (int(place) for place in point)
    spot = pixels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    spot[:] = 255 - spot
    other = picture_inputs(vlm.processor, Image.fromarray(pixels))
    first = vlm.towers.language_blocks[0]
    with torch.no_grad(), silenced([site.module for site in vlm.towers.sites if site.tower == "vision"]):
        rows = [language_input(vlm.model, one, first)[0][positions] for one in (inputs, other)]
    return (rows[1] - rows[0]).norm(dim=-1)


def test_a_class_token_that_is_kept_takes_a_position(load: Callable[[str], Vlm]) -> None:
    vlm, image = load("llava"), picture(96, 96)
    config, processor = vlm.model.config, vlm.processor
    config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "full"
    try:
        record = derive_geometry(processor, vlm.model, image)
        assert (record.length, record.separators) == (50, 1)
        assert record.cells_of_position(0) == ()
        prove(vlm, record, image)
    finally:
        config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "default"


def case(
    kind: str, *, tiles: int = 1, count: int = 49, strategy: str | None = None, **more: Any
) -> layouts.Case:
    """A squashed picture of 56 x 56 on that many canvases, in a tower with patches of 8 and a class token."""
    squash = tf.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    views = derived_views(squash, (56, 56), tiles=1, canvas=(56, 56))
    assert views is not None
    vision = SimpleNamespace(model_type=more.pop("tower", "clip_vision_model"), patch_size=8, image_size=56)
    config = SimpleNamespace(model_type=kind, vision_config=vision, **more)
    return layouts.Case(config=config, views=views * tiles, size=(56, 56), count=count, strategy=strategy)


def test_a_first_patch_taken_for_a_class_token_is_dropped() -> None:
    """LLaVA with a SigLIP tower and `default` cuts the first patch off, since there is no class token to cut."""
    (only,) = layouts.laid_out(case("llava", tower="siglip_vision_model", count=48, strategy="default"))
    assert only.positions[0] == (DROPPED, 0, 1, 2, 3, 4, 5)
    assert only.positions[6][6] == 47


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (case("paligemma", count=50), "its patches make 49 positions, but its input has 50 for the image"),
        (case("llava", count=50, strategy="default"), "make 49 positions, but its input has 50"),
        (case("new", count=7), "make 9 positions, but its input has 7"),
        (
            case("aya_vision", tiles=2, count=98, strategy="full"),
            "aya_vision: with vision_feature_select_strategy 'full' each of its 2 canvases has 1 tokens more",
        ),
        (
            case("llava_next", tiles=2, strategy="full", image_grid_pinpoints=[[56, 56]]),
            "llava_next: with vision_feature_select_strategy 'full' each of its 2 canvases has 1 tokens more",
        ),
        (
            case("llava_next", tiles=2, strategy="default", image_grid_pinpoints=[[112, 56]]),
            "its config wants 2 x 1 tiles, its processor made 1; image_grid_pinpoints differ",
        ),
    ],
)
def test_what_the_count_contradicts_is_refused(given: layouts.Case, words: str) -> None:
    with pytest.raises(Incapable, match=words):
        layouts.laid_out(given)


def test_an_input_without_image_positions_is_refused(load: Callable[[str], Vlm]) -> None:
    vlm, image = load("llava"), picture(96, 96)
    inputs = {**picture_inputs(vlm.processor, image), "input_ids": torch.zeros(1, 5, dtype=torch.long)}
    with pytest.raises(
        Incapable, match="llava has no spatial map: its input holds no positions for the image"
    ):
        derive_geometry(vlm.processor, vlm.model, image, inputs)


def test_an_input_of_another_picture_is_refused(load: Callable[[str], Vlm]) -> None:
    vlm = load("internvl")
    inputs = picture_inputs(vlm.processor, picture(150, 64))
    with pytest.raises(Incapable, match="its patches make 80 positions, but its input has 48"):
        derive_geometry(vlm.processor, vlm.model, picture(96, 96), inputs)


@pytest.mark.parametrize("name", ["llava", "paligemma", "aya_vision", "qwen2_5_vl"])
def test_an_unknown_model_is_proved(
    name: str, load: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, image = load(name), picture(96, 96)
    known = derive_geometry(vlm.processor, vlm.model, image)
    monkeypatch.setattr("eyechart.models.geometry.KNOWN", frozenset())
    proved = derive_geometry(vlm.processor, vlm.model, image, towers=vlm.towers)
    assert proved.tiles == known.tiles
    assert "reading order proved on the model" in proved.note
    assert "which was not proved" in derive_geometry(vlm.processor, vlm.model.config, image).note


def test_an_unknown_model_that_reads_columns_first_is_refused(
    load: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LLaVA whose projector turns the grid about its diagonal: as many positions, but not in reading order."""
    vlm, image = load("llava"), picture(96, 96)
    monkeypatch.setattr("eyechart.models.geometry.KNOWN", frozenset())

    def turn(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.unflatten(1, (7, 7)).transpose(1, 2).flatten(1, 2)

    handle = vlm.model.get_submodule("model.multi_modal_projector").register_forward_hook(turn)
    try:
        with pytest.raises(
            Incapable, match=r"42 of 49 image positions .* position 1 should read cell 1 and reads cell 7"
        ):
            derive_geometry(vlm.processor, vlm.model, image, towers=vlm.towers)
    finally:
        handle.remove()


class StandIn:
    """What PixtralProcessor does with one picture; the class itself needs torchvision."""

    image_token = "[IMG]"
    chat_template = None

    def __init__(self, image_processor: Any, tokenizer: Any, step: int) -> None:
        self.image_processor, self.tokenizer, self.step = image_processor, tokenizer, step

    def __call__(self, text: list[str], images: list[Image.Image], return_tensors: str) -> dict[str, Any]:
        if self.image_token not in text[0]:
            raise ValueError(f"{text[0]!r} holds no {self.image_token}")
        made = dict(self.image_processor(images=images, patch_size=self.step, return_tensors="pt"))
        rows, columns = (int(length) // self.step for length in made["image_sizes"][0])
        tokens = "[IMG_BREAK]".join([self.image_token * columns] * rows)
        return {**made, **self.tokenizer([text[0].replace(self.image_token, tokens)], return_tensors="pt")}


def pixtral(model_class: Any, config_class: Any, merge: int, **more: Any) -> Vlm:
    """A VLM with Pixtral's tower, which keeps the picture's own shape."""
    tokenizer = tiny_tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    images = tf.PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})
    config = config_class(
        vision_config=tower("pixtral", side=64, head_dim=8),
        text_config=language("mistral", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        **more,
    )
    return resolved(build(model_class, config), StandIn(images, tokenizer, 8 * merge))


@pytest.mark.parametrize("size", [(90, 60), (48, 133)])
@pytest.mark.parametrize("merge", [1, 2])
def test_towers_of_any_shape(merge: int, size: tuple[int, int]) -> None:
    """Pixtral's tower in a LLaVA, and in a Mistral 3 that merges squares of four patches."""
    if merge == 1:
        vlm = pixtral(
            tf.LlavaForConditionalGeneration, tf.LlavaConfig, 1, vision_feature_select_strategy="full"
        )
    else:
        vlm = pixtral(tf.Mistral3ForConditionalGeneration, tf.Mistral3Config, 2, spatial_merge_size=2)
    record = derive_geometry(vlm.processor, vlm.model, picture(*size))
    rows, columns = record.tiles[0].grid
    assert (rows > columns) == (size[1] > size[0])
    prove(vlm, record, picture(*size))
    verify_geometry(vlm.processor, record.image_size)


def test_rows_that_read_none_or_several_cells_are_told_apart() -> None:
    """Planted: one row for each cell in a shuffled order, one for two cells, one for nothing."""
    held = Packing(kind="canvases", shape=(1, 3, 8, 12), tiles=1, canvas=(8, 12))
    cells = regions(1, (8, 12), (4, 4))
    order = [4, 0, 5, 2, 1, 3]

    def run(pixels: torch.Tensor) -> torch.Tensor:
        blocks = pixels[0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).mean((0, 3)).flatten()
        return torch.stack([*(blocks[i] for i in order), blocks[1] + blocks[2], torch.tensor(1.0)])[:, None]

    read = cells_read(run, torch.zeros(1, 3, 8, 12), held, cells)
    assert read.tolist() == [*order, SEVERAL, NOTHING]
