"""Questions with two options about a scene, read off its facts; and one question or two captions for a pair of scenes.

A topic is what can be asked of some facts, its truth the right answer. `questions` asks each kind of topic at most once
and leaves some unasked, such that neither the words of a question nor the places of its options tell the answer when
the facts come from `draw_facts`.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from eyechart.core.errors import unknown
from eyechart.world.draw import ALIKE
from eyechart.world.facts import COLORS, LETTERS, PATTERNS, Facts, Place
from eyechart.world.kinds import KINDS
from eyechart.world.wordings import FAMILIES
from eyechart.world.words import (
    ACROSS,
    NUMBERS,
    PLACES,
    a,
    accent_parts,
    counted,
    described,
    end_seen,
    from_where,
    number_word,
    plural,
    shape_said,
    side_faced,
    state_said,
)

MISSING_SHARE = 0.4
"""How often `draw_facts` takes a part away; what is there is asked of as often as what is not."""

MOST = 4
"""The largest number of things to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with two options, one of them right."""

    pattern: str
    family: str
    """What kind of question of its pattern it is: a key of `FAMILIES`."""

    text: str
    options: tuple[str, str]
    answer: Literal[0, 1]

    @property
    def truth(self) -> str:
        """The right option."""
        return self.options[self.answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What can be asked: the object, where it is said of a part that part, and the object it is seen beside."""

    family: str
    subject: str
    part: str = ""
    beside: str = ""


def topics(facts: Facts) -> dict[Topic, str]:
    """All that can be asked of what the facts tell without ambiguity, with the right answers."""
    return dict(
        [*_of_object(facts), *_of_parts(facts), *_of_company(facts), *_of_colors(facts), *_of_view(facts)]
    )


def _of_object(facts: Facts) -> Iterator[tuple[Topic, str]]:
    kind = facts.kind
    if (side := side_faced(facts)) is not None:
        yield Topic(family="facing", subject=kind), side
    for family, said in (("state", state_said(facts)), ("shape", shape_said(facts))):
        if said is not None:
            part, word = said
            yield Topic(family=f"part {family}" if part else family, subject=kind, part=part or ""), word


def _of_parts(facts: Facts) -> Iterator[tuple[Topic, str]]:
    for part in KINDS[facts.kind].optional:
        there = part != facts.missing
        yield Topic(family="part", subject=facts.kind, part=part), "yes" if there else "no"
        yield Topic(family="with", subject=facts.kind, part=part), "with" if there else "without"


def _of_company(facts: Facts) -> Iterator[tuple[Topic, str]]:
    if facts.items is not None:
        yield Topic(family="number", subject=facts.items.noun), number_word(facts.items.number)
    if facts.letter is not None:
        yield Topic(family="letter", subject="sign"), facts.letter
    if facts.other is None:
        return
    for topic, where in of_place(facts.other.kind, facts.kind, facts.other.place):
        if topic.family == "depth" and end_seen(facts) == "behind":
            continue  # in front of what turns its back could also mean beyond it
        yield topic, where


def of_place(kind: str, other: str, place: Place) -> Iterator[tuple[Topic, str]]:
    """What can be asked of where one thing is, seen from another, with the right answers."""
    for subject, beside, where in ((kind, other, place), (other, kind, ACROSS[place])):
        if where in ("left", "right"):
            yield Topic(family="beside", subject=subject, beside=beside), where
            continue
        yield Topic(family="depth", subject=subject, beside=beside), where
        nearness = "closer" if where == "front" else "farther"
        yield Topic(family="near", subject=subject, beside=beside), nearness


def _of_colors(facts: Facts) -> Iterator[tuple[Topic, str]]:
    yield Topic(family="color", subject=facts.kind), facts.color
    if facts.other is not None:
        yield Topic(family="color", subject=facts.other.kind), facts.other.color
    if facts.items is not None:
        family = "colors" if facts.items.number > 1 else "color"
        yield Topic(family=family, subject=facts.items.noun), facts.items.color
    hidden = facts.other is not None and facts.other.place == "front"
    if end_seen(facts) is None and not hidden:  # from the front or behind a part may be out of sight
        for part in accent_parts(facts.kind):
            if part != facts.missing:
                yield Topic(family="part color", subject=facts.kind, part=part), facts.accent


