"""The world's siblings as a source: pictures of which it is known which were made as a pair, and in what they differ."""

from dataclasses import replace
from pathlib import Path

from eyechart.core.files import read_table
from eyechart.find.listing import Listing, Picture, listing_of
from eyechart.find.sources import list_pictures
from eyechart.world.sets import Progress
from eyechart.world.sets_pairs import CAPTIONS, folder_name, render_pairs
from eyechart.world.sets_plan import PairPlan


def list_world(
    bundled: Path, *, pairs: int, seed: int, size: int, limit: int | None, progress: Progress
) -> Listing:
    """Render pairs of scenes of the test split, and list their pictures.

    Args:
        bundled: where rendered sets lie.
        pairs: of each pattern.
        seed: of the scenes.
        size: of a picture, in pixels.
        limit: only so many pictures.
    """
    plan = PairPlan(split="test", pairs=pairs, seed=seed, relation="siblings")
    return list_pairs(bundled, plan, size=size, limit=limit, progress=progress)


def list_pairs(bundled: Path, plan: PairPlan, *, size: int, limit: int | None, progress: Progress) -> Listing:
    """Render the pairs of a plan, and list their pictures; arguments as `list_world`."""
    folder = bundled / folder_name(plan, size)
    if not (folder / CAPTIONS).is_file():
        render_pairs(folder, plan, size=size, workers=1, progress=progress)
    of = {
        Path(row[f"image_{side}"]).name: (row["pair_id"], row["pattern"])
        for row in read_table(folder / CAPTIONS)
        for side in "ab"
    }
    listed = list_pictures(str(folder / "images"), limit=limit)
    pictures = [_known(picture, *of[picture.id]) for picture in listed.pictures]
    sizes = [Path(picture.file).stat().st_size for picture in pictures]
    return replace(
        listing_of(f"world, scene seed {plan.seed}", pictures, sizes), passed_over=listed.passed_over
    )


def _known(picture: Picture, pair: str, pattern: str) -> Picture:
    return replace(picture, label=None, pair=pair, pattern=pattern)
