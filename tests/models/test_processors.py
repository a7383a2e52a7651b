"""Processors where torchvision is missing: images still work, videos say why they do not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoProcessor, Qwen2_5_VLProcessor
from transformers.utils.import_utils import is_torchvision_available

from checkpoints import VIDEO
from eyechart.core.errors import UserError
from eyechart.models.processors import NoVideo, images_only, load_processor
from pictures import picture

bare = pytest.mark.skipif(
    is_torchvision_available(), reason="torchvision is here: AutoProcessor loads these itself"
)


@bare
@pytest.mark.parametrize("name", VIDEO)
def test_a_processor_with_a_video_half_loads(name: str, checkpoint_dir: Callable[[str], Path]) -> None:
    folder = str(checkpoint_dir(name))
    with pytest.raises(ImportError, match=r"[Vv]ideo"):
        AutoProcessor.from_pretrained(folder)
    processor = load_processor(folder)
    assert isinstance(processor.video_processor, NoVideo)
    assert processor.chat_template
    with pytest.raises(UserError, match="it takes images but no videos"):
        processor.video_processor([picture(8, 8)])


@bare
def test_it_is_still_a_processor_of_its_class(checkpoint_dir: Callable[[str], Path]) -> None:
    processor = load_processor(str(checkpoint_dir("qwen2_5_vl")))
    assert isinstance(processor, Qwen2_5_VLProcessor)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert issubclass(images_only(Qwen2_5_VLProcessor), Qwen2_5_VLProcessor)


def test_another_missing_package_is_told_as_it_is(
    checkpoint_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ImportError("this needs sentencepiece")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(ImportError, match="this needs sentencepiece"):
        load_processor(str(checkpoint_dir("qwen2_5_vl")))
