"""Models compared on the same pairs: exact McNemar, Holm over the patterns, and what a set of this size can show."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from eyechart.core.stats import (
    PairedTest,
    cluster_bootstrap,
    holm,
    mcnemar_exact,
    minimal_detectable_difference,
    sign_flip_test,
    smallest_significant_gain,
    wilson,
)
from eyechart.score.board import Board, Labels, share_of
from eyechart.score.logged import Answered

ERROR_RATE = 0.05
"""From this p-value down a difference is called one; over the patterns after Holm's correction."""

POWER = 0.8
FLIPS = 20_000
"""Sign patterns drawn for the test of clustered items."""

TEST = "exact McNemar test on the same pairs, two-sided; intervals by Newcombe's method 10"
TEST_CLUSTERS = (
    "sign-flip test over the pictures (or groups) that items share, two-sided; intervals from drawing these again;"
    " McNemar's p-value beside it would take the items for independent"
)

POWER_UNITS_MAX = 20_000
"""Above so many units the detectable difference, whose cost grows with them, is left out."""


def against(
    test: PairedTest, p_holm: float | None = None, *, p_decides: float | None = None
) -> dict[str, Any]:
    """A test as plain values, and what it comes to: better, worse, or undecided.

    Args:
        test: the second model against the first.
        p_holm: its p-value after Holm's correction, where it is one of several.
        p_decides: the p-value before that correction, where it is not McNemar's.
    """
    p_value = test.p_value if p_decides is None else p_decides
    decides = p_value if p_holm is None else p_holm
    direction = "better" if test.difference > 0 else "worse"
    verdict = direction if decides <= ERROR_RATE and test.difference else "undecided"
    return {
        **test.to_dict(),
        "p_value": p_value,
        "p_mcnemar": test.p_value,
        "p_holm": p_holm,
        "verdict": verdict,
    }


