"""Two logs brought together item by item: by id, and only where both asked the same question; never by a row's place."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from eyechart.core.errors import UserError
from eyechart.score.logged import Answered, Log

Unit = Literal["pairs", "groups", "items", "matches"]

BY_GROUP = ("naturalbench",)
"""Rules by which a group of items is right only if all of them are."""

WRONG_MAX = 0.1
"""Where more of the shared ids than this stand for different questions, ids say nothing."""

LABELS_MAX = 0.1
"""Where more of the shared items than this have another right answer, it is not the same set in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Which item of a log is which item of the first log."""

    how: str
    pairs: Mapping[str, str]
    """The id in this log for an id of the first."""

    only_first: tuple[str, ...]
    only_here: tuple[str, ...]
    labels_differ: tuple[str, ...]
    """Ids of the first log: the same question with another right answer."""

    mismatched: tuple[str, ...] = ()
    """What differs in items that have one id and ask something else; they are matched with nothing."""

    unchecked: int
    """Items whose question one of the logs does not tell, so that only the id speaks for them."""


def match(first: Log, other: Log) -> Join:
    """Find each item of the first log in the other.

    Ids are tried as they are, then counted from 0 against counted from 1, and hold only where the shared ones stand for
    the same questions with the same options (and the same pictures, where both are of one harness and tell their
    hashes). Else items are matched by what they ask, where that names exactly one item on each side.

    Raises:
        UserError: no way holds; the text names the first items that differ.
    """
    mine, here = _by_id(first), _by_id(other)
    one_source = first.source == other.source  # another harness may have encoded the same pictures anew
    faults: list[str] = []
    for how, by in _ways(first, other):
        both = {name: own for name in mine if (own := _moved(name, by)) in here}
        wrong = {
            name: why
            for name, own in both.items()
            if (why := difference(mine[name], here[own], pictures=one_source))
        }
        faults += list(wrong.values())[:3]
        if not both or len(wrong) > (0 if by else WRONG_MAX * len(both)):
            continue
        join = _join(first, other, {name: own for name, own in both.items() if name not in wrong}, how)
        fault = _relabelled(join, first, other)
        if not fault:
            return replace(join, mismatched=tuple(wrong.values()))
        faults.insert(0, fault)
    both = _by_question(first, other)
    if both:
        return _join(first, other, both, "by question, options and picture; the ids are not the same")
    told = (
        "".join(f"\n  {fault}" for fault in faults[:3]) or "\n  no id is in both, and no question is either"
    )
    raise UserError(f"{first.path} and {other.path} do not ask the same questions:{told}")


def _ways(first: Log, other: Log) -> list[tuple[str, int]]:
    """How an id of the first log may be written in the other, as a word and what is added to it."""
    zero_first, zero_here = ("0" in _by_id(log) for log in (first, other))
    ways = [("by id", 0)]
    if zero_here and not zero_first:
        ways.append(("by id, counted from 0 here and from 1 in the first run", -1))
    if zero_first and not zero_here:
        ways.append(("by id, counted from 1 here and from 0 in the first run", 1))
    return ways


def _by_id(log: Log) -> dict[str, Answered]:
    return {one.id: one for one in log.answers}


def _moved(name: str, by: int) -> str:
    if not by:
        return name
    return str(int(name) + by) if re.fullmatch(r"[0-9]+", name) else ""


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def difference(a: Answered, b: Answered, *, pictures: bool = True) -> str:
    """What keeps two rows from being the same item; empty when nothing does. Their labels play no part.

    Args:
        a: one row.
        b: the other.
        pictures: whether pictures with other hashes are other pictures.
    """
    one, two = _plain(a.question), _plain(b.question)
    cut = (a.from_prompt and two and two in one) or (b.from_prompt and one and one in two)
    if one and two and one != two and not cut:
        return f"item {a.id} asks {a.question!r:.80}, item {b.id} asks {b.question!r:.80}"
    if a.options and b.options and Counter(map(_plain, a.options)) != Counter(map(_plain, b.options)):
        return f"item {a.id} has the options {a.options!r:.80}, item {b.id} has {b.options!r:.80}"
    if pictures and a.images_sha256 and b.images_sha256 and a.images_sha256 != b.images_sha256:
        return f"items {a.id} and {b.id} have different pictures"
    return ""


def _join(first: Log, other: Log, both: Mapping[str, str], how: str) -> Join:
    mine, here = _by_id(first), _by_id(other)
    differ = [name for name, own in both.items() if _label(mine[name]) != _label(here[own], mine[name])]
    return Join(
        how=how,
        pairs=dict(both),
        only_first=tuple(one.id for one in first.answers if one.id not in both),
        only_here=tuple(name for name in here if name not in set(both.values())),
        labels_differ=tuple(differ),
        unchecked=sum(not (mine[name].question and here[own].question) for name, own in both.items()),
    )


def _relabelled(join: Join, first: Log, other: Log) -> str:
    """Why so many other labels cannot be corrections; empty where they are few."""
    n, few = len(join.pairs), min(4, len(join.pairs) // 4)
    if len(join.labels_differ) <= max(LABELS_MAX * n, few):
        return ""
    return (
        f"the questions are the same {join.how}, but {len(join.labels_differ)} of {n} have another right answer (items"
        f" {', '.join(join.labels_differ[:5])}): not the same pictures, or not the same order"
    )


def _label(one: Answered, beside: Answered | None = None) -> str | None:
    """The right option's text; where it is not known, what the other row has."""
    if one.answer is None or not one.options:
        return None if beside is None else _label(beside)
    if beside is not None and (beside.answer is None or not beside.options):
        return None
    return _plain(one.options[one.answer])


