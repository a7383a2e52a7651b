"""The rules of CV-Bench, POPE and NaturalBench, as their authors state them."""

from collections.abc import Mapping, Sequence

from eyechart.core.records import NO_PATTERN, Item
from eyechart.score.layouts import CV_SOURCES
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
    of_rate,
    undefined,
    unread,
)

# ---- CV-Bench


def cv_bench(items: Sequence[Item], replies: Replies, drawing: Drawing) -> list[Measure]:
    """Combined, 2D and 3D by CV-Bench's formula, then plain accuracy in all, of each source and of each task.

    Images are drawn within their sources for the intervals. A dimension is undefined where one of CV-Bench's own
    sources of it is missing beside another; with one dimension only, that one stands first.

    Source: Tong et al., 2024, "Cambrian-1", section 3.2 and its evaluation of CV-Bench.
    """
    cells = groups_of(items, lambda item: f"{_facet(item, 'type')} {_facet(item, 'source')}")
    weights = {name: _cv_weights(name, cells) for name in ("2D", "3D")}
    both = [weights["2D"], weights["3D"]]
    combined = {cell: w / 2 for each in both for cell, w in each.items()} if all(both) else {}
    found = [
        _cv_mean(name, own, cells, items, replies, drawing)
        for name, own in (("combined", combined), ("2d", weights["2D"]), ("3d", weights["3D"]))
    ]
    found.sort(key=lambda each: each.value is None)  # stable: a set of one dimension has that one first
    sources = groups_of(items, lambda item: _facet(item, "source"))
    tasks = groups_of(items, lambda item: item.pattern or NO_PATTERN)
    return [
        *found,
        accuracy(items, replies, drawing),
        *(accuracy(own, replies, drawing, of=name) for name, own in {**sources, **tasks}.items()),
        unread(items, replies, drawing),
    ]


def _facet(item: Item, name: str) -> str:
    said = item.facet(name)
    if said is None:
        raise ValueError(f"item {item.id!r} has no {name!r}, which the rule needs")
    return said


def _cv_weights(dimension: str, cells: Mapping[str, Sequence[Item]]) -> dict[str, float]:
    """The weight of each source in a dimension; none where one of CV-Bench's own is missing beside others of them."""
    here = [cell.partition(" ")[2] for cell in cells if cell.startswith(f"{dimension} ")]
    official = [source for source, of in CV_SOURCES.items() if of == dimension]
    if not here or (set(here) & set(official) and set(here) != set(official)):
        return {}
    return {f"{dimension} {source}": 1 / len(here) for source in here}


def _cv_mean(
    name: str,
    weights: Mapping[str, float],
    cells: Mapping[str, Sequence[Item]],
    items: Sequence[Item],
    replies: Replies,
    drawing: Drawing,
) -> Measure:
    if not weights:
        return undefined(name, drawing)
    mean = weighted_mean(
        [is_right(item, replies) for item in items],
        [f"{item.facet('type')} {item.facet('source')}" for item in items],
        [cluster_of(item) for item in items],
        weights,
        drawing,
    )
    chance = sum(weight * chance_of(cells[cell]) for cell, weight in weights.items())
    return of_mean(name, mean, sum(len(cells[cell]) for cell in weights), drawing, chance=chance)


# ---- POPE


def pope(items: Sequence[Item], replies: Replies, drawing: Drawing) -> list[Measure]:
    """Accuracy, precision, recall and F1 of yes, and the share of yes, over all and of each category.

    A reply that was not read is neither a yes nor a no: it is wrong for accuracy, and no yes for the rest. POPE's own
    script takes every reply without a "no" for a yes. Questions on one image are drawn together for the intervals.

    Source: Li et al., 2023, "Evaluating Object Hallucination in Large Vision-Language Models", section 5.
    """
    categories = groups_of(items, lambda item: item.facet("category") or item.pattern or NO_PATTERN)
    found = _pope_of(items, replies, drawing, of=None)
    if len(categories) > 1:
        found.append(_pope_macro(categories, replies, drawing))
        for name, own in categories.items():
            found += _pope_of(own, replies, drawing, of=name)
    return [*found, unread(items, replies, drawing)]


def _pope_of(items: Sequence[Item], replies: Replies, drawing: Drawing, *, of: str | None) -> list[Measure]:
    said, is_so = [_says_yes(item, replies) for item in items], [_is_yes(item) for item in items]
    both = list(zip(items, said, is_so, strict=True))
    shares: list[tuple[str, list[tuple[Item, bool]], float | None]] = [
        ("precision", [(item, truth) for item, yes, truth in both if yes], sum(is_so) / len(items)),
        ("recall", [(item, yes) for item, yes, truth in both if truth], 0.5),
        ("f1", _dice(items, replies), None),
        ("yes_ratio", [(item, yes) for item, yes, _ in both], 0.5),
    ]
    return [
        accuracy(items, replies, drawing, of=of),
        *(_pope_rate(name, hits, drawing=drawing, chance=chance, of=of) for name, hits, chance in shares),
    ]


