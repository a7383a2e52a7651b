"""The plain words of the world: articles, numbers, phrases for places and views, and the list of all that can be said."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from eyechart.world.draw import says_shape, says_state
from eyechart.world.facts import COLORS, ITEMS, LETTERS, MATERIALS, PATTERNS, Facts, Place
from eyechart.world.kinds import KINDS
from eyechart.world.kinds.kind import Kind, Look, pieces_of

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

MASS = frozenset({"foliage", "water", "smoke", "snow", "grass", "steam"})
"""Names of parts that take no article."""

PREDICATIVE = frozenset({"on", "off", "awake", "asleep", "up", "down"})
"""Words for a state or shape that cannot stand before their noun."""

PLACES: Mapping[Place, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "front": "in front of",
    "behind": "behind",
}
"""Where one object is as the viewer sees it, followed by the other object."""

ACROSS: Mapping[Place, Place] = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
"""The same place told from the other object."""

_GLUE = (
    "a an and are at away beside but camera can closer color do does down facing farther from has have high how image"
    " in is it its letter low many no of on or photo picture rug says see seen show shows side sign than that the there"
    " this to turned viewed way we what where which with without yes you"
)
"""The words that are no fact themselves."""


def number_word(number: int) -> str:
    """The word for 1 to 9.

    Raises:
        ValueError: the number is outside 1 to 9.
    """
    if not 1 <= number <= len(NUMBERS):
        raise ValueError(f"{number} has no word here; 1 to {len(NUMBERS)} have")
    return NUMBERS[number - 1]


def a(noun: str) -> str:
    """The noun, adjectives and all, with its article; a mass noun has none.

    >>> a("open door"), a("car"), a("dark water")
    ('an open door', 'a car', 'dark water')
    """
    if noun.rpartition(" ")[2] in MASS:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def described(word: str, noun: str) -> str:
    """The noun with a word for its state or shape.

    >>> described("open", "door"), described("on", "red lamp")
    ('open door', 'red lamp that is on')
    """
    return f"{noun} that is {word}" if word in PREDICATIVE else f"{word} {noun}"


def plural(noun: str) -> str:
    """Several of them; regular nouns only, as all countable things of the world are.

    >>> plural("ball")
    'balls'
    """
    return f"{noun}s"


def listed(words: Sequence[str], *, last: str = "and") -> str:
    """Words in a row.

    >>> listed(["a door", "a roof", "a wall"])
    'a door, a roof and a wall'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def counted(noun: str, number: int, color: str | None = None) -> str:
    """So many things, with their colour where it is told.

    >>> counted("ball", 3, "red"), counted("egg", 1)
    ('three red balls', 'one egg')
    """
    said = noun if number == 1 else plural(noun)
    return " ".join(word for word in (number_word(number), color, said) if word is not None)


def side_faced(facts: Facts) -> str | None:
    """`left` or `right` where the object's front points there and it has a front to speak of, else None."""
    return facts.facing if KINDS[facts.kind].has_front and facts.facing in ("left", "right") else None


def end_seen(facts: Facts) -> str | None:
    """`front` or `behind`: the end of the object that is turned to the viewer; None where it is a side."""
    if not KINDS[facts.kind].has_front:
        return None
    return {"front": "front", "back": "behind"}.get(facts.facing)


def from_where(facts: Facts) -> str:
    """What follows `seen from`: the height, and with it the end of the object that is seen where it is no side."""
    end = end_seen(facts)
    if end is None:
        return "above" if facts.view == "above" else "the side"
    said = "the front" if end == "front" else "behind"
    return f"{said} and {'above' if facts.view == 'above' else 'low down'}"


def state_said(facts: Facts) -> tuple[str | None, str] | None:
    """The part the state is said of (None: the whole object) and the word; None where there is none to speak of."""
    choice = KINDS[facts.kind].state
    if choice is None or facts.state is None or not says_state(facts):
        return None
    return choice.part, facts.state


def shape_said(facts: Facts) -> tuple[str | None, str] | None:
    """The part the shape is said of (None: the whole object) and the word; None where the part is not there."""
    return (KINDS[facts.kind].shape.part, facts.shape) if says_shape(facts) else None


def parts_there(facts: Facts) -> tuple[str, ...]:
    """The parts of the main object that are there."""
    return tuple(part for part in KINDS[facts.kind].parts if part != facts.missing)


@lru_cache(maxsize=64)
def accent_parts(kind: str) -> tuple[str, ...]:
    """The parts of a kind that are painted in its accent colour and nothing else, in every look it can have."""
    spec = KINDS[kind]
    slots: dict[str, set[str]] = {part: set() for part in spec.parts}
    for look in _looks(spec):
        for piece in pieces_of(spec, look):
            slots[piece.part].add(piece.slot)
    return tuple(part for part in spec.parts if slots[part] == {"accent"})


def _looks(kind: Kind) -> Iterator[Look]:
    """Two looks that show both words of state and of shape."""
    states = kind.state.words if kind.state is not None else (None, None)
    for state, shape in zip(states, kind.shape.words, strict=True):
        yield Look(state=state, shape=shape)


def vocabulary() -> list[str]:
    """Every word that can ever be said, sorted: a tokenizer that holds each of them whole can read the world.

    Lower case but for the letters on signs and the words a question begins with, which appear both ways.
    """
    words = {*_GLUE.split(), *NUMBERS, *COLORS, *MATERIALS, *LETTERS, *PATTERNS}
    words |= {form for noun in ITEMS for form in (noun, plural(noun))}
    words |= {"left", "right", "front", "behind", "above"}
    for kind in KINDS.values():
        words |= {kind.name, *kind.parts, *kind.shape.words}
        words |= set(kind.state.words if kind.state is not None else ())
    return sorted(words)
