"""The page of a comparison: self-contained, escaped, the same bytes again, and every number where it belongs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from eyechart.core.errors import UserError
from eyechart.core.images import thumbnail_jpeg
from eyechart.recipes.compare import CompareConfig, compare
from eyechart.report import write_comparison
from logs_made import choices, encoder_run, eyechart_run, letters, lmms_samples, made_items

ITEMS = made_items(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    from PIL import Image

    base = tmp_path_factory.mktemp("compared")
    ways = {
        "": choices(ITEMS, wrong=range(1, 41, 2)),
        "swapped": choices(ITEMS, wrong=[50]),
        "blank": choices(ITEMS),
    }
    variants = {"swapped": {"order": "swapped"}, "blank": {"show": "blank"}}
    a = eyechart_run(base / "a", ITEMS, ways, variants=variants)
    (a / "thumbs").mkdir()
    for item in ITEMS[:4]:
        small = thumbnail_jpeg(Image.new("RGB", (8, 8), (item.number, 0, 0)))
        (a / "thumbs" / f"{item.sha256}.jpg").write_bytes(small)
    replies = letters(ITEMS, choices(ITEMS)) | {
        2: "Closed",
        45: "<script>alert(1)</script> hm",
        5: "A " + "long " * 60,
    }
    log = lmms_samples(base / "l", ITEMS, replies, model="org__b")
    return compare(CompareConfig(runs=(str(a), str(log))), out=base / "out").folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "compare.html").read_text()


def test_the_page_stands_alone(page):
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert "url(" not in page


def test_the_same_folder_gives_the_same_bytes(folder, page):
    assert write_comparison(folder).read_text() == page


def test_numbers_stand_where_they_belong(folder, page):
    record = json.loads((folder / "compare.json").read_text())
    (one,) = record["comparisons"]
    text = re.sub(r"<[^>]+>", "", page)
    text = " ".join(text.split())
    assert "org/b is better than org/model" in text
    assert f"{one['overall']['fixes']} pairs right only in the former" in text
    for run in record["runs"]:
        assert f"{run['units']['value']:.1%} [{run['units']['low']:.1%}" in text
    assert f"{record['sensitivity'][0]['ways'][0]['flips']['value']:.1%}" in text
    assert "a grey picture" in text
    for row in one["patterns"]:
        assert f"{100 * row['against']['difference']:+.1f}".replace("-", "\u2212") in text
    assert "2 replies that the harness graded otherwise" in text


def test_changed_pairs_have_their_pictures_where_there_are_any(folder, page):
    changed = [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]
    # pairs 1 to 20 but for 3, which neither has, and 23
    assert len(changed) == json.loads((folder / "compare.json").read_text())["changed"] == 20
    assert page.count("data:image/jpeg;base64,") == len(list((folder / "thumbs").glob("*.jpg"))) == 4
    assert page.count('class="no-picture"') == sum(len(one["items"]) for one in changed) - 4
    assert page.count('class="card changed"') == len(changed)


def test_marks_of_the_chart_lie_on_its_axis(page):
    places = [float(place) for place in re.findall(r'c?x[12]?="(-?[\d.]+)%"', page)]
    assert places
    assert all(0 <= place <= 100 for place in places)


def test_an_encoder_has_its_chart_and_a_single_run_has_no_differences(tmp_path):
    names = ("color", "state", "text", "position", "quantity")
    items = [replace(one, pattern=names[(int(one.pair) - 1) % 5]) for one in ITEMS]
    wrong = [
        one.number for one in items if one.number % 2 and int(one.pair) > 5 * (6 - names.index(one.pattern))
    ]
    vlm = eyechart_run(tmp_path / "vlm", items, {"": choices(items, wrong=wrong)})
    hits = {name: [1] * (9 - place) + [0] * (place + 1) for place, name in enumerate(names)}
    both = compare(
        CompareConfig(runs=(str(vlm), str(encoder_run(tmp_path / "e", hits)))), out=tmp_path / "both"
    )
    page = both.page.read_text()
    assert page.count('class="spot"') == 5
    assert 'id="differences"' not in page
    ways = {"": choices(ITEMS), "swapped": choices(ITEMS, wrong=[1])}
    alone = eyechart_run(tmp_path / "run", ITEMS, ways, variants={"swapped": {"order": "swapped"}})
    page = compare(CompareConfig(runs=(str(alone),)), out=tmp_path / "alone").page.read_text()
    assert "asked in several ways" in page
    assert 'id="differences"' not in page


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("compare.json", None, "holds no compare.json"),
        ("compare.json", "{", "no valid JSON"),
        ("compare.json", "[]", "expected an object"),
        ("compare.json", '{"schema": 99}', "schema is 99"),
        ("compare.json", '{"schema": 1}', "the key 'runs' is missing"),
        ("changes.jsonl", None, "holds no changes.jsonl"),
        ("changes.jsonl", "{}\n", "the key 'id' is missing"),
    ],
)
def test_a_damaged_folder_is_told(folder, tmp_path, name, content, words):
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(words)):
        write_comparison(tmp_path)
