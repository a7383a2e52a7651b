"""What a probe can learn of a benchmark's pairs: labels that mean the same in several of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyechart.core.errors import UserError
from eyechart.core.records import NO_PATTERN, Item
from eyechart.train.readability import Task

LEAST = 20
"""Pairs that a label must be in for it to be learned."""

GROUPS = 10
"""Groups of pairs without a common picture that a pattern needs for five folds, with a fifth held out in each."""

BARE = tuple(
    frozenset(pair)
    for pair in (
        ("yes", "no"),
        ("true", "false"),
        ("correct", "incorrect"),
        ("right", "wrong"),
        ("present", "absent"),
        ("with", "without"),
        ("a", "b"),
    )
)
"""Options that say nothing without their question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A pattern's pairs with labels to learn."""

    pattern: str
    in_set: int
    """Pairs of the pattern in the benchmark."""

    items: tuple[Item, ...]
    """Two by two; empty where nothing can be learned."""

    words: tuple[tuple[str, tuple[str, str]], ...]
    """The label of each item, and the two it is picked from."""

    groups: tuple[str, ...]
    """For each pair; pairs that share a picture are of one group."""

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Of the pairs, in order."""
        return tuple(item.pair_id for item in self.items[::2])

    @property
    def labels(self) -> dict[str, int]:
        """How many pairs each label is in, sorted by label."""
        return dict(sorted(Counter(label for label, _ in self.words).items()))

    @property
    def task(self) -> Task:
        """What a probe is to read; each item's label is picked from the two of its pair."""
        return Task(
            labels=tuple(label for label, _ in self.words),
            groups=tuple(group for group in self.groups for _ in range(2)),
            options=tuple(options for _, options in self.words),
        )

    def of(self, pairs: Sequence[int]) -> "Covered":
        """Some of the pairs only, by their places."""
        places = [2 * pair + side for pair in pairs for side in (0, 1)]
        return Covered(
            pattern=self.pattern,
            in_set=self.in_set,
            items=tuple(self.items[place] for place in places),
            words=tuple(self.words[place] for place in places),
            groups=tuple(self.groups[pair] for pair in pairs),
        )


def covered(
    items: Sequence[Item], *, labels: Mapping[str, str] | None = None, least: int = LEAST
) -> tuple[Covered, ...]:
    """The patterns of a benchmark, sorted by name, with those of their pairs that have a label enough others share.

    Args:
        items: in pairs; others are left out.
        labels: for each item id what is to be read instead of its option; the two of a pair are picked from each other.
        least: pairs that a label must be in; a pair is left out where one of its two is in fewer.

    Raises:
        UserError: `labels` lacks an item.
    """
    patterns: dict[str, dict[str, list[Item]]] = {}
    for item in items:
        if item.pair_id:
            patterns.setdefault(item.pattern or NO_PATTERN, {}).setdefault(item.pair_id, []).append(item)
    return tuple(_pattern(name, list(patterns[name].values()), labels, least) for name in sorted(patterns))


def _pattern(
    name: str, pairs: Sequence[Sequence[Item]], labels: Mapping[str, str] | None, least: int
) -> Covered:
    known = [(pair, two) for pair in pairs if (two := _labels(pair, labels)) is not None]
    kept = _shared(known, least)
    groups = _groups([pair for pair, _ in kept])
    if len(set(groups)) < GROUPS:
        kept, groups = [], ()
    return Covered(
        pattern=name,
        in_set=len(pairs),
        items=tuple(item for pair, _ in kept for item in pair),
        words=tuple((label, (min(two), max(two))) for _, two in kept for label in two),
        groups=groups,
    )


_Labelled = tuple[Sequence[Item], tuple[str, str]]


def _shared(known: list[_Labelled], least: int) -> list[_Labelled]:
    """Pairs both of whose labels are in enough of the pairs that are left; a pair that goes may take others with it."""
    while True:
        times = Counter(label for _, two in known for label in two)
        kept = [(pair, two) for pair, two in known if min(times[label] for label in two) >= least]
        if len(kept) == len(known):
            return kept
        known = kept


def _labels(pair: Sequence[Item], labels: Mapping[str, str] | None) -> tuple[str, str] | None:
    """The two labels of a pair; None where it has no two that differ, or not two options, or several pictures an item."""
    if len(pair) != 2 or any(item.more_images for item in pair):
        return None
    if labels is not None:
        missing = [item.id for item in pair if item.id not in labels]
        if missing:
            raise UserError(f"no label is given for item {missing[0]!r}")
        a, b = (labels[item.id] for item in pair)
        return (a, b) if a != b else None
    options = [{_plain(option) for option in item.options} for item in pair]
    a, b = (_plain(item.options[item.answer]) for item in pair)
    if a == b or options[0] != options[1] or len(options[0]) != 2:
        return None
    if frozenset((a, b)) in BARE:
        question = _plain(pair[0].question)
        return f"{question} {a}", f"{question} {b}"
    return a, b


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _groups(pairs: Sequence[Sequence[Item]]) -> tuple[str, ...]:
    """For each pair the name of its group: pairs that share a picture, at first or at second hand, are of one."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for pair in pairs:
        parent[root(pair[0].image_sha256)] = root(pair[1].image_sha256)
    return tuple(root(pair[0].image_sha256) for pair in pairs)
