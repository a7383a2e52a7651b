"""What holds for every layout: checks, quarantine, EXIF, laziness, and a hash that tells sets apart."""

import gc
import weakref
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.locate.part_gather import gather
from eyechart.locate.part_records import REASONS, BadMarks, Draft, Part, Reading, merged
from part_makers import box, photo, same, seen


def part(mask, *, name="cat", called="tail", instance=1):
    return Part(object=name, part=called, instance=instance, mask=mask)


def draft(folder, name, *parts, image=None, **options):
    path = image or photo(folder / f"{name}.png", seed=sum(map(ord, name)), **options)
    return Draft(id=name, image=path, marks=folder / f"{name}.marks", read=lambda: Reading(parts=parts))


def failing(error):
    def read():
        raise error

    return read


def test_pictures_come_in_the_order_of_ids_with_their_parts(tmp_path):
    tail, head = box(1, 2, 4, 5), box(5, 6, 9, 12)
    found = gather(
        [draft(tmp_path, "b", part(tail)), draft(tmp_path, "a", part(head, called="head"), part(tail))],
        name="pets", source="somewhere", notes=["a note"],
    )  # fmt: skip
    assert found.images.ids == ("a", "b")
    assert [one.id for one in found.images] == ["a", "b"]
    same(seen(found.images[0]), {("cat", 1, "head"): head, ("cat", 1, "tail"): tail})
    assert found.images[1].sha256 == open_image(tmp_path / "b.png").sha256
    assert (found.name, found.source, found.quarantined, found.notes) == (
        "pets",
        "somewhere",
        (),
        ("a note",),
    )
    assert [one.id for one in found.images[1:]] == ["b"]
    assert found.images[-1].id == "b"


def test_parts_of_one_name_on_one_object_are_one_part():
    left, right, other = box(0, 0, 2, 2), box(4, 4, 6, 6), box(7, 7, 9, 9)
    one, two, three = merged(
        [part(left, called="ear"), part(other, called="ear", instance=2), part(right, called="ear"),
         part(other, called="ear", name="dog")]
    )  # fmt: skip
    np.testing.assert_array_equal(one.mask, left | right)
    assert (two.instance, three.object) == (2, "dog")
    np.testing.assert_array_equal(two.mask, other)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 2**9 - 1)), max_size=8))
def test_merging_keeps_every_pixel_under_its_name(marked):
    parts = [
        part(np.array(list(f"{bits:09b}")).reshape(3, 3) == "1", called=called, instance=instance)
        for called, instance, bits in marked
    ]
    for one in merged(parts):
        like = [bits for called, instance, bits in marked if (called, instance) == (one.part, one.instance)]
        union = 0
        for bits in like:
            union |= bits
        assert "".join(str(int(value)) for value in one.mask.ravel()) == f"{union:09b}"
    assert len(merged(parts)) == len({one[:2] for one in marked})


def test_a_part_of_another_size_or_of_no_pixel_is_listed_and_the_others_stay(tmp_path):
    wide = np.ones((9, 13), bool)
    found = gather(
        [draft(tmp_path, "a", part(wide), part(box(0, 0, 0, 0), called="ear"), part(box(0, 0, 1, 1), called="eye"))],
        name="n", source="s",
    )  # fmt: skip
    same(seen(found.images[0]), {("cat", 1, "eye"): box(0, 0, 1, 1)})
    assert [(one.reason, one.path) for one in found.quarantined] == [
        ("size_mismatch", str(tmp_path / "a.marks")),
        ("empty_mask", str(tmp_path / "a.marks")),
    ]
    assert "13 x 9 pixels, the picture 12 x 9" in found.quarantined[0].detail
    assert found.quarantined[1].detail == "picture a: cat 1, ear"


