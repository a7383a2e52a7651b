"""Can a language model make up for what its vision tower was kept from seeing? Knockouts in VLMs of the zoo's recipe.

    python -m eyechart.recipes.compensation build/studies/compensation docs/studies

After Takishita et al., "LLMs Can Compensate for Deficiencies in Visual Representations" (arXiv 2506.05439). Each VLM is read on the same
test scenes under two vision cuts: `part<-rest` keeps the part's patches from reading anything else, `patches<-patches` keeps
every patch alone. The language cut is the same in both: the part's positions read no earlier image position.

First the three VLMs that come with Eyechart, with every control, and one of them by the linear part probe, too; then those that
`compensation_seeds` trains. All is resumable. What the tables of `docs/studies/compensation.md` are made of goes to the second folder.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from eyechart.core.files import write_json
from eyechart.locate.run import Progress
from eyechart.recipes.compensation_raw import BUNDLED, gather
from eyechart.recipes.compensation_results import RAW, main
from eyechart.recipes.compensation_seeds import CUTS, PICTURES, read, run

MODELS = ("llava-biased", "llava-told-all", "llava-permuted")

MAIN_CUT = "part<-rest"
"""The vision cut that has random edges beside it."""

PROBED = "llava-biased"
"""The VLM that the linear part probe reads under it, too: a probe takes more time than all the rest of a reading."""

CONTROLS = "compensation-controls.json"


def bundled(
    out: Path, *, pictures: int = PICTURES, progress: Progress = lambda stage, done, total: None
) -> Iterator[tuple[str, int, str, Path]]:
    """Read the bundled VLMs under both cuts: name, `BUNDLED`, cut and run folder of each."""
    for model in MODELS:
        for cut, controls in CUTS.items():
            more, probe = ("random",) if cut == MAIN_CUT else (), (model, cut) == (PROBED, MAIN_CUT)
            folder = read(
                f"zoo:{model}", cut, (*controls, *more), out / "read", pictures, progress, part_probe=probe
            )
            yield model, BUNDLED, cut, folder


def controls_of(readings: list[tuple[str, int, str, Path]]) -> list[dict[str, Any]]:
    """Of the bundled VLMs what is in no table of raw results: random edges, and the part probe."""
    return [
        {
            "vlm": vlm,
            "cut": cut,
            **_summed(json.loads((folder / "results.json").read_text("utf8"))["eyechart"]),
        }
        for vlm, seed, cut, folder in readings
        if seed == BUNDLED
    ]


def _summed(block: Mapping[str, Any]) -> dict[str, Any]:
    """Random edges at the last layer by scale, and the probe's 2x2 at the layers it reads."""
    knockout = block["knockout"]
    lens = {"all parts": knockout["lens"], "look-alikes": knockout.get("lens_rival", {})}
    return {
        "proofs": len(block["proofs"]),
        "random": {
            name: one["arms"]["random"][-1] for name, one in lens.items() if "random" in one.get("arms", {})
        },
        "probe": {name: one for name, one in knockout["probe"].items() if name in ("transfer", "refit")},
    }


def study(out: Path, docs: Path) -> None:
    """Run what is missing, and write raw results, tables and pictures."""
    readings = list(bundled(out))
    write_json(docs / CONTROLS, controls_of(readings))
    readings += [(arm.name, seed, cut, folder) for arm, seed, cut, folder in run(out)]
    pq.write_table(gather(readings), docs / RAW, compression="zstd")
    main(docs)


if __name__ == "__main__":
    study(Path(sys.argv[1]), Path(sys.argv[2]))
