"""One localisation from beginning to end, in one run folder, resumable at every picture and pattern."""

import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy import ndarray

from eyechart.core.config import to_dict
from eyechart.core.runs import RunFolder
from eyechart.locate.config import WORLD, LocateConfig, command_of, given
from eyechart.locate.identify import PartRanks
from eyechart.locate.identify_score import best_layer, ratios_by_layer, summarise
from eyechart.locate.knock_rows import dose_curves, lens_compensation, probe_compensation
from eyechart.locate.labels import LabelSet
from eyechart.locate.part_images import WorldScenes, open_parts
from eyechart.locate.part_records import PartSet
from eyechart.locate.regions import RegionRule
from eyechart.locate.run_parts import DOSES, KNOCKOUTS, LENS, PartStages, states_file
from eyechart.models import load_chosen
from eyechart.models.quiet import quiet
from eyechart.models.sources import fingerprint, parse_source
from eyechart.models.vlms import VLM

Progress = Callable[[str, int, int], None]

Probes = Callable[[LocateConfig, VLM, RunFolder, Path, Progress], dict[str, Any]]
"""Reads patterns along the model and judges where each is lost. It asks the model questions, too, which is no matter of this room
(`exam.locating`)."""

SCHEMA = 1
"""Of the `eyechart` block of results.json."""

ON_PARTS = ("lens", "knockout", "dose")
"""Stages that look at pictures with part masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a localisation was written and what it found."""

    folder: Path
    results: dict[str, Any]
    again: bool
    """Whether the run was finished before and was only shown again."""


def locate(
    config: LocateConfig,
    *,
    probes: Probes | None = None,
    out: Path | str | None = None,
    fresh: bool = False,
    progress: Progress = lambda stage, done, total: None,
    command: Sequence[str] | None = None,
) -> Located:
    """Find out where in a VLM what it sees is lost.

    Args:
        config: every choice.
        probes: the stage of that name; without it, it is left out.
        out: the run folder (default `runs/<slug>`); the same call again continues there.
        fresh: start over.
        progress: told how far each stage is.
        command: what a person would type to run this again; made from the choices when not given.

    Raises:
        UserError: something the caller can mend; the text says what was given, what was expected and what to do.
        NeverFired: a knockout does not do on this model what it says; nothing of it is counted.
    """
    folder = Path(out) if out is not None else Path("runs") / config.slug
    parts = _open_parts(config, folder.parent / "bundled", progress)
    model = _Held(config)
    identity = {
        **to_dict(config),
        "resolved": {"model": model.identity, "parts": None if parts is None else parts.sha256},
    }
    words = command or command_of(config, folder)
    with RunFolder.open(folder, config=identity, command=words, fresh=fresh, given=given(config)) as run:
        again = run.finished
        if not again:
            vlm = model.loaded
            block = _on_parts(config, vlm, parts, run, progress) if parts is not None else {}
            if probes is not None and "probes" in config.only:
                block["probes"] = probes(config, vlm, run, folder.parent / "bundled", progress)
            run.update_manifest(model=vlm.describe(), seed=config.seed)
            run.write_json("results.json", _results(config, vlm, parts, run, block))
            run.finish()
    results = json.loads((folder / "results.json").read_text("utf8"))
    return Located(folder=folder, results=results, again=again)


class _Held:
    """The model, named first and loaded when it is needed."""

    def __init__(self, config: LocateConfig) -> None:
        self.config = config
        self._loaded: VLM | None = None
        known = fingerprint(parse_source(config.model, revision=config.revision))
        if not (known.sha256 or known.revision):
            self.identity: dict[str, Any] = {
                "id": self.loaded.id,
                "revision": self.loaded.revision,
                "sha256": self.loaded.sha256,
            }
        else:
            self.identity = to_dict(known)

    @property
    def loaded(self) -> VLM:
        if self._loaded is None:
            with quiet():
                self._loaded = load_chosen(self.config)
        return self._loaded


