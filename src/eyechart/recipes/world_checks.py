"""Leak checks of the siblings benchmark: what answers its questions without anything being looked at as a person would.

Each reader is fitted on questions of train scenes and reported on pairs of test scenes:

- *position*: always the first option. - *text*: question and options alone. - *statistics*: with the question, how many
pixels have each spoken colour, mean and variance of the channels, and a colour histogram; nothing of where they are.
- *roles*: with the question, the counts of pixels in the colours of main object, accent, second object and items, told
to the reader. - *counting*: no fitting at all: the option with more pixels, or pixels over the mean area of an item.

The two items of a pair share question and options, so a reader of those alone is right on one of them and never on
both; what it could learn shows on single questions (`text_leaks` is given those).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression

from eyechart.core.images import open_image
from eyechart.core.stats import Rate, cluster_rate, wilson
from eyechart.recipes.examine import family_of
from eyechart.world.facts import COLORS, PATTERNS, Facts
from eyechart.world.paints import COLOR_RGB, SLOT_RGB, encoded, linear
from eyechart.world.questions import questions
from eyechart.world.sets import Progress, render_set
from eyechart.world.sets_pairs import items_of, render_pairs
from eyechart.world.sets_plan import PairPlan, ScenePair, SceneRecord, SetPlan, draw_pairs, draw_set
from eyechart.world.words import NUMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question on a picture."""

    pattern: str
    family: str
    text: str
    options: tuple[str, str]
    answer: int
    facts: Facts
    group: str
    """The pair or the scene it belongs to; items of one group are not independent."""

    picture: int
    """The picture's place among the pictures it is read with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """How often a reader that cannot see was right on a pattern."""

    reader: str
    pattern: str
    items: Rate
    """Share of items, chance 1/2, the interval from drawing pairs anew."""

    pairs: Rate | None
    """Share of pairs with both items right, chance 1/4; None for single questions."""

    @property
    def leaks(self) -> bool:
        """Whether its items are right more often than by chance, beyond the interval."""
        return self.items.low > 0.5

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return {**asdict(self), "leaks": self.leaks}


def check_leaks(
    data: Path,
    *,
    scenes: int = 16_000,
    pairs: int = 200,
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> list[Leak]:
    """Every reader on siblings of the test split; `text` and `position` on single questions of that split.

    Args:
        data: where pictures are kept, in `fit` and `pairs`; those that are there are used again.
        scenes: of the train split, whose questions the readers are fitted on.
        pairs: of each pattern.
        seed: of scenes and pairs.
        workers: processes that render.
        progress: told how far rendering is.
    """
    fit = render_set(
        data / "fit",
        SetPlan(split="train", scenes=scenes, seed=seed),
        workers=workers,
        progress=progress,
    )
    plan = PairPlan(pairs=pairs, seed=seed)
    drawn = draw_pairs(plan)
    folder = render_pairs(data / "pairs", plan, workers=workers, progress=progress)
    train, test = asked_of_scenes(fit.scenes, seed=seed), asked_of_pairs(drawn)
    singles = asked_of_scenes(list(draw_set(SetPlan(split="test", scenes=6_000, seed=seed))), seed=seed + 1)
    shown = fit.images, test, pictures_of(folder, drawn)
    return [
        *position_leaks(singles),
        *text_leaks(train, singles),
        *counting_leaks(train, *shown),
        *roles_leaks(train, *shown, seed=seed),
        *statistics_leaks(train, *shown, seed=seed),
    ]


def asked_of_scenes(scenes: Sequence[SceneRecord], *, seed: int = 0) -> list[Asked]:
    """The questions of single scenes, as models are trained with them."""
    rng = Random(f"leaks {seed}")
    return [
        Asked(
            pattern=question.pattern,
            family=question.family,
            text=question.text,
            options=question.options,
            answer=question.answer,
            facts=scene.facts,
            group=f"scene {scene.index}",
            picture=place,
        )
        for place, scene in enumerate(scenes)
        for question in questions(scene.facts, rng)
    ]


def asked_of_pairs(pairs: Sequence[ScenePair]) -> list[Asked]:
    """Both items of every pair; the pictures are in the same order."""
    return [
        Asked(
            pattern=pair.pattern,
            family=family_of(pair.pattern, pair.question),
            text=pair.question,
            options=pair.options,
            answer=answer,
            facts=facts,
            group=pair.id,
            picture=2 * place + side,
        )
        for place, pair in enumerate(pairs)
        for side, (facts, answer) in enumerate(zip(pair.facts, pair.answers, strict=True))
    ]


def pictures_of(folder: Path, pairs: Sequence[ScenePair]) -> UInt8[ndarray, "image row column 3"]:
    """The pictures of a rendered benchmark, in the order of `asked_of_pairs`."""
    names = [f"{item}.png" for pair in pairs for item in items_of(pair)]
    return np.stack([np.asarray(open_image(folder / "images" / name).image) for name in names])


def position_leaks(asked: Sequence[Asked]) -> list[Leak]:
    """Always the first option."""
    return report("position", asked, np.zeros(len(asked), dtype=np.int64))


def text_leaks(train: Sequence[Asked], test: Sequence[Asked]) -> list[Leak]:
    """A logistic regression on the words of question and options, the words of either option, and pairs of these."""
    hasher = FeatureHasher(n_features=2**16, input_type="string")
    answers = np.zeros(len(test), dtype=np.int64)
    for pattern in PATTERNS:
        seen, put = [one for one in train if one.pattern == pattern], _places(test, pattern)
        labels = [one.answer for one in seen]
        if put and len(set(labels)) > 1:
            model = LogisticRegression(C=0.3, max_iter=300)
            model.fit(hasher.transform(_tokens(one) for one in seen), labels)
            answers[put] = model.predict(hasher.transform(_tokens(test[place]) for place in put))
    return report("text", test, answers)


def statistics_leaks(
    train: Sequence[Asked],
    train_pictures: UInt8[ndarray, "train row column 3"],
    test: Sequence[Asked],
    test_pictures: UInt8[ndarray, "test row column 3"],
    *,
    seed: int = 0,
) -> list[Leak]:
    """Trees on colour counts, moments and a colour histogram, with the question."""
    known = [pixel_statistics(pictures) for pictures in (train_pictures, test_pictures)]
    rows = [_with_options(asked, numbers) for asked, numbers in zip((train, test), known, strict=True)]
    return report("statistics", test, _trees(train, rows[0], test, rows[1], seed))


def roles_leaks(
    train: Sequence[Asked],
    train_pictures: UInt8[ndarray, "train row column 3"],
    test: Sequence[Asked],
    test_pictures: UInt8[ndarray, "test row column 3"],
    *,
    seed: int = 0,
) -> list[Leak]:
    """Trees on the counts of pixels in the colours of the things, with the question; the colours are told."""
    counts = [color_counts(pictures) for pictures in (train_pictures, test_pictures)]
    rows = [
        np.stack([_by_role(one.facts, found[one.picture]) for one in asked])
        for asked, found in zip((train, test), counts, strict=True)
    ]
    return report("roles", test, _trees(train, rows[0], test, rows[1], seed))


def counting_leaks(
    train: Sequence[Asked],
    train_pictures: UInt8[ndarray, "train row column 3"],
    test: Sequence[Asked],
    test_pictures: UInt8[ndarray, "test row column 3"],
) -> list[Leak]:
    """Color: the option of which there is more. Quantity: pixels of the items' colour over their mean area in train."""
    known, counts = color_counts(train_pictures), color_counts(test_pictures)
    areas = [
        known[one.picture, COLORS.index(items.color)] / items.number
        for one in train
        if one.pattern == "quantity" and (items := one.facts.items) is not None
    ]
    area = max(1.0, float(np.mean(areas))) if areas else 1.0
    kept = [one for one in test if one.pattern in ("color", "quantity")]
    return report("counting", kept, np.array([_counted(one, counts[one.picture], area) for one in kept]))


