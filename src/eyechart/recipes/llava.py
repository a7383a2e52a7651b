"""A LLaVA-like VLM on one's own conversations, from a recipe file; and the world written as such conversations.

eyechart train llava.yaml
"""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eyechart.core.errors import UserError
from eyechart.recipes.vlm import captions, choose_questions, examples
from eyechart.train.loop import Report
from eyechart.train.packs import Example
from eyechart.train.plan import DataPlan, StagePlan, TrainPlan, from_folder, read_plan
from eyechart.train.samples import MARK, Sample, read_samples
from eyechart.train.stages import train_stages
from eyechart.world.sets import load_set, png, set_hash

PER_PATTERN = 1000
"""Questions of each pattern about the world."""


def train_from_file(file: Path, given: dict[str, Any] | None = None, *, report: Report | None = None) -> Path:
    """Train as a recipe file says; the folder of the trained model.

    Args:
        given: options that override the file's, as `read_plan` takes them.

    Raises:
        UserError: recipe, data or model do not fit together.
    """
    plan = placed(read_plan(file, given), file.parent, given or {})
    return train_stages(plan, lambda part: resolved(part, file.parent, Path(plan.output_dir)), report=report)


def placed(plan: TrainPlan, folder: Path, given: dict[str, Any]) -> TrainPlan:
    """A plan whose folders start from the recipe's; a model that lies there is that folder.

    What was given beside the file starts from where the command was.
    """
    model, out = from_folder(plan.model, folder), from_folder(plan.output_dir, folder)
    features = plan.features_dir and str(from_folder(plan.features_dir, folder))
    return replace(
        plan,
        model=str(model) if model.is_dir() else plan.model,
        output_dir=plan.output_dir if "output_dir" in given else str(out),
        features_dir=features,
    )


def resolved(part: DataPlan, folder: Path, out: Path) -> tuple[Path, Path | None]:
    """A set's file and the folder of its images; of the world a table is made first.

    Raises:
        UserError: there is no such file, or no rendered set.
    """
    if part.world:
        return world_table(from_folder(part.world, folder), out / "world", teach=part.teach), None
    return from_folder(part.file, folder), None if part.images is None else from_folder(part.images, folder)


def world_table(scenes: Path, folder: Path, *, teach: str = "both", seed: int = 0) -> Path:
    """A rendered set of scenes as LLaVA conversations in Parquet: its captions, questions on it, or both.

    The questions are those of the zoo's VLM, answered in a word. The table is made once for each set.

    Raises:
        UserError: there is no rendered set in `scenes`.
    """
    out = folder / f"{teach}-{set_hash(scenes)[:16]}-{seed}.parquet"
    if out.exists():
        return out
    known = load_set(scenes)
    facts = [scene.facts for scene in known.scenes]
    said: list[Example] = captions(facts, seed) if teach != "questions" else []
    if teach != "captions":
        said += examples(choose_questions(facts, PER_PATTERN, seed), seed, labels=False)
    random.Random(f"order {seed}").shuffle(said)
    rows = []
    for number, one in enumerate(said):
        assert one.picture is not None  # captions and questions are all about a picture
        turns = [
            {"from": "human", "value": f"{MARK}\n{one.text}"},
            {"from": "gpt", "value": one.answer},
        ]
        image = {"bytes": png(known.images[one.picture]), "path": f"{one.picture}.png"}
        rows.append({"id": f"{scenes.name}-{number}", "image": image, "conversations": turns})
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".writing")
    pq.write_table(pa.Table.from_pylist(rows), unfinished, row_group_size=1000)
    unfinished.replace(out)
    return out


def described(file: Path, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a recipe file would do, by reading data and recipe but no image and no weights.

    Raises:
        UserError: the recipe is wrong, or a file of data is missing.
    """
    plan = placed(read_plan(file, given), file.parent, given or {})
    told = {name: _stage(plan, name, stage, file.parent) for name, stage in plan.stages.items()}
    done = [name for name in told if (Path(plan.output_dir) / name / "adapters.safetensors").is_file()]
    return {"model": plan.model, "output_dir": plan.output_dir, "stages": told, "stages_done": done}


def _stage(plan: TrainPlan, name: str, stage: StagePlan, folder: Path) -> dict[str, Any]:
    count: Counter[str] = Counter()
    for part in stage.data:
        if part.world:
            _count_world(from_folder(part.world, folder), count)
            continue
        for one in read_samples(*resolved(part, folder, Path(plan.output_dir))):
            if isinstance(one, Sample):
                kind = ("text_only", "one_image")[len(one.images)] if len(one.images) < 2 else "more_images"
                count.update({"rows": 1, kind: 1, "images": len(one.images)})
            else:
                count.update({"set_aside": 1, f"set_aside_{one.reason}": 1})
    steps: int | None = stage.max_steps
    if stage.max_steps < 1:
        whole = not any(part.world for part in stage.data) and count["rows"]
        steps = stage.settings(count["rows"], processes=1, bf16=False, seed=0).max_steps if whole else None
    second = "LoRA in the language model" if stage.lora else "language model"
    return {
        "trains": "adapters" if name == "stage1" else f"adapters and {second}",
        "data": dict(count),
        "steps_on_one_process": steps,
        "rows_a_step": stage.per_device_train_batch_size * stage.gradient_accumulation_steps,
        "learning_rate": stage.learning_rate,
    }


def _count_world(scenes: Path, count: Counter[str]) -> None:
    if not (scenes / "scenes.jsonl").is_file():
        raise UserError(f"{scenes} holds no rendered scenes; first: eyechart world render {scenes}")
    with (scenes / "scenes.jsonl").open() as lines:
        count["scenes"] += sum(1 for _ in lines)
