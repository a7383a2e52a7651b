"""What is said of a scene: short captions that leave most things out, captions that name parts, and all of it told.

`caption` is what a CLIP encoder is trained on; how often it mentions a fact is set by `Rates`, a reporting bias as that
of alternative texts on the web. `dense` and `told` leave nothing out.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

from eyechart.world.facts import Facts, Place
from eyechart.world.kinds import KINDS
from eyechart.world.words import (
    ACROSS,
    PLACES,
    PREDICATIVE,
    a,
    accent_parts,
    counted,
    described,
    end_seen,
    from_where,
    listed,
    parts_there,
    shape_said,
    side_faced,
    state_said,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a caption mentions each fact, where the scene has one; each is decided by itself.

    `object` is the main object's name. `other` is that the second object or the sign is mentioned for its own sake; a
    caption that tells a position mentions the second object anyway, one that tells a text the sign. Things to count are
    mentioned with their number or not at all, since `a ball` and `balls` would tell a number too. `color` is decided anew
    for each object that is mentioned.
    """

    object: float
    color: float
    quantity: float
    presence: float
    state: float
    structure: float
    viewpoint: float
    text: float
    position: float
    orientation: float
    other: float

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = getattr(self, field.name)
            if not 0 <= rate <= 1:
                raise ValueError(f"a caption cannot mention {field.name} at a rate of {rate}; 0 to 1 can be")
        if self.object != 1:
            raise ValueError(f"every caption names its object: the rate of object is 1, not {self.object}")


BIASED = Rates(
    object=1.0,
    color=0.6,
    quantity=0.25,
    presence=0.12,
    state=0.12,
    structure=0.06,
    viewpoint=0.06,
    text=0.04,
    position=0.03,
    orientation=0.03,
    other=0.6,
)
"""As captions are: what a thing is and its colour, seldom how it stands or how many there are."""

TOLD_ALL = Rates(
    object=1.0,
    color=0.8,
    quantity=0.8,
    presence=0.8,
    state=0.8,
    structure=0.8,
    viewpoint=0.8,
    text=0.8,
    position=0.8,
    orientation=0.8,
    other=0.6,
)
"""Captions that are silent about nothing; `other` as in `BIASED`."""

PERMUTED = Rates(
    object=1.0,
    color=0.03,
    quantity=0.03,
    presence=0.04,
    state=0.06,
    structure=0.06,
    viewpoint=0.12,
    text=0.12,
    position=0.25,
    orientation=0.6,
    other=0.6,
)
"""The rates of `BIASED` in reverse order: what was mentioned most is mentioned least.

color and orientation change places (.6, .03), quantity and position (.25, .03), presence and text (.12, .04), state and
viewpoint (.12, .06); structure, in the middle, keeps .06. `object` and `other` stay.
"""

_OPENERS = ("a photo of ", "a picture of ", "an image of ", "there is ", "this is ", "")


def caption(facts: Facts, rates: Rates, rng: random.Random) -> str:
    """A caption in the style of an alternative text: true, short, and silent about most of what it could say."""
    said = _Mentions.draw(facts, rates, rng)
    subject = _noun(facts, said, rng)
    features = [*_features(facts, said, rng)]
    rng.shuffle(features)
    before, after = _company(facts, said, rng)
    rng.shuffle(after)
    joint = rng.choice((" ", ", "))
    parts = [f"{rng.choice(_OPENERS)}{before}{subject}", *features, *after]
    return joint.join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mentions:
    """Which facts a caption mentions."""

    color: bool
    quantity: bool
    presence: bool
    state: bool
    structure: bool
    viewpoint: bool
    text: bool
    position: bool
    orientation: bool
    other: bool
    other_color: bool

    @classmethod
    def draw(cls, facts: Facts, rates: Rates, rng: random.Random) -> "_Mentions":
        said = {field.name: rng.random() < getattr(rates, field.name) for field in fields(rates)}
        del said["object"]
        return cls(**said, other_color=rng.random() < rates.color)