def report(reader: str, asked: Sequence[Asked], answers: Int[ndarray, " item"]) -> list[Leak]:
    """What a reader's answers come to, pattern by pattern."""
    found = []
    for pattern in PATTERNS:
        places = _places(asked, pattern)
        if not places:
            continue
        groups = [asked[place].group for place in places]
        right = np.array([answers[place] == asked[place].answer for place in places])
        found.append(
            Leak(
                reader=reader,
                pattern=pattern,
                items=cluster_rate(right, groups, seed=0),
                pairs=_both(right, groups),
            )
        )
    return found


def _places(asked: Sequence[Asked], pattern: str) -> list[int]:
    return [place for place, one in enumerate(asked) if one.pattern == pattern]


def _both(right: ndarray, groups: Sequence[str]) -> Rate | None:
    """Share of groups with both items right, if every group is a pair."""
    hits: dict[str, list[bool]] = {}
    for group, hit in zip(groups, right, strict=True):
        hits.setdefault(group, []).append(bool(hit))
    if any(len(each) != 2 for each in hits.values()):
        return None
    return wilson(sum(all(each) for each in hits.values()), len(hits))


def _tokens(one: Asked) -> Iterator[str]:
    words = one.text.lower().rstrip("?").split()
    first, second = one.options
    yield from (f"a {first}", f"b {second}", f"ab {first} {second}", one.family, f"{one.family} a {first}")
    for word in words:
        yield from (word, f"{word} a {first}", f"{word} b {second}")
    yield from (f"{left} {right}" for left, right in pairwise(words))