def _of_view(facts: Facts) -> Iterator[tuple[Topic, str]]:
    end = end_seen(facts)
    if end is None:
        yield Topic(family="height", subject=facts.kind), facts.view
    else:
        yield Topic(family="end", subject=facts.kind), end
    yield Topic(family="camera", subject=facts.kind), "high" if facts.view == "above" else "low"


def questions(facts: Facts, rng: random.Random) -> list[Question]:
    """One question of each kind that applies to the facts, in varied words, the options in random order.

    A false option is what another scene could well have: the colour of the other object, a number nearby. So that no
    answer is commoner than its rival, some questions are left out at random: of parts that are there, of the smallest
    and the largest number, of colours with few rivals.
    """
    asked = []
    for choice in _groups(facts, rng):
        topic, truth = rng.choice(choice)
        false = _rival(topic, truth, facts, rng)
        if false is not None:
            asked.append(put(topic, truth, false, rng))
    return asked


def _groups(facts: Facts, rng: random.Random) -> Iterator[list[tuple[Topic, str]]]:
    """The topics in groups, of each of which one is to be asked."""
    groups: dict[tuple[str, ...], list[tuple[Topic, str]]] = {}
    for topic, truth in topics(facts).items():
        wording = FAMILIES[topic.family]
        own = (topic.family, topic.subject) if wording.pattern == "color" else (topic.family,)
        groups.setdefault((wording.group,) if wording.group else own, []).append((topic, truth))
    for name, group in groups.items():
        if name == ("part",):
            yield from _parts_in_balance(group, facts, rng)
        else:
            yield group
    yield _an_object(facts, rng)


def _an_object(facts: Facts, rng: random.Random) -> list[tuple[Topic, str]]:
    """An object that is there, or as often one that is not."""
    truth = rng.choice(("yes", "no"))
    shown = (facts.kind,) if facts.other is None else (facts.kind, facts.other.kind)
    kinds = shown if truth == "yes" else [kind for kind in sorted(KINDS) if kind not in shown]
    return [(Topic(family="object", subject=rng.choice(kinds)), truth)]


def _parts_in_balance(
    group: list[tuple[Topic, str]], facts: Facts, rng: random.Random
) -> Iterator[list[tuple[Topic, str]]]:
    """What is missing is always asked of; what is there as often."""
    if facts.missing is not None:
        yield [each for each in group if each[0].part == facts.missing]
    elif rng.random() < MISSING_SHARE / (1 - MISSING_SHARE):
        yield group


def _rival(topic: Topic, truth: str, facts: Facts, rng: random.Random) -> str | None:
    """The false option; None where the question had better not be asked."""
    if (answers := _answers(topic)) is not None:
        return answers[1 - answers.index(truth)]
    match topic.family:
        case "number":
            near = NUMBERS.index(truth) + rng.choice((-1, 1))
            return NUMBERS[near] if 0 <= near < MOST else None
        case "letter":
            return rng.choice([letter for letter in LETTERS if letter != truth])
        case "part color":
            return facts.color if rng.random() < _open_to(facts.color) / _open_to(facts.accent) else None
        case _:
            return _other_color(truth, facts, rng)


def _answers(topic: Topic) -> tuple[str, str] | None:
    """Both answers where only two are possible."""
    kind = KINDS.get(topic.subject)
    if topic.family in ("state", "part state"):
        assert kind is not None
        assert kind.state is not None
        return kind.state.words
    if topic.family in ("shape", "part shape"):
        assert kind is not None
        return kind.shape.words
    return FAMILIES[topic.family].answers


def _other_color(truth: str, facts: Facts, rng: random.Random) -> str | None:
    """Another colour that is spoken of in the scene; where there is none, any that a person would not take for it.

    `draw_facts` draws a scene less often than the same scene with both colours exchanged where the main colour leaves
    more to choose the others from; the commoner of the two is asked about at the rarer's rate.
    """
    spoken = [facts.color]
    spoken += [] if facts.other is None else [facts.other.color]
    spoken += [] if facts.items is None else [facts.items.color]
    there = [color for color in spoken if not _alike(color, truth)]
    rival = rng.choice(there or [color for color in COLORS if color != truth])
    if _alike(rival, truth) or (not there and _alike(rival, facts.accent)):
        return None
    third = truth if rival == facts.color else rival
    rate = _open_to(facts.color) / _open_to(third)
    if there:
        rate *= _open_to(facts.color, facts.accent) / _open_to(third, facts.accent)
    return rival if rng.random() < rate else None


