"""Read which option a reply names, or that it names none: by fixed rules, never by a guess.

The reply is taken to name an option only where it says so in one of these forms:

- all of it, or its first words up to a comma, full stop or line end, are an option's text ("Yes, it does.");
- it begins with a label set off as one ("B", "(b) Sitting", "B. It sits", "B\\nIt sits"), or ends with one in
  brackets;
- it states an answer: "the answer is B", "Answer: the sofa", "I choose (b)", "option B is correct";
- it marks a final answer: "final answer: B", `\\boxed{B}`, `<answer>B</answer>`.

All that is said so must name one option, and what follows may not name another: else the reply is unread. A
marked final answer overrules what came before it. A stated answer ("the answer is", "is correct") overrules
options that were only mentioned before it. A negated, conditional or asked statement ("not A", "if A", "A?") says nothing.

Known public readers take "A man is standing." for A and "The answer is the sofa" for A; see the tests.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from eyechart.core.records import Graded, Item, Outcome
from eyechart.score.replies import ARTICLES, Choices, Word, choices, mentions, plain, words

_REFUSAL = re.compile(
    r"\b(?:(?:can(?:not|'t| not)|could(?:n't| not)|impossible to|unable to|difficult to|hard to)\s+"
    r"(?:tell|say|determine|decide|answer|know|identify|provide|assist|help)|unsure|uncertain|"
    r"(?:do not|don't) know|not (?:sure|certain|clear|possible)|no idea)\b",
    re.I,
)
_RETRACTION = re.compile(
    r"\b(?:(?:no|oh|hm+|but)[, ]+wait|wait[,.!]|actually[,.]|sorry[,.]|correction[:,.]|on second thoughts?|i mean|"
    r"is (?:wrong|incorrect|not (?:right|correct)))(?!\w)",
    re.I,
)
_DENIAL = re.compile(
    r"n't\b|\b(?:not|never|cannot|neither|nor|unlikely|doubt|doubtful|wrong|incorrect|false|reject|except|"
    r"if|whether|unless|either|rather than|instead of|why|would have|could|might|may|between)\b",
    re.I,
)
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|\n")
_TEXT_ENDS = re.compile(r"[\"')\]]*\s*(?:$|[.;:!](?!\w)|\n|,|-+(?=\s)|\s(?:because|since)\b)")
_DISCOURSE = frozenset({("right",), ("ok",), ("correct",)})
_AFTER_YES = re.compile(r"\s+(?:it|it's|there|there's|they|he|she|the|this|that|that's)\b", re.I)
_SUBJECT = re.compile(
    r"\s*(?:,?\s*(?:and|or|nor|but|vs|versus)\b|[/&|+,]|(?:is|are|was|were|isn't|aren't|does|do|did|doesn't|has|"
    r"have|can|cannot|could|would|should|may|might|looks?|seems?|appears?|shows?|depicts?|not|no|wrong|"
    r"incorrect|false)\b)",
    re.I,
)
_STATES = re.compile(
    r"\b(?:answer|choice|option|selection|response|solution)\b(?:\s*[:=]|\s+-(?=\s)|"
    r"\s+(?:is|was|would be|should be|must be|will be)\b\s*:?)\s*",
    re.I,
)
_CHOOSES = re.compile(
    r"(?:^\s*(?:the\s+)?(?:option|choice|letter|answer)|\b(?:it's|it is|that's|that is|choose|pick|select|"
    r"go with|going with|opt for))\s+",
    re.I,
)
_FINAL = re.compile(r"final\s+$", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """An option that a reply states, and where in it."""

    choice: int
    start: int
    kind: str
    """`opening`, `chosen`, `stated`, `final` or `closing`."""


def read_choice(reply: str, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """The place of the option that a reply names; None when it names none, several, or is not clear.

    Args:
        reply: what the model said.
        options: the options' texts in the order of the prompt.
        labels: their bare labels in the prompt: A, B ... or a, b ... or 1, 2 ... (either case is read).

    Raises:
        ValueError: options and labels differ in number, or the labels are of no known kind.
    """
    known = choices(tuple(options), tuple(labels))
    exact = _exactly(reply, options)
    text = plain(reply)
    if exact is not None:
        label = text.casefold()
        clash = label in [name.casefold() for name in labels] and known.place(label) != exact
        return None if clash else exact
    claims = _claims(text, known)
    final = any(claim.kind == "final" for claim in claims)
    if not claims or (not final and _refuses(text, options)):
        return None
    return _agreed(text, claims, known)


def grade_reply(item: Item, reply: str, labels: Sequence[str]) -> Graded:
    """A reply, read and set against the item's answer.

    Raises:
        ValueError: see `read_choice`.
    """
    return _graded(item, reply, read_choice(reply, item.options, labels), None)


def grade_scores(item: Item, scores: Sequence[float], labels: Sequence[str]) -> Graded:
    """The option with the highest score, set against the item's answer; a tie for the first place is unread.

    The reply of the record is the chosen option's label, or empty.

    Raises:
        ValueError: there is not one score for each option, or one is not a number.
    """
    if not len(scores) == len(item.options) == len(labels):
        raise ValueError(
            f"item {item.id!r}: {len(item.options)} options, {len(scores)} scores, {len(labels)} labels"
        )
    if any(math.isnan(score) for score in scores):
        raise ValueError(f"item {item.id!r}: an option's score is not a number: {tuple(scores)}")
    best = [place for place, score in enumerate(scores) if score == max(scores)]
    choice = best[0] if len(best) == 1 else None
    return _graded(item, "" if choice is None else labels[choice], choice, tuple(map(float, scores)))


def _graded(item: Item, reply: str, choice: int | None, scores: tuple[float, ...] | None) -> Graded:
    if choice is None:
        outcome = Outcome.UNREAD
    else:
        outcome = Outcome.RIGHT if choice == item.answer else Outcome.WRONG
    return Graded(item_id=item.id, reply=reply, choice=choice, outcome=outcome, option_scores=scores)


def _exactly(reply: str, options: Sequence[str]) -> int | None:
    """The one option that the reply repeats to the sign, but for case and enclosing quotation marks."""

    def bare(text: str) -> str:
        return plain(text).strip("\"'").strip().casefold()

    same = [place for place, option in enumerate(options) if bare(option) == bare(reply)]
    return same[0] if len(same) == 1 and bare(reply) else None


def _refuses(text: str, options: Sequence[str]) -> bool:
    return _REFUSAL.search(text) is not None and not any(_REFUSAL.search(option) for option in options)


def _claims(text: str, known: Choices) -> list[_Claim]:
    spoken = words(text)
    stated = list(_stated(text, spoken, known))
    finals = [claim for claim in stated if claim.kind == "final"]
    if finals:
        return finals
    opening = list(_opening(text, spoken, known))
    starts = [claim.start for claim in stated if claim.kind == "stated"]
    if starts:
        between = text[: min(starts)]
        opening = [claim for claim in opening if _only(between, claim.choice, known)]
    return opening + stated or list(_closing(text, known)) + list(_repeated(spoken, known))


def _agreed(text: str, claims: Sequence[_Claim], known: Choices) -> int | None:
    """The one option all claims name, if nothing from the last statement on names another or takes it back."""
    if len({claim.choice for claim in claims}) != 1:
        return None
    choice = claims[0].choice
    starts = [claim.start for claim in claims if claim.kind in ("stated", "final")]
    rest = text[max(starts, default=0) :]
    return choice if _only(rest, choice, known) and not _taken_back(rest, known) else None


def _only(text: str, choice: int, known: Choices) -> bool:
    """Whether the text names no other option."""
    return all(choice in mention for mention in mentions(text, known))


def _taken_back(text: str, known: Choices) -> bool:
    """Whether the text withdraws something, in words that are no option's."""
    own = {word for key in known.keys for word in key}
    return any(match[0].split()[-1].lower() not in own for match in _RETRACTION.finditer(text))


