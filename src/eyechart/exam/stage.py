"""What an exam is held on: the model, the benchmark and the reference encoder, each with its identity."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image

from eyechart.core.config import to_dict
from eyechart.core.devices import pick_device
from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.core.records import Benchmark, Capability
from eyechart.exam.benchmark import open_benchmark
from eyechart.exam.config import ExamConfig
from eyechart.exam.defaults import HUB_REFERENCE, UNTRAINED, zoo_reference
from eyechart.models import load_chosen, load_encoder
from eyechart.models.encoders import Encoder
from eyechart.models.fed import POOLING, pool
from eyechart.models.quiet import quiet
from eyechart.models.servers import Server, is_server
from eyechart.models.sources import Fingerprint, Source, fingerprint, parse_source
from eyechart.models.untrained import Untrained, make_untrained
from eyechart.models.vlms import VLM
from eyechart.score.opening import WORLD, Progress


class Stage:
    """The resolved exam. Weights are loaded at first use, so that a finished run is shown again without them.

    What has to be made for it (the random-weight model, the world's pictures) lies beside the run folder, in
    `bundled/`; pictures that stand in a table as bytes lie in `images/` there.
    """

    def __init__(
        self,
        config: ExamConfig,
        folder: Path,
        *,
        in_memory: VLM | None = None,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        """Resolve what is named; scenes of the world are rendered here.

        Raises:
            UserError: a model, benchmark or reference encoder that was named cannot be had.
        """
        self.config = config
        self.device = pick_device(config.device)
        self.bundled = folder.parent / "bundled"
        self._in_memory = in_memory
        self._untrained: Untrained | None = None
        if config.model == UNTRAINED and in_memory is None:
            with quiet():
                self._untrained = make_untrained(self.bundled)
        self.benchmark: Benchmark = open_benchmark(config, self.bundled, progress)

    @cached_property
    def vlm(self) -> VLM | Server:
        """The model under examination, loaded, or its server."""
        config = self.config
        if self._in_memory is not None:
            return self._in_memory
        if is_server(config.model):
            return Server(config.model, model=config.served_model)
        with quiet():
            return load_chosen(config, name=self._model_name)

    @cached_property
    def reference(self) -> Encoder | None:
        """The reference encoder, loaded in float32 (it is the referee); None where `reference_missing` says why."""
        return self._reference[0]

    @property
    def reference_missing(self) -> str | None:
        """Why there is no reference encoder; None when there is one."""
        return self._reference[1]

    def identity(self) -> dict[str, Any]:
        """What `config.yaml` holds: every choice in force, and which weights, questions and pictures exactly."""
        benchmark = self.benchmark
        return {
            **to_dict(self.config),
            "resolved": {
                "model": self._model_identity,
                "benchmark": {
                    "name": benchmark.name,
                    "sha256": benchmark.sha256,
                    "rows_sha256": benchmark.rows_sha256,
                },
                "reference": self._identity_of_reference(),
                "device": str(self.device.device),
            },
        }

    @property
    def fed_key(self) -> str:
        """What the vectors of `fed_vectors` depend on besides the image."""
        return f"{json.dumps(self._model_identity, sort_keys=True)}:{POOLING}:{self.vlm.dtype}"

    def fed_vectors(self, images: Sequence[Image]) -> Float[np.ndarray, "image dim"]:
        """What the model's projector reads, as one vector an image."""
        return np.stack([pool(fed).numpy() for fed in self._here.fed(images)])

    @cached_property
    def fed_described(self) -> dict[str, Any] | None:
        """What the projector reads of the first picture, in words; None where it cannot be said."""
        if Capability.FED_FEATURES not in self.vlm.capabilities:
            return None
        return self._here.fed([open_image(self.benchmark.items[0].image).image])[0].describe()

    def reference_vectors(self, images: Sequence[Image]) -> Float[np.ndarray, "image dim"]:
        """The images under the reference encoder."""
        assert self.reference is not None
        return self.reference.embed(images, pooling=self.config.reference_pooling).numpy()

    def close(self) -> None:
        """Close the connections to a server, where there are any."""
        model = self.__dict__.get("vlm")
        if isinstance(model, Server):
            model.close()

    @property
    def _here(self) -> VLM:
        """The model, where more than replies is asked of it.

        Raises:
            Incapable: it is a server.
        """
        if isinstance(self.vlm, Server):
            self.vlm.require(Capability.FED_FEATURES, for_="reading fed features")
        assert isinstance(self.vlm, VLM)
        return self.vlm

    @property
    def _model_name(self) -> str:
        if self._untrained is not None:
            return str(self._untrained.vlm)
        return self.config.model

    @cached_property
    def _model_identity(self) -> dict[str, Any]:
        """Known before loading where it can be (a folder, a hub model in the cache), else after."""
        adapter = self.config.adapter
        extra = {"adapter": _folder_print(adapter)} if adapter else {}
        if self._in_memory is not None:
            vlm = self._in_memory
            sha256 = objects_sha256(vlm.model, vlm.processor)
            return to_dict(Fingerprint(id=vlm.id, revision=vlm.revision, sha256=sha256))
        found = fingerprint(parse_source(self._model_name, revision=self.config.revision))
        if not (found.sha256 or found.revision):
            found = Fingerprint(id=self.vlm.id, revision=self.vlm.revision, sha256=self.vlm.sha256)
        return to_dict(found) | extra

    def _identity_of_reference(self) -> str | None:
        """Which reference exactly; whether the default one could be had is settled at the first look."""
        reference = self.reference
        return reference.cache_key(self.config.reference_pooling) if reference else None

    @cached_property
    def _reference(self) -> tuple[Encoder | None, str | None]:
        wish = self.config.reference
        if wish == "none":
            return None, "none was asked for (--reference none)"
        if wish != "auto":
            return self._load_reference(wish), None
        default = self._default_reference()
        try:
            return self._load_reference(default), None
        except UserError as error:
            return None, f"the default, {default}, cannot be had ({error}); name another with --reference"

    def _default_reference(self) -> str:
        """What 'auto' means here."""
        of_the_zoo = zoo_reference()
        if of_the_zoo and (self.config.on == WORLD or self.config.model.startswith("zoo:")):
            return of_the_zoo
        return HUB_REFERENCE if self._untrained is None else str(self._untrained.reference)

    def _load_reference(self, name: str) -> Encoder:
        with quiet():
            return load_encoder(name, device=str(self.device.device), dtype="float32")


def objects_sha256(model: torch.nn.Module, processor: Any) -> str:
    """The identity of a model in memory: a hash of its config, every parameter and buffer, and the processor's settings."""
    whole = hashlib.sha256(json.dumps(_settings(model, processor), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _settings(model: Any, processor: Any) -> list[Any]:
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    templates = [getattr(one, "chat_template", None) for one in (processor, processor.tokenizer)]
    return [model.config.to_dict(), processor.image_processor.to_dict(), templates, vocabulary]


def _folder_print(folder: str) -> str | None:
    return fingerprint(Source(kind="local", name=str(Path(folder).expanduser()))).sha256
