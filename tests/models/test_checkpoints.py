"""The test checkpoints are fit for tests: they load offline, react to their images, and come out the same each time."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from checkpoints import ENCODERS, VARIANTS, VIDEO, VLMS, checkpoint
from eyechart.models.processors import NoVideo, load_processor
from pictures import picture

MOST = 3_000_000
"""Bytes in a checkpoint's folder."""


def prompt(processor, name: str) -> str:
    """A question with a picture, as this processor wants it."""
    if not processor.chat_template:
        return "<image>Left?" if name in ("paligemma", "llava_no_chat", "kosmos2") else "Left?"
    content = [{"type": "image"}, {"type": "text", "text": "Is it left? (a) Yes (b) No"}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@pytest.mark.parametrize("name", [*VLMS, "llava_no_chat"])
def test_a_vlm_loads_and_sees(name: str, checkpoint_dir: Callable[[str], Path]) -> None:
    folder = checkpoint_dir(name)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = load_processor(str(folder))
    logits = []
    for seed in (1, 2):
        inputs = processor(
            images=[picture(90, 60, seed)], text=[prompt(processor, name)], return_tensors="pt"
        )
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert torch.isfinite(logits[0]).all()
    assert (logits[0] - logits[1]).abs().max() > 0.1, f"{name} answers the same whatever it is shown"
    assert sum(file.stat().st_size for file in folder.rglob("*")) < MOST


@pytest.mark.parametrize("name", sorted(set(VLMS) - set(VIDEO)))
def test_auto_processor_loads_those_without_videos(name: str, checkpoint_dir: Callable[[str], Path]) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint_dir(name))
    assert type(processor) is type(load_processor(str(checkpoint_dir(name))))


@pytest.mark.parametrize("name", VIDEO)
def test_a_missing_video_half_loses_no_settings(
    name: str, checkpoint_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    processor = load_processor(str(checkpoint_dir(name)))
    if not isinstance(processor.video_processor, NoVideo):
        pytest.skip("torchvision is here, so the video half is the real one")
    processor.save_pretrained(tmp_path)
    before = json.loads((checkpoint_dir(name) / "processor_config.json").read_text())
    assert json.loads((tmp_path / "processor_config.json").read_text()) == before


@pytest.mark.parametrize("name", ["llava", "clip", "dinov3"])
def test_a_checkpoint_is_the_same_each_time(
    name: str, checkpoint_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    again = checkpoint(name, tmp_path)
    for file in sorted(checkpoint_dir(name).rglob("*")):
        assert (again / file.relative_to(checkpoint_dir(name))).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("name", [*ENCODERS, *VARIANTS])
def test_a_config_names_its_type(name: str, checkpoint_dir: Callable[[str], Path]) -> None:
    assert AutoConfig.from_pretrained(checkpoint_dir(name)).architectures
