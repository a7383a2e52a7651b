"""Can a language model make up for what its vision tower was kept from seeing? Knockouts in the zoo's three VLMs.

    python -m eyechart.recipes.compensation build/studies/compensation

After Takishita et al., "LLMs Can Compensate for Deficiencies in Visual Representations" (arXiv 2506.05439). Each VLM is read on the same
test scenes under two vision cuts: `part<-rest` keeps the part's patches from reading anything else, `patches<-patches` keeps
every patch alone. The language cut is the same in both: the part's positions read no earlier image position. What is done is kept, a
run folder for each model and cut; the tables of `docs/studies/compensation.md` are made of them.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eyechart.core.files import write_bytes, write_json
from eyechart.locate.config import LocateConfig
from eyechart.locate.run import Progress, locate

MODELS = ("zoo:llava-biased", "zoo:llava-told-all", "zoo:llava-permuted")
CUTS: Mapping[str, tuple[str, ...]] = {"part<-rest": ("both ways", "random"), "patches<-patches": ()}
"""Vision cuts, and the controls of each; the second leaves too few edges to draw as many at random, and cuts both ways itself."""

PICTURES = 150
"""Scenes of the test split, with some three parts that are large enough in each."""

BLOCKS = ("lens", "lens_rival")
"""Readouts of the lens: against regions as large elsewhere; and, for parts that share mesh and paint with another's, against the
other's name."""

PROBES = ("transfer", "refit")


def study(
    out: Path,
    *,
    models: Sequence[str] = MODELS,
    cuts: Mapping[str, Sequence[str]] = CUTS,
    pictures: int = PICTURES,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Run what is missing, and sum up all of it in `out/compensation.json`.

    Args:
        out: holds the run folders.
        models: VLMs.
        cuts: of the vision tower, by name, with their controls.
        pictures: scenes each is read on.
        progress: told how far each run is.

    Raises:
        NeverFired: a knockout does not do what it says.
    """
    found = []
    for cut, controls in cuts.items():
        for model in models:
            config = LocateConfig(
                model=model,
                only=("lens", "knockout"),
                pictures=pictures,
                vision_edges=cut,
                controls=tuple(controls),
            )
            results = locate(config, out=out / folder_of(model, cut), progress=progress).results["eyechart"]
            found.append({"model": model, "cut": cut, **summed(results)})
    record = {"pictures": pictures, "runs": found}
    write_json(out / "compensation.json", record)
    return record


def folder_of(model: str, cut: str) -> str:
    """The name of a run's folder."""
    return "".join(letter for letter in cut if letter.isalpha()) + "-" + model.rpartition("-")[2]


def summed(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables need of a run: every layer of the main arm, and controls at the last layer."""
    knockout = results["knockout"]
    blocks = {name: knockout[name] for name in BLOCKS if name in knockout}
    blocks |= {name: knockout["probe"][name] for name in PROBES if name in knockout["probe"]}
    return {
        "proofs": len(results["proofs"]),
        "readouts": {name: _block(block) for name, block in blocks.items()},
    }


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    if "why" in block:
        return {"why": block["why"]}
    main = block["main"]
    return {
        "n": block["n"],
        "images": block["images"],
        "left_out": block.get("left_out"),
        "intact": block["intact"],
        "main": block["arms"][main],
        "controls": {name: arm[-1] for name, arm in block["arms"].items() if name != main},
    }


def tables(record: Mapping[str, Any]) -> str:
    """Markdown: for each readout and cut the four cells after the projector and after the last language layer."""
    lines = []
    for name in (*BLOCKS, *PROBES):
        lines += [f"### {name}", "", _HEAD, _RULE]
        for run in record["runs"]:
            block = run["readouts"].get(name, {})
            if "main" in block:
                lines += [_row(run, block, place) for place in (0, -1)]
        lines.append("")
    return "\n".join(lines)


_HEAD = "| model, vision cut | layer | intact | vision cut | language cut | both cut | recovered | n |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- | --- |"


def _row(run: Mapping[str, Any], block: Mapping[str, Any], place: int) -> str:
    here = block["main"][place]
    cells = [block["intact"][place], *(here["means"][c] for c in ("vision cut", "language cut", "both cut"))]
    model = run["model"].removeprefix("zoo:")
    return (
        f"| `{model}`, `{run['cut']}` | {here['layer']} | "
        + " | ".join(f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in cells)
        + f" | {_ratio(here['recovered'])} | {block['n']} in {block['images']} |"
    )


def _ratio(one: Mapping[str, Any]) -> str:
    if one["value"] is None or one["low"] is None:
        return "undefined" if one["value"] is None else "no interval"
    return f"{100 * one['value']:.0f} % [{100 * one['low']:.0f}, {100 * one['high']:.0f}]"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_bytes(folder / "tables.md", tables(study(folder)).encode())
