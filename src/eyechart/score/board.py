"""The answers of several logs to the same items, laid out side by side and graded by one set of labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.stats import Rate, cluster_rate, wilson
from eyechart.score.joining import Join, Units, fitted, graded_by, match, units_of
from eyechart.score.logged import Answered, Log

Labels = Mapping[str, int | None]
"""For each item the place of the right option; None where no log tells."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """Several logs on the same items; ids, orders of options and labels are the first log's."""

    logs: tuple[Log, ...]
    names: tuple[str, ...]
    joins: tuple[Join, ...]
    """Of every log with the first, the first one's with itself left out."""

    items: tuple[Answered, ...]
    """What was asked; what the first log does not tell of an item is taken from the others."""

    answers: tuple[Mapping[str, Answered], ...]
    """Of each log, by item."""

    units: Units

    @cached_property
    def labels(self) -> Labels:
        """The first log's."""
        return {one.id: one.answer for one in self.items}

    @cached_property
    def label_sets(self) -> dict[str, Labels]:
        """Other labels that were met, by name: corrections the benchmark knows of, and those of other logs."""
        found: dict[str, Labels] = {}
        for place, log in enumerate(self.logs):
            corrected = {**self.labels, **self._corrections(place, log)}
            self._add(found, "with the corrected labels", corrected)
        for place in range(1, len(self.logs)):
            own = {name: self.answers[place][name].answer for name in self.joins[place - 1].labels_differ
                   if name in self.answers[place]}  # fmt: skip
            self._add(found, f"with the labels of {self.names[place]}", {**self.labels, **own})
        return found

    def _add(self, found: dict[str, Labels], name: str, labels: Labels) -> None:
        if labels != self.labels and labels not in found.values():
            found[name] = labels

    def _corrections(self, place: int, log: Log) -> dict[str, int]:
        here = None if place == 0 else {own: name for name, own in self.joins[place - 1].pairs.items()}
        original = {one.id: one for one in log.answers}
        told: dict[str, int] = {}
        for one in log.benchmark.get("corrections", ()):
            own = str(one["item_id"])
            name = own if here is None else here.get(own, "")
            if name in self.labels and own in original:
                as_new = fitted(replace(original[own], answer=int(one["new"])), self._item(name)).answer
                told[name] = as_new if as_new is not None else int(one["new"])
        return told

    def _item(self, name: str) -> Answered:
        return next(one for one in self.items if one.id == name)

    def right_items(self, place: int, labels: Labels | None = None) -> dict[str, bool]:
        """Whether a log's answer to each item is right."""
        by = self.labels if labels is None else labels
        return {name: graded_by(one, by[name]) for name, one in self.answers[place].items()}

    def right(self, place: int, labels: Labels | None = None) -> dict[str, bool]:
        """Whether each unit is right: a pair is where both its items are."""
        items = self.right_items(place, labels)
        return {name: all(items[one] for one in group) for name, group in self.units.groups.items()}

    @cached_property
    def patterns(self) -> dict[str, str]:
        """The pattern of each unit; empty where the set names none, or only one."""
        of = {one.id: one.pattern for one in self.items}
        found = {name: of[group[0]] or "" for name, group in self.units.groups.items()}
        return found if len(set(found.values())) > 1 else {}

    def rate(self, place: int, *, seed: int, labels: Labels | None = None) -> Rate:
        """The share of units that are right: Wilson's interval, or whole clusters drawn again where they share pictures."""
        right = self.right(place, labels)
        clusters = [self.units.clusters[name] for name in right] if self.units.clustered else None
        return share_of([*right.values()], clusters, seed=seed)

    def item_rate(self, hits: Mapping[str, bool], *, seed: int) -> Rate:
        """A share of the items inside the units, pairs or groups drawn again."""
        inside = {
            name: self.units.clusters[unit] for unit, group in self.units.groups.items() for name in group
        }
        clustered = len(set(inside.values())) < len(inside)
        return share_of([hits[name] for name in inside], [*inside.values()] if clustered else None, seed=seed)

    def chance(self) -> tuple[float | None, float | None]:
        """What even and independent guesses would have, of units and of items; None where options are not known."""
        options = {one.id: len(one.options) for one in self.items}
        if self.units.unit == "matches":
            guesses = [_guess(one) for one in self.items]
            return sum(guesses) / len(guesses), None
        names = [group for group in self.units.groups.values()]
        if not all(options[name] for group in names for name in group):
            return None, None
        each = [[1 / options[name] for name in group] for group in names]
        flat = [share for group in each for share in group]
        products = [math.prod(group) for group in each]
        return sum(products) / len(products), sum(flat) / len(flat)


