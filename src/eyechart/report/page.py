"""Lays a run folder out as one HTML page: what goes in, in which order, and how much of it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eyechart.core.files import write_bytes
from eyechart.core.images import REASONS
from eyechart.core.records import Capability, Outcome
from eyechart.report import words
from eyechart.report.charts import Dot, beside_groups, scatter
from eyechart.report.located import MEANINGS, stage_charts
from eyechart.report.reading import LeftOut, Pair, PatternScore, Run, Sample, read_run, read_thumb
from eyechart.report.summary import UNTRAINED, not_examined, paragraphs

CARDS_OPEN = 24
"""Failures shown at once; the others open on request."""

QUESTION_SHOWN = 280
"""Characters of a question on its card; the rest opens on request."""

CARDS_MAX = 200
"""Failures whose pictures are in the page at all."""

PICTURE_BYTES_MAX = 24 * 2**20
"""Bytes of thumbnails in the page at most, before base64: a page that can still be mailed."""

ROWS_MAX = 1_000
"""Rows of the table of all pairs, and of the table of what was quarantined."""

NO_PATTERN = "(none)"
"""What a run calls the pattern of items that name none."""

CAPABILITIES = {
    Capability.GENERATE: "write an answer",
    Capability.OPTION_SCORES: "score each option by its likelihood",
    Capability.FED_FEATURES: "show what its projector reads from the vision encoder",
    Capability.HIDDEN_STATES: "show its hidden states at the image positions",
    Capability.EDIT_ATTENTION: "have attention edges cut (knockout)",
    Capability.SPATIAL_MAP: "map image positions back to places in the picture",
    Capability.TRAIN: "be trained further",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One thumbnail as a data URI, or None where the folder has none."""

    source: str | None
    size: int
    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of a pair's two items: picture, right answer, given answer."""

    letter: str
    picture: Picture
    outcome: Outcome
    question: words.Clipped
    options: tuple[tuple[str, str], ...]
    """Label and text of each."""

    right: str
    given: str | None
    reply: words.Clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One failed pair."""

    anchor: str
    pair: Pair
    sides: tuple[Side, Side]

    @property
    def one_question(self) -> bool:
        """Whether both items ask the same, with the same options in the same order."""
        first, second = self.sides
        return (first.question, first.options) == (second.question, second.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The failures, worst first: shown, folded away, and left out."""

    shown: tuple[Card, ...]
    folded: tuple[Card, ...]
    left_out: int
    total: int
    anchors: dict[str, str] = field(default_factory=dict)
    """The id of the card of each pair that has one."""


