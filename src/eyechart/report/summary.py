"""The plain-words summary of an exam: a few sentences that a newcomer understands, for the page and for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from eyechart.report.reading import Beside, BesidePattern, Find, Other, Rate, Reference, Results, read_run
from eyechart.report.words import (
    count,
    listed,
    p_text,
    percent,
    points_text,
    rate_text,
    sentence,
    short_name,
)

UNREAD_NOTABLE = 0.1
"""From this share of unread replies on, the summary warns that the score speaks of format as well as of sight."""

UNREAD_DROWNS = 0.5
"""From this share on, the score is not set against chance at all: it is the replies' form that was scored."""

FAVOURITE_NOTABLE = 0.75
"""From this share on, the summary says that leaning to one option costs pairs by itself."""

UNTRAINED = (
    "This model has learnt nothing.",
    "Its weights are random numbers, made so that you can see what a report looks like: "
    "no number here says anything about a real model.",
)
"""What stands first, as a heading and its explanation, when the model examined is untrained."""


def summary_sentences(run_folder: Path) -> tuple[str, ...]:
    """The summary of a finished run as plain text, one sentence or two closely joined ones each.

    Raises:
        UserError: as `write_report`.
    """
    results = read_run(run_folder).results
    texts = tuple(each.striptags() for paragraph in paragraphs(results) for each in paragraph)
    return texts if results.model.trained else (" ".join(UNTRAINED), *texts)


def paragraphs(results: Results) -> list[list[Markup]]:
    """The summary as the page has it, a list of sentences for each paragraph; what others wrote is escaped."""
    unread = _unread(results)
    drowned = results.score.unread.value >= UNREAD_DROWNS
    groups = (
        [_asked(results), *_left_out(results)],
        [_got(results), *(unread if drowned else [_against_chance(results)])],
        _suspects(results),
        [*([] if drowned else unread), *_favourite(results)],
        _beside(results.beside) if results.beside else [],
    )
    return [group for group in groups if group]


def not_examined(results: Results) -> str:
    """Why there are no suspects to report on, as the end of a sentence; empty when no reason is known."""
    return results.reference_missing or results.model.cannot.get("fed_features", "")


def _rate(rate: Rate) -> Markup:
    return Markup('<span class="rate">{}</span>').format(rate_text(rate))


def _of(rate: Rate) -> Markup:
    return Markup("{} of {}").format(rate.hits, rate.n)


def _name(identifier: str) -> Markup:
    return Markup('<bdi title="{}">{}</bdi>').format(identifier, short_name(identifier))


def _examined(results: Results) -> Markup:
    adapter = results.model.adapter
    return _name(results.model.id) + (Markup(" with the adapter ") + _name(adapter.id) if adapter else "")


def _asked(results: Results) -> Markup:
    benchmark = results.benchmark
    return Markup(
        "<strong>{model}</strong> was asked {questions} about {images} of the benchmark "
        "<strong><bdi>{name}</bdi></strong>, in {pairs}: the two items of a pair share one question and have "
        "different right answers, and a pair counts only when both are answered rightly."
    ).format(
        model=_examined(results),
        questions=count(benchmark.items, "question"),
        images=count(benchmark.images, "image"),
        name=benchmark.name,
        pairs=count(benchmark.pairs, "pair"),
    )


def _left_out(results: Results) -> list[Markup]:
    number = results.benchmark.quarantined
    if not number:
        return []
    text = "{} of the benchmark could not be used, and the pairs they belong to were left out (listed under Data)."
    return [Markup(text).format(count(number, "entry"))]


def _got(results: Results) -> Markup:
    rate = results.score.pairs
    return Markup("It got {} {} right: <strong>{}</strong>.").format(
        _of(rate), "pair" if rate.n == 1 else "pairs", _rate(rate)
    )


def _against_chance(results: Results) -> Markup:
    chance = percent(results.score.chance_pairs)
    text = {
        "above": "That is better than guessing, which gets {}: the whole interval lies above it.",
        "below": "That is worse than guessing, which gets {}: the whole interval lies below it. "
        "(A model that gives both items of a pair the same answer gets that pair wrong every time.)",
        "at": "Guessing gets {}, which lies inside the interval: on these pairs the model cannot be told "
        "from one that guesses.",
    }[results.score.above_chance]
    return Markup(text).format(chance)


def _suspects(results: Results) -> list[Markup]:
    find, reference = results.find, results.reference
    if find is not None and reference is not None:
        return [_confused(find, reference), *_right_on_suspects(find)]
    why = not_examined(results)
    known = Markup(": <bdi>{}</bdi>").format(sentence(why)) if why else Markup(".")
    return [
        Markup("Whether the model\u2019s own encoder can tell the images of a pair apart was not examined")
        + known
    ]


