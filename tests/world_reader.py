"""A reader of the world's texts that shares no code with what writes them: it knows English and the lists of kinds.

`read` understands `told` and `dense`, `answer` answers questions from what was read, `claims` takes a caption apart,
clause by clause, and `false_claims` holds each against the facts.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise

from eyechart.world.facts import COLORS, ITEMS, MATERIALS, Facts
from eyechart.world.kinds import KINDS

COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}
NOUNS = {noun: noun for noun in (*KINDS, *ITEMS)} | {f"{noun}s": noun for noun in ITEMS}
PLACE = r"to the left of|to the right of|in front of|behind"
WHERE = {"to the left of": "left", "to the right of": "right", "in front of": "front", "behind": "behind"}
TURNED = {"left": "right", "right": "left", "front": "behind", "behind": "front"}


@dataclass
class Known:
    """What a text was understood to say."""

    kind: str
    colors: dict[str, str] = field(default_factory=dict)
    words: dict[str, set[str]] = field(default_factory=dict)
    """What is said of the object ('') or of a part of it."""
    parts: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    letter: str = ""
    facing: str = ""
    seen: set[str] = field(default_factory=set)

    def place(self, one: str, two: str, where: str) -> None:
        self.places[one, two] = where
        self.places[two, one] = TURNED[where]


def read(text: str) -> Known:
    """Understand a text of whole sentences."""
    sentences = [sentence for sentence in text.rstrip(".").split(". ") if sentence]
    words = re.findall(r"\w+", sentences[0])
    known = Known(kind=next(word for word in words if word in KINDS))
    for sentence in sentences:
        _sentence(sentence, known)
    return known


def _sentence(sentence: str, known: Known) -> None:
    words = re.findall(r"\w+", sentence)
    known.kinds |= {word for word in words if word in KINDS}
    plain = [word for word in words if word not in MATERIALS]
    for color, noun in pairwise(plain):
        if color in COLORS and noun in NOUNS:
            known.colors[NOUNS[noun]] = color
    if match := re.search(r"facing (left|right)", sentence):
        known.facing = match[1]
    if match := re.search(r"\b[A-Z]$", sentence):
        known.letter = match[0]
    for number, noun in re.findall(r"there (?:is|are) (\w+) \w+ (\w+)", sentence):
        if number in COUNTS:
            known.numbers[NOUNS[noun]] = number
    _views(sentence, known)
    _having(sentence, known)
    _being(sentence, known)
    if match := re.fullmatch(rf"(?:the|an?) (?:\w+ )?(\w+) is ({PLACE}) the (\w+)", sentence):
        known.place(match[1], match[3], WHERE[match[2]])
    elif match := re.fullmatch(rf"({PLACE}) the (\w+) is an? (?:\w+ )?(\w+)", sentence):
        known.place(match[3], match[2], WHERE[match[1]])


def _views(sentence: str, known: Known) -> None:
    if not re.search(r"\b(?:seen|we see|camera is)\b", sentence):
        return
    for word, meaning in {
        "above": "above",
        "the side": "side",
        "the front": "front",
        "from behind": "behind",
        "high": "above",
        "low": "side",
    }.items():
        if re.search(rf"\b{word}\b", sentence):
            known.seen.add(meaning)


def _having(sentence: str, known: Known) -> None:
    match = re.fullmatch(r"(?:it|the (\w+)) has (no )?(.+?)(?: but no (\w+))?", sentence)
    if not match or match[1] == "sign":
        return
    if match[2]:
        known.missing.add(match[3])
        return
    known.missing |= {match[4]} if match[4] else set()
    for named in re.split(r", | and ", match[3]):
        *before, part = named.split()
        known.parts.add(part)
        for word in before:
            if word in COLORS:
                known.colors[part] = word
            elif word not in ("a", "an"):
                known.words.setdefault(part, set()).add(word)


def _being(sentence: str, known: Known) -> None:
    if match := re.fullmatch(rf"the (?:(\w+) of the )?{known.kind} is (\w+)(?: and (\w+))?", sentence):
        part = match[1] or ""
        for word in filter(None, (match[2], match[3])):
            if word in COLORS:
                known.colors[part] = word
            elif word not in MATERIALS:
                known.words.setdefault(part, set()).add(word)


def answer(known: Known, text: str, options: tuple[str, str]) -> str:
    """The option that what was read makes right.

    Raises:
        LookupError: the text told nothing of it, or both options fit.
    """
    fits = [option for option in options if option in _right(known, text, set(options))]
    if len(fits) != 1:
        raise LookupError(f"{text!r} with {options} is answered by {fits}; known: {known}")
    return fits[0]


def _right(known: Known, text: str, options: set[str]) -> set[str]:
    nouns = [NOUNS[word] for word in re.findall(r"\w+", text) if word in NOUNS]
    part = next((word for word in re.findall(r"\w+", text) if word in _parts_of(nouns)), "")
    if text.startswith("How many"):
        return {known.numbers[nouns[0]]}
    if "letter" in text:
        return {known.letter}
    if "color" in text:
        return {known.colors[part or nouns[0]]}
    if options == {"yes", "no"}:
        if not part:
            return {"yes" if nouns[0] in known.kinds else "no"}
        return {"yes"} if part in known.parts else {"no"} if part in known.missing else set()
    if options == {"with", "without"}:
        return {"with"} if part in known.parts else {"without"} if part in known.missing else set()
    if len(nouns) == 2 and nouns[0] != nouns[1]:
        return _placed(known, text, nouns, options)
    if options == {"left", "right"}:
        return {known.facing}
    if options in ({"above", "side"}, {"high", "low"}):
        return (
            known.seen
            | {{"above": "high", "side": "low"}.get(seen, "") for seen in known.seen}
            | (set() if "above" in known.seen else {"low", "side"})
        )
    if options == {"front", "behind"}:
        return known.seen
    return known.words[part]


def _parts_of(nouns: list[str]) -> set[str]:
    return {part for noun in nouns if noun in KINDS for part in KINDS[noun].parts}


def _placed(known: Known, text: str, nouns: list[str], options: set[str]) -> set[str]:
    one, two = (nouns[1], nouns[0]) if text.startswith("On which side of") else (nouns[0], nouns[1])
    place = known.places[one, two]
    return {{"front": "closer", "behind": "farther"}[place]} if "closer" in options else {place}


Claim = tuple[str, ...]

_CLAUSES = (
    ("orientation", r"(?:facing|facing to the|turned to the) (left|right)"),
    (
        "viewpoint",
        r"(?:seen from|viewed from|from) (above|the side|(?:the front|behind) and (?:above|low down))",
    ),
    ("without", r"(?:without an?|without|with no) (\w+)"),
    ("its", r"with its (\w+) (\w+)"),
    ("text", r"(?:and|with|beside) (?:a sign with the letter|a sign that says|the letter) ([A-Z])\b"),
    ("sign", r"(?:and|with|beside) a sign\b"),
    ("quantity", rf"(?:and|with) (one|two|three|four) (?:(\w+) )??({'|'.join(NOUNS)})"),
    ("near", r"(closer to|farther from) the camera than an? (\w+)"),
    ("place", rf"({PLACE}) an? (?:(\w+) )??({'|'.join(KINDS)})\b"),
    ("other", rf"(?:and|with) an? (?:({'|'.join(COLORS)}) )?({'|'.join(KINDS)})\b"),
    ("with", r"with (?:an? )?(?:(\w+) )??(PART)"),
)


def claims(caption: str, kind: str) -> list[Claim]:
    """Every claim of a caption about a scene whose main object is of that kind.

    Raises:
        ValueError: some words were not understood.
    """
    text = caption.replace(",", "")
    text = re.sub(r"^(?:a photo of|a picture of|an image of|there is|this is) ", "", text)
    noun = rf"an? ((?:\w+ )*?)({'|'.join(KINDS)})\b((?: that is \w+)?)"
    found: list[Claim] = []
    start = re.match(noun, text)
    if start and start[2] != kind:
        company = re.match(rf"{noun} (and|{PLACE}) (?={noun})", text)
        if company:
            found += [("other", company[2]), *(("color", company[2], word) for word in company[1].split())]
            found += [("place", company[2], WHERE[company[4]])] if company[4] != "and" else []
            text = text[company.end() :]
            start = re.match(noun, text)
    if not start:
        raise ValueError(f"not understood: {caption!r}")
    found.append(("object", start[2]))
    for word in (*start[1].split(), *start[3].split()[2:]):
        found.append(("color", start[2], word) if word in COLORS else ("word", "", word))
    return found + _clauses(text[start.end() :].strip(), start[2], kind, caption)


def _clauses(text: str, subject: str, kind: str, caption: str) -> list[Claim]:
    found: list[Claim] = []
    while text:
        for name, pattern in _CLAUSES:
            match = re.match(pattern.replace("PART", "|".join(KINDS[kind].parts)) + r"(?: |$)", text)
            if match and (read_as := _claim(name, match, subject, kind)) is not None:
                found += read_as
                text = text[match.end() :]
                break
        else:
            raise ValueError(f"{text!r} was not understood in {caption!r}")
    return found


def _claim(name: str, match: re.Match[str], subject: str, kind: str) -> list[Claim] | None:
    parts = KINDS[kind].parts
    said = match.groups()
    match name:
        case "orientation" | "viewpoint" | "text":
            return [(name, *said)]
        case "sign":
            return [("sign",)]
        case "without":
            return [("without", *said)] if said[0] in parts else None
        case "its":
            return [("word", *said)] if said[0] in parts else None
        case "quantity":
            colored = [("color", NOUNS[said[2]], said[1])] if said[1] else []
            return [("quantity", NOUNS[said[2]], said[0]), *colored]
        case "near":
            return [("other", said[1]), ("near", subject, said[0])]
        case "place":
            if said[2] == subject:
                return None
            colored = [("color", said[2], said[1])] if said[1] else []
            other = said[2] if subject == kind else subject
            where = WHERE[said[0]]
            return [("other", other), ("place", other, TURNED[where] if subject == kind else where), *colored]
        case "other":
            return [("other", said[1]), *([("color", said[1], said[0])] if said[0] else [])]
        case _:
            return [("word", said[1], said[0])] if said[0] else [("with", said[1])]


def false_claims(caption: str, facts: Facts) -> list[Claim]:
    """What a caption says that is not so."""
    return [claim for claim in claims(caption, facts.kind) if not _holds(claim, facts)]


def _holds(claim: Claim, facts: Facts) -> bool:
    kind = KINDS[facts.kind]
    match claim:
        case ("object", name):
            return name in (facts.kind, facts.other.kind if facts.other else "")
        case ("color", name, word):
            there = {facts.kind: facts.color}
            there |= {facts.other.kind: facts.other.color} if facts.other else {}
            there |= {facts.items.noun: facts.items.color} if facts.items else {}
            return there.get(name) == word
        case ("word", part, word):
            of_state = kind.state is not None and (kind.state.part or "") == part and facts.state == word
            of_shape = (kind.shape.part or "") == part and facts.shape == word
            return part != facts.missing and (of_state or of_shape)
        case ("with", part):
            return part != facts.missing
        case ("without", part):
            return part == facts.missing
        case ("orientation", side):
            return kind.has_front and facts.facing == side
        case ("viewpoint", words):
            return _seen_so(words, facts)
        case ("text", letter):
            return facts.letter == letter
        case ("sign",):
            return facts.letter is not None
        case ("quantity", noun, number):
            return facts.items is not None and (facts.items.noun, facts.items.number) == (
                noun,
                COUNTS[number],
            )
        case ("other", name):
            return facts.other is not None and name in (facts.other.kind, facts.kind)
        case ("place", name, where):
            return facts.other is not None and (facts.other.kind, facts.other.place) == (name, where)
        case ("near", subject, how):
            assert facts.other is not None
            main_near = facts.other.place == "behind"
            return (how == "closer to") == (main_near if subject == facts.kind else not main_near)
    raise AssertionError(claim)


def _seen_so(words: str, facts: Facts) -> bool:
    above = facts.view == "above"
    if not KINDS[facts.kind].has_front or facts.facing in ("left", "right"):
        return words == ("above" if above else "the side")
    end = "the front" if facts.facing == "front" else "behind"
    return words == f"{end} and {'above' if above else 'low down'}"
