"""The rules by which sets are scored, each as its authors state it, with an interval at every number.

An unread reply is never right and never guessed at; its share stands among the measures of every rule.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from eyechart.core.errors import unknown
from eyechart.core.records import NO_PATTERN, Graded, Item
from eyechart.score.measures import Measure
from eyechart.score.resampling import Drawing, weighted_mean
from eyechart.score.rule_parts import (
    Replies,
    accuracy,
    chance_of,
    cluster_of,
    groups_of,
    is_right,
    of_mean,
    unread,
)
from eyechart.score.rule_sets import cv_bench, naturalbench, pope
from eyechart.score.scoring import matched, summarise

Score = Callable[[Sequence[Item], Replies, Drawing], list[Measure]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a set is scored."""

    name: str
    about: str
    primary: str
    """The measure that stands first."""

    score: Score


def measure(
    benchmark_rule: str,
    items: Sequence[Item],
    graded: Iterable[Graded],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Measure, ...]:
    """Score graded replies by a rule.

    Args:
        benchmark_rule: a name in `RULES`.
        items: what was asked.
        graded: one reply for each item, in any order.
        level: confidence of the intervals.
        resamples: how often clusters are drawn again, where an interval comes from that.
        seed: of that drawing.

    Returns:
        The measures, the primary one first. What is undefined has no value and no interval.

    Raises:
        UserError: there is no such rule.
        ValueError: there are no items, items and replies do not match one to one, or the items are not of the shape
            that the rule is about.
    """
    if benchmark_rule not in RULES:
        raise unknown("rule", benchmark_rule, RULES)
    replies = matched(items, graded)
    drawing = Drawing(level=level, resamples=resamples, seed=seed)
    return tuple(RULES[benchmark_rule].score(items, replies, drawing))


def _pairs(items: Sequence[Item], replies: Replies, drawing: Drawing) -> list[Measure]:
    score = summarise(
        items, replies.values(), level=drawing.level, resamples=drawing.resamples, seed=drawing.seed
    ).score
    return [
        Measure.of_rate("pair_accuracy", score.pairs, "pairs", chance=score.chance_pairs),
        Measure.of_rate("image_accuracy", score.images, "items", chance=score.chance_images),
        Measure.of_rate("unread", score.unread, "items"),
    ]


def _items(items: Sequence[Item], replies: Replies, drawing: Drawing) -> list[Measure]:
    found = [accuracy(items, replies, drawing)]
    patterns = groups_of(items, lambda item: item.pattern or NO_PATTERN)
    if len(patterns) > 1:
        found.append(_macro(patterns, items, replies, drawing))
        found += [accuracy(own, replies, drawing, of=name) for name, own in patterns.items()]
    return [*found, unread(items, replies, drawing)]


def _macro(
    patterns: Mapping[str, Sequence[Item]], items: Sequence[Item], replies: Replies, drawing: Drawing
) -> Measure:
    mean = weighted_mean(
        [is_right(item, replies) for item in items],
        [item.pattern or NO_PATTERN for item in items],
        [cluster_of(item) for item in items],
        dict.fromkeys(patterns, 1 / len(patterns)),
        drawing,
    )
    chance = sum(chance_of(own) for own in patterns.values()) / len(patterns)
    return of_mean("macro_accuracy", mean, len(items), drawing, chance=chance)


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            name="pairs",
            about="a pair counts only if both its items are right (MMVP, Tong et al., 2024); chance 25 % for two options",
            primary="pair_accuracy",
            score=_pairs,
        ),
        Rule(
            name="items",
            about="the share of items right, of each pattern, and the mean over patterns; questions on one image are a cluster",
            primary="accuracy",
            score=_items,
        ),
        Rule(
            name="cv-bench",
            about="combined = mean of 2D (mean of the accuracies of ADE20K and COCO) and 3D (accuracy of Omni3D), after"
            " Tong et al., 2024, Cambrian-1; other sources are averaged likewise",
            primary="combined",
            score=cv_bench,
        ),
        Rule(
            name="pope",
            about="accuracy, precision, recall, F1 of yes, and share of yes, of each category and over all (Li et al., 2023)",
            primary="accuracy",
            score=pope,
        ),
        Rule(
            name="naturalbench",
            about="group accuracy (all four of a group right), of questions and images (both right), of items (Li et al.,"
            " 2024); chance 6.25, 25, 25 and 50 %",
            primary="group_accuracy",
            score=naturalbench,
        ),
    )
}
"""By name."""
