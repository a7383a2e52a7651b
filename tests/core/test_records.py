"""Records hold what they say, refuse what cannot be, and do not change."""

import dataclasses
from pathlib import Path

import pytest

from eyechart.core import records
from eyechart.core.records import Benchmark, Capability, Graded, Item, Outcome, Prompt, Quarantined


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


EXAMPLES = [
    item(),
    Quarantined(path="a.png", reason="empty", detail="0 bytes"),
    Benchmark(name="b", source="s", sha256="0", items=(item(),), in_source=1),
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