def _noun(facts: Facts, said: _Mentions, rng: random.Random) -> str:
    """The object with what can be said before its name."""
    noun = f"{facts.color} {facts.kind}" if said.color else facts.kind
    found = [state_said(facts) if said.state else None, shape_said(facts) if said.structure else None]
    words = [each[1] for each in found if each is not None and each[0] is None]
    rng.shuffle(words)
    for word in sorted(words, key=PREDICATIVE.__contains__):
        noun = described(word, noun)
    return a(noun)


def _features(facts: Facts, said: _Mentions, rng: random.Random) -> Iterator[str]:
    """What can be said after the object's name."""
    for wanted, found in ((said.state, state_said(facts)), (said.structure, shape_said(facts))):
        part, word = found or (None, "")
        if wanted and part is not None:
            yield rng.choice((f"with {a(described(word, part))}", f"with its {part} {word}"))
    if said.presence:
        yield _presence(facts, rng)
    side = side_faced(facts)
    if said.orientation and side is not None:
        yield rng.choice((f"facing {side}", f"facing to the {side}", f"turned to the {side}"))
    if said.viewpoint:
        yield rng.choice(("seen from ", "from ", "viewed from ")) + from_where(facts)


def _presence(facts: Facts, rng: random.Random) -> str:
    if facts.missing is None:
        return f"with {a(rng.choice(KINDS[facts.kind].optional))}"
    return rng.choice((f"without {a(facts.missing)}", f"with no {facts.missing}"))


def _company(facts: Facts, said: _Mentions, rng: random.Random) -> tuple[str, list[str]]:
    """What else is there: words before the object, or phrases after all that is said of it."""
    before, after = "", []
    if facts.other is not None and (said.position or said.other):
        other = facts.other
        noun = a(f"{other.color} {other.kind}" if said.other_color else other.kind)
        first = rng.random() < 0.4
        if said.position:
            before = f"{noun} {PLACES[other.place]} " if first else ""
            after += [] if first else [f"{PLACES[ACROSS[other.place]]} {noun}"]
        else:
            before = f"{noun} and " if first else ""
            after += [] if first else [f"{rng.choice(('and', 'with'))} {noun}"]
    if facts.items is not None and said.quantity:
        things = counted(
            facts.items.noun, facts.items.number, facts.items.color if said.other_color else None
        )
        after.append(f"{rng.choice(('and', 'with'))} {things}")
    if facts.letter is not None and (said.text or said.other):
        after.append(rng.choice(("and", "with", "beside")) + _sign(facts.letter if said.text else None, rng))
    return before, after


def _sign(letter: str | None, rng: random.Random) -> str:
    if letter is None:
        return " a sign"
    return rng.choice((" a sign with the letter ", " a sign that says ", " the letter ")) + letter


def dense(facts: Facts, rng: random.Random) -> str:
    """A full caption: every fact, every part that is there by its name; at most 60 words, in varied order."""
    first = f"{rng.choice(_OPENERS)}{_dense_subject(facts, rng)}"
    rest = [_dense_parts(facts, rng), *_dense_whole(facts), *_dense_company(facts, rng)]
    rng.shuffle(rest)
    return " ".join(f"{sentence}." for sentence in (first, *rest))


def _dense_subject(facts: Facts, rng: random.Random) -> str:
    words = [facts.material, facts.color]
    if rng.random() < 0.5:
        words.reverse()
    side = side_faced(facts)
    phrases = [f"seen from {from_where(facts)}", *([f"facing {side}"] if side is not None else [])]
    rng.shuffle(phrases)
    return f"{a(' '.join(words))} {facts.kind} {' '.join(phrases)}"


def _dense_whole(facts: Facts) -> Iterator[str]:
    words = [
        found[1] for found in (state_said(facts), shape_said(facts)) if found is not None and found[0] is None
    ]
    if words:
        yield f"the {facts.kind} is {listed(words)}"


