"""A score in lines of text for people: every number with its n and its interval, chance beside it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines_of(results: Mapping[str, Any]) -> list[str]:
    """What a run's `results.json` comes to."""
    block = results["eyechart"]
    return [f"{block['model']['id']} on {block['benchmark']['name']}", *_lines(block)]


def _lines(block: Mapping[str, Any]) -> Iterator[str]:
    if block["kind"] == "encoder":
        yield from _table(block["measures"])
        yield from _patterns(block["patterns"])
        yield from (f"  note: {note}" for note in block.get("notes", ()))
        return
    for each in block["variants"]:
        yield f"{each['task']}:"
        yield from _table(each["measures"])
        if each["measures_corrected"]:
            yield "  with the corrected labels:"
            yield from _table(each["measures_corrected"])
        if each.get("judged"):
            judged = each["judged"]
            yield f"  as the judge reads ({judged['decided_on']} replies, {judged['differs_on']} otherwise than the rules):"
            yield from _table(judged["measures"])
        if each["unread"]:
            yield f"  {each['unread']} replies were unread and earn nothing"
        yield from _patterns(each["patterns"])


def _patterns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from (f"    {row['pattern']:<14} {said(row)}" for row in rows)


def _table(measures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in measures:
        name = one["name"].replace("_", " ") + (f" of {one['of']}" if one["of"] else "")
        yield f"  {name:<34} {said(one)}"


def said(one: Mapping[str, Any]) -> str:
    """A measure as text.

    >>> said({"value": 0.2, "low": 0.144, "high": 0.271, "n": 150, "unit": "pairs", "chance": 0.25})
    '20.0% [14.4%, 27.1%], n=150 pairs (chance 25.0%)'
    """
    if one["value"] is None:
        return f"undefined, n={one['n']} {one['unit']}"
    chance = "" if one.get("chance") is None else f" (chance {one['chance']:.1%})"
    return f"{one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}], n={one['n']} {one['unit']}{chance}"