def test_pictures_that_cannot_be_used_are_listed(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    good = draft(tmp_path, "good", part(box(0, 0, 2, 2)))
    bad = Draft(
        id="bad", image=good.image, marks=tmp_path / "m", read=failing(BadMarks("bad_annotation", "why"))
    )
    drafts = [
        good,
        bad,
        draft(tmp_path, "text", part(box(0, 0, 2, 2)), image=tmp_path / "text.png"),
        draft(tmp_path, "gone", part(box(0, 0, 2, 2)), image=tmp_path / "gone.png"),
    ]
    found = gather(drafts, name="n", source="s")
    assert found.images.ids == ("good",)
    assert [(Path(one.path).name, one.reason) for one in found.quarantined] == [
        ("m", "bad_annotation"), ("gone.png", "missing"), ("text.png", "not_an_image"),
    ]  # fmt: skip
    assert found.quarantined[0].detail == "picture bad: why"
    assert {one.reason for one in found.quarantined} <= set(REASONS)


def test_an_id_that_stands_twice_belongs_to_neither(tmp_path):
    drafts = [draft(tmp_path, name, part(box(0, 0, 2, 2))) for name in ("a", "b", "a")]
    found = gather(drafts, name="n", source="s")
    assert found.images.ids == ("b",)
    assert [one.reason for one in found.quarantined] == ["duplicate_id", "duplicate_id"]


def test_pictures_without_a_part_are_counted(tmp_path):
    found = gather([draft(tmp_path, "a"), draft(tmp_path, "b", part(box(0, 0, 2, 2)))], name="n", source="s")
    assert found.images.ids == ("b",)
    assert found.notes == ("1 pictures have no part marked and are not in the set",)
    assert found.quarantined == ()


def test_a_picture_whose_only_part_is_listed_is_not_counted_again(tmp_path):
    drafts = [draft(tmp_path, "a", part(box(0, 0, 0, 0))), draft(tmp_path, "b", part(box(0, 0, 2, 2)))]
    found = gather(drafts, name="n", source="s")
    assert found.notes == ()
    assert [one.reason for one in found.quarantined] == ["empty_mask"]


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    with pytest.raises(
        UserError, match=r"s: no picture with a part is left; 1 times: the mask covers no pixel"
    ):
        gather([draft(tmp_path, "a", part(box(0, 0, 0, 0)))], name="n", source="s")
    with pytest.raises(UserError, match="1 pictures have no part marked"):
        gather([draft(tmp_path, "a")], name="n", source="s")
    with pytest.raises(UserError, match="there were none to begin with"):
        gather([], name="n", source="s")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_exif_turns_the_picture(tmp_path, kind, orientation):
    """The mask marks the one dark corner of a picture; it still does when both are turned."""
    stored = np.full((48, 64, 3), 255, np.uint8)
    stored[:16, :32] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(stored).save(path, exif=exif)
    mask = box(0, 0, 16, 32, 48, 64)
    found = gather([draft(tmp_path, "a", part(mask), image=path)], name="n", source="s")
    upright = np.asarray(open_image(path).image)
    turned = found.images[0].parts[0].mask
    assert turned.shape == upright.shape[:2]
    assert turned.sum() == mask.sum()
    assert (upright[turned] < 128).mean() > 0.98
    assert (upright[~turned] > 128).mean() > 0.98
    note = "1 pictures are turned by EXIF; their masks are turned with them"
    assert found.notes == ((note,) if orientation != 1 else ())


def test_masks_that_were_drawn_on_the_turned_picture_are_listed(tmp_path):
    drafts = [
        draft(tmp_path, "a", part(box(0, 0, 2, 2, 12, 9)), orientation=6),
        draft(tmp_path, "b", part(box(0, 0, 2, 2))),
    ]
    found = gather(drafts, name="n", source="s")
    assert [one.reason for one in found.quarantined] == ["size_mismatch"]
    assert "9 x 12 pixels, the picture 12 x 9; EXIF turns the picture" in found.quarantined[0].detail


def test_a_limit_takes_the_first_ids_and_opens_no_more(tmp_path):
    drafts = [draft(tmp_path, name, part(box(0, 0, 2, 2))) for name in ("a", "b")]
    unread = Draft(id="c", image=drafts[0].image, marks=tmp_path, read=failing(AssertionError("was read")))
    found = gather([unread, *drafts], name="n", source="s", limit=2)
    assert found.images.ids == ("a", "b")
    assert found.notes == ("limit 2: 1 more pictures were not looked at",)
    assert gather(drafts, name="n", source="s", limit=2).notes == ()
    with pytest.raises(UserError, match="limit is 0"):
        gather(drafts, name="n", source="s", limit=0)


@pytest.mark.slow
def test_masks_do_not_stay_in_memory(tmp_path):
    made = []

    def read():
        mask = box(0, 0, 3, 3)
        made.append(weakref.ref(mask))
        return Reading(parts=(part(mask),))

    def alive():
        gc.collect()
        return sum(one() is not None for one in made)

    one = Draft(id="a", image=photo(tmp_path / "a.png"), marks=tmp_path, read=read)
    found = gather([one], name="n", source="s")
    assert made
    assert alive() == 0
    image = found.images[0]
    assert alive() == 1
    del image
    assert alive() == 0


@pytest.mark.parametrize("change", ["mask", "name", "instance", "gone", "broken"])
def test_masks_that_changed_since_are_refused(tmp_path, change):
    now = {"mask": box(0, 0, 3, 3), "called": "tail", "instance": 1, "broken": False}

    def read():
        if now["broken"]:
            raise BadMarks("bad_annotation", "broken")
        if now["mask"] is None:
            return Reading(parts=())
        return Reading(parts=(part(now["mask"], called=now["called"], instance=now["instance"]),))

    one = Draft(id="a", image=photo(tmp_path / "a.png"), marks=tmp_path / "marks", read=read)
    found = gather([one], name="n", source="s")
    assert found.images[0].id == "a"
    now |= {
        "mask": {"mask": box(0, 0, 3, 4)}, "name": {"called": "ear"}, "instance": {"instance": 2},
        "gone": {"mask": None}, "broken": {"broken": True},
    }[change]  # fmt: skip
    with pytest.raises(UserError, match=r"marks has changed since the set was opened"):
        found.images[0]


def test_the_hash_tells_pictures_masks_and_names_apart(tmp_path):
    def hashed(folder, name="a", mask=None, called="tail", **options):
        mask = box(0, 0, 2, 2) if mask is None else mask
        return gather(
            [draft(tmp_path / folder, name, part(mask, called=called), **options)], name="n", source="s"
        ).sha256

    first = hashed("one")
    assert hashed("two") == first
    others = [hashed("three", "b"), hashed("four", mask=box(0, 0, 2, 3)), hashed("five", called="ear")]
    others.append(hashed("six", image=photo(tmp_path / "x.png", seed=99)))
    assert len({first, *others}) == 5


def test_what_the_layout_left_out_stands_first(tmp_path):
    reading = partial(Reading, parts=(part(box(0, 0, 2, 2)),))
    before = gather(
        [draft(tmp_path, "z")] * 2 + [draft(tmp_path, "a", *reading().parts)], name="n", source="s"
    ).quarantined
    found = gather([draft(tmp_path, "a", *reading().parts)], name="n", source="s", quarantined=before)
    assert found.quarantined == before
    assert len(before) == 2


def test_progress_is_told(tmp_path):
    told = []
    drafts = [draft(tmp_path, name, part(box(0, 0, 2, 2))) for name in "ab"]
    gather(drafts, name="n", source="s", progress=lambda *said: told.append(said))
    assert told == [("reading masks", 0, 2), ("reading masks", 1, 2), ("reading masks", 2, 2)]
