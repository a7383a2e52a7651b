"""Parts under knockouts: planted states are read off the right positions, under the right condition, beside their own control."""

import numpy as np
import pytest
import torch

from eyechart.core.errors import UserError
from eyechart.core.geometry import Box, Geometry, Tile, raster
from eyechart.locate.arms import BOTH, LANGUAGE, VISION, WHOLE, Towered, arms_of
from eyechart.locate.identify import Settings
from eyechart.locate.knock import Pictured, knock_parts, plan_parts
from eyechart.locate.knock_rows import (
    Instances,
    dose_curves,
    lens_compensation,
    line_of,
    probe_compensation,
    states_of,
)
from eyechart.locate.labels import Label, LabelRule
from eyechart.locate.layout import LanguageLayout, VisionLayout
from eyechart.locate.lens import Lens, Unembedding
from eyechart.locate.named_layers import Usable
from eyechart.locate.part_records import Part

SIDE, WORDS, LAYERS = 4, 8, 3
GRID = SIDE * SIDE
NAMES = ("tail", "wheel")


def geometry() -> Geometry:
    tile = Tile(
        box=Box(0, 0, SIDE, SIDE),
        shown=Box(0, 0, SIDE, SIDE),
        canvas=(SIDE, SIDE),
        cell=(1, 1),
        whole=True,
        positions=raster(SIDE, SIDE),
    )
    return Geometry(image_size=(SIDE, SIDE), tiles=(tile,), length=GRID)


def part(name: str, cells: list[int], instance: int = 1) -> Part:
    mask = np.zeros(GRID, dtype=bool)
    mask[cells] = True
    return Part(object="toy", part=name, instance=instance, mask=mask.reshape(SIDE, SIDE))


TOWERS = Towered(
    vision=VisionLayout(length=GRID + 1, patches=tuple(range(1, GRID + 1)), special=(0,)),
    language=LanguageLayout(
        length=GRID + 4, image=tuple(range(1, GRID + 1)), before=(0,), question=(17, 18, 19)
    ),
    vision_layers=Usable(layers=(0, 1)),
    language_layers=Usable(layers=(0, 1)),
)
ARMS = arms_of(TOWERS, vision="part<-rest", language="part<-earlier image", controls=("both ways",))
LENS = Lens(norm=lambda x: x, head=Unembedding(weight=torch.eye(WORDS)), tokens=WORDS)
LABELS = {
    name: Label(word=name, rule=LabelRule.WHOLE, tokens=(number,), spelled=(name,))
    for number, name in enumerate(NAMES)
}


def pictured(parts, image="one") -> Pictured:
    return Pictured(
        image=image,
        parts=parts,
        geometry=geometry(),
        towers=TOWERS,
        vision_of=lambda part, cells: tuple(int(cell) + 1 for cell in cells),
    )


def reads(states):
    """A model whose states under a condition are `states(condition)`; hands conditions back in an order of its own."""

    def read(conditions):
        for condition in reversed(list(conditions)):
            yield condition, states(condition)

    return read


def flat(seed=0):
    drawn = np.random.default_rng(seed).uniform(-1, 0, (LAYERS, GRID, WORDS))
    return torch.tensor(drawn, dtype=torch.float32)


def knocked(parts, states, **more):
    return knock_parts(
        pictured(parts, **more), reads(states), LENS, LABELS, ARMS, settings=Settings(regions=4)
    )


def test_the_name_is_read_off_the_parts_own_positions_under_its_own_condition():
    parts = [part("tail", [5, 6]), part("wheel", [9, 10], instance=2)]

    def states(condition):
        found = flat()
        if condition.name != "0 main: vision cut":  # the tail says its name but where its own cut is made
            found[:, 5, 0] = 5.0
        found[2, 10, 1] = 5.0  # the wheel always does, at the last layer
        return found

    (tail, wheel), missing = knocked(parts, states)
    assert missing == []
    assert tail.readings[WHOLE].rank.tolist() == [1, 1, 1]
    assert tail.readings["main", LANGUAGE].rank.tolist() == [1, 1, 1]
    assert (tail.readings["main", VISION].rank > 1).all()
    assert wheel.readings["main", VISION].rank[2] == 1
    assert wheel.readings["main", VISION].rank[0] > 1
    assert (tail.readings[WHOLE].control > 1).all()


def test_a_rivals_name_is_read_at_the_same_place():
    def states(condition):
        found = flat()
        found[:, 5, 0], found[:, 5, 1] = 4.0, 5.0
        return found

    read, _ = knock_parts(
        pictured([part("tail", [5, 6]), part("wheel", [9])]),
        reads(states),
        LENS,
        LABELS,
        ARMS,
        settings=Settings(regions=4),
        rivals={("toy", "tail"): "wheel"},
    )
    assert read[0].readings[WHOLE].rank.tolist() == [2, 2, 2]
    assert read[0].readings[WHOLE].rival.tolist() == [1, 1, 1]
    assert read[1].readings[WHOLE].rival is None


def test_the_mean_state_is_that_of_the_parts_positions():
    (one,), _ = knocked([part("tail", [5, 6])], lambda condition: flat(3))
    assert np.allclose(one.readings["main", BOTH].state, flat(3)[:, [5, 6]].mean(dim=1))


def test_the_intact_model_is_read_once_for_all_parts():
    asked = []

    def states(condition):
        asked.append(condition.name)
        return flat()

    knocked([part("tail", [5]), part("wheel", [9])], states)
    assert asked.count("intact") == 1
    assert len(asked) == len(set(asked)) == 1 + 2 * 5


