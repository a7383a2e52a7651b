"""A small LLaVA of random weights on disk, and conversations about small pictures in the formats that people have."""

import json
from pathlib import Path
from typing import Any

from eyechart.models.quiet import quiet
from eyechart.train.vlm import join_towers
from pictures import picture
from zoo_parts import save_small_clip, save_small_language, small_tokenizer

PATCHES = 4
"""Image tokens of the small LLaVA: 24 pixels, patches of 12."""

QUESTION = "Is the mug full or empty?"


def save_small_llava(folder: Path, *, template: str | None = None) -> Path:
    """A CLIP and a Llama of width 16, joined; its template is the zoo's unless another is given."""
    tokenizer = small_tokenizer()
    clip = save_small_clip(folder / "clip", tokenizer)
    language = save_small_language(folder / "lm", tokenizer)
    model, processor = join_towers(clip, language)
    if template is not None:
        processor.chat_template = template
    with quiet():
        model.save_pretrained(folder / "llava")
        processor.save_pretrained(folder / "llava")
    return folder / "llava"


def write_pictures(folder: Path, count: int) -> list[str]:
    """Pictures of noise, no two alike; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(24, 24, seed=number).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def rows(count: int, *, text_only: int = 3) -> list[dict[str, Any]]:
    """LLaVA rows: most on one picture, the fourth on two, every `text_only`-th on none."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        answer = ("full", "empty", "left", "right")[number % 4]
        shown = [] if text_only and number % text_only == text_only - 1 else [f"{number % 6}.png"]
        if number == 3:
            shown = ["3.png", "1.png"]
        asked = "".join("<image>\n" for _ in shown) + QUESTION + " no" * (number % 3)
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        row: dict[str, Any] = {"id": f"row-{number}", "conversations": turns}
        made.append(row | ({"image": shown if len(shown) > 1 else shown[0]} if shown else {}))
    return made


def write_rows(folder: Path, count: int = 12, **options: Any) -> Path:
    """The rows as LLaVA JSON beside their pictures."""
    write_pictures(folder, 6)
    file = folder / "llava.json"
    file.write_text(json.dumps(rows(count, **options)))
    return file


def plan_of(model: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """A recipe with two short stages, as YAML holds it; `stage1` and `stage2` change what is in both."""
    stage = {
        "data": [{"file": str(data)}],
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_steps": 2,
        "bf16": False,
    }
    stages = {name: stage | options.pop(name, {}) for name in ("stage1", "stage2")}
    return {"model": str(model), "output_dir": str(out), "max_length": 64, **stages, **options}
