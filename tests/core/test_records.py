"""Records hold what they say, refuse what cannot be, and do not change."""

import dataclasses
from pathlib import Path

import pytest

from eyechart.core import records
from eyechart.core.records import (
    Benchmark,
    Capability,
    Correction,
    Graded,
    Item,
    Match,
    MatchSet,
    Outcome,
    Prompt,
    Quarantined,
)


def item(**changes):
    fields = {
        "id": "1",
        "pair_id": "p1",
        "question": "Is the dog's mouth open?",
        "options": ("Yes", "No"),
        "answer": 0,
        "image": Path("1.jpg"),
        "image_sha256": "0" * 64,
    }
    return Item(**fields | changes)


def correction(**changes):
    fields = {"item_id": "1", "old": 0, "new": 1, "reason": "its mouth is shut", "source": "an issue"}
    return Correction(**fields | changes)


def match(images=2, captions=2):
    return Match(
        id="1",
        captions=tuple(f"caption {place}" for place in range(captions)),
        images=tuple(Path(f"{place}.jpg") for place in range(images)),
        images_sha256=tuple(str(place) for place in range(images)),
    )


EXAMPLES = [
    item(),
    Quarantined(path="a.png", reason="empty", detail="0 bytes"),
    Benchmark(name="b", source="s", sha256="0", items=(item(),), in_source=1),
    correction(),
    match(),
    MatchSet(name="m", source="s", sha256="0", matches=(match(),), in_source=1),
    Prompt(text="Hello"),
    Graded(item_id="1", reply="A", choice=0, outcome=Outcome.RIGHT),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_every_record_is_frozen_slotted_and_keyword_only(record):
    first = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError, match=first):
        setattr(record, first, "changed")
    assert not hasattr(record, "__dict__")
    assert all(field.kw_only for field in dataclasses.fields(record))
    assert dataclasses.replace(record) == record


def test_every_dataclass_of_the_module_has_its_example():
    made = {
        name
        for name, kind in vars(records).items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    assert made == {type(record).__name__ for record in EXAMPLES}


@pytest.mark.parametrize("options", [(), ("Yes",)])
def test_a_question_needs_two_options(options):
    with pytest.raises(ValueError, match=r"item '1': a question needs two options or more, got \("):
        item(options=options)


@pytest.mark.parametrize("answer", [-1, 2, 17])
def test_the_answer_is_one_of_the_options(answer):
    with pytest.raises(ValueError, match=f"item '1': answer {answer} is no place in its 2 options"):
        item(answer=answer)


def test_outcomes_and_capabilities_are_their_words():
    assert [str(one) for one in Outcome] == ["right", "wrong", "unread"]
    assert Capability("option_scores") is Capability.OPTION_SCORES
    with pytest.raises(ValueError, match="'telepathy' is not a valid Capability"):
        Capability("telepathy")


def test_a_correction_changes_the_answer_it_names_and_no_other():
    both = (item(), item(id="2"))
    known = Benchmark(name="b", source="s", sha256="0", items=both, in_source=2, corrections=(correction(),))
    assert [one.answer for one in known.corrected()] == [1, 0]
    assert [one.answer for one in known.items] == [0, 0]


@pytest.mark.parametrize("changes", [{"item_id": "3"}, {"old": 1, "new": 0}])
def test_a_correction_must_fit_the_items(changes):
    known = Benchmark(
        name="b", source="s", sha256="0", items=(item(),), in_source=1, corrections=(correction(**changes),)
    )
    with pytest.raises(ValueError, match="does not fit the items"):
        known.corrected()


@pytest.mark.parametrize(("images", "captions"), [(1, 1), (2, 3), (3, 2), (0, 2)])
def test_captions_and_images_of_a_match_belong_together(images, captions):
    with pytest.raises(ValueError, match=f"{images} images, {images} hashes and {captions} captions"):
        match(images, captions)
    assert match(1, 4).captions[0] == "caption 0"


def test_a_question_about_several_pictures_has_a_hash_for_each():
    with pytest.raises(ValueError, match="1 further images, 0 hashes"):
        item(more_images=(Path("2.jpg"),))
    assert item(more_images=(Path("2.jpg"),), more_sha256=("1",)).images == (Path("1.jpg"), Path("2.jpg"))


def test_facets_and_further_pictures_are_part_of_the_rows_hash_and_change_no_older_one():
    def rows(one):
        return Benchmark(name="b", source="s", sha256="0", items=(one,), in_source=1).rows_sha256

    plain = rows(item())
    assert rows(item(facets=(("source", "COCO"),))) != plain
    assert rows(item(more_images=(Path("2.jpg"),), more_sha256=("1",))) != plain
    assert item(facets=(("source", "COCO"),)).facet("source") == "COCO"
    assert item().facet("source") is None