def by_pattern(
    before: Mapping[str, bool],
    after: Mapping[str, bool],
    of: Mapping[str, str],
    clusters: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """For each pattern the second model against the first on its units, as `against` tells it, Holm over the patterns.

    Args:
        before: whether the first model has each unit right.
        after: the same of the second.
        of: the pattern of each unit.
        clusters: see `paired_test`.
        seed: see `paired_test`.
    """
    groups = {name: [unit for unit in before if of[unit] == name] for name in sorted(set(of.values()))}
    tests = {
        name: paired_test({u: before[u] for u in own}, {u: after[u] for u in own}, clusters, seed=seed)
        for name, own in groups.items()
        if own
    }
    if not tests:
        return {}
    adjusted = holm([p_value for _, p_value in tests.values()])
    return {
        name: against(test, p_holm, p_decides=p_value)
        for (name, (test, p_value)), p_holm in zip(tests.items(), adjusted, strict=True)
    }


def paired_test(
    before: Mapping[str, bool],
    after: Mapping[str, bool],
    clusters: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> tuple[PairedTest, float]:
    """The second model against the first on all units, and the p-value that decides.

    Units that share pictures are not independent: their differences are then summed by what they share, these sums'
    signs flipped for the p-value, and whole clusters drawn again for the interval.
    """
    test = mcnemar_exact([*before.values()], [after[unit] for unit in before])
    if clusters is None or len({clusters[unit] for unit in before}) < 2:
        return test, test.p_value
    sums: dict[str, float] = {}
    for unit in before:
        sums[clusters[unit]] = sums.get(clusters[unit], 0.0) + after[unit] - before[unit]
    changes = [float(after[unit]) - before[unit] for unit in before]
    moving = [value for value in sums.values() if value]
    p_value = sign_flip_test(moving, resamples=FLIPS, seed=seed).p_value if moving else 1.0
    if len({*changes}) == 1:
        return test, p_value
    try:
        drawn = cluster_bootstrap(changes, [clusters[unit] for unit in before], seed=seed)
    except ValueError:  # every cluster moved alike, so nothing varies when they are drawn
        return test, p_value
    return replace(test, low=drawn.low, high=drawn.high), p_value


def compare_all(board: Board, *, every: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Each log against the first; with `every` each two of them."""
    places = range(len(board.logs))
    twos = combinations(places, 2) if every else ((0, place) for place in places[1:])
    return [compare_two(board, one, two, seed=seed) for one, two in twos]


def compare_two(board: Board, one: int, two: int, *, seed: int = 0) -> dict[str, Any]:
    """The second of two logs against the first: on all units, by pattern, under every set of labels."""
    before, after = board.right(one), board.right(two)
    clusters = board.units.clusters if board.units.clustered else None
    test, p_value = paired_test(before, after, clusters, seed=seed)
    patterns = _patterns(board, before, after, seed) if board.patterns else []
    overall = against(test, p_decides=p_value)
    return {
        "first": board.names[one],
        "second": board.names[two],
        "unit": board.units.unit,
        "test": TEST if clusters is None else TEST_CLUSTERS,
        "overall": overall,
        "patterns": patterns,
        **_power(test),
        "label_sets": [
            {"labels": name, **_under(board, one, two, labels, seed)}
            for name, labels in board.label_sets.items()
        ],
        "said": said(board.names[one], board.names[two], board.units.unit, overall),
    }


def _patterns(
    board: Board, before: Mapping[str, bool], after: Mapping[str, bool], seed: int
) -> list[dict[str, Any]]:
    clusters = board.units.clusters if board.units.clustered else None

    def rate(right: Mapping[str, bool], pattern: str) -> dict[str, Any]:
        own = [unit for unit in right if board.patterns[unit] == pattern]
        shared = None if clusters is None else [clusters[unit] for unit in own]
        return share_of([right[unit] for unit in own], shared, seed=seed).to_dict()

    return [
        {
            "pattern": name or "(none)",
            "first": rate(before, name),
            "second": rate(after, name),
            "against": told,
        }
        for name, told in by_pattern(before, after, board.patterns, clusters, seed=seed).items()
    ]


def _under(board: Board, one: int, two: int, labels: Labels, seed: int) -> dict[str, Any]:
    clusters = board.units.clusters if board.units.clustered else None
    before, after = board.right(one, labels), board.right(two, labels)
    test, p_value = paired_test(before, after, clusters, seed=seed)
    return {
        "items": [name for name, label in labels.items() if label != board.labels[name]],
        "first": board.rate(one, seed=seed, labels=labels).to_dict(),
        "second": board.rate(two, seed=seed, labels=labels).to_dict(),
        "against": against(test, p_decides=p_value),
    }


def _power(test: PairedTest) -> dict[str, Any]:
    """What so many units can show, at the share of discordant ones seen and beside the regressions seen."""
    discordant = (test.fixes + test.regressions) / test.n
    detectable = None
    if discordant and test.n <= POWER_UNITS_MAX:
        detectable = minimal_detectable_difference(
            test.n, discordant=discordant, power=POWER, alpha=ERROR_RATE
        )
    gain = smallest_significant_gain(test.n, regressions=test.regressions, alpha=ERROR_RATE)
    return {
        "discordant": wilson(test.fixes + test.regressions, test.n).to_dict(),
        "detectable": None if detectable is None else detectable.to_dict(),
        "smallest_gain": None if gain is None else gain.to_dict(),
    }


def said(first: str, second: str, unit: str, test: Mapping[str, Any]) -> str:
    """A comparison in one sentence.

    >>> said("a", "b", "pairs", {"verdict": "undecided", "difference": 0.02, "low": -0.01, "high": 0.05, "fixes": 5,
    ...     "regressions": 2, "n": 150, "p_value": 0.4531})
    'b against a: undecided, +2.0 points [-1.0, +5.0], 5 pairs right only in b, 2 only in a, n=150 pairs, p=0.45'
    """
    points = (f"{100 * test[name]:+.1f}" for name in ("difference", "low", "high"))
    difference, low, high = points
    p_value = "p<0.001" if test["p_value"] < 0.001 else f"p={test['p_value']:.2g}"
    only = {"pairs": "pair", "groups": "group", "items": "item", "matches": "match"}.get(unit, unit)
    return (
        f"{second} against {first}: {test['verdict']}, {difference} points [{low}, {high}],"
        f" {test['fixes']} {only if test['fixes'] == 1 else unit} right only in {second}, {test['regressions']} only in"
        f" {first}, n={test['n']} {unit}, {p_value}"
    )


def run_rows(board: Board, *, seed: int = 0) -> list[dict[str, Any]]:
    """Each log with its rates on the shared units, how it was graded, and where the harness held otherwise."""
    chance_units, chance_items = board.chance()
    rows = []
    for place, (name, log) in enumerate(zip(board.names, board.logs, strict=True)):
        answers = board.answers[place]
        right = board.right_items(place)
        theirs = {one: answer.theirs for one, answer in answers.items() if answer.theirs is not None}
        rows.append(
            {
                "name": name,
                "model": log.model,
                "source": log.source,
                "kind": log.kind,
                "path": str(log.path),
                "task": log.task,
                "variant": log.variant,
                "way": dict(log.way),
                "graded": log.graded,
                "benchmark": {key: log.benchmark.get(key) for key in ("name", "sha256")},
                "unit": board.units.unit,
                "units": board.rate(place, seed=seed).to_dict(),
                "items": None
                if board.units.unit == "matches"
                else board.item_rate(right, seed=seed).to_dict(),
                "chance_units": chance_units,
                "chance_items": chance_items,
                "unread": sum(answer.unread for answer in answers.values()),
                "answers": len(log.answers),
                "left_out": len(log.left_out),
                "theirs": wilson(sum(theirs.values()), len(theirs)).to_dict() if theirs else None,
                "disagreements": len(disagreements(answers)),
                "notes": [*log.notes, *_joined(board, place)],
            }
        )
    return rows


def _joined(board: Board, place: int) -> list[str]:
    if place == 0:
        return list(board.units.notes) + (
            [f"{len(board.units.incomplete)} items whose pair is not whole are left out"]
            if board.units.incomplete
            else []
        )
    join = board.joins[place - 1]
    told = [f"matched {join.how}"]
    if join.only_first or join.only_here:
        told.append(
            f"{len(join.only_first)} items are not in it and {len(join.only_here)} only in it; left out"
        )
    if join.labels_differ:
        told.append(
            f"another right answer than in {board.names[0]} for items {', '.join(join.labels_differ[:8])}: all runs are"
            f" graded by the labels of {board.names[0]}; see the label sets"
        )
    if join.unchecked:
        told.append(
            f"the questions of {join.unchecked} items could not be checked, as one log does not tell them"
        )
    return told


def disagreements(answers: Mapping[str, Answered]) -> list[Answered]:
    """The answers that our reader and the harness hold differently, both by the log's own label."""
    return [
        one for one in answers.values() if one.regraded and one.theirs is not None and one.theirs != one.right
    ]
