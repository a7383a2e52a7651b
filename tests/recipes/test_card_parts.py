"""The parts of the cards on planted truth: who reads facts perfectly gets everything, who sees nothing gets chance."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from eyechart.core.errors import UserError
from eyechart.core.stats import wilson
from eyechart.recipes.card_clip import clip_tests, retrieval, statement_pairs
from eyechart.recipes.card_scenes import PairScenes
from eyechart.recipes.card_sight import Effort, difference, read_all, sibling_difference
from eyechart.recipes.card_tasks import readable
from eyechart.recipes.clip import RATES
from eyechart.world.facts import COLORS, PATTERNS
from eyechart.world.kinds import KINDS
from eyechart.world.labels import PairedFacts
from eyechart.world.questions import statements
from eyechart.world.sets_plan import PairPlan, draw_pairs
from eyechart.world.words import a


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Pairs of every pattern; the pictures are blank, since features are planted."""
    pairs = draw_pairs(PairPlan(split="test", pairs=40, seed=5))
    scenes = tuple(
        PairedFacts(pair=pair.id, pattern=pair.pattern, facts=facts, rival=rival)
        for pair in pairs
        for facts, rival in (pair.facts, pair.facts[::-1])
    )
    return PairScenes(
        folder=tmp_path_factory.mktemp("pairs"),
        images=np.zeros((len(scenes), 24, 24, 3), dtype=np.uint8),
        scenes=scenes,
        nonces=tuple(nonce for pair in pairs for nonce in pair.nonces),
        sha256="0" * 64,
    )