def _by_question(first: Log, other: Log) -> dict[str, str]:
    """Items with one question, the same options and the same picture, each the only such one of its log."""
    keys: list[Callable[[Answered], Any]] = [
        lambda one: one.images_sha256 or None,
        lambda one: tuple(PurePath(name.replace("\\", "/")).name for name in one.images) or None,
        lambda one: "",
    ]
    hashed = all(one.images_sha256 for log in (first, other) for one in log.answers)
    for picture in keys[:1] if hashed and first.source == other.source else keys:
        if any(picture(one) is None for log in (first, other) for one in log.answers):
            continue
        mine, theirs = (_only(log.answers, picture) for log in (first, other))
        both = {mine[key]: theirs[key] for key in mine if key in theirs}
        if both:
            return both
    return {}


def _only(answers: Iterable[Answered], picture: Callable[[Answered], Any]) -> dict[Any, str]:
    found: defaultdict[Any, list[str]] = defaultdict(list)
    for one in answers:
        if one.question and one.options:
            key = _plain(one.question), tuple(sorted(map(_plain, one.options))), picture(one)
            found[key].append(one.id)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def fitted(one: Answered, reference: Answered) -> Answered:
    """An answer told as one to the first log's item: its id, its order of options, its pair and pattern.

    `right` is untouched: it is by the log's own label.
    """
    choice, answer, options = one.choice, one.answer, one.options
    if options and reference.options:
        places = _places(options, reference.options)
        choice = None if choice is None else places[choice]
        answer = None if answer is None else places[answer]
        options = reference.options
    return replace(
        one,
        id=reference.id,
        question=reference.question or one.question,
        options=options,
        choice=choice,
        answer=answer,
        pair_id=reference.pair_id or one.pair_id,
        group=reference.group or one.group,
        pattern=reference.pattern or one.pattern,
        images=reference.images or one.images,
        images_sha256=reference.images_sha256 or one.images_sha256,
    )


