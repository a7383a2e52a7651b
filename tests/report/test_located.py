"""Where it is lost: the table of verdicts, the charts along the stages, and what stands there when nothing was located."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.core.stats import wilson
from eyechart.report import write_report
from eyechart.report.located import MEANINGS, Located, stage_charts
from eyechart.report.reading import read_run

STAGES = (
    ("vision 1", "vision", 1),
    ("vision 6", "vision", 6),
    ("fed", "fed", None),
    ("language 0 image", "image", 0),
    ("language 8 image", "image", 8),
    ("language 4 last", "last", 4),
    ("language 8 last", "last", 8),
)


def estimate(hits, n=20):
    rate = wilson(hits, n)
    return {"value": rate.value, "low": rate.low, "high": rate.high, "n": n, "level": 0.95, "method": "x"}


def pattern(name, verdict, hits, *, answered=6, control=4):
    stages = [
        {
            "stage": stage,
            "kind": kind,
            "layer": layer,
            "pairs": estimate(hit),
            "control": estimate(control),
            "difference": {**estimate(hit), "value": (hit - control) / 20},
        }
        for (stage, kind, layer), hit in zip(STAGES, hits, strict=True)
    ]
    return {
        "pattern": name,
        "verdict": verdict,
        "reason": f"because of {name}",
        "pairs": 20,
        "in_set": 20,
        "labels": 2,
        "label_pairs": {f"{name} open": 20, f"{name} <closed>": 20},
        "answered": wilson(answered, 20).to_dict(),
        "chance": 0.25,
        "fed": "fed",
        "late": ["language 4 last", "language 8 last"],
        "where": None,
        "shares": {"answered": 0.1, verdict: 0.9},
        "stages": stages,
    }


def bare(name):
    found = pattern(name, "undecided", (0,) * 7)
    none = {
        "pairs": 0,
        "label_pairs": {},
        "answered": None,
        "fed": None,
        "late": [],
        "shares": {},
        "stages": [],
    }
    return found | none


def block(*patterns):
    return {
        "missing": None,
        "items": "20 pairs of twins",
        "probe": "linear",
        "notes": ["items were read one by one"],
        "patterns": list(patterns),
    }


@pytest.fixture
def located(folder):
    folder.block["located"] = block(
        pattern("color", "answered", (19, 19, 19, 19, 19, 18, 17), answered=18),
        pattern("door", "present but unused", (15, 16, 18, 18, 18, 9, 14)),
        bare("text"),
    )
    return folder


def section(folder, tmp_path, read_page):
    return read_page(write_report(folder.write(tmp_path / "run"))).one("section", id="located")


def test_each_pattern_has_its_verdict_and_the_numbers_behind_it(located, tmp_path, read_page):
    part = section(located, tmp_path, read_page)
    rows = {row.one("th").text: [cell.text for cell in row.all("td")] for row in part.one("tbody").all("tr")}
    assert {name: cells[0] for name, cells in rows.items()} == {
        "color": "answered",
        "door": "present but unused",
        "text": "undecided",
    }
    fed, late, answered = rows["door"][1:4]
    assert fed == "90% [70, 97] control 20%"
    assert late.startswith("70% ["), "the late stage that shows most is told, not the first"
    assert answered == "30% [15, 52] chance 25%"
    assert rows["door"][4:] == ["20", "2", "90%"]
    assert rows["text"][1:] == [*["\u2013"] * 3, "0", *["\u2013"] * 2]
    assert "20 pairs of twins" in part.text
    assert "items were read one by one." in part.text


def test_reasons_and_labels_stand_in_words_and_are_escaped(located, tmp_path, read_page):
    part = section(located, tmp_path, read_page)
    assert "because of door." in part.text
    assert "door <closed>" in part.text
    page = (tmp_path / "run/report.html").read_text("utf8")
    assert "door &lt;closed&gt;" in page
    assert "<closed>" not in page


def test_every_verdict_is_explained(located, tmp_path, read_page):
    said = section(located, tmp_path, read_page).text
    for verdict, meaning in MEANINGS.items():
        assert verdict in said
        assert meaning in said
    assert "that does not mean it is not there" in MEANINGS["not readable"]


def test_a_chart_for_each_pattern_that_was_read(located, tmp_path, read_page):
    figures = section(located, tmp_path, read_page).all("figure")
    assert [figure.one("figcaption").text for figure in figures] == [
        "color answered",
        "door present but unused",
    ]
    door = figures[1]
    assert len(door.all("circle")) == len(STAGES) + 1
    assert len(door.all("line", class_="read")) == len(STAGES) - 1 == len(door.all("line", class_="dealt"))
    assert [text.text for text in door.all("text", class_="kind")] == [
        "encoder", "fed", "image positions", "last position", "answer",
    ]  # fmt: skip
    titles = [title.text for title in door.all("title")]
    assert titles[2].startswith("fed: 90% of 20 pairs read [70%, 97%], control 20%")
    assert titles[-1].startswith("answered: 30% of 20 pairs")


@given(st.lists(st.integers(0, 20), min_size=7, max_size=7), st.integers(0, 20))
def test_marks_stand_where_the_numbers_say(hits, answered):
    located = Located.model_validate(block(pattern("a", "undecided", hits, answered=answered)))
    (chart,) = stage_charts(located)
    assert [point.y for point in chart.points] == pytest.approx([100 - 5 * hit for hit in (*hits, answered)])
    assert [first.x < second.x for first, second in pairwise(chart.points)] == [True] * 7
    assert all(0 < point.x < 100 and point.high <= point.y <= point.low for point in chart.points)
    assert chart.bands[0].left == 0
    assert chart.bands[-1].right == pytest.approx(100)
    assert all(first.right == second.left for first, second in pairwise(chart.bands))
    assert chart.chance == 75


def test_why_nothing_was_located_is_said(folder, tmp_path, read_page):
    folder.block["located"] = {"missing": "m is a server, which gives replies"}
    part = section(folder, tmp_path, read_page)
    assert "Not examined: m is a server, which gives replies." in part.text
    assert not part.all("table")
    assert not part.all("svg")


@pytest.mark.parametrize("value", [None, "absent"])
def test_where_nobody_wanted_it_there_is_no_section(folder, tmp_path, read_page, value):
    if value is None:
        folder.block["located"] = None
    root = read_page(write_report(folder.write(tmp_path / "run")))
    assert not root.all("section", id="located")
    assert "#located" not in [link.attrs.get("href") for link in root.all("a")]


def test_a_verdict_that_does_not_exist_is_refused(located, tmp_path):
    located.block["located"]["patterns"][0]["verdict"] = "blind"
    path = located.write(tmp_path / "run")
    with pytest.raises(UserError, match=r"located.patterns.0.verdict' is 'blind'"):
        read_run(path)