def noise(count, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tasks_put_both_scenes_of_every_pair_and_tell_them_apart(known, pattern):
    task = readable(pattern, known.scenes, most=10_000)
    label = dict(zip(task.places, task.task.labels, strict=True))
    own = [place for place, scene in enumerate(known.scenes) if scene.pattern == pattern]
    assert len(own) == 80
    for place in own[::2]:
        assert label[place] != label[place + 1]
    assert task.places == tuple(sorted(set(task.places)))
    for place, options, name in zip(task.places, task.task.options, task.task.labels, strict=True):
        assert name in options
        assert task.task.groups[task.places.index(place)] == known.scenes[place].pair
        kind = known.scenes[place].facts.kind
        if pattern in ("state", "structure", "presence"):
            assert all(option.startswith(f"{kind} ") for option in options)
    few = readable(pattern, known.scenes, most=80)
    assert list(few.places) == own


def test_parts_that_are_there_are_asked_of_as_often_as_those_that_are_not():
    pairs = draw_pairs(PairPlan(split="test", pairs=400, seed=6, patterns=("text",)))
    scenes = [
        PairedFacts(pair=pair.id, pattern="text", facts=facts, rival=facts)
        for pair in pairs
        for facts in pair.facts
    ]
    counts = Counter(label.split()[-1] for label in readable("presence", scenes, most=1000).task.labels)
    share = counts["there"] / counts.total()
    assert abs(share - 0.5) < 0.08


def test_no_such_pattern_and_nothing_to_read(known):
    with pytest.raises(UserError, match="no pattern named 'colour'"):
        readable("colour", known.scenes, most=10)
    silent = [scene for scene in known.scenes if scene.facts.letter is None][:4]
    with pytest.raises(UserError, match="none of 4 scenes shows a fact of the pattern 'text'"):
        readable("text", silent, most=10)


def planted(task, count, seed=0):
    """Patches of noise, one of which bears the label of the task."""
    words = sorted(set(task.task.labels))
    patches = noise(count * 4, len(words), seed).reshape(count, 4, len(words)) * 0.1
    for place, label in zip(task.places, task.task.labels, strict=True):
        patches[place, 2, words.index(label)] += 4.0
    return patches


@pytest.mark.slow
def test_who_bears_the_fact_is_read_and_noise_is_not(known):
    task = readable("position", known.scenes, most=120)
    count, effort = len(known.scenes), Effort(folds=3, attentive_seeds=1)
    seeing = read_all({"patches": planted(task, count)}, [task], effort)["position"]
    blind = read_all(
        {"patches": noise(count, 32).reshape(count, 4, 8)}, [task], replace(effort, attentive=False)
    )["position"]
    assert set(seeing) == {"patches linear", "patches attentive"}
    assert seeing["patches linear"]["accuracy"]["value"] > 0.95
    assert seeing["patches attentive"]["accuracy"]["value"] > 0.9
    for row in (blind["patches linear"], seeing["patches linear"], seeing["patches attentive"]):
        control = row["shuffled"]
        assert control["low"] < row["chance"] < control["high"]
    low = difference(seeing["patches linear"], blind["patches linear"], task.task.groups)
    assert low["low"] > 0.2
    none = difference(blind["patches linear"], blind["patches linear"], task.task.groups)
    assert none["value"] == 0
    assert none["method"] == "Wilson bound on unseen pairs"
    assert -none["low"] == none["high"] == wilson(0, none["clusters"]).high
    with pytest.raises(ValueError, match="120 scenes read from the one and 1 from the other"):
        difference(seeing["patches linear"], {"right": [1.0]}, task.task.groups)


def test_siblings_are_told_apart_by_facts_alone(known):
    """Vectors of the facts and of the layout: the fact tells, and the layout that both siblings share does not."""
    facts = [repr(facts) for facts in known.facts()]
    own = {
        name: vector for name, vector in zip(dict.fromkeys(facts), noise(len(set(facts)), 64), strict=True)
    }
    layout = noise(len(facts), 64, seed=1)
    other = np.arange(len(facts)) ^ 1
    said = np.stack([own[name] for name in facts])
    seen = sibling_difference(said + layout, said + layout[other], known)
    assert seen["all"].value > 0.95
    assert set(seen) == {"all", *PATTERNS}
    assert seen["all"].n == len(facts)
    blind = sibling_difference(noise(len(facts), 64, 2), noise(len(facts), 64, 3), known)
    assert blind["all"].low < 0.5 < blind["all"].high
    tied = sibling_difference(layout * 0 + 1, layout * 0 + 1, known)
    assert tied["all"].hits == 0


class Perfect:
    """A CLIP in which a text's vector is its own axis, and a picture's the sum of the axes of what is true of it."""

    def __init__(self, known):
        self.known = known
        self.axes = {}

    def texts(self, texts):
        for text in texts:
            self.axes.setdefault(text, len(self.axes))
        rows = np.zeros((len(texts), 4000), dtype=np.float32)
        rows[np.arange(len(texts)), [self.axes[text] for text in texts]] = 1
        return rows

    def pictures(self):
        rows = np.zeros((len(self.known.scenes), 4000), dtype=np.float32)
        for place, scene in enumerate(self.known.scenes):
            facts, pair = scene.facts, (scene.facts, scene.rival)
            said = statements(scene.pattern, *(pair if place % 2 == 0 else pair[::-1]))[place % 2]
            for text in (
                said,
                f"a photo of {a(facts.kind)}",
                f"a photo of {a(f'{facts.color} {facts.kind}')}",
            ):
                rows[place] += self.texts([text])[0]
        return rows


def test_a_clip_that_knows_the_facts_is_right_and_a_random_one_at_chance(known):
    model = Perfect(known)
    pictures = model.pictures()
    found = clip_tests(pictures, model.texts, known, {"told-all": RATES["told_all"]})
    assert found["zero_shot"]["kind"]["value"] == 1
    assert found["zero_shot"]["color"]["value"] == 1
    assert found["statements"]["all"]["group"]["hits"] == 40 * len(PATTERNS)
    assert {row["text_to_image"]["n"] for row in found["statements"].values()} == {40, 40 * len(PATTERNS)}
    assert found["retrieval"]["told-all"]["text_to_image"]["hits"] == 0, (
        "captions are not its texts: all ties"
    )

    def anything(texts):
        return noise(len(texts), 16, seed=len(texts))

    blind = clip_tests(noise(len(pictures), 16), anything, known, {"biased": RATES["biased"]})
    for way, chance in (("text_to_image", 1 / 4), ("image_to_text", 1 / 4), ("group", 1 / 6)):
        rate = blind["statements"]["all"][way]
        assert rate["low"] < chance < rate["high"]
    for name, chance in blind["zero_shot"]["chance"].items():
        assert blind["zero_shot"][name]["value"] < chance + 0.1
    assert (1 / len(KINDS), 1 / len(COLORS)) == tuple(blind["zero_shot"]["chance"].values())


def test_ties_are_wrong(known):
    same = np.ones((len(known.scenes), 4), dtype=np.float32)
    found = statement_pairs(same, lambda texts: np.ones((len(texts), 4), dtype=np.float32), known)
    assert {way["hits"] for row in found.values() for way in row.values()} == {0}


def test_equal_captions_are_as_good_as_the_own_one(known):
    """Captions by their words; a picture's vector is that of its caption."""
    said = {}

    def by_words(texts):
        said["texts"] = list(texts)
        rng = {text: random.Random(text) for text in texts}
        return np.array([[rng[text].gauss(0, 1) for _ in range(32)] for text in texts], dtype=np.float32)

    plain = replace(RATES["biased"], color=0.0, other=0.0)
    retrieval(noise(len(known.scenes), 32), by_words, known, plain, pool=60)
    texts = said["texts"]
    rng = random.Random("retrieval 0")
    places = sorted(rng.sample(range(0, len(known.scenes), 2), 60))
    pictures = noise(len(known.scenes), 32)
    pictures[places] = by_words(texts)
    found = retrieval(pictures, by_words, known, plain, pool=60)
    assert found["distinct_captions"] == len(set(texts)) < 60 == found["pool"]
    assert found["text_to_image"]["hits"] == found["image_to_text"]["hits"] == 60
    assert found["chance"] > 1 / 60