def _pope_rate(
    name: str, hits: Sequence[tuple[Item, bool]], *, drawing: Drawing, chance: float | None, of: str | None
) -> Measure:
    found = of_rate(
        name,
        [hit for _, hit in hits],
        [cluster_of(item) for item, _ in hits],
        drawing,
        chance=chance,
        of=of,
    )
    if name != "f1" or found.value is None:
        return found
    return Measure(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        n=len({item.id for item, _ in hits}),
        unit="items",
        level=found.level,
        of=of,
    )


def _dice(items: Sequence[Item], replies: Replies) -> list[tuple[Item, bool]]:
    """F1 as a share: 2 TP / (2 TP + FP + FN), with every true positive twice among the hits."""
    out: list[tuple[Item, bool]] = []
    for item in items:
        yes, truth = _says_yes(item, replies), _is_yes(item)
        if yes and truth:
            out += [(item, True), (item, True)]
        elif yes or truth:
            out.append((item, False))
    return out


def _pope_macro(categories: Mapping[str, Sequence[Item]], replies: Replies, drawing: Drawing) -> Measure:
    """The mean of the categories' F1, which is what is usually quoted; images are drawn through all categories."""
    dice = {name: _dice(own, replies) for name, own in categories.items()}
    if not all(dice.values()):
        return undefined("macro_f1", drawing)
    flat = [(name, item, hit) for name, own in dice.items() for item, hit in own]
    mean = weighted_mean(
        [hit for _, _, hit in flat],
        [name for name, _, _ in flat],
        [cluster_of(item) for _, item, _ in flat],
        dict.fromkeys(dice, 1 / len(dice)),
        drawing,
    )
    return of_mean("macro_f1", mean, len({item.id for _, item, _ in flat}), drawing)


def _is_yes(item: Item) -> bool:
    if {option.casefold() for option in item.options} != {"yes", "no"}:
        raise ValueError(
            f"item {item.id!r} has the options {item.options!r}; POPE's rule is about yes and no"
        )
    return item.options[item.answer].casefold() == "yes"


def _says_yes(item: Item, replies: Replies) -> bool:
    choice = replies[item.id].choice
    return choice is not None and item.options[choice].casefold() == "yes"


# ---- NaturalBench


def naturalbench(items: Sequence[Item], replies: Replies, drawing: Drawing) -> list[Measure]:
    """Accuracy of groups, of questions on both images, of images under both questions, and of items; by question type.

    Groups are drawn whole for the intervals. Sources: Li et al., 2024, "NaturalBench", section 3.

    Raises:
        ValueError: a group is not two questions on two images.
    """
    groups = groups_of(items, _group_of)
    odd = [name for name, own in groups.items() if _cells_of(own) != ["00", "01", "10", "11"]]
    if odd:
        raise ValueError(
            f"a group is two questions on two images; {odd[0]!r} has {_cells_of(groups[odd[0]])}"
        )
    found = [_group_accuracy(groups, replies, drawing)]
    for name, facet in (("question_accuracy", "question"), ("image_accuracy", "image")):
        hits, clusters, chances = [], [], []
        for group, own in groups.items():
            for place in "01":
                two = [item for item in own if item.facet(facet) == place]
                hits.append(all(is_right(item, replies) for item in two))
                clusters.append(group)
                chances.append(_all_by_chance(two))
        unit = f"{facet}s"
        found.append(of_rate(name, hits, clusters, drawing, unit=unit, chance=sum(chances) / len(chances)))
    found.append(accuracy(items, replies, drawing, cluster=_group_of))
    kinds = {own[0].pattern or NO_PATTERN for own in groups.values()}
    for kind in sorted(kinds) if len(kinds) > 1 else ():
        own_groups = {name: own for name, own in groups.items() if (own[0].pattern or NO_PATTERN) == kind}
        found.append(_group_accuracy(own_groups, replies, drawing, of=kind))
    return [*found, unread(items, replies, drawing, _group_of)]


def _group_of(item: Item) -> str:
    return _facet(item, "group")


def _cells_of(group: Sequence[Item]) -> list[str]:
    return sorted(_facet(item, "question") + _facet(item, "image") for item in group)


def _all_by_chance(items: Sequence[Item]) -> float:
    chance = 1.0
    for item in items:
        chance /= len(item.options)
    return chance


def _group_accuracy(
    groups: Mapping[str, Sequence[Item]], replies: Replies, drawing: Drawing, *, of: str | None = None
) -> Measure:
    hits = [all(is_right(item, replies) for item in own) for own in groups.values()]
    chance = sum(_all_by_chance(own) for own in groups.values()) / len(groups)
    return of_rate("group_accuracy", hits, list(groups), drawing, unit="groups", chance=chance, of=of)
