"""What is scored, named first and loaded when it is needed: a VLM, an encoder, or a server."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from eyechart.core.config import to_dict
from eyechart.models import load_chosen, load_encoder
from eyechart.models.kinds import kind_of
from eyechart.models.quiet import quiet
from eyechart.models.servers import Server
from eyechart.models.sources import fingerprint, parse_source
from eyechart.score.config import ScoreConfig


class Held:
    """What is examined; weights are loaded at first use, so that a finished run is shown again without them."""

    def __init__(self, config: ScoreConfig, kind: str, stack: ExitStack) -> None:
        """Name it; `stack` closes the connections to a server."""
        self.config, self.kind = config, kind
        self._stack = stack
        self._loaded: Any = None
        self.identity = self._identity()

    def beside(self, config: ScoreConfig) -> "Held":
        """Another model, whose connections are closed with this one's."""
        return Held(config, kind_of(config.model, revision=config.revision), self._stack)

    @property
    def loaded(self) -> Any:
        """The VLM, the encoder or the server."""
        if self._loaded is None:
            with quiet():
                self._loaded = self._load()
        return self._loaded

    def _load(self) -> Any:
        config = self.config
        if self.kind == "server":
            server = Server(
                config.model,
                model=config.served_model,
                concurrency=config.concurrency,
                retries=config.retries,
                timeout=config.timeout,
            )
            self._stack.callback(server.close)
            return server
        if self.kind == "encoder":
            return load_encoder(
                config.model,
                device=config.device,
                dtype="float32" if config.dtype == "auto" else config.dtype,
                revision=config.revision,
                attn=config.attn,
                trust_remote_code=config.trust_remote_code,
            )
        return load_chosen(config)

    def _identity(self) -> dict[str, Any]:
        """Which model exactly, known before loading where it can be."""
        if self.kind == "server":
            return {"id": self.loaded.describe()["id"], "revision": None, "sha256": None}
        known = fingerprint(parse_source(self.config.model, revision=self.config.revision))
        if not (known.sha256 or known.revision):
            known = replace(known, revision=self.loaded.revision, sha256=self.loaded.sha256)
        return to_dict(known)
