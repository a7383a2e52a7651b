"""A comparison in lines of text for people: every number with its n and its interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def comparison_lines(record: Mapping[str, Any]) -> list[str]:
    """What a run's `compare.json` comes to."""
    return [
        *_runs(record["runs"]),
        *(line for one in record["comparisons"] for line in _comparison(one)),
        *(line for one in record["sensitivity"] for line in _sensitivity(one)),
        *(line for one in record["controls"] for line in _control(one)),
        *(line for one in record["encoder_against_model"] for line in _correlated(one)),
        *_left(record),
        *(f"note: {note}" for note in record["notes"]),
    ]


def rate_text(rate: Mapping[str, Any], unit: str, chance: float | None = None) -> str:
    """A rate with its interval, n and chance.

    >>> rate_text({"value": 0.2, "low": 0.144, "high": 0.271, "n": 150}, "pairs", 0.25)
    '20.0% [14.4%, 27.1%], n=150 pairs (chance 25.0%)'
    """
    beside = "" if chance is None else f" (chance {chance:.1%})"
    return f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}], n={rate['n']} {unit}{beside}"


def _runs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield f"{row['name']}: {rate_text(row['units'], row['unit'], row['chance_units'])}"
        if row["items"] and row["unit"] in ("pairs", "groups"):
            yield f"  by item {rate_text(row['items'], 'items', row['chance_items'])}"
        if row["unread"]:
            yield f"  {row['unread']} replies were unread and earn nothing"
        if row["disagreements"]:
            yield f"  {row['source']} held {row['disagreements']} answers otherwise than our reader"
        yield from (f"  {note}" for note in row["notes"])


def _comparison(one: Mapping[str, Any]) -> Iterator[str]:
    yield one["said"]
    for row in one["patterns"]:
        test = row["against"]
        yield (
            f"    {row['pattern']:<14} {100 * test['difference']:+6.1f} points [{100 * test['low']:+.1f},"
            f" {100 * test['high']:+.1f}], n={test['n']}, p={test['p_value']:.2g}, Holm {test['p_holm']:.2g}:"
            f" {test['verdict']}"
        )
    yield from (f"  {line}" for line in size_lines(one))
    for each in one["label_sets"]:
        test = each["against"]
        yield (
            f"  {each['labels']} (items {', '.join(each['items'][:8])}): {100 * test['difference']:+.1f} points"
            f" [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}], p={test['p_value']:.2g}: {test['verdict']}"
        )


def size_lines(one: Mapping[str, Any]) -> list[str]:
    """What a set of this size can show, in words."""
    unit, n, lines = one["unit"], one["overall"]["n"], []
    if one["detectable"]:
        found = one["detectable"]
        lines.append(
            f"a true difference of {100 * found['difference']:.1f} points would be found in {found['power']:.0%} of such"
            f" comparisons (n={n} {unit}, {found['discordant']:.1%} of them discordant, as here)"
        )
    elif one["overall"]["fixes"] + one["overall"]["regressions"]:
        lines.append(f"n={n} {unit}, so few of them discordant, are too few to find any difference reliably")
    if one["smallest_gain"]:
        gain = one["smallest_gain"]
        lines.append(
            f"beside {gain['regressions']} regressions, {gain['fixes']} fixes are the fewest that are significant"
            f" ({100 * gain['difference']:+.1f} points)"
        )
    return lines


def _sensitivity(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"{one['model']} asked in other ways than {one['base']} ({rate_text(one['units'], one['unit'])}):"
    for way in one["ways"]:
        flips = "not known" if way["flips"] is None else rate_text(way["flips"], "items")
        yield f"  {way['differs']}: {rate_text(way['units'], one['unit'])}; answers that change: {flips}"
        test = way["against"]
        yield (
            f"    {100 * test['difference']:+.1f} points [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}],"
            f" p={test['p_value']:.2g}: {test['verdict']}"
        )
    yield f"  right in every way: {rate_text(one['consistent'], one['unit'])}"


def _control(one: Mapping[str, Any]) -> Iterator[str]:
    beside = f": {one['above_chance']} chance" if one["above_chance"] else ""
    yield (
        f"{one['name']}, shown {one['shown']}: {rate_text(one['items'], 'items', one['chance_items'])}{beside};"
        f" {rate_text(one['units'], one['unit'], one['chance_units'])}"
    )


def _correlated(one: Mapping[str, Any]) -> Iterator[str]:
    told = one["correlated"]
    for kind in ("pearson", "spearman"):
        found = told[kind]
        yield (
            f"{one['model']} with {one['encoder']} over {found['n']} patterns: {kind} {found['value']:+.2f}"
            f" [{found['low']:+.2f}, {found['high']:+.2f}], p={found['p_value']:.2g}"
        )


def _left(record: Mapping[str, Any]) -> Iterator[str]:
    if record["unmatched"]:
        yield f"{len(record['unmatched'])} items or rows are in no comparison; the page lists them"
    if record["changed"]:
        yield f"not equal in all runs: {record['changed']} {record['runs'][0]['unit']}; the page shows them"