def _places(own: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """For each option its place in the other order; equal texts keep their order."""
    left: defaultdict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(theirs):
        left[_plain(text)].append(place)
    return [left[_plain(text)].pop(0) for text in own]


def graded_by(one: Answered, label: int | None) -> bool:
    """Whether the answer is right under another label; where it cannot be graded again, what the log says."""
    return one.choice == label if one.regraded and label is not None else one.right


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What is compared: items put together into pairs where they are in pairs."""

    unit: Unit
    groups: Mapping[str, tuple[str, ...]]
    """The item ids of each unit."""

    clusters: Mapping[str, str]
    """For each unit, what it shares with others: its picture or its group; itself where nothing."""

    notes: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    """Items of pairs whose other item is not there."""

    @property
    def clustered(self) -> bool:
        """Whether units share pictures or groups, so that they are not independent."""
        return len(set(self.clusters.values())) < len(self.groups)


def units_of(items: Sequence[Answered], *, rule: str = "", kind: str = "vlm") -> Units:
    """Pairs by `pair_id`; by number (items 2k-1 and 2k) only where every such two are a pair; else single items.

    A pair is two items with one question, the same options and opposite answers.
    """
    if kind == "encoder":
        return _single(items, "matches", ())
    if rule in BY_GROUP and all(one.group for one in items):
        return _grouped(items)
    if any(one.pair_id for one in items):
        groups: dict[str, list[Answered]] = defaultdict(list)
        for one in items:
            groups[one.pair_id].append(one)
        sizes = {len(group) for name, group in groups.items() if name}
        pairs = rule == "pairs" or (not rule and "" not in groups and max(sizes) == 2)
        if pairs:
            return _pairs(
                {name: group for name, group in groups.items() if name}, "by the pair_id of the log", items
            )
        return _single(
            items, "items", ("the set is not scored by pair; items of one group are not independent",)
        )
    numbered = {} if rule else _by_number(items)
    if numbered:
        return _pairs(numbered, "by number: items 2k-1 and 2k, each two checked to be a pair", items)
    return _single(items, "items", () if rule else ("no pairs are known, so items are compared",))


def _grouped(items: Sequence[Answered]) -> Units:
    groups: dict[str, list[str]] = defaultdict(list)
    for one in items:
        groups[one.group].append(one.id)
    size = max(map(len, groups.values()))
    whole = {name: tuple(group) for name, group in groups.items() if len(group) == size}
    return Units(
        unit="groups",
        groups=whole,
        clusters={name: name for name in whole},
        notes=(f"groups of {size} items, right only if all are",),
        incomplete=tuple(name for group in groups.values() if len(group) < size for name in group),
    )


def _pairs(groups: Mapping[str, Sequence[Answered]], how: str, items: Sequence[Answered]) -> Units:
    whole = {name: tuple(one.id for one in group) for name, group in groups.items() if len(group) == 2}
    inside = {name for group in whole.values() for name in group}
    return Units(
        unit="pairs",
        groups=whole,
        clusters={name: name for name in whole},
        notes=(f"paired {how}",),
        incomplete=tuple(one.id for one in items if one.id not in inside),
    )


def _single(items: Sequence[Answered], unit: Unit, notes: tuple[str, ...]) -> Units:
    shared = {
        one.id: one.pair_id or (" ".join(one.images_sha256) if unit == "items" else "") for one in items
    }
    return Units(
        unit=unit,
        groups={one.id: (one.id,) for one in items},
        clusters={name: f"group {group}" if group else f"item {name}" for name, group in shared.items()},
        notes=notes,
    )


def _by_number(items: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Items 2k-1 and 2k together (2k and 2k+1 where numbers start at 0), if every complete two are a pair."""
    if not all(re.fullmatch(r"[0-9]+", one.id) for one in items):
        return {}
    zero = any(int(one.id) == 0 for one in items)
    groups: dict[str, list[Answered]] = defaultdict(list)
    for one in sorted(items, key=lambda one: int(one.id)):
        groups[str((int(one.id) + (0 if zero else 1)) // 2 + (1 if zero else 0))].append(one)
    whole = [group for group in groups.values() if len(group) == 2]
    return dict(groups) if whole and all(is_pair(*group) for group in whole) else {}


def is_pair(a: Answered, b: Answered) -> bool:
    """Whether two items have one question, the same options and opposite answers."""
    known = bool(a.question) and a.answer is not None and b.answer is not None
    return known and not difference(a, b, pictures=False) and _label(a) != _label(b)