def _guess(match: Answered) -> float:
    """Of n captions and n images, each caption picks its image; of one image, it picks its caption."""
    n = len(match.options)
    return 1 / n if len(match.images_sha256 or match.images) == 1 else float(n**-n)


def share_of(hits: Sequence[bool], clusters: Sequence[str] | None, *, seed: int) -> Rate:
    """A share with its interval; from one cluster nothing can be drawn: 0 to 1 then."""
    if clusters is None:
        return wilson(sum(hits), len(hits))
    if len(set(clusters)) == 1:
        value = sum(hits) / len(hits)
        return Rate(value=value, low=0.0, high=1.0, hits=sum(hits), n=len(hits), level=0.95)
    return cluster_rate(hits, clusters, seed=seed)


def lay_out(logs: Sequence[Log], names: Sequence[str], *, common: bool = False) -> Board:
    """Bring logs together on the items that all of them answered.

    Args:
        logs: the first one gives ids, orders and labels.
        names: what each is called.
        common: whether items that not all have may be left out; they are listed in the joins.

    Raises:
        UserError: the logs are not on the same items and `common` is not set, or share none, or a set in pairs shares no
            whole pair.
    """
    first = logs[0]
    joins = tuple(match(first, other) for other in logs[1:])
    if not common:
        _refuse(logs, joins)
    shared = {one.id for one in first.answers}.intersection(*(join.pairs for join in joins))
    if not shared:
        raise UserError(f"the runs {', '.join(names)} have no item in common that all of them answered")
    own = [one for one in first.answers if one.id in shared]
    answers: list[dict[str, Answered]] = [{one.id: one for one in own}]
    for log, join in zip(logs[1:], joins, strict=True):
        here = {one.id: one for one in log.answers}
        answers.append({one.id: fitted(here[join.pairs[one.id]], one) for one in own})
    items = tuple(_told(one, [each[one.id] for each in answers[1:]]) for one in own)
    rule = next((str(log.benchmark["rule"]) for log in logs if log.benchmark.get("rule")), "")
    units = units_of(items, rule=rule, kind=first.kind)
    if not units.groups:
        raise UserError(f"the runs {', '.join(names)} share single items of pairs and no whole pair")
    inside = {name for group in units.groups.values() for name in group}
    return Board(
        logs=tuple(logs),
        names=tuple(names),
        joins=joins,
        items=tuple(one for one in items if one.id in inside),
        answers=tuple({name: one for name, one in each.items() if name in inside} for each in answers),
        units=units,
    )


def _told(one: Answered, others: Sequence[Answered]) -> Answered:
    """An item with what the first log does not tell of it taken from the others."""
    for other in others:
        changes: dict[str, Any] = {
            name: getattr(other, name)
            for name in (
                "question",
                "options",
                "answer",
                "pair_id",
                "group",
                "pattern",
                "images",
                "images_sha256",
            )
            if getattr(one, name) in ("", (), None)
        }
        one = replace(one, **changes)
    return one


def _refuse(logs: Sequence[Log], joins: Sequence[Join]) -> None:
    first = logs[0]
    for log, join in zip(logs[1:], joins, strict=True):
        if not (join.only_first or join.only_here):
            continue
        told = [_hashes(first, log)] if _hashes(first, log) else []
        told += [
            f"only {where} has {len(names)} items ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            for where, names in ((first.path, join.only_first), (log.path, join.only_here))
            if names
        ]
        told += [f"one id, two questions: {what}" for what in join.mismatched[:3]]
        raise UserError(
            f"{first.path} and {log.path} are not on the same items: {'; '.join(told)}. --common compares on the"
            f" {len(join.pairs)} items that both have"
        )


def _hashes(first: Log, other: Log) -> str:
    one, two = (str(log.benchmark.get("sha256", "")) for log in (first, other))
    return f"the sets have the hashes {one[:12]} and {two[:12]}" if one and two and one != two else ""
