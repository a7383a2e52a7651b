"""Captions matched with images: the official rule of MMVP-VLM and its kin, against the script's own words, with ties wrong."""

import hashlib
import json
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyechart import zoo
from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Match, MatchSet
from eyechart.core.stats import wilson
from eyechart.models import load_encoder
from eyechart.score.encoders import Matcher, cosines, margins, match_row, score_matches
from eyechart.score.match_scores import chance_of, mean_of_rates, score_rows

TOWERS = 8


def a_match(name, captions, images, *, hashes=None, pattern=None):
    hashes = hashes or tuple(hashlib.sha256(str(path).encode()).hexdigest() for path in images)
    return Match(
        id=name,
        captions=tuple(captions),
        images=tuple(Path(image) for image in images),
        images_sha256=tuple(hashes),
        pattern=pattern,
    )


def a_row(similarity, *, name="m", pattern=None):
    captions, images = np.shape(similarity)
    match = a_match(
        name,
        [f"c{i}" for i in range(captions)],
        [f"{name}-{i}.png" for i in range(images)],
        pattern=pattern,
    )
    return match_row(match, np.asarray(similarity, dtype=float))


def official(similarity):
    """What `evaluate_vlm.py` of MMVP does with a pair, word for word but for its prints."""
    hits = 0
    for caption, truth in ((0, "img1"), (1, "img2")):
        probabilities = torch.tensor(similarity[caption], dtype=torch.float64).softmax(dim=-1)
        predicted = "img1" if probabilities[0] > 0.5 else "img2"
        hits += predicted == truth
    return hits == 2


quarters = st.integers(-40, 40).map(lambda number: number / 40)
squares = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.lists(quarters, min_size=n, max_size=n), min_size=n, max_size=n)
)


@given(st.lists(st.lists(quarters, min_size=2, max_size=2), min_size=2, max_size=2))
def test_two_and_two_are_scored_as_the_official_script_does_but_for_a_tie(similarity):
    row = a_row(similarity)
    tie = similarity[1][0] == similarity[1][1]
    assert row["text_to_image"] == (official(similarity) and not tie)


def test_the_official_script_gives_a_tie_on_the_second_caption_to_its_image_and_we_do_not():
    similarity = [[0.9, 0.1], [0.5, 0.5]]
    assert official(similarity)
    assert a_row(similarity)["text_to_image"] == 0


@given(squares)
def test_any_size_agrees_with_a_reading_of_the_words(similarity):
    n = len(similarity)
    forth = all(
        similarity[k][k] > similarity[k][other] for k, other in product(range(n), range(n)) if k != other
    )
    back = all(
        similarity[k][k] > similarity[other][k] for k, other in product(range(n), range(n)) if k != other
    )
    row = a_row(similarity)
    assert (row["text_to_image"], row["image_to_text"], row["group"]) == (forth, back, forth and back)


@given(squares)
def test_swapping_captions_with_images_swaps_the_two_ways(similarity):
    row, turned = a_row(similarity), a_row(np.transpose(similarity))
    assert row["text_to_image"] == turned["image_to_text"]
    assert row["margin_text_to_image"] == turned["margin_image_to_text"]
    assert row["group"] == turned["group"]


@given(squares, st.integers(1, 5), st.integers(-3, 3))
def test_a_scale_and_a_bias_play_no_part(similarity, scale, bias):
    moved = (
        np.array(similarity) * 2.0**scale + bias
    )  # powers of two and whole numbers: nothing is rounded away
    ways = ("text_to_image", "image_to_text", "group")
    assert [a_row(similarity)[way] for way in ways] == [a_row(moved)[way] for way in ways]


def test_margins_are_the_right_similarity_less_the_best_wrong_one():
    to_image, to_text = margins(np.array([[0.9, 0.2, 0.4], [0.5, 0.6, 0.1], [0.3, 0.8, 0.7]]))
    assert to_image == pytest.approx([0.5, 0.1, -0.1])
    assert to_text == pytest.approx([0.4, -0.2, 0.3])