def _opening(text: str, spoken: Sequence[Word], known: Choices) -> Iterator[_Claim]:
    """An option that the reply begins with, by its label or by its words."""
    match = _label_patterns(known.labels).opening.match(text)
    if match is not None:
        choice, after = known.place(_group(match)), text[match.end() :]
        own = _text_at(text, spoken, match.end(), known) == choice
        if own or not (_SUBJECT.match(after) or after.lstrip().startswith("?")):
            yield _Claim(choice=choice, start=0, kind="opening")
    first = next((place for place, sign in enumerate(text) if sign not in " \"'([>-•"), 0)
    by_words = _text_at(text, spoken, first, known)
    if by_words is not None:
        yield _Claim(choice=by_words, start=0, kind="opening")


def _stated(text: str, spoken: Sequence[Word], known: Choices) -> Iterator[_Claim]:
    """Every statement that an option is the answer, but for those denied, conditional or asked."""
    patterns = _label_patterns(known.labels)
    for head in _STATES.finditer(text):
        label = patterns.stated.match(text, head.end())
        choice = known.place(_group(label)) if label else _text_at(text, spoken, head.end(), known)
        if choice is not None and not _denied(text, head.start(), label.end() if label else head.end()):
            final = _FINAL.search(text[max(0, head.start() - 12) : head.start()]) is not None
            yield _Claim(choice=choice, start=head.start(), kind="final" if final else "stated")
    for head in _CHOOSES.finditer(text):
        label = patterns.chosen.match(text, head.end())
        if label and not _SUBJECT.match(text, label.end()) and not _denied(text, head.start(), label.end()):
            yield _Claim(choice=known.place(_group(label)), start=0, kind="chosen")
    for match in patterns.correct.finditer(text):
        if not _denied(text, match.start(), match.end()):
            yield _Claim(choice=known.place(_group(match)), start=match.start(), kind="stated")


