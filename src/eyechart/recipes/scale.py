"""Does more size or more data cure blindness? A grid of CLIPs on the world, and two at lower resolution.

    python -m eyechart.recipes.scale build/studies/scale

Three widths by three numbers of training scenes, all with the captions of `clip-biased` and as many steps, then the
largest width with all scenes at half and three quarters of the resolution. Each is measured on the same test pairs:
statements and pictures in the shape of MMVP-VLM by pattern, and zero-shot names of kinds and colours beside them. What
is done is kept, a file a model; `scale_results` makes tables and the picture of it.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eyechart.core.files import JsonLines
from eyechart.models import load_encoder
from eyechart.recipes.card_clip import clip_tests, statement_hits, texts_of
from eyechart.recipes.card_scenes import PairScenes, load_pairs
from eyechart.recipes.clip import RATES, SETTINGS, train_clip
from eyechart.recipes.scenes import SCENES, training_scenes
from eyechart.train.contrastive import ClipShape
from eyechart.train.loop import Report, Settings
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan

WIDTHS = (32, 64, 128)
AMOUNTS = (1_500, 6_000, SCENES)
SIDES = (48, 72)
"""Pixels; the grid's are 96."""

RATES_NAME = "biased"
SCENE_SEED = 21
PAIRS = 200
"""Test pairs of each pattern."""

STEPS = replace(SETTINGS, max_steps=750, save_steps=50)
"""Half of what the zoo's CLIPs are trained for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One CLIP of the study."""

    width: int
    scenes: int
    side: int = 96

    @property
    def name(self) -> str:
        """Of its folder and its line in the results."""
        return f"w{self.width}-n{self.scenes}-{self.side}px"

    @property
    def shape(self) -> ClipShape:
        """Heads of 32 channels, four times the width in between, as many layers in all of them."""
        heads = self.width // 32
        return ClipShape(
            image_size=self.side,
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_attention_heads=heads,
        )


ARMS = (
    *(Arm(width=width, scenes=scenes) for width in WIDTHS for scenes in AMOUNTS),
    *(Arm(width=WIDTHS[-1], scenes=SCENES, side=side) for side in SIDES),
)


def study(
    data: Path,
    *,
    arms: Sequence[Arm] = ARMS,
    world: Path = Path("build/world"),
    settings: Settings = STEPS,
    pairs: int = PAIRS,
    workers: int = 1,
    report: Report | None = None,
) -> dict[str, dict[str, Any]]:
    """Train and measure what is not measured yet; the results of all arms by name.

    Args:
        data: checkpoints, models, test pairs and results.
        arms: which CLIPs.
        world: where the training scenes lie, or are to be rendered.
        settings: how long and how fast each is trained.
        pairs: test pairs of each pattern.
        workers: processes that render.
        report: told how far each stage is.
    """
    report = report or (lambda stage, done, total: None)
    scenes = training_scenes(world / "train", workers=workers, progress=report)
    plan = PairPlan(split="test", pairs=pairs, seed=SCENE_SEED)
    known = load_pairs(render_pairs(data / "test-pairs", plan, workers=workers, progress=report))
    done: dict[str, dict[str, Any]] = {}
    for arm in arms:
        lines = JsonLines(data / f"result-{arm.name}.jsonl", key="name")
        if arm.name not in lines:
            model = train_clip(
                RATES_NAME,
                scenes=scenes,
                tokenizer=data / "tokenizer",
                work=data / "work",
                out=data / "models",
                settings=settings,
                shape=arm.shape,
                first=arm.scenes,
                name=arm.name,
                report=report,
            )
            lines.append({"name": arm.name, **measured(model, arm, known), "settings": asdict(settings)})
        done |= {line["name"]: line for line in lines}
        lines.close()
    return done


def measured(model: Path, arm: Arm, known: PairScenes) -> dict[str, Any]:
    """One arm's scores, with what became of each pair, so that arms can be compared on the same ones."""
    encoder = load_encoder(str(model))
    vectors = encoder.embed(known.pictures(), pooling="projected").numpy()
    texts = texts_of(encoder)
    return {
        "arm": asdict(arm),
        "parameters": _parameters(model),
        "test_pairs": known.sha256,
        **clip_tests(vectors, texts, known, {RATES_NAME: RATES[RATES_NAME]}),
        "hits": statement_hits(vectors, texts, known),
    }


def _parameters(model: Path) -> int:
    """How many numbers a checkpoint holds."""
    with safe_open(model / "model.safetensors", framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())


if __name__ == "__main__":
    chosen = [arm for arm in ARMS if arm.name in sys.argv[2:]] or ARMS
    study(Path(sys.argv[1]), arms=chosen)