def test_one_image_with_several_captions_has_one_way_only():
    row = a_row([[0.4], [0.3], [0.1]])
    assert (row["text_to_image"], row["group"], row["margin_text_to_image"]) == (None, None, None)
    assert row["image_to_text"] == 1
    assert row["margin_image_to_text"] == pytest.approx([0.1])
    assert a_row([[0.4], [0.4]])["image_to_text"] == 0


def test_similarities_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="similarities of 3 captions with 2 images are no match"):
        margins(np.zeros((3, 2)))


def test_a_preference_for_an_image_whatever_the_caption_earns_nothing():
    rows = [a_row([[0.8, 0.2], [0.7, 0.3]], name=str(k)) for k in range(20)]
    first = score_rows(rows).measures[0]
    assert (first.name, first.hits, first.value) == ("text_to_image", 0, 0.0)


def test_hits_of_fifteen_and_of_all_with_wilson_intervals_and_the_mean_of_patterns():
    hits = {"color": 8, "orientation": 1, "text": 0}
    rows = [
        a_row(
            [[0.9, 0.1], [0.2, 0.8]] if k < right else [[0.1, 0.9], [0.2, 0.8]],
            name=f"{name}{k}",
            pattern=name,
        )
        for name, right in hits.items()
        for k in range(15)
    ]
    score = score_rows(rows).to_dict()
    whole, *_ = score["measures"]
    assert (whole["name"], whole["hits"], whole["n"], whole["unit"], whole["chance"]) == (
        "text_to_image",
        9,
        45,
        "matches",
        0.25,
    )
    assert (whole["low"], whole["high"]) == (wilson(9, 45).low, wilson(9, 45).high)
    assert [row["pattern"] for row in score["patterns"]] == ["color", "orientation", "text"]
    for row in score["patterns"]:
        expected = wilson(hits[row["pattern"]], 15)
        assert (row["hits"], row["n"], row["low"], row["high"]) == (
            expected.hits,
            15,
            expected.low,
            expected.high,
        )
        assert set(row["ways"]) == {"text_to_image", "image_to_text", "group"}
    mean = next(one for one in score["measures"] if one["name"] == "text_to_image_mean_of_patterns")
    assert mean["value"] == pytest.approx(9 / 45)
    assert (mean["n"], mean["unit"]) == (3, "patterns")
    captions = next(one for one in score["measures"] if one["name"] == "captions_right")
    assert (captions["hits"], captions["n"], captions["chance"]) == (45 + 9, 90, 0.5)
    assert json.loads(json.dumps(score)) == score


def test_the_published_interval_of_one_hit_in_fifteen():
    rate = wilson(1, 15)
    assert (round(rate.low, 3), round(rate.high, 3)) == (0.012, 0.298)


def test_patterns_of_unlike_size_weigh_the_same_in_the_mean():
    good, bad = [[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.2, 0.8]]
    rows = [a_row(good, name=f"a{k}", pattern="a") for k in range(2)]
    rows += [a_row(bad, name=f"b{k}", pattern="b") for k in range(8)]
    measures = {one.name: one.value for one in score_rows(rows).measures}
    assert measures["text_to_image"] == pytest.approx(0.2)
    assert measures["text_to_image_mean_of_patterns"] == pytest.approx(0.5)


@pytest.mark.slow
def test_the_interval_of_a_mean_of_rates_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = np.array([0.05, 0.1, 0.2, 0.2, 0.3, 0.5, 0.5, 0.7, 0.9])
    held = 0
    for _ in range(600):
        rates = [wilson(int(hits), 15) for hits in rng.binomial(15, truth)]
        _, low, high = mean_of_rates(rates)
        held += low <= truth.mean() <= high
    assert 0.93 <= held / 600 <= 0.98


def test_the_interval_of_a_mean_has_a_width_where_nothing_was_hit():
    value, low, high = mean_of_rates([wilson(0, 15)] * 9)
    assert value == low == 0
    assert 0.05 < high < 0.1  # wider than 0 of 135 as one sample, narrower than 0 of 15
    with pytest.raises(ValueError, match="there are 0 rates"):
        mean_of_rates([])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "captions", "images"), [("text_to_image", 2, 2), ("group", 2, 2), ("image_to_text", 3, 1)]
)
def test_chance_is_what_drawn_similarities_come_to(way, captions, images):
    rng = np.random.default_rng(1)
    rows = [a_row(rng.random((captions, images)), name=str(k)) for k in range(4000)]
    found = {one.name: one for one in score_rows(rows, resamples=100).measures}[way]
    assert found.chance == chance_of(way, captions, images)
    assert found.low - 0.01 < found.chance < found.high + 0.01