def _closing(text: str, known: Choices) -> Iterator[_Claim]:
    """A label in brackets that ends the reply."""
    match = _label_patterns(known.labels).closing.search(text)
    if match is not None and not _denied(text, match.start(), match.end()):
        yield _Claim(choice=known.place(_group(match)), start=0, kind="closing")


def _repeated(spoken: Sequence[Word], known: Choices) -> Iterator[_Claim]:
    """One label or one-word option, said over and over and nothing else."""
    if len(spoken) < 2 or len({word.text for word in spoken}) != 1:
        return
    word = spoken[0].text
    labels = [label.casefold() for label in known.labels]
    for place, key in enumerate(known.keys):
        if key == (word,) or labels[place] == word:
            yield _Claim(choice=place, start=0, kind="closing")


def _text_at(text: str, spoken: Sequence[Word], place: int, known: Choices) -> int | None:
    """The option whose words stand at `place` (an article in front is skipped) and end a clause there."""
    first = bisect_left(spoken, place, key=lambda word: word.start)
    if first == len(spoken) or text[place : spoken[first].start].strip("\"'([ \n"):
        return None
    found, length = known.at(spoken, first)
    article = ""
    if not found and spoken[first].text in ARTICLES and first + 1 < len(spoken):
        article = text[spoken[first].start : spoken[first].end]
        blank = text[spoken[first].end : spoken[first + 1].start].isspace()
        first += 1
        found, length = known.at(spoken, first) if blank else (set(), 0)
    if len(found) != 1:
        return None
    (choice,) = found
    if article == "A" and "A" in known.letters and known.articles[choice] != "a":
        return None  # the article, or the label A before the text of another option
    key, end = known.keys[choice], spoken[first + length - 1].end
    closed = _TEXT_ENDS.match(text, end)
    if closed is not None and not ("," in closed[0] and key in _DISCOURSE):
        return choice
    return choice if key in (("yes",), ("no",)) and _AFTER_YES.match(text, end) else None


def _denied(text: str, start: int, end: int) -> bool:
    """Whether the sentence around a statement denies it, makes it conditional, or asks."""
    breaks = [match.end() for match in _SENTENCE_END.finditer(text, max(0, start - 400), start)]
    before = text[breaks[-1] if breaks else max(0, start - 400) : start]
    closing = _SENTENCE_END.search(text, end)
    asked = closing is not None and closing[0] == "?"
    return asked or _DENIAL.search(before) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelPatterns:
    """Where a label counts as one; each pattern has one group that matched."""

    opening: re.Pattern[str]
    stated: re.Pattern[str]
    chosen: re.Pattern[str]
    correct: re.Pattern[str]
    closing: re.Pattern[str]


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


@lru_cache(maxsize=64)
def _label_patterns(labels: tuple[str, ...]) -> _LabelPatterns:
    if labels[0].isdigit():
        either = upper = "(?:" + "|".join(sorted(labels, key=len, reverse=True)) + r")(?![\d]|[.,:/]\d)"
        comma = upper
    else:
        capitals = "".join(labels).upper()
        either, upper = f"[{capitals}{capitals.lower()}]", f"[{capitals}]"
        comma = f"[{capitals.replace('I', '') or capitals}]"
    bracket = rf"[(\[]\s*({either})\s*[)\]]"
    stop = r"(?=[\"')\]]*(?:\s*(?:$|\n|[;!)\]]|[.,:](?!\w|\.))|\s+[-(]))"
    word = r"(?:the\s+)?(?:(?:option|choice|letter|number|answer)\s+)?[\"'(]*"
    reason = r"(?=,?\s+(?:because|since|as|for)\b)"
    return _LabelPatterns(
        opening=re.compile(
            rf"[\"'\s>]*(?:[-•]\s+)?(?:{bracket}|({either})[)\]]|({either})[.:;!](?=\s|$)|"
            rf"({either})[\"']*[ \t]*(?:\n|$)|({comma}),(?=\s)|({upper})\s+-(?=\s)|({upper})\s+(?=because|since))"
        ),
        stated=re.compile(
            rf"{word}(?:{bracket}|({either}){stop}|({upper}){reason})", re.I if labels[0].isdigit() else 0
        ),
        chosen=re.compile(rf"{word}(?:{bracket}|({upper}){stop}|({upper}){reason})"),
        correct=re.compile(
            rf"(?:{bracket}|(?<![\w'])({upper}))\s+is\s+(?:(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|"
            rf"choice|one))?|(?:the|my)\s+(?:final\s+)?(?:answer|choice))(?=\s*(?:$|[.,;:!\n]))"
        ),
        closing=re.compile(rf"{bracket}[.\"'\s]*$"),
    )