def _alike(first: str, second: str) -> bool:
    return first == second or frozenset((first, second)) in ALIKE


@lru_cache(maxsize=128)
def _open_to(*taken: str) -> int:
    """How many colours go with these."""
    return sum(not any(_alike(color, other) for other in taken) for color in COLORS)


def put(topic: Topic, truth: str, false: str, rng: random.Random) -> Question:
    """The question on a topic in words, its options in random order."""
    wording = FAMILIES[topic.family]
    options = (truth, false) if rng.random() < 0.5 else (false, truth)
    named = sorted((truth, false))
    rng.shuffle(named)
    text = rng.choice(wording.texts).format_map(_slots(topic, *named))
    return Question(
        pattern=wording.pattern,
        family=topic.family,
        text=text[0].upper() + text[1:],
        options=options,
        answer=0 if options[0] == truth else 1,
    )


def _slots(topic: Topic, first: str, second: str) -> dict[str, str]:
    kind, part = topic.subject, topic.part
    slots = {
        "k": kind,
        "ak": a(kind),
        "ks": plural(kind),
        "p": part,
        "o": topic.beside,
        "x": first,
        "y": second,
    }
    slots |= {"axk": a(described(first, kind)), "ayk": a(described(second, kind))}
    if part:
        slots |= {"ap": a(part), "axp": a(described(first, part)), "ayp": a(described(second, part))}
    return slots


def question_for(pattern: str, before: Facts, after: Facts, rng: random.Random) -> Question:
    """One question for two sets of facts that answer it in opposite ways; `answer` is right for the first of them.

    Raises:
        UserError: there is no such pattern.
        ValueError: no question of that pattern tells the two apart.
    """
    told = topics(after)
    topic, truth = rng.choice(_differing(pattern, before, after))
    return put(topic, truth, told[topic], rng)


def _differing(pattern: str, before: Facts, after: Facts) -> Sequence[tuple[Topic, str]]:
    if pattern not in PATTERNS:
        raise unknown("pattern", pattern, PATTERNS)
    told = topics(after)
    found = [
        (topic, truth)
        for topic, truth in topics(before).items()
        if FAMILIES[topic.family].pattern == pattern and told.get(topic, truth) != truth
    ]
    if not found:
        raise ValueError(f"no question of pattern {pattern!r} tells {before} from {after}")
    return found


def statements(pattern: str, before: Facts, after: Facts) -> tuple[str, str]:
    """Two captions alike but for one fact, the first true of `before` alone, the second of `after`.

    The shape of MMVP-VLM (Tong et al. 2024, section 3): each caption has to pick its image out of the two.

    Raises:
        UserError: there is no such pattern.
        ValueError: no fact of that pattern tells the two apart.
    """
    topic, truth = _differing(pattern, before, after)[0]
    return _stated(topic, truth, before), _stated(topic, topics(after)[topic], after)


def _stated(topic: Topic, truth: str, facts: Facts) -> str:
    kind, part = topic.subject, topic.part
    match topic.family:
        case "facing":
            said = f"{a(kind)} facing {truth}"
        case "part" | "with":
            said = f"{a(kind)} {'with' if truth in ('yes', 'with') else 'without'} {a(part)}"
        case "state" | "shape" | "color":
            said = a(described(truth, kind))
        case "part state" | "part shape" | "part color":
            said = f"{a(kind)} with {a(described(truth, part))}"
        case "number":
            said = f"{a(facts.kind)} and {counted(kind, NUMBERS.index(truth) + 1)}"
        case "colors":
            said = f"{a(facts.kind)} and {truth} {plural(kind)}"
        case "letter":
            said = f"{a(facts.kind)} and a sign with the letter {truth}"
        case "beside" | "depth":
            place = next(place for place in PLACES if place == truth)
            said = f"{a(kind)} {PLACES[place]} {a(topic.beside)}"
        case "near":
            said = (
                f"{a(kind)} {truth} {'to' if truth == 'closer' else 'from'} the camera than {a(topic.beside)}"
            )
        case _:
            said = f"{a(facts.kind)} seen from {from_where(facts)}"
    return f"a photo of {said}"
