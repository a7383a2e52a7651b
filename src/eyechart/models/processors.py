"""Load a checkpoint's processor, also where the packages that only videos need are missing."""

import logging
from typing import Any, NoReturn

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

from eyechart.core.errors import UserError

logger = logging.getLogger(__name__)

_AUTO: Any = AutoProcessor
_AUTO_CLASSES: Any = PROCESSOR_MAPPING
_LOADERS: dict[str, Any] = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}


class NoVideo(VideoProcessorMixin):
    """Holds the place of a video processor on a machine without torchvision; images go past it untouched.

    transformers' video processors exist only on torchvision, and a processor such as Qwen2.5-VL's wants one to
    be built at all. This one keeps the settings it was given, so that saving the processor loses nothing.
    """

    # SmolVLM's processor reads these two to fill a chat template, videos or not.
    num_frames = 64
    fps = 1

    def __call__(self, videos: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override]
        """Refuse.

        Raises:
            UserError: always; videos need torchvision.
        """
        raise UserError("this processor was loaded without torchvision, so it takes images but no videos")

    def to_dict(self) -> dict[str, Any]:
        """The settings as they came, under the name of the class they were written for."""
        settings: dict[str, Any] = dict(self.__dict__)
        settings.pop("_processor_class", None)
        return settings


class _TakesNoVideo:
    """Lets `NoVideo` pass where a processor checks the class of its video half."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if isinstance(argument, NoVideo):
            return NoVideo
        return super().check_argument_for_proper_class(argument_name, argument)  # type: ignore[misc]


def images_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same processor class, by the same name, that also accepts `NoVideo` for its video half."""
    return type(
        processor_class.__name__, (_TakesNoVideo, processor_class), {"__doc__": processor_class.__doc__}
    )


def load_processor(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> ProcessorMixin | Any:
    """The processor of a checkpoint (hub id or folder), as `AutoProcessor` gives it wherever it can.

    Where `AutoProcessor` fails only because torchvision is missing for the *video* half, the processor is put
    together from its own image half and tokenizer, with `NoVideo` in the empty place.

    Raises:
        ImportError: another package is missing, or this processor needs torchvision for images too.
    """
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    try:
        return _AUTO.from_pretrained(name, **options)
    except ImportError as error:
        if is_torchvision_available() or "ideo" not in str(error):
            raise
        return _without_video(name, options, error)


def _without_video(name: str, options: dict[str, Any], error: ImportError) -> ProcessorMixin:
    config = AutoConfig.from_pretrained(name, **options)
    if type(config) not in _AUTO_CLASSES:
        raise error
    processor_class: Any = images_only(_AUTO_CLASSES[type(config)])
    parts = []
    for part in processor_class.get_attributes():
        if part == "video_processor":
            settings, _ = VideoProcessorMixin.get_video_processor_dict(name, revision=options["revision"])
            parts.append(NoVideo(**settings))
        elif part in _LOADERS:
            parts.append(_LOADERS[part].from_pretrained(name, **options))
        else:
            raise error
    logger.info("%s: loaded without its video processor, since torchvision is missing", name)
    settings, rest = processor_class.get_processor_dict(name, **options)
    processor: ProcessorMixin = processor_class.from_args_and_dict(parts, settings, **rest)
    return processor