def pixel_statistics(
    pictures: UInt8[ndarray, "image row column 3"],
) -> Float[ndarray, "image number"]:
    """Counts of spoken colours, mean and variance of the channels, and a histogram of 4 x 4 x 4 colours."""
    counts = color_counts(pictures)
    flat = pictures.reshape(len(pictures), -1, 3)
    cells = (flat >> 6).astype(np.int64) @ np.array([16, 4, 1])
    histogram = np.stack([np.bincount(one, minlength=64) for one in cells])
    moments = np.stack(
        [np.concatenate([one.mean(axis=0), one.var(axis=0)]) for one in flat.astype(np.float32)]
    )
    return np.concatenate([counts, moments, histogram], axis=1).astype(np.float64)


def color_counts(pictures: UInt8[ndarray, "image row column 3"]) -> Int[ndarray, "image color"]:
    """How many pixels of each picture have each of `COLORS`: the nearest shade of a paint decides.

    White is counted only where it is bright: in the shade it is a grey like those of floors and backdrops.
    """
    names = _names_of_colors()
    found = []
    for picture in pictures:
        index = (picture >> 3).astype(np.int64).reshape(-1, 3) @ np.array([1024, 32, 1])
        found.append(np.bincount(names[index], minlength=len(COLORS) + 1)[: len(COLORS)])
    return np.stack(found)


@lru_cache(maxsize=1)
def _names_of_colors() -> Int[ndarray, " 32768"]:
    """For colours in steps of eight the place in `COLORS`, or one more for those of floor, backdrop and fixed paints."""
    shades = []
    for place, name in enumerate(COLORS):
        dark = (
            0.75 if name == "white" else 0.35
        )  # white in the shade is a grey like those of walls and floors
        shades += [(place, tone) for tone in _shades(COLOR_RGB[name], np.linspace(dark, 1.3, 12))]
    greys = [(level, level, level) for level in range(40, 230, 12)] + [
        (level + 12, level, level - 14) for level in range(40, 226, 12)
    ]
    other = [*greys, *SLOT_RGB.values()]
    for rgb in other:
        shades += [(len(COLORS), tone) for tone in _shades(rgb, np.array([0.5, 1.0]))]
    tones = np.stack([tone for _, tone in shades])
    labels = np.array([place for place, _ in shades])
    axis = np.arange(4, 256, 8)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = [((part[:, None] - tones) ** 2).sum(axis=2).argmin(axis=1) for part in np.array_split(grid, 64)]
    places: Int[ndarray, " 32768"] = labels[np.concatenate(nearest)]
    return places