def _open_parts(config: LocateConfig, bundled: Path, progress: Progress) -> PartSet | None:
    """The pictures with parts, where a stage needs them."""
    if not any(stage in config.only for stage in ON_PARTS):
        return None
    return open_parts(config.parts, bundled=bundled, progress=progress, **_how(config))


def _how(config: LocateConfig) -> dict[str, Any]:
    """How the pictures with parts are opened."""
    return {
        "layout": config.parts_layout,
        "images": config.parts_images,
        "words": config.parts_words,
        "labels": config.parts_labels,
        "object_name": config.parts_object,
        "categories": config.parts_categories,
        "limit": config.pictures,
        "scenes": WorldScenes(scene_seed=config.scene_seed, scenes=config.pictures, size=config.size),
    }


def plan(config: LocateConfig, *, out: Path | None = None) -> dict[str, Any]:
    """What a localisation would do, for `--dry-run`: nothing is rendered, no weights are loaded."""
    folder = out or Path("runs") / config.slug
    known: dict[str, Any] = {"pictures": config.pictures}
    if config.parts != WORLD and any(stage in config.only for stage in ON_PARTS):
        with tempfile.TemporaryDirectory() as scratch:
            opened = open_parts(config.parts, bundled=scratch, **_how(config))
            known = {"pictures": len(opened.images), "quarantined": len(opened.quarantined)}
    return {**to_dict(config), "folder": str(folder), "exists": folder.exists(), **known}


