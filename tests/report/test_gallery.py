"""The gallery as a reader gets it: what it says of a mining run, and that nothing in it can call home."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.images import thumbnail_jpeg
from eyechart.core.records import Quarantined
from eyechart.core.runs import RunFolder
from eyechart.report import charts, gallery, write_gallery

EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'

SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("image_a", "image_b", "sha256_a", "sha256_b")
        ),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("semantic", "reference")),
        *(pa.field(name, pa.string()) for name in ("label_a", "label_b")),
        pa.field("hash_distance", pa.int32()),
        pa.field("pattern", pa.string()),
    ]
)


def jpeg(seed: int) -> bytes:
    return thumbnail_jpeg(Image.new("RGB", (40, 30), ((seed * 37) % 256, (seed * 91) % 256, 120)))


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def a_pair(rank: int, **changed: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "image_a": f"shelf/{rank}_a.jpg",
        "image_b": f"shelf/{rank}_b.jpg",
        "sha256_a": hash_of(f"{rank} a"),
        "sha256_b": hash_of(f"{rank} b"),
        "semantic": 0.99 - rank / 1000,
        "reference": 0.2 + rank / 100,
        "label_a": "apple",
        "label_b": "pear" if rank % 2 else "apple",
        "hash_distance": 24,
        "pattern": None,
        **changed,
    }


def results(**changed: Any) -> dict[str, Any]:
    return {
        "source": "photos/shelf",
        "images": 1260,
        "unique": 1234,
        "quarantined": 0,
        "semantic": {
            "id": "example/clip",
            "pooling": "projected",
            "threshold": 0.95,
            "wish": "0.95",
            "centred": False,
        },
        "reference": {
            "id": "example/dino",
            "pooling": "cls",
            "threshold": 0.6,
            "wish": "p40",
            "centred": True,
        },
        "certificate": {
            "images": 1234,
            "pairs": 760761,
            "compared": 760761,
            "columns": 192,
            "slack": 3.1e-06,
            "bounded": 5021,
            "semantic": 4013,
            "found": 317,
            "kept": 6,
        },
        "limits": {"per_image": 2, "per_burst": None, "budget": 1000},
        "alike": {"found": 41, "kept": 0, "min_reference": 0.9, "most_bits": 6},
        "set_apart": 0,
        "listed": 6,
        "joint": {
            "semantic_edges": [0.0, 0.5, 1.0],
            "reference_edges": [-0.5, 0.0, 0.5, 1.0],
            "counts": [[0, 2, 0], [1, 40, 7]],
            "sampled": 50,
            "exhaustive": False,
        },
        "truth": None,
        "notes": [],
        **changed,
    }


@dataclass(kw_only=True)
class Mine:
    """What the files of a mining run will hold; change it, then `write` it."""

    pairs: list[dict[str, Any]] = field(default_factory=lambda: [a_pair(rank) for rank in range(1, 7)])
    alike: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=results)
    drawn: int = 4
    """Pairs that have thumbnails."""

    rerun: str = "photos/shelf"

    def write(self, path: Path) -> Path:
        with RunFolder.open(path, config={"seed": 0}, command=["eyechart", "mine", self.rerun]) as run:
            for pair in [*self.pairs[: self.drawn], *self.alike[: self.drawn]]:
                for side in ("sha256_a", "sha256_b"):
                    run.write_bytes(f"thumbs/{pair[side]}.jpg", jpeg(pair["rank"]))
            run.write_table("pairs.parquet", self.pairs, SCHEMA)
            run.write_table("alike.parquet", self.alike, SCHEMA)
            run.write_quarantine(self.quarantine)
            run.write_json("results.json", self.results)
            run.finish()
        return path


def none_found(**certificate: int) -> Mine:
    counts = results()["certificate"] | {"semantic": 0, "found": 0, "kept": 0} | certificate
    return Mine(pairs=[], results=results(certificate=counts, listed=0))


@pytest.fixture
def written(tmp_path, read_page):
    return lambda mine: read_page(write_gallery(mine.write(tmp_path / "run")))


def section(root, name):
    return root.one("section", id=name)


def test_the_page_stands_in_the_folder_and_goes_from_the_result_to_the_run(tmp_path, read_page):
    folder = Mine().write(tmp_path / "run")
    assert write_gallery(folder) == folder / "gallery.html"
    root = read_page(folder / "gallery.html")
    order = [node.attrs["id"] for node in root.all("section")]
    assert order == ["summary", "joint", "pairs", "alike", "certificate", "quarantine", "run"]
    assert root.one("h1").text == "example/clip on photos/shelf"


def test_the_result_is_one_sentence_with_all_its_numbers(written):
    lead = section(written(Mine()), "summary").all("p")[0].text
    assert lead == (
        "Among 1,234 different images, all 760,761 pairs were compared: exactly 317 pairs have a semantic cosine "
        "( example/clip ) above 0.9500 and a reference cosine ( example/dino ) below 0.6000 (p40); 6 are listed."
    )


def test_the_page_calls_nobody_and_runs_no_script_but_its_own(written):
    root = written(Mine())
    for node in root.inside():
        assert node.tag not in {"iframe", "object", "embed", "base", "video", "audio"}
        assert not [name for name in node.attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "background"):
            value = node.attrs.get(name, "#")
            assert value.startswith(("#", "data:")), f"{node.tag} {name}={value[:60]}"
        assert "url(" not in node.attrs.get("style", "")
    assert not re.search(r"url\(|@import|@font-face", root.one("style").text)
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attrs["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src ")
    script = "".join(root.one("script").children)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert not re.search(r"https?:|fetch|import|XMLHttp|innerHTML", script)


def test_what_files_say_is_text_and_never_markup(written):
    said = results(source=f"s {EVIL}", notes=[f"n {EVIL}"], quarantined=1)
    said["semantic"] |= {"id": f"e {EVIL}", "pooling": f"po {EVIL}", "wish": f"p {EVIL}"}
    said["reference"] |= {"id": f"r {EVIL}"}
    said["alike"]["kept"] = 1
    share = {"value": 0.9, "low": 0.8, "high": 0.95, "hits": 90, "n": 100, "level": 0.95}
    said["truth"] = {"recall": share, "precision": share, "about": f"t {EVIL}"}
    evil = {name: f"{name} {EVIL}" for name in ("image_a", "image_b", "label_a", "label_b", "pattern")}
    mine = Mine(
        pairs=[a_pair(1, **evil), a_pair(2)],
        alike=[a_pair(1, **evil)],
        quarantine=[Quarantined(path=f"qp {EVIL}", reason=f"qr {EVIL}", detail=f"qd {EVIL}")],
        results=said,
        rerun=f"c {EVIL}",
    )
    root = written(mine)
    assert len(root.all("script")) == 1
    assert len(root.all("img")) == 6
    assert all(node.attrs["src"].startswith("data:image/jpeg;base64,") for node in root.all("img"))
    assert not [node for node in root.inside() if any(name.startswith("on") for name in node.attrs)]
    for mark in ("n", "po", "p", "t", "qp", "qr", "qd", "c", *evil):
        assert f"{mark} {EVIL}" in root.text, mark
    for mark in ("s", "e", "r"):
        assert any(node.attrs.get("title") == f"{mark} {EVIL}" for node in root.inside())


def test_a_card_shows_both_pictures_cosines_labels_and_names(written):
    card = written(Mine()).one(id="pair-1")
    assert card.one("h3").text == "Pair 1"
    assert [node.text for node in card.all(class_="known")] == ["apple", "pear"]
    assert [node.text for node in card.all("dd")] == ["0.9890", "0.2100", "24 bits"]
    assert card.one(class_="suspect").text == "different labels"
    assert card.all("img")[1].attrs["alt"] == "Image B of pair 1, labelled pear: shelf/1_b.jpg"
    assert [node.text for node in card.all(class_="file")] == ["shelf/1_a.jpg", "shelf/1_b.jpg"]


def test_a_long_name_shows_its_end_and_the_whole_in_the_title(written):
    name = "folder/" * 60 + "end.jpg"
    shown = written(Mine(pairs=[a_pair(1, image_a=name), a_pair(2)])).one(id="pair-1").all("bdi")
    file = next(node for node in shown if node.attrs.get("title") == name)
    assert file.text.startswith("…")
    assert file.text.endswith("/end.jpg")
    assert len(file.text) == gallery.NAME_SHOWN + 1


def test_the_page_says_how_many_are_drawn_of_how_many_kept_and_found(written):
    root = written(Mine(results=results(set_apart=2)))
    assert len(root.all("article")) == 4
    text = section(root, "pairs").text
    assert "4 drawn here, of 6 listed under the limits, of 317 found." in text
    assert "2 pairs were set apart as near-duplicates." in text
    links = [row.one("th").all("a") for row in section(root, "pairs").one("tbody").all("tr")]
    assert [len(link) for link in links] == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("thumb", [None, b"", b"GIF89a not a JPEG"])
def test_a_pair_without_both_pictures_stands_in_the_table_only(tmp_path, read_page, thumb):
    mine = Mine()
    folder = mine.write(tmp_path / "run")
    path = folder / "thumbs" / f"{mine.pairs[0]['sha256_b']}.jpg"
    path.unlink() if thumb is None else path.write_bytes(thumb)
    root = read_page(write_gallery(folder))
    assert [node.attrs["data-rank"] for node in root.all("article")] == ["2", "3", "4"]
    assert "shelf/1_a.jpg" in section(root, "pairs").one("table").text


def test_without_any_thumbnail_the_page_says_so_and_needs_no_script(written):
    root = written(Mine(drawn=0))
    assert not root.all("img")
    assert not root.all("script")
    assert "The folder holds no thumbnails of these pairs" in section(root, "pairs").text
    assert (
        "script-src 'none'" in root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attrs["content"]
    )


def test_a_hash_is_never_followed_out_of_the_folder(tmp_path, read_page):
    folder = Mine(pairs=[a_pair(1, sha256_a="../../secret")], drawn=0).write(tmp_path / "run")
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    assert not read_page(write_gallery(folder)).all("img")


def test_without_labels_and_patterns_there_is_nothing_to_filter_by(written):
    pairs = [a_pair(rank, label_a=None, label_b=None, hash_distance=None) for rank in (1, 2)]
    root = written(Mine(pairs=pairs))
    tools = root.one(id="tools")
    assert [node.attrs["name"] for node in tools.all("select")] == ["order"]
    assert not tools.all("input")
    assert not root.all(class_="known")
    assert [len(card.all("dd")) for card in root.all("article")] == [2, 2]
    assert "None" not in root.text


def test_labels_and_patterns_can_be_filtered_by(written):
    pairs = [a_pair(1, pattern="color"), a_pair(2, label_b=None, pattern="text"), a_pair(3)]
    root = written(Mine(pairs=pairs))
    tools = root.one(id="tools")
    assert [node.attrs["name"] for node in tools.all("select")] == ["labels", "pattern", "order"]
    assert [node.attrs["name"] for node in tools.all("input")] == ["text"]
    assert [node.attrs["data-labels"] for node in root.all("article")] == ["different", "", "different"]
    assert "hidden" in tools.attrs, "without JavaScript there is no idle form"


def test_pairs_beyond_the_first_fold_away_and_pictures_have_a_bound(written, monkeypatch):
    monkeypatch.setattr(gallery, "CARDS_OPEN", 2)
    mine = Mine()
    size = len(jpeg(1)) + 40
    monkeypatch.setattr(gallery, "PICTURE_BYTES_MAX", 6 * size)
    root = written(mine)
    assert len(root.all("article")) == 3
    assert root.one("details", class_="more").one("summary").text == "Show the one other pair that is drawn"


def test_only_the_first_rows_of_a_long_table_are_in_the_page(written, monkeypatch):
    monkeypatch.setattr(gallery, "ROWS_MAX", 3)
    pairs = section(written(Mine()), "pairs")
    assert len(pairs.one("tbody").all("tr")) == 3
    assert "Table of the pairs (the first 3 of 6)" in pairs.text
    assert "3 more in pairs.parquet of the run folder." in pairs.text


def test_near_duplicates_are_counted_and_the_first_drawn(written, monkeypatch):
    monkeypatch.setattr(gallery, "ALIKE_MAX", 2)
    said = results(alike={"found": 41, "kept": 5, "min_reference": 0.9, "most_bits": 6})
    alike = section(written(Mine(alike=[a_pair(rank) for rank in range(1, 6)], results=said)), "alike")
    assert "41 found by the cosines, 5 listed" in alike.text
    assert (
        "a reference cosine above 0.9000, and perceptual hashes that differ in at most 6 bits" in alike.text
    )
    assert alike.one("summary").text == "Show the first 2 of 5"
    assert [node.attrs["id"] for node in alike.all("article")] == ["alike-1", "alike-2"]


def test_near_duplicates_without_thumbnails_are_listed(written):
    said = results(alike={"found": 2, "kept": 2, "min_reference": 0.9, "most_bits": 6})
    alike = section(written(Mine(alike=[a_pair(1), a_pair(2)], results=said, drawn=0)), "alike")
    assert len(alike.one("tbody").all("tr")) == 2


def test_every_number_of_the_certificate_has_its_words(written):
    rows = section(written(Mine()), "certificate").one("tbody").all("tr")
    numbers = {row.one("th").text: [cell.text for cell in row.all("td")] for row in rows}
    assert {name: cells[0] for name, cells in numbers.items()} == {
        "images": "1,234",
        "pairs": "760,761",
        "compared": "760,761",
        "columns": "192",
        "slack": "3.1e-06",
        "bounded": "5,021",
        "semantic": "4,013",
        "found": "317",
        "kept": "6",
        "set apart": "0",
        "listed": "6",
    }
    assert all(len(cells[1]) > 15 for cells in numbers.values())


def test_the_quarantine_is_counted_by_reason(written):
    left_out = [Quarantined(path=f"{n}.jpg", reason="truncated", detail="3 bytes") for n in range(3)]
    left_out.append(Quarantined(path="row 7", reason="bad_row", detail=""))
    part = section(written(Mine(quarantine=left_out, results=results(quarantined=4))), "quarantine")
    assert [item.text for item in part.one("ul").all("li")] == [
        "3: the file ends before its picture does",
        "1: bad row",
    ]
    assert len(part.one("tbody").all("tr")) == 4
    assert "4 inputs could not be used" in part.text


def test_notes_and_truth_are_told_with_interval_and_n(written):
    said = results(notes=["Two images are copies."])
    said["truth"] = {
        "recall": {"value": 0.9, "low": 0.826, "high": 0.945, "hits": 90, "n": 100, "level": 0.95},
        "precision": {"value": 0.5, "low": 0.31, "high": 0.69, "hits": 12, "n": 24, "level": 0.95},
        "patterns": [
            {
                "pattern": "color",
                "recall": {"value": 0.25, "low": 0.1, "high": 0.5, "hits": 5, "n": 20, "level": 0.95},
            }
        ],
        "about": "twins of the world",
    }
    root = written(Mine(results=said))
    rates = [node.text for node in root.all(class_="rate")]
    assert rates == [
        "90.0% [82.6%, 94.5%], n=100",
        "50.0% [31.0%, 69.0%], n=24",
        "25.0% [10.0%, 50.0%], n=20",
    ]
    assert section(root, "notes").one("li").text == "Two images are copies."


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (
            {},
            "No pair has a semantic cosine above 0.9500. Those of the sample of 50 pairs lie at 1.0000 or below.",
        ),
        (
            {"semantic": 9},
            "9 pairs have a semantic cosine above 0.9500, but none of them has a reference cosine",
        ),
    ],
)
def test_no_pairs_found_gives_a_page_that_helps(written, certificate, said):
    root = written(none_found(**certificate))
    text = section(root, "pairs").text
    assert said in text
    assert "--min-semantic p99.9" in text
    assert "exactly 0 pairs have" in section(root, "summary").text
    assert root.all(class_="plot")


def test_a_percentile_that_found_nothing_is_not_advised_again(written):
    mine = none_found()
    mine.results["semantic"]["wish"] = "p99.99"
    text = section(written(mine), "pairs").text
    assert "give a lower one than p99.99" in text
    assert "--min-semantic p99.9," not in text


def test_fewer_than_two_images_and_pairs_that_are_all_set_apart_are_no_riddle(tmp_path, read_page):
    none = none_found(images=1, pairs=0, compared=0)
    none.results["joint"] |= {"counts": [[0, 0, 0], [0, 0, 0]], "sampled": 0}
    root = read_page(write_gallery(none.write(tmp_path / "none")))
    assert "it takes at least two different images" in section(root, "pairs").text
    assert "There are no pairs to draw." in section(root, "joint").text
    apart = none_found(semantic=9, found=3, kept=3)
    root = read_page(write_gallery(apart.write(tmp_path / "apart")))
    assert "Every pair kept was set apart as a near-duplicate" in section(root, "pairs").text


def test_the_heat_map_has_axes_names_region_and_sample_size(written):
    figure = section(written(Mine()), "joint").one("figure")
    assert figure.one("figcaption").text == "Pairs by semantic and reference cosine, n = 50"
    assert figure.one(class_="x-name").text == "semantic cosine, example/clip →"
    assert figure.one(class_="y-name").text == "reference cosine, example/dino ↑"
    region = figure.one("rect", class_="region").attrs
    assert (region["x"], region["y"], region["width"]) == ("95.00%", "26.67%", "5.00%")
    assert figure.one(class_="region-name").text == "blind pairs"
    assert [node.text for node in figure.one(class_="scale").all("span")] == [
        "pairs in a cell",
        "1\u20132",
        "3\u20139",
        "10\u201329",
        "30\u201340",
    ]


def test_a_region_outside_the_map_is_told_and_not_drawn(written):
    mine = Mine()
    mine.results["semantic"]["threshold"] = 1.01
    figure = section(written(mine), "joint").one("figure")
    assert not figure.all("rect")
    assert "above 1.0100 and below 0.6000 (p40), lies outside this map." in figure.text


def test_how_far_pairs_reach_is_not_told_where_some_lie_outside_the_map(written):
    mine = none_found()
    mine.results["joint"]["sampled"] = 51
    assert "or below" not in section(written(mine), "pairs").text


def test_cells_stand_where_their_edges_are_and_empty_ones_are_left_out():
    counts = [[0, 2, 0], [1, 40, 7]]
    heat = charts.heat_map(counts, x_edges=[0.0, 0.5, 1.0], y_edges=[-0.5, 0.0, 0.5, 1.0], corner=(2.0, -2.0))
    assert heat is not None
    paths = [level.path for level in heat.levels]
    assert paths[0] == "M50.00 66.67H100.00V100.00H50.00zM0.00 33.33H50.00V66.67H0.00z"
    assert paths[1:] == ["M50.00 0.00H100.00V33.33H50.00z", "", "M50.00 33.33H100.00V66.67H50.00z"]
    assert [level.strength for level in heat.levels] == pytest.approx([0, 100 / 3, 200 / 3, 100])
    assert (heat.region_x, heat.region_y) == (100, 100)


def test_neighbours_of_one_level_are_one_rectangle():
    heat = charts.heat_map(
        [[1], [1], [0], [1]], x_edges=[0.0, 1.0, 2.0, 3.0, 4.0], y_edges=[0.0, 1.0], corner=(3.0, 1.0)
    )
    assert heat is not None
    assert heat.levels[0].path == "M0.00 0.00H50.00V100.00H0.00zM75.00 0.00H100.00V100.00H75.00z"
    assert (heat.levels[0].first, heat.levels[0].last, heat.levels[0].strength) == (1, 1, 0)


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    folder = Mine().write(tmp_path / "run")
    first = write_gallery(folder).read_bytes()
    assert write_gallery(folder).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_the_run_tells_command_version_and_time(tmp_path, read_page):
    folder = Mine().write(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    run = section(read_page(write_gallery(folder)), "run")
    assert run.one("pre", class_="command").text == "eyechart mine photos/shelf"
    for text in (manifest["eyechart"], manifest["finished"], "seed: 0"):
        assert text in run.text


def test_headings_links_ids_and_alternatives_are_in_order(written):
    said = results(alike={"found": 2, "kept": 2, "min_reference": 0.9, "most_bits": 6}, notes=["a note"])
    root = written(Mine(alike=[a_pair(1), a_pair(2)], results=said))
    assert root.one("html").attrs["lang"] == "en"
    levels = [int(node.tag[1]) for node in root.inside() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [node.attrs["id"] for node in root.inside() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    targets = {node.attrs["href"][1:] for node in root.inside() if node.attrs.get("href", "").startswith("#")}
    targets |= {node.attrs["aria-labelledby"] for node in root.inside() if "aria-labelledby" in node.attrs}
    assert targets <= set(ids)
    assert all(node.attrs["alt"] for node in root.all("img"))
    for svg in root.all("svg"):
        assert svg.attrs.get("aria-hidden") == "true" or svg.attrs.get("aria-label"), svg.attrs


@pytest.mark.parametrize("name", ["results.json", "manifest.json", "pairs.parquet"])
def test_a_missing_file_is_named_with_what_to_do(tmp_path, name):
    folder = Mine().write(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(
        UserError, match=rf"{re.escape(name)}.*Give the command .* again.*eyechart mine SOURCE"
    ):
        write_gallery(folder)


def test_a_folder_that_is_not_there_is_an_error_not_a_page(tmp_path):
    with pytest.raises(UserError, match=r"holds no results\.json"):
        write_gallery(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda value: value.pop("certificate"), "the key 'certificate' is missing"),
        (lambda value: value["certificate"].update(found="many"), "'certificate.found' is 'many'"),
        (lambda value: value["joint"].update(counts=[[1, 2, 3]]), "counts are not 2 rows of 3"),
        (lambda value: value["joint"].update(semantic_edges=[0, 0, 1]), "edges do not rise"),
    ],
)
def test_results_of_another_kind_are_refused_by_name(tmp_path, damage, said):
    mine = Mine()
    damage(mine.results)
    with pytest.raises(UserError, match=re.escape(said)):
        write_gallery(mine.write(tmp_path / "run"))


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_results_that_are_no_json_object_are_refused(tmp_path, content):
    folder = Mine().write(tmp_path / "run")
    (folder / "results.json").write_bytes(content)
    with pytest.raises(UserError, match=r"results\.json"):
        write_gallery(folder)


def test_a_damaged_table_and_a_table_of_another_kind_are_refused(tmp_path):
    folder = Mine().write(tmp_path / "run")
    (folder / "pairs.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UserError, match=r"pairs\.parquet cannot be read as a Parquet table"):
        write_gallery(folder)
    mine = Mine(quarantine=[Quarantined(path="a", reason="empty", detail="")])
    wrong = mine.write(tmp_path / "wrong")
    (wrong / "pairs.parquet").write_bytes((wrong / "quarantine.parquet").read_bytes())
    with pytest.raises(UserError, match=r"pairs\.parquet, row 1: the key 'rank' is missing"):
        write_gallery(wrong)


def test_writing_a_gallery_loads_no_torch_and_no_search(tmp_path):
    folder = Mine().write(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from eyechart.report import write_gallery\n"
        "write_gallery(Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'scipy', 'eyechart.find') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