def write_report(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the page of one exam's run folder and return where it stands.

    The same folder gives the same bytes. The page needs no network and runs no script.

    Args:
        run_folder: a finished run folder of `eyechart exam`.
        out: the file to write, or a folder to write `report.html` into; by default `run_folder/report.html`.

    Raises:
        UserError: the folder is not a finished run of the schema this version reads, or a file of it is missing or damaged.
    """
    target = run_folder / "report.html" if out is None else out
    target = target / "report.html" if target.is_dir() else target
    run = read_run(run_folder)
    write_bytes(target, render(run).encode("utf-8"))
    return target


def render(run: Run) -> str:
    """The whole page as text."""
    return words.printable(environment().get_template("page.html.j2").render(_context(run)))


@cache
def environment() -> Environment:
    """How all pages of this room are filled in: everything is escaped, and a name that is not there is an error."""
    made = Environment(
        loader=PackageLoader("eyechart.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        rate=words.rate_text,
        percent=words.percent,
        percent_whole=lambda share: f"{share:.0%}",
        sentence=words.sentence,
        points=words.points_text,
        p=words.p_text,
        p_value=words.p_value_text,
        similarity=words.similarity_text,
        percentile=words.percentile_text,
        short_name=words.short_name,
        clipped=words.clipped,
        count=words.count,
        at=lambda place: f"{place:.2f}%",
    )
    made.tests["hash"] = words.is_hash
    return made


def _context(run: Run) -> dict[str, Any]:
    results = run.results
    cards = _cards(run)
    named = [row for row in results.patterns if row.pattern != NO_PATTERN]
    return {
        "run": run,
        "model": results.model,
        "reference": results.reference,
        "benchmark": results.benchmark,
        "score": results.score,
        "find": results.find,
        "patterns": results.patterns if named else (),
        "summary": paragraphs(results),
        "untrained": None if results.model.trained else UNTRAINED,
        "not_examined": words.sentence(not_examined(results)) if not_examined(results) else "",
        "warnings": results.warnings,
        "cards": cards,
        "pattern_dots": _pattern_dots(run, results.patterns if named else ()),
        "suspect_dots": _suspect_dots(run),
        "located": results.located,
        "stage_charts": stage_charts(results.located),
        "verdict_meanings": tuple(MEANINGS.items()),
        "beside": results.beside,
        "beside_groups": beside_groups(results),
        "scatter": scatter(run.pairs, results.find, cards=cards.anchors) if results.find else None,
        "able": [(CAPABILITIES[c], results.model.cannot.get(c)) for c in Capability if _declared(run, c)],
        "pairs_shown": run.pairs[:ROWS_MAX],
        "quarantine": [(row, reason_text(row)) for row in run.quarantine[:ROWS_MAX]],
        "manifest": manifest_groups(run.manifest),
        "id_shown": words.ID_SHOWN,
        "NO_PATTERN": NO_PATTERN,
    }


def _declared(run: Run, capability: Capability) -> bool:
    model = run.results.model
    return capability in model.capabilities or capability in model.cannot


def _cards(run: Run) -> Cards:
    failed = failures(run.pairs)
    kept: list[Card] = []
    bytes_left = PICTURE_BYTES_MAX
    for place, pair in enumerate(failed[:CARDS_MAX], start=1):
        card = _card(run, pair, anchor=f"failure-{place}")
        bytes_left -= sum(side.picture.size for side in card.sides)
        if bytes_left < 0:
            break
        kept.append(card)
    return Cards(
        shown=tuple(kept[:CARDS_OPEN]),
        folded=tuple(kept[CARDS_OPEN:]),
        left_out=len(failed) - len(kept),
        total=len(failed),
        anchors={card.pair.pair_id: card.anchor for card in kept},
    )


def failures(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs not got right, worst first.

    Suspects with both answers wrong lead; within and after them the pair that the model's encoder finds more alike
    comes first, and pairs of unknown similarity come last.
    """

    def badness(pair: Pair) -> tuple[bool, bool, float, str]:
        blind = bool(pair.suspect) and not pair.right_a and not pair.right_b
        percentile = pair.percentile_model
        return (not blind, percentile is None, -(percentile or 0.0), pair.pair_id)

    return sorted((pair for pair in pairs if not pair.pair_right), key=badness)


def _card(run: Run, pair: Pair, *, anchor: str) -> Card:
    first = _side(run, run.samples[pair.item_a], letter="1")
    second = _side(run, run.samples[pair.item_b], letter="2")
    return Card(anchor=anchor, pair=pair, sides=(first, second))


def _side(run: Run, sample: Sample, *, letter: str) -> Side:
    labels = words.labels_like(sample.target, len(sample.doc.options))
    options = dict(zip(labels, (words.clipped(option).shown for option in sample.doc.options), strict=True))
    choice = sample.filtered_resps[0] if sample.filtered_resps else ""
    reply = sample.resps[0][0] if sample.resps and sample.resps[0] else ""
    return Side(
        letter=letter,
        picture=picture_of(run.folder, sample.doc.image_sha256, sample.doc.image),
        outcome=sample.outcome,
        question=words.clipped(sample.doc.question, shown=QUESTION_SHOWN),
        options=tuple(options.items()),
        right=_option(sample.target, options),
        given=_option(choice, options) if choice and sample.outcome is not Outcome.UNREAD else None,
        reply=words.clipped(reply),
    )


def _option(label: str, options: Mapping[str, str]) -> str:
    """`(B) the option's text`, or the label alone when it names no option."""
    return f"({label}) {options[label]}" if label in options else label


def picture_of(folder: Path, sha256: str, path: str) -> Picture:
    """The thumbnail that a run folder has under a hash; `path` is what the picture is called."""
    data = read_thumb(folder, sha256)
    coded = None if data is None else "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    name = path.replace("\\", "/").rpartition("/")[2] or path
    return Picture(source=coded, size=len(data or b""), name=name, path=path)


def _pattern_dots(run: Run, patterns: Sequence[PatternScore]) -> list[Dot]:
    score = run.results.score
    whole = Dot(label="all pairs", rate=score.pairs, chance=score.chance_pairs, whole=True)
    return [whole, *(Dot(label=row.pattern, rate=row.pairs, chance=row.chance_pairs) for row in patterns)]


def _suspect_dots(run: Run) -> list[Dot]:
    find, chance = run.results.find, run.results.score.chance_pairs
    rates = [("suspects", find.right_suspects), ("other pairs", find.right_others)] if find else []
    return [Dot(label=name, rate=rate, chance=chance) for name, rate in rates if rate is not None]


def reason_text(row: LeftOut) -> str:
    """Why an input was left out, in words."""
    return REASONS.get(row.reason, row.reason.replace("_", " "))


def manifest_groups(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest in the order a reader asks for it: the run, the models, the machine, the packages."""
    apart = {"command", "rerun", "packages", "model", "reference"}
    return {
        "rerun": manifest.get("rerun"),
        "finished": manifest.get("finished"),
        "version": manifest.get("eyechart"),
        "run": words.flat({key: value for key, value in manifest.items() if key not in apart}),
        "command": words.flat({"command": manifest.get("command")}),
        "model": words.flat(manifest.get("model")),
        "reference": words.flat(manifest.get("reference")),
        "packages": words.flat(manifest.get("packages")),
    }