def _on_parts(
    config: LocateConfig, vlm: VLM, parts: PartSet, run: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Each stage on pictures with parts, and what it says; each keeps what an earlier start has done."""
    run.write_quarantine(parts.quarantined)
    stages = PartStages(config, vlm, parts)
    block: dict[str, Any] = {"labels": _labels(stages.labels)}
    if "lens" in config.only:
        stages.read_lens(run, progress)
        block["lens"] = _lens(run, config.seed) | {"note": stages.lens.note}
    if "knockout" in config.only or "dose" in config.only:
        block["proofs"] = _proved(stages, run)
        block["sweep"] = stages.ways.note
    if "knockout" in config.only:
        stages.knock(run, progress)
        block["knockout"] = _knockout(config, stages, run)
    if "dose" in config.only:
        stages.dose(run, progress)
        block["dose"] = _dose(config, stages, run)
    return block


def _proved(stages: PartStages, run: RunFolder) -> list[dict[str, Any]]:
    """Proved once, and again at each start: a proof is about the model as it is loaded now."""
    proofs = stages.prove()
    run.write_json("proofs.json", proofs)
    return proofs


def _lens(run: RunFolder, seed: int) -> dict[str, Any]:
    found = [_ranks(part) for line in run.jsonl(LENS, key="image") for part in line["parts"]]
    lost = [part for line in run.jsonl(LENS, key="image") for part in line["not_ranked"]]
    block: dict[str, Any] = {"parts": len(found), "not_ranked": lost}
    if len({one.image for one in found}) < 2:
        return block | {"why": "parts of fewer than two pictures were ranked, too few for an interval"}
    block |= _best(found, seed)
    return block | {
        "by_layer": [
            {"layer": number, "random": asdict(ratio), "wrong": asdict(wrong)}
            for (number, ratio), (_, wrong) in zip(
                ratios_by_layer(found, seed=seed),
                ratios_by_layer(found, control="wrong", seed=seed),
                strict=True,
            )
        ],
        "last": [asdict(group) for group in summarise(found, found[0].layers[-1], seed=seed)],
    }


def _best(found: Sequence[PartRanks], seed: int) -> dict[str, Any]:
    """The layer with the largest ratio, where any part has a region beside it."""
    if all(one.random is None for one in found):
        return {"best": None}
    layer = best_layer(found)
    return {
        "best": {
            "layer": layer,
            "note": "chosen on these pictures, so that its numbers flatter; layers are to be chosen on others",
            "groups": [asdict(group) for group in summarise(found, layer, seed=seed)],
        }
    }


def _ranks(line: Mapping[str, Any]) -> PartRanks:
    arrays = {
        name: None if line[name] is None else np.array(line[name]) for name in ("mask", "random", "wrong")
    }
    listed = {"layers": tuple(line["layers"]), "others": tuple(line["others"])}
    return PartRanks(**{**line, **arrays, **listed, "control": RegionRule(line["control"])})


def _knockout(config: LocateConfig, stages: PartStages, run: RunFolder) -> dict[str, Any]:
    logged = list(run.jsonl(KNOCKOUTS, key="image"))
    towers = stages.pictured(stages.parts.images[0]).towers
    arms = [(arm.name, arm.cells) for arm in stages.arms(towers)]
    options: dict[str, Any] = {"vocabulary": stages.lens.tokens, "seed": config.seed}
    lens = lens_compensation(logged, arms, scale=config.scale, **options)
    rivals = (
        {"lens_rival": lens_compensation(logged, arms, scale=config.scale, against="rival", **options)}
        if stages.rivals
        else {}
    )
    depth = len(stages.vlm.towers.language_blocks)
    layers = sorted({0, depth // 2, depth})
    probe = (
        probe_compensation(logged, _states(stages.parts, run), stages.names, layers=layers, seed=config.seed)
        if config.part_probe
        else {"why": "not asked for (--no-part-probe)"}
    )
    excluded = towers.vision_layers.note
    return {
        "arms": [to_dict(arm) for arm in stages.arms(towers)],
        "notes": [excluded] if excluded else [],
        "lens": lens,
        **rivals,
        "probe": probe,
    }


def _states(parts: PartSet, run: RunFolder) -> dict[tuple[str, int], dict[str, ndarray]]:
    """By picture and part the states of each cell."""
    found: dict[tuple[str, int], dict[str, ndarray]] = {}
    for image in parts.images:
        for key, value in safetensors.numpy.load_file(run.own(states_file(image))).items():
            number, _, cell = key.partition("|")
            found.setdefault((image.id, int(number)), {})[cell] = value
    return found


def _dose(config: LocateConfig, stages: PartStages, run: RunFolder) -> list[dict[str, Any]]:
    towers = stages.pictured(stages.parts.images[0]).towers
    return dose_curves(
        list(run.jsonl(DOSES, key="image")),
        stages.doses(towers),
        layer=len(stages.vlm.towers.language_blocks),
        scale=config.scale,
        vocabulary=stages.lens.tokens,
        seed=config.seed,
    )


def _labels(labels: LabelSet) -> dict[str, Any]:
    return {
        "rule": str(labels.rule),
        "words": list(labels.words),
        "refused": [asdict(one) for one in labels.refused],
        "collisions": [asdict(one) for one in labels.collisions],
    }


def _results(
    config: LocateConfig, vlm: VLM, parts: PartSet | None, run: RunFolder, block: Mapping[str, Any]
) -> dict[str, Any]:
    """`results.json`: the shape of lm-eval and lmms-eval around it, and everything under `eyechart`."""
    manifest = run.manifest
    return {
        "results": {"locate": {"alias": "locate"}},
        "configs": {"locate": to_dict(config)},
        "versions": {"locate": SCHEMA},
        "n-shot": {"locate": 0},
        "config": {"model": vlm.id, "model_args": to_dict(config), "random_seed": config.seed},
        "git_hash": manifest["git"]["commit"],
        "transformers_version": importlib.metadata.version("transformers"),
        "date": manifest["started"],
        "eyechart": {
            "schema": SCHEMA,
            "model": vlm.describe(),
            "parts": None if parts is None else _about(parts),
            **block,
        },
    }


def _about(parts: PartSet) -> dict[str, Any]:
    return {
        "name": parts.name,
        "source": parts.source,
        "sha256": parts.sha256,
        "images": len(parts.images),
        "quarantined": len(parts.quarantined),
        "notes": list(parts.notes),
    }
