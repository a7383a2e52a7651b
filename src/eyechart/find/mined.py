"""What a mine found, as tables and as one record: the files that its page is made of."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from eyechart.core.stats import wilson
from eyechart.find.config import MineConfig
from eyechart.find.join import Mined
from eyechart.find.keep import Columns
from eyechart.find.listing import Listing, Picture
from eyechart.find.select import Selected
from eyechart.find.thresholds import Drawn

PAIRS_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("image_a", "image_b", "sha256_a", "sha256_b")
        ),
        pa.field("semantic", pa.float64(), nullable=False),
        pa.field("reference", pa.float64(), nullable=False),
        pa.field("hash_distance", pa.int32(), nullable=False),
        *(pa.field(name, pa.string()) for name in ("label_a", "label_b", "pattern")),
    ]
)
"""`pairs.parquet` and `alike.parquet`: the most suspicious pair first; `pattern` where a source knows the two as a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that was found, before it is written."""

    listing: Listing
    pictures: dict[str, Picture]
    """The first picture of each content, by hash."""

    listed: int
    """Pictures of the source, copies and unreadable ones included."""

    unreadable: int
    drawn: Drawn
    cuts: tuple[float, float]
    mined: Mined
    chosen: Selected


def pair_rows(
    pairs: Columns, bits: Int[ndarray, " pair"], pictures: dict[str, Picture]
) -> Iterator[dict[str, Any]]:
    """The rows of a table of pairs, in their order."""
    hashes, known = list(pictures), list(pictures.values())
    columns = (
        pairs.i.tolist(),
        pairs.j.tolist(),
        pairs.semantic.tolist(),
        pairs.reference.tolist(),
        bits.tolist(),
    )
    for rank, (i, j, semantic, reference, differing) in enumerate(zip(*columns, strict=True), start=1):
        first, second = known[i], known[j]
        yield {
            "rank": rank,
            "image_a": first.id,
            "image_b": second.id,
            "sha256_a": hashes[i],
            "sha256_b": hashes[j],
            "semantic": semantic,
            "reference": reference,
            "hash_distance": differing,
            "label_a": first.label,
            "label_b": second.label,
            "pattern": first.pattern if is_pair(first, second) else None,
        }


def is_pair(first: Picture, second: Picture) -> bool:
    """Whether a source knows the two as a pair."""
    return first.pair is not None and first.pair == second.pair


def record(config: MineConfig, outcome: Outcome, encoders: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        encoders: the id and the pooling of the encoder examined, and of the reference.
    """
    mined, chosen = outcome.mined, outcome.chosen
    wishes = (config.min_semantic, config.max_reference)
    sides = [
        {"id": id_, "pooling": pooling, "threshold": cut, "wish": wish, "centred": config.centred}
        for (id_, pooling), cut, wish in zip(encoders, outcome.cuts, wishes, strict=True)
    ]
    return {
        "source": outcome.listing.source,
        "images": outcome.listed,
        "unique": len(outcome.pictures),
        "quarantined": outcome.unreadable,
        "semantic": sides[0],
        "reference": sides[1],
        "certificate": asdict(mined.certificate),
        "limits": {"per_image": config.per_image, "per_burst": config.per_burst, "budget": config.budget},
        "alike": {
            "found": mined.alike_found,
            "kept": len(chosen.near_duplicates),
            "min_reference": config.min_alike,
            "most_bits": config.most_bits,
        },
        "set_apart": chosen.set_apart,
        "listed": len(chosen.pairs),
        "joint": outcome.drawn.joint(),
        "truth": truth(list(outcome.pictures.values()), chosen.pairs),
        "notes": list(_notes(config, outcome)),
    }


def truth(known: Sequence[Picture], listed: Columns) -> dict[str, Any] | None:
    """How many of the pairs that a source knows were listed, also by pattern, and how many of the listed are such.

    None where the source knows of no pair.
    """
    counts = Counter((picture.pair, picture.pattern) for picture in known if picture.pair is not None)
    made = Counter(pattern for (_, pattern), pictures in counts.items() if pictures == 2)
    if not made:
        return None
    found = zip(listed.i.tolist(), listed.j.tolist(), strict=True)
    hits = Counter(known[i].pattern for i, j in found if is_pair(known[i], known[j]))
    return {
        "recall": wilson(hits.total(), made.total()).to_dict(),
        "precision": wilson(hits.total(), len(listed)).to_dict() if len(listed) else None,
        "patterns": [
            {"pattern": pattern, "recall": wilson(hits[pattern], pairs).to_dict()}
            for pattern, pairs in sorted(made.items(), key=str)
        ],
        "about": "pairs that were made as such: their pictures differ in one fact, and camera, light and clutter are drawn"
        " anew",
    }


def _notes(config: MineConfig, outcome: Outcome) -> Iterator[str]:
    copies = outcome.listed - outcome.unreadable - len(outcome.pictures)
    if copies:
        yield f"{copies} pictures are exact copies of others and were compared once"
    if outcome.listing.passed_over:
        yield f"{outcome.listing.passed_over} other files are no pictures by their names and were not read"
    if not outcome.drawn.exhaustive:
        yield f"the distribution of cosines is that of {len(outcome.drawn.semantic)} drawn pairs"
    if config.classes != "any":
        unlabelled = sum(picture.label is None for picture in outcome.pictures.values())
        yield f"only pairs of {config.classes} labels count; {unlabelled} pictures have none and are in no pair"