def _confused(find: Find, reference: Reference) -> Markup:
    return Markup(
        "The model\u2019s own encoder takes {} {} for nearly the same while {} tells them apart ({})."
    ).format(
        _of(find.suspects),
        "pair" if find.suspects.n == 1 else "pairs",
        _name(reference.id),
        _rate(find.suspects),
    )


def _right_on_suspects(find: Find) -> list[Markup]:
    suspects, others = find.right_suspects, find.right_others
    if suspects is None:
        return []
    text = Markup("Of these suspects the model got {} right ({})").format(_of(suspects), _rate(suspects))
    if others is None:
        return [text + Markup("; there are no other pairs.")]
    text += Markup(", of the other pairs {} ({})").format(_of(others), _rate(others))
    if find.p_value is not None:
        text += Markup("; {} for the difference").format(p_text(find.p_value))
    return [text + Markup(".")]


def _unread(results: Results) -> list[Markup]:
    rate = results.score.unread
    if not rate.hits:
        return []
    text = Markup("From {} {} no option could be read, and they earned nothing ({})").format(
        _of(rate), "reply" if rate.n == 1 else "replies", _rate(rate)
    )
    notable = rate.value >= UNREAD_NOTABLE
    more = (
        "; so many that the score speaks of how the model answers as much as of what it sees"
        if notable
        else ""
    )
    advice = " Compare the options\u2019 likelihoods instead: <code>--ask options</code>."
    return [text + Markup(more + "." + (advice if notable and results.asking.ask == "generate" else ""))]


def _favourite(results: Results) -> list[Markup]:
    favourite = results.score.favourite_option
    if favourite is None or favourite.share.low <= results.score.chance_images:
        return []
    text = Markup(
        "Its favourite option is <strong><bdi>{}</bdi></strong>, given in {} replies that could be read ({})"
    ).format(favourite.label, _of(favourite.share), _rate(favourite.share))
    notable = favourite.share.value >= FAVOURITE_NOTABLE
    more = (
        "; a lean that strong loses pairs by itself, since a pair needs two different answers"
        if notable
        else ""
    )
    return [text + Markup(more + ".")]


def _beside(beside: Beside) -> list[Markup]:
    """How each other model did on the same pairs, and on which patterns the two can be told apart."""
    return [said for other in beside.others for said in (_did(other), *_told_apart(other, beside))]


def _did(other: Other) -> Markup:
    against = other.against
    untrained = "" if other.trained else " (random weights: it has learnt nothing)"
    text = Markup(
        "Beside it, <strong>{name}</strong>{untrained} got {of} of the same pairs right (<strong>{rate}</strong>): "
        "a difference of {points}, {p}"
    ).format(
        name=_name(other.id),
        untrained=untrained,
        of=_of(other.pairs),
        rate=_rate(other.pairs),
        points=points_text(against),
        p=p_text(against.p_value),
    )
    if against.verdict == "undecided":
        text += "; that is too little to say that either is better, which is not to say that they are equal"
    return text + Markup(".")


def _told_apart(other: Other, beside: Beside) -> list[Markup]:
    if not other.patterns:
        return []
    names = {
        verdict: [row.pattern for row in other.patterns if row.against.verdict == verdict]
        for verdict in ("better", "worse", "undecided")
    }
    parts = [
        Markup("it is {} on {}").format(verdict, listed(names[verdict]))
        for verdict in ("better", "worse")
        if names[verdict]
    ]
    rest = _undecided(other.patterns, names["undecided"], any_decided=bool(parts))
    text = Markup("Pattern by pattern (Holm\u2019s correction, p\u00a0\u2264\u00a0{:g}) ").format(
        beside.error_rate
    )
    return [text + Markup(" and ").join(parts) + (Markup("; ") if parts and rest else "") + rest + "."]


def _undecided(rows: Sequence[BesidePattern], names: Sequence[str], *, any_decided: bool) -> str:
    """What is said of the patterns on which no difference was shown."""
    if not names:
        return ""
    sizes = {row.against.n for row in rows}
    pairs = f"{count(min(sizes), 'pair')} each" if len(sizes) == 1 else "the pairs there are"
    if not any_decided:
        return f"{pairs} can tell the two apart on none"
    where = names[0] if len(names) == 1 else f"the other {len(names)} patterns"
    return f"on {where} {pairs} cannot tell the two apart"
