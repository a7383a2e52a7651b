"""Items in pairs, for tests of probes and verdicts."""

from pathlib import Path

from eyechart.core.records import Item


def items_of(pairs: int, pattern: str = "orientation") -> list[Item]:
    """Pairs of `left` and `right`, the first as often the one as the other."""
    return [
        Item(
            id=f"{pattern}-{number}{side}",
            pair_id=f"{pattern}-{number}",
            question="Which way?",
            options=("left", "right"),
            answer=(number + place) % 2,
            image=Path(f"{pattern}{number}{side}.png"),
            image_sha256=f"{pattern}{number}{side}",
            pattern=pattern,
        )
        for number in range(pairs)
        for place, side in enumerate("ab")
    ]