def test_parts_that_cannot_be_read_are_listed():
    read, missing = knocked([part("horn", [5]), part("tail", [])], lambda condition: flat())
    assert read == []
    assert [one.reason for one in missing] == ["no_label", "empty_mask"]


def test_a_part_in_the_first_cell_has_no_2x2_and_is_counted():
    read, missing = knocked([part("tail", [0])], lambda condition: flat())
    assert list(read[0].readings) == [WHOLE]
    logged = [line_of("one", read, missing)]
    assert Instances.of(logged, [("main", VISION)]).left_out == 1


def test_states_of_another_length_are_refused():
    with pytest.raises(UserError, match="states at 3 positions"):
        knocked([part("tail", [5])], lambda condition: torch.zeros(LAYERS, 3, WORDS))


def test_a_part_without_room_for_a_region_is_left_out_of_the_lens_2x2_alone():
    covered = list(range(1, GRID))
    read, missing = knocked([part("tail", covered)], lambda condition: flat())
    assert read[0].readings[WHOLE].control is None
    logged = [line_of("one", read, missing)]
    assert Instances.of(logged, [("main", VISION)]).left_out == 1
    assert Instances.of(logged, [("main", VISION)], against="rank").left_out == 0


def test_what_is_planned_is_what_is_run():
    planned, _ = plan_parts(pictured([part("tail", [5])]), LABELS, ARMS, settings=Settings(regions=4))
    assert {cell for cell, _ in planned[0].conditions.cells.items()} == {
        WHOLE,
        *((arm.name, cell) for arm in ARMS for cell in arm.cells),
    }


def logged(strengths, images=12):
    """Lines of pictures whose parts say their names, under each cell, as strongly as planted: rank 1, or the worst."""
    lines, held = [], {}
    rng = np.random.default_rng(1)
    for number in range(images):
        name = NAMES[number % 2]

        def states(condition, name=name):
            found = torch.tensor(rng.uniform(-1, -0.9, (LAYERS, GRID, WORDS)), dtype=torch.float32)
            cell = condition.name.partition(": ")[2] or "intact"
            for layer in range(LAYERS):
                found[layer, [5, 6], NAMES.index(name)] = strengths(cell, layer)
            return found

        read, missing = knocked([part(name, [5, 6])], states, image=str(number))
        lines.append(line_of(str(number), read, missing))
        for key, value in states_of(read, ["main"]).items():
            place, _, cell = key.partition("|")
            held.setdefault((str(number), int(place)), {})[cell] = value
    return lines, held


def planted(cell, layer):
    """Vision takes the name from layer 0; language attention brings it back at layer 2 unless it is cut, too."""
    if cell == "vision cut":
        return 5.0 if layer == 2 else -5.0
    return -5.0 if cell == "both cut" else 5.0


def test_a_planted_recovery_is_found_by_the_lens():
    lines, _ = logged(planted)
    arms = [(arm.name, arm.cells) for arm in ARMS]
    found = lens_compensation(lines, arms, scale="log_vocabulary", vocabulary=WORDS, seed=0)
    first, last = found["arms"]["main"][0], found["arms"]["main"][2]
    assert found["n"] == found["images"] == 12
    assert first["retained"]["vision cut"]["value"] == pytest.approx(0.0)
    assert first["recovered"]["value"] == pytest.approx(0.0)
    assert last["retained"]["vision cut"]["value"] == pytest.approx(1.0)
    assert last["recovered"]["value"] == pytest.approx(1.0)
    assert "under ablation" in found["words"]


@pytest.mark.slow
def test_a_planted_recovery_is_found_by_the_part_probe():
    lines, held = logged(planted, images=60)
    found = probe_compensation(lines, held, {"toy": NAMES}, layers=range(LAYERS), seed=0)
    for training in ("transfer", "refit"):
        arms = found[training]["arms"]["main"]
        assert arms[2]["recovered"]["value"] is None or arms[2]["recovered"]["value"] > 0.5
        assert arms[0]["means"]["language cut"]["value"] > 0.3


def test_one_picture_has_no_interval_and_says_so():
    lines, held = logged(planted, images=1)
    arms = [(arm.name, arm.cells) for arm in ARMS]
    found = lens_compensation(lines, arms, scale="log_rank", vocabulary=WORDS, seed=0)
    assert "too few" in found["why"]
    assert "too few" in probe_compensation(lines, held, {"toy": NAMES}, layers=[0], seed=0)["why"]


def test_doses_are_read_at_their_own_arms():
    from eyechart.locate.arms import doses_of

    plans = doses_of(ARMS[0], TOWERS, shares=(0.5, 1.0))
    arms = [arm for plan in plans for arm in plan.arms]
    lines = []
    for number in range(6):

        def states(condition):
            found = flat(7)
            found[:, [5, 6], 0] = -5.0 if "1.000" in condition.name else 5.0
            return found

        read, missing = knock_parts(
            pictured([part("tail", [5, 6])], str(number)),
            reads(states),
            LENS,
            LABELS,
            arms,
            settings=Settings(regions=4),
        )
        lines.append(line_of(str(number), read, missing))
    for curve in dose_curves(lines, plans, layer=2, scale="log_vocabulary", vocabulary=WORDS, seed=0):
        assert [round(point["retained"]["value"], 6) for point in curve["points"]] == [1.0, 0.0]
