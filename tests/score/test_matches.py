"""Captions and images: every layout joined by its ids, every fault named."""

import json
import shutil

import pytest
from benchmark_files import VLM_TYPES, in_table, jpeg, mmvp_vlm_rows, png, write_csv, write_parquet

from eyechart.core.errors import UserError
from eyechart.score import MATCH_KINDS, load_matches
from eyechart.score.kinds import MATCH_SIGNATURES
from eyechart.score.matches import match_hash
from eyechart.world.facts import PATTERNS
from eyechart.world.sets_pairs import CAPTIONS, render_pairs
from eyechart.world.sets_plan import PairPlan

# ---- MMVP-VLM


def test_mmvp_vlm_is_joined_by_question_id(all_of_mmvp_vlm):
    found = load_matches(all_of_mmvp_vlm)
    assert (len(found.matches), found.in_source, found.prefix, found.quarantined) == (
        135,
        135,
        "a photo of ",
        (),
    )
    for place, match in enumerate(found.matches):
        first = 2 * place + 1
        assert match.id == f"{first}-{first + 1}"
        assert match.captions == (f'thing {first}, "as it were"', f'thing {first + 1}, "as it were"')
        assert [path.name for path in match.images] == [f"{first}.jpg", f"{first + 1}.jpg"]
        assert match.images[0].read_bytes() == jpeg(first)
        assert match.pattern == PATTERNS[place // 15]
    assert found.sha256 == match_hash(found.matches[::-1])
    assert not any("224" in note for note in found.notes)


def vlm_copy(source, tmp_path, rows):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "MLLM_VLM Images").symlink_to(source / "MLLM_VLM Images")
    write_csv(folder / "Questions.csv", rows)
    return folder


@pytest.mark.slow
def test_the_names_of_the_readme_are_read_as_well(all_of_mmvp_vlm, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "MMVP_VLM_Images").mkdir()
    for name in VLM_TYPES:
        (folder / "MMVP_VLM_Images" / name.replace(" ", "_")).symlink_to(
            all_of_mmvp_vlm / "MLLM_VLM Images" / name
        )
    write_csv(folder / "Questions.csv", mmvp_vlm_rows()[::-1])
    assert load_matches(folder).sha256 == load_matches(all_of_mmvp_vlm).sha256


def test_faults_in_mmvp_vlm_are_named(all_of_mmvp_vlm, tmp_path):
    rows = {row["Question ID"]: row for row in mmvp_vlm_rows()}
    rows["2"]["Type"] = "Presence"
    del rows["270"]
    with pytest.raises(UserError) as error:
        load_matches(vlm_copy(all_of_mmvp_vlm, tmp_path, list(rows.values())))
    text = str(error.value)
    assert "MMVP-VLM has the ids 1 to 270; missing: 270" in text
    assert "29 statements of orientation; MMVP-VLM has 30 of each pattern" in text
    assert "ids 1 and 2 are a pair, but of two types: orientation, presence" in text
    assert "id 2 is of type presence in the table, and its picture lies in that of orientation" in text


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"Type": "Smell"}, r"the Type 'Smell' is none of MMVP-VLM's nine \(orientation, presence"),
        ({"Question ID": "x"}, "the Question ID is 'x', expected a whole number"),
        ({"Question ID": "1"}, "the Question ID 1 stands twice"),
        ({"Statement": " "}, "the statement is empty"),
    ],
)
def test_rows_of_mmvp_vlm_that_cannot_be_read(cells, complaint, tmp_path):
    rows = mmvp_vlm_rows()
    rows[[row["Question ID"] for row in rows].index("2")] |= cells
    write_csv(tmp_path / "Questions.csv", rows)
    with pytest.raises(UserError, match=complaint):
        load_matches(tmp_path)


def test_types_that_differ_from_their_place_are_noted(all_of_mmvp_vlm, tmp_path):
    """The official script takes the pattern from the row's place; here the Type counts."""
    rows = mmvp_vlm_rows()
    other = {"Orientation": "Presence", "Presence": "Orientation"}
    for row in rows:
        row["Type"] = other.get(row["Type"], row["Type"])
    folder = vlm_copy(all_of_mmvp_vlm, tmp_path, rows)
    (folder / "MLLM_VLM Images").unlink()
    for name in VLM_TYPES:
        path = folder / "images" / other.get(name, name)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(all_of_mmvp_vlm / "MLLM_VLM Images" / name)
    found = load_matches(folder, limit=9)
    assert sorted(match.pattern for match in found.matches) == sorted(PATTERNS)
    assert any(
        note.startswith("60 statements are of another type than the official script") for note in found.notes
    )