def _shades(rgb: tuple[int, int, int], levels: Float[ndarray, " level"]) -> list[Float[ndarray, " 3"]]:
    light = linear([channel / 255 for channel in rgb])
    return [255 * encoded(light * np.float32(level)) for level in levels]


def _question_numbers(one: Asked, words: Mapping[str, int]) -> list[float]:
    """The question as numbers: which words it has of the commonest, and its options in the order of the alphabet."""
    present = set(one.text.lower().rstrip("?").split())
    first, second = sorted(one.options)
    return [
        float(words.get(first, -1)),
        float(words.get(second, -1)),
        *(float(word in present) for word in words),
    ]


def _trees(
    train: Sequence[Asked],
    train_rows: Float[ndarray, "train number"],
    test: Sequence[Asked],
    test_rows: Float[ndarray, "test number"],
    seed: int,
) -> Int[ndarray, " item"]:
    """Answers of gradient-boosted trees, one ensemble for each family of questions; unknown families: the first.

    They are asked which option of the two in alphabetical order is right, so that order plays no part.
    """
    answers = np.zeros(len(test), dtype=np.int64)
    for family in sorted({one.family for one in test}):
        seen = [place for place, one in enumerate(train) if one.family == family]
        put = [place for place, one in enumerate(test) if one.family == family]
        labels = [_later(train[place]) for place in seen]
        if len(set(labels)) < 2:
            continue
        words = _vocabulary([train[place] for place in seen])
        rows = [
            np.concatenate(
                [[_question_numbers(asked[place], words) for place in places], numbers[places]], axis=1
            )
            for asked, numbers, places in ((train, train_rows, seen), (test, test_rows, put))
        ]
        trees = HistGradientBoostingClassifier(
            max_iter=300, learning_rate=0.06, max_leaf_nodes=15, early_stopping=True, random_state=seed
        ).fit(rows[0], labels)
        for place, later in zip(put, trees.predict(rows[1]), strict=True):
            answers[place] = test[place].options.index(sorted(test[place].options)[int(later)])
    return answers


def _later(one: Asked) -> int:
    """Whether the right option is the second in alphabetical order."""
    return sorted(one.options).index(one.options[one.answer])


def _vocabulary(asked: Sequence[Asked]) -> dict[str, int]:
    """Numbers of all words of options and questions: numbers and letters in their order."""
    words = {word for one in asked for word in (*one.text.lower().rstrip("?").split(), *one.options)}
    ordered = sorted(words, key=lambda word: (NUMBERS.index(word) if word in NUMBERS else -1, word))
    return {word: number for number, word in enumerate(ordered)}


def _with_options(
    asked: Sequence[Asked], known: Float[ndarray, "image number"]
) -> Float[ndarray, "item column"]:
    """Each picture's numbers, and the counts of both options where these are colours (else -1)."""
    options = [
        [known[one.picture, COLORS.index(word)] if word in COLORS else -1.0 for word in sorted(one.options)]
        for one in asked
    ]
    return np.concatenate([np.array(options), known[[one.picture for one in asked]]], axis=1)


def _by_role(facts: Facts, counts: Int[ndarray, " color"]) -> Float[ndarray, " role"]:
    """Pixels in the colours of the main object, its accent, the second object and the items; -1 where there is none."""
    colors = (
        facts.color,
        facts.accent,
        None if facts.other is None else facts.other.color,
        None if facts.items is None else facts.items.color,
    )
    return np.array([-1.0 if color is None else float(counts[COLORS.index(color)]) for color in colors])


def _counted(one: Asked, counts: Int[ndarray, " color"], area: float) -> int:
    """The option nearer to what the counts say."""
    if one.pattern == "quantity":
        assert one.facts.items is not None
        guess = counts[COLORS.index(one.facts.items.color)] / area
        return int(np.argmin([abs(NUMBERS.index(word) + 1 - guess) for word in one.options]))
    return int(np.argmax([counts[COLORS.index(word)] for word in one.options]))