def test_chance_of_larger_matches():
    assert chance_of("text_to_image", 3, 3) == pytest.approx(1 / 27)
    assert chance_of("image_to_text", 4, 1) == 0.25
    assert chance_of("group", 3, 3) is None


def test_ties_and_pictures_given_twice_are_told():
    match = a_match("two", ["a", "b"], ["x.png", "y.png"], hashes=["0" * 64, "0" * 64])
    score = score_rows([match_row(match, np.array([[0.5, 0.5], [0.4, 0.4]]))])
    assert score.notes == (
        "2 comparisons of captions with images were ties, which are wrong",
        "1 matches hold one picture twice and cannot be right from text to image: two",
    )
    assert score.measures[0].hits == 0


def test_a_log_with_a_line_twice_or_with_none_is_refused():
    with pytest.raises(ValueError, match="nothing was matched"):
        score_rows([])
    with pytest.raises(ValueError, match="a match has two lines"):
        score_rows([a_row([[1, 0], [0, 1]])] * 2)


# towers


def planted(images):
    """A picture's vector is its mean colour and how bright its left half is."""
    rows = []
    for image in images:
        array = np.asarray(image, dtype=np.float32) / 255
        rows.append([*array.mean(axis=(0, 1)), array[:, : array.shape[1] // 2].mean(), 1.0])
    return torch.tensor(np.array(rows, dtype=np.float32))


COLORS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


def spoken(texts):
    rows = []
    for text in texts:
        assert text.startswith("a photo of ")
        color = COLORS[text.removeprefix("a photo of ")]
        rows.append([*(np.array(color) / 255), np.mean(color) / 255, 1.0])
    return np.array(rows, dtype=np.float32)


@pytest.fixture
def painted(tmp_path):
    """A set of matches of pictures of one colour each."""

    def make(*pairs, name="painted"):
        paths = {}
        for color, value in COLORS.items():
            paths[color] = tmp_path / f"{color}.png"
            Image.new("RGB", (8, 6), value).save(paths[color])
        matches = []
        for number, colors in enumerate(pairs):
            files = [paths[color] for color in colors]
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
            matches.append(a_match(str(number), colors, files, hashes=hashes, pattern="color"))
        return MatchSet(
            name=name,
            source="s",
            sha256="0" * 64,
            matches=tuple(matches),
            in_source=len(matches),
            prefix="a photo of ",
        )

    return make


def test_a_planted_encoder_is_right_and_its_prefix_is_put_before_captions(painted):
    score, rows = score_matches(planted, spoken, painted(("red", "green"), ("green", "blue", "red")))
    assert [row["group"] for row in rows] == [1, 1]
    assert score.measures[0].hits == 2
    assert rows[0]["doc"]["captions"] == ["red", "green"]
    assert all(margin > 0 for margin in rows[1]["margin_text_to_image"])


def test_each_picture_is_embedded_once_and_never_more_than_a_batch_at_a_time(painted):
    sizes = []

    def counting(images):
        sizes.append(len(images))
        return planted(images)

    found = painted(*[("red", "green"), ("green", "blue"), ("blue", "red")] * 5)
    told = []
    score_matches(counting, spoken, found, batch=2, progress=lambda *what: told.append(what))
    assert sum(sizes) == 3
    assert max(sizes) <= 2
    assert told[-1] == ("matching", 15, 15)


def test_vectors_that_are_no_longer_kept_are_made_again_and_change_nothing(painted):
    found = painted(*[("red", "green"), ("green", "blue"), ("blue", "red")] * 3)
    forgetful = Matcher(planted, spoken, prefix=found.prefix, kept=0)
    rows = [row for match in found.matches for row in forgetful.rows([match])]
    assert rows == score_matches(planted, spoken, found)[1]


def test_memory_does_not_grow_with_the_number_of_matches(painted):
    def peak(times):
        found = painted(*[("red", "green"), ("green", "blue")] * times)
        matcher = Matcher(planted, spoken, prefix=found.prefix, batch=4)
        tracemalloc.start()
        for start in range(0, len(found.matches), 4):
            matcher.rows(found.matches[start : start + 4])
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    peak(4)
    assert peak(100) < 1.2 * peak(10) + 20_000


def test_equal_vectors_tie_whatever_stands_beside_them():
    rng = np.random.default_rng(3)
    for dim in (7, 64, 500, 768):
        said = rng.standard_normal((5, dim)).astype(np.float32)
        shown = rng.standard_normal((5, dim)).astype(np.float32)
        shown[3] = shown[0]
        found = cosines(said, shown)
        assert (found[:, 0] == found[:, 3]).all()
        assert found == pytest.approx(
            torch.nn.functional.cosine_similarity(
                torch.tensor(said)[:, None].double(), torch.tensor(shown)[None].double(), dim=-1
            ).numpy()
        )


@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 40))
@settings(max_examples=30)
def test_a_cosine_does_not_depend_on_what_else_is_compared(seed, rows, dim):
    rng = np.random.default_rng(seed)
    said, shown = rng.standard_normal((2, rows, dim)).astype(np.float32)
    whole = cosines(said, shown)
    for i, j in product(range(rows), range(rows)):
        assert whole[i, j] == cosines(said[i : i + 1], shown[j : j + 1])[0, 0]


@pytest.mark.parametrize(
    ("vector", "message"),
    [([0.0, 0.0], "gives only zeros for"), ([np.nan, 1.0], "numbers that are not finite")],
)
def test_vectors_without_a_direction_are_refused(painted, vector, message):
    found = painted(("red", "green"))
    with pytest.raises(UserError, match=message):
        score_matches(lambda images: np.array([vector] * len(images)), spoken, found)


def test_a_tower_that_gives_too_few_vectors_is_refused(painted):
    with pytest.raises(UserError, match=r"expected 2 vectors, the encoder gave an array of shape \(1, 5\)"):
        score_matches(lambda images: planted(images[:1]), spoken, painted(("red", "green")))


def test_a_batch_of_none_is_refused():
    with pytest.raises(UserError, match="batch must be 1 or more"):
        Matcher(planted, spoken, batch=0)


# real encoders


@pytest.fixture
def noisy(tmp_path):
    """Matches of drawn pictures of unlike sizes."""
    matches = []
    for number in range(5):
        files = [tmp_path / f"{number}-{side}.png" for side in "ab"]
        for side, path in enumerate(files):
            path.write_bytes(png(2 * number + side))
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        said = [f"a red ball number {number}", f"a blue cup number {number}"]
        matches.append(a_match(str(number), said, files, hashes=hashes))
    return matches


def test_a_zoo_clip_gives_what_transformers_gives_and_batches_change_no_bit(noisy):
    encoder = load_encoder("zoo:clip-biased")
    together = Matcher.of(encoder, prefix="a photo of ", batch=4).rows(noisy)
    alone = [
        row for match in noisy for row in Matcher.of(encoder, prefix="a photo of ", batch=1).rows([match])
    ]
    assert together == alone

    from transformers import AutoModel, AutoProcessor

    folder = zoo.path("clip-biased")
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    for row in together[:2]:
        texts = [f"a photo of {caption}" for caption in row["doc"]["captions"]]
        pictures = [Image.open(path).convert("RGB") for path in row["doc"]["images"]]
        with torch.no_grad():
            made = model(**processor(text=texts, images=pictures, padding=True, return_tensors="pt"))
        reference = (made.logits_per_text / model.logit_scale.exp()).detach()
        assert np.array(row["similarity"]) == pytest.approx(reference.numpy(), abs=1e-5)


def test_an_encoder_without_texts_is_refused(checkpoint_dir):
    encoder = load_encoder(str(checkpoint_dir("dinov2")))
    with pytest.raises(Incapable, match="has no text tower, so it cannot match captions with images"):
        Matcher.of(encoder)