@pytest.mark.slow
def test_pictures_of_another_size_or_missing_take_their_match_with_them(all_of_mmvp_vlm, tmp_path):
    folder = vlm_copy(all_of_mmvp_vlm, tmp_path, mmvp_vlm_rows())
    (folder / "MLLM_VLM Images").unlink()
    shutil.copytree(all_of_mmvp_vlm / "MLLM_VLM Images", folder / "MLLM_VLM Images")
    (folder / "MLLM_VLM Images" / "Color" / "151.jpg").write_bytes(jpeg(151, (64, 48)))
    (folder / "MLLM_VLM Images" / "Color" / "153.jpg").unlink()
    (folder / "MLLM_VLM Images" / "Color" / "155.jpg").write_bytes(jpeg(156))
    found = load_matches(folder)
    assert (len(found.matches), found.in_source) == (133, 135)
    assert sorted(entry.reason for entry in found.quarantined) == ["bad_row", "missing"]
    assert all("match '15" in entry.detail for entry in found.quarantined)
    assert any("1 of 266 pictures are not 224 x 224 pixels" in note for note in found.notes)


# ---- the others


def test_winoground_in_parquet_and_as_lines_beside_its_pictures(tmp_path):
    rows = [
        {
            "id": number,
            "image_0": in_table(png(2 * number)),
            "image_1": in_table(png(2 * number + 1)),
            "caption_0": f"a mug in grass {number}",
            "caption_1": f"grass in a mug {number}",
            "tag": "Noun",
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": ("Object", "Relation")[number % 2],
        }
        for number in (10, 9, 2)
    ]
    path = write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    found = load_matches(tmp_path, images=tmp_path / "store")
    assert load_matches(path, images=tmp_path / "store").sha256 == found.sha256
    assert [match.id for match in found.matches] == ["2", "9", "10"]
    assert found.matches[1].captions == ("a mug in grass 9", "grass in a mug 9")
    assert [path.read_bytes() for path in found.matches[1].images] == [png(18), png(19)]
    assert [match.pattern for match in found.matches] == ["Object", "Relation", "Object"]
    assert found.prefix == ""
    lines = tmp_path / "lines"
    (lines / "images").mkdir(parents=True)
    for row in rows:
        for place in "01":
            name = f"ex_{row['id']}_img_{place}"
            (lines / "images" / f"{name}.png").write_bytes(row[f"image_{place}"]["bytes"])
            row[f"image_{place}"] = name
    (lines / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_matches(lines).sha256 == found.sha256


def test_sugarcrepe_is_one_image_and_two_captions(tmp_path):
    (tmp_path / "val2017").mkdir()
    for number in range(3):
        (tmp_path / "val2017" / f"{number:012d}.jpg").write_bytes(jpeg(number))
    for file in ("replace_obj", "swap_att"):
        rows = {
            str(number): {
                "filename": f"{number:012d}.jpg",
                "caption": f"A {file} dog {number}.",
                "negative_caption": f"A {file} cat {number}.",
            }
            for number in range(3)
        }
        (tmp_path / f"{file}.json").write_text(json.dumps(rows))
    found = load_matches(tmp_path)
    assert [match.id for match in found.matches] == [
        "replace_obj-0", "replace_obj-1", "replace_obj-2", "swap_att-0", "swap_att-1", "swap_att-2",
    ]  # fmt: skip
    assert found.matches[3].captions == ("A swap_att dog 0.", "A swap_att cat 0.")
    assert found.matches[3].images == (tmp_path / "val2017" / f"{0:012d}.jpg",)
    assert {match.pattern for match in found.matches} == {"replace_obj", "swap_att"}
    one = load_matches(tmp_path / "swap_att.json", name="swap")
    assert [match.id for match in one.matches] == ["swap_att-0", "swap_att-1", "swap_att-2"]


def test_sugarcrepe_as_it_is_rehosted(tmp_path):
    rows = [
        {
            "image": in_table(png(number)),
            "tested_labels": ["A dog.", "A cat."],
            "true_label": ("A dog.", "A cat.")[number],
        }
        for number in range(2)
    ]
    path = write_parquet(tmp_path / "add_att.parquet", rows)
    found = load_matches(path, images=tmp_path / "store")
    assert sorted(match.captions for match in found.matches) == [("A cat.", "A dog."), ("A dog.", "A cat.")]
    assert load_matches(write_parquet(path, rows[::-1]), images=tmp_path / "store") == found
    rows[0]["tested_labels"] = ["A dog."]
    with pytest.raises(
        UserError, match=r"row 1: the tested_labels \['A dog.'\] hold no other caption than 'A dog.'"
    ):
        load_matches(write_parquet(path, rows), images=tmp_path / "store")


@pytest.mark.slow
def test_captions_of_the_world_have_no_prefix(tmp_path):
    plan = PairPlan(split="test", pairs=1, patterns=("color",), seed=3)
    folder = render_pairs(tmp_path / "world", plan, workers=1)
    found = load_matches(folder / CAPTIONS, name="world-captions")
    assert (found.name, found.prefix, len(found.matches)) == ("world-captions", "", 1)
    assert {match.pattern for match in found.matches} == {"color"}
    assert [path.name for path in found.matches[0].images] == [
        f"{found.matches[0].id}a.png",
        f"{found.matches[0].id}b.png",
    ]


def caption_rows(images, patterns=("color",)):
    return [
        {
            "id": f"m{number}",
            "caption_a": f"red {number}",
            "caption_b": f"blue {number}",
            "image_a": images[2 * number],
            "image_b": images[2 * number + 1],
            "pattern": patterns[number % len(patterns)],
        }
        for number in range(len(images) // 2)
    ]


def test_a_limit_goes_through_the_patterns_in_turn(tmp_path, drawn):
    path = write_csv(tmp_path / "t.csv", caption_rows(drawn(16), ("color", "color", "color", "text")))
    found = load_matches(path, limit=4)
    assert [match.id for match in found.matches] == ["m0", "m1", "m3", "m7"]
    assert any("limited to 4 of 8 matches" in note for note in found.notes)
    with pytest.raises(UserError, match="a limit of 0 matches"):
        load_matches(path, limit=0)


def test_what_cannot_be_told_apart_is_left_out(tmp_path, drawn):
    images = drawn(6)
    rows = caption_rows(images)
    rows[0]["caption_b"] = rows[0]["caption_a"]
    rows[1]["image_b"] = rows[1]["image_a"]
    found = load_matches(write_csv(tmp_path / "t.csv", rows))
    assert [match.id for match in found.matches] == ["m2"]
    assert [entry.detail for entry in found.quarantined] == [
        "two captions are the same ('red 0'); match 'm0' is left out",
        "two pictures are the same; match 'm1' is left out",
    ]
    with pytest.raises(UserError, match=r"(?s)no match is left.*two captions are the same"):
        load_matches(write_csv(tmp_path / "t.csv", rows[:2]))


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"caption_b": ""}, "row 1: the caption_b is empty"),
        ({"image_a": ""}, "row 1: the image_a is empty"),
        ({"id": "m1"}, "the id 'm1' stands 2 times"),
    ],
)
def test_faults_in_captions_are_named(cells, complaint, tmp_path, drawn):
    rows = caption_rows(drawn(4))
    rows[0] |= cells
    with pytest.raises(UserError, match=complaint):
        load_matches(write_csv(tmp_path / "t.csv", rows))


def test_a_table_of_no_known_kind_and_a_kind_that_is_not_there(tmp_path, drawn):
    path = write_csv(tmp_path / "t.csv", [{"question": "?", "answer": "A"}])
    with pytest.raises(
        UserError, match=r"the columns question, answer are of no known set.*mmvp-vlm: question_id"
    ):
        load_matches(path)
    with pytest.raises(UserError, match=r"no kind of captions and images named 'winogrund'\. Did you mean"):
        load_matches(path, kind="winogrund")
    with pytest.raises(UserError, match="row 1: there is no column 'id'"):
        load_matches(path, kind="winoground")
    assert MATCH_KINDS.keys() == MATCH_SIGNATURES.keys()
