"""The join on a Ray cluster: a Ray Data pass writes sketches of 64 bytes, tasks join two blocks of them each.

The same pairs as `join.mine_pairs` finds. Only sketches travel; the tables of rows lie on a file system that all machines
share, and of these a task reads the rows of pairs that sketches cannot rule out. Each task leaves one file under a name
of its own, so that a machine that is lost costs the tiles it had in hand, and a start after a stop goes on with the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eyechart.core.runs import RunFolder
from eyechart.find import blocks, tiles
from eyechart.find.block_join import Job, counts, read_pairs, solve
from eyechart.find.blocks import Scale, Sketch
from eyechart.find.join import MAX_REFERENCE, MIN_SEMANTIC, Certificate, Mined, Progress, Where, check_counts
from eyechart.find.keep import Keeper
from eyechart.find.ray_cluster import cluster, finished, passed, refusal, until_there

Tile = tuple[int, int]


def mine_pairs_on_ray(
    semantic: Path,
    reference: Path,
    run: RunFolder,
    *,
    min_semantic: float = MIN_SEMANTIC,
    max_reference: float = MAX_REFERENCE,
    per_image: int | None = None,
    budget: int | None = None,
    where: Where | None = None,
    min_alike: float | None = None,
    block: int | None = None,
    address: str | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Mined:
    """Find the pairs that `join.mine_pairs` finds, on a cluster.

    Args:
        semantic: a `.npy` file of the rows, which all machines see under this path.
        reference: the same of the other encoder.
        run: a run on these rows and with this `where`; keeps the sketches and tiles of a start that was stopped.
        where: which pairs count at all; it is shipped.
        block: rows of a block; without it, `blocks.BLOCK`, or more where there are very many rows.
        address: see `ray_cluster.cluster`.

    The other arguments are those of `join.mine_pairs`.

    Raises:
        UserError: as `join.mine_pairs`; a machine does not see the folders; tiles were lost too often.
    """
    rows = blocks.open_rows(semantic), blocks.open_rows(reference)
    check_counts(*rows, None, per_image, budget)
    images = len(rows[0])
    block = block or max(blocks.BLOCK, -(-images // blocks.MOST))
    plan = _plan(semantic, reference, run, block)
    job = Job(
        semantic=plan.semantic,
        reference=plan.reference,
        tiles=run.own("tiles/0.parquet").parent.absolute(),
        name=blocks.name_of(plan.name, min_semantic, max_reference, min_alike, per_image, budget),
        images=images,
        block=block,
        step=plan.scale.step,
        min_semantic=min_semantic,
        max_reference=max_reference,
        min_alike=min_alike,
        per_image=per_image,
        budget=budget,
        where=where,
    )
    with cluster(address) as ray:
        sketches = _sketches(plan, progress)
        _join(ray, job, sketches, progress)
    return _merged(job, sketches, plan.scale.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes to write the sketch of any block."""

    semantic: Path
    reference: Path
    folder: Path
    scale: Scale
    name: str
    """For everything that sketches depend on."""

    blocks: tuple[slice, ...]

    def path(self, block: int) -> Path:
        """Where a block's sketch is written."""
        return self.folder / f"{block:06d}.safetensors"


def _plan(semantic: Path, reference: Path, run: RunFolder, block: int) -> Plan:
    rows = blocks.open_rows(semantic)
    path = run.own("sketches/axes.safetensors")
    scale = blocks.kept_scale(path, rows, blocks.name_of(rows.shape, blocks.COLUMNS))
    return Plan(
        semantic=semantic.absolute(),
        reference=reference.absolute(),
        folder=path.parent.absolute(),
        scale=scale,
        name=blocks.name_of(scale.name, rows.shape, block),
        blocks=tuple(blocks.blocks_of(len(rows), block)),
    )


def _sketches(plan: Plan, progress: Progress) -> list[Sketch]:
    """The sketches of all blocks; those that are missing are written by a pass over the rows."""
    total = len(plan.blocks)
    found: dict[int, Sketch] = {}

    def missing() -> list[int]:
        for block in range(total):
            kept = blocks.read_sketch(plan.path(block), plan.name) if block not in found else None
            if kept is not None:
                found[block] = kept
        progress("sketching", len(found), total)
        return [block for block in range(total) if block not in found]

    def work(left: Sequence[int]) -> None:
        items = [{"block": block} for block in left]
        for done, _ in enumerate(passed(items, _sketched, fn_args=(plan,), num_cpus=1), start=1):
            progress("sketching", total - len(left) + done, total)

    until_there("sketches", missing, work)
    return [found[block] for block in range(total)]


def _sketched(batch: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Write the sketches of a batch of blocks; on a machine of the cluster."""
    refused = [refusal(_sketch, plan, block) for block in batch["block"].tolist()]
    return {"block": batch["block"], "refused": refused}


def _sketch(plan: Plan, block: int) -> None:
    rows = plan.blocks[block]
    semantic, reference = blocks.open_rows(plan.semantic), blocks.open_rows(plan.reference)
    blocks.check_block({"semantic": semantic, "reference": reference}, rows)
    with tiles.one_thread_each():
        blocks.write_sketch(plan.path(block), semantic[rows], plan.scale, plan.name)


def _join(ray: ModuleType, job: Job, sketches: Sequence[Sketch], progress: Progress) -> None:
    """Have a file written for every tile that has none."""
    every = list(blocks.pairs_of_blocks(len(sketches)))
    shipped = ray.put(job), [ray.put(sketch) for sketch in sketches]

    def missing() -> list[Tile]:
        left = [tile for tile in every if counts(job, tile) is None]
        progress("joining", len(every) - len(left), len(every))
        return left

    def work(left: Sequence[Tile]) -> None:
        calls = [(shipped[0], tile, *(shipped[1][block] for block in tile)) for tile in left]
        for done, _ in enumerate(finished(ray, solve, calls), start=1):
            progress("joining", len(every) - len(left) + done, len(every))

    until_there("tiles", missing, work)


def _merged(job: Job, sketches: Sequence[Sketch], columns: int) -> Mined:
    """The pairs of all tiles under the limits, and the sums of what was counted."""
    keepers = [Keeper(per_image=job.per_image, budget=job.budget) for _ in range(2)]
    sums = dict.fromkeys(("compared", "bounded", "semantic"), 0)
    every = list(blocks.pairs_of_blocks(len(sketches)))
    for tile in every:
        told = counts(job, tile) or {}
        for keeper, pairs, name in zip(keepers, read_pairs(job, tile), ("found", "alike"), strict=True):
            keeper.add(pairs, found=told[name])
        sums = {name: total + told[name] for name, total in sums.items()}
    kept = keepers[0].kept()
    certificate = Certificate(
        engine=f"ray, {len(every)} tiles",
        images=job.images,
        pairs=job.images * (job.images - 1) // 2,
        columns=columns,
        slack=max((job.slack(sketches[i], sketches[j])[1] for i, j in every), default=0.0),
        found=keepers[0].found,
        kept=len(kept),
        **sums,
    )
    return Mined(pairs=kept, certificate=certificate, alike=keepers[1].kept(), alike_found=keepers[1].found)