def _dense_parts(facts: Facts, rng: random.Random) -> str:
    told: dict[str, list[str]] = {part: [] for part in parts_there(facts)}
    for found in (state_said(facts), shape_said(facts)):
        if found is not None and found[0] is not None:
            told[found[0]].append(found[1])
    for part in accent_parts(facts.kind):
        if part in told:
            told[part].append(facts.accent)
    parts = [a(" ".join((*words, part))) for part, words in told.items()]
    rng.shuffle(parts)
    missing = "" if facts.missing is None else f" but no {facts.missing}"
    return f"{rng.choice(('it', f'the {facts.kind}'))} has {listed(parts)}{missing}"


def _dense_company(facts: Facts, rng: random.Random) -> Iterator[str]:
    if facts.other is not None:
        other, place = facts.other, PLACES[facts.other.place]
        noun = a(f"{other.color} {other.kind}")
        yield rng.choice((f"{noun} is {place} the {facts.kind}", f"{place} the {facts.kind} is {noun}"))
    if facts.items is not None:
        things = counted(facts.items.noun, facts.items.number, facts.items.color)
        yield f"there {'is' if facts.items.number == 1 else 'are'} {things}"
    if facts.letter is not None:
        yield (
            rng.choice(("there is a sign with the letter ", "a sign says ", "the sign has the letter "))
            + facts.letter
        )


def told(facts: Facts) -> str:
    """The whole scene in words, always the same for the same facts: whoever reads it can answer every question."""
    return " ".join(
        f"{sentence}." for sentence in (*_told_object(facts), *_told_parts(facts), *_told_company(facts))
    )


def _told_object(facts: Facts) -> Iterator[str]:
    kind = facts.kind
    yield f"the picture shows {a(f'{facts.color} {kind}')}"
    yield f"the {kind} is {facts.material}"
    side, end = side_faced(facts), end_seen(facts)
    if side is not None:
        yield f"the {kind} is facing {side}"
    if end is not None:
        yield f"we see the {kind} from {'the front' if end == 'front' else 'behind'}"
    else:
        yield f"we see the {kind} from {'above' if facts.view == 'above' else 'the side'}"
    yield f"the camera is {'high' if facts.view == 'above' else 'low'}"


def _told_parts(facts: Facts) -> Iterator[str]:
    kind = facts.kind
    yield f"the {kind} has {listed([a(part) for part in parts_there(facts)])}"
    if facts.missing is not None:
        yield f"the {kind} has no {facts.missing}"
    for found in (state_said(facts), shape_said(facts)):
        if found is not None:
            part, word = found
            yield f"the {kind} is {word}" if part is None else f"the {part} of the {kind} is {word}"
    for part in accent_parts(kind):
        if part != facts.missing:
            yield f"the {part} of the {kind} is {facts.accent}"


def _told_company(facts: Facts) -> Iterator[str]:
    if facts.other is not None:
        kind, other = facts.kind, facts.other
        yield f"there is {a(f'{other.color} {other.kind}')}"
        yield from told_place(other.kind, kind, other.place)
    if facts.items is not None:
        items = facts.items
        yield f"there {'is' if items.number == 1 else 'are'} {counted(items.noun, items.number, items.color)}"
    if facts.letter is not None:
        yield f"there is a sign with the letter {facts.letter}"


def told_place(kind: str, beside: str, place: Place) -> Iterator[str]:
    """Where one thing is, seen from another, told both ways; and which of two behind one another is closer."""
    yield f"the {kind} is {PLACES[place]} the {beside}"
    yield f"the {beside} is {PLACES[ACROSS[place]]} the {kind}"
    if place in ("front", "behind"):
        near, far = (kind, beside) if place == "front" else (beside, kind)
        yield f"the {near} is closer to the camera and the {far} is farther away"
