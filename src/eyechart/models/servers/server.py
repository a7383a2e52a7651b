"""A vision-language model behind an OpenAI-compatible server.

Any server that answers `POST /v1/chat/completions` with images as data URLs will do (vLLM, SGLang, `transformers serve`,
hosted ones). What is asked of it is greedy replies; it has no states, no options' scores and no attention to cut.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import httpx

from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Capability, Prompt
from eyechart.models.servers.address import key_of, parse_server
from eyechart.models.servers.asking import Asking
from eyechart.models.servers.background import Background
from eyechart.models.servers.exchange import Exchange
from eyechart.models.servers.responses import Answer, models_of, refusal

WHY = "it is a server, which gives replies and nothing of what is inside"
_KEPT = ("owned_by", "root", "created", "max_model_len")


class Server:
    """One model of one server, asked several questions at a time; close it, or use it in a `with`."""

    revision: str | None = None
    sha256: str | None = None
    dtype: str | None = None
    architecture: str | None = None

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        retries: int = 6,
        timeout: float = 120.0,
        seed: int | None = None,
        first_wait: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect, and find out which model answers.

        Args:
            base_url: see `parse_server`.
            model: which of the server's models; may be left out where it lists one.
            api_key: by default what the environment variable OPENAI_API_KEY holds; it is written nowhere.
            concurrency: questions under way at once.
            retries: how often a question is put again after a failure that may pass.
            timeout: seconds to wait for a whole answer.
            seed: sent with every question where given; greedy replies need none, and some servers refuse it.
            first_wait: seconds before the first repetition, each later one after twice as long.
            transport: of httpx, for tests.

        Raises:
            UserError: an argument is no such thing, the server refuses the key, or none was named of several models;
                or the server cannot be reached and no model was named.
        """
        if concurrency < 1 or retries < 0 or timeout <= 0 or first_wait <= 0:
            raise UserError(
                "concurrency must be 1 or more, retries 0 or more, timeout and first_wait above 0, got"
                f" {concurrency}, {retries}, {timeout}, {first_wait}"
            )
        self.base_url = parse_server(base_url)
        self.concurrency, self.seed = concurrency, seed
        key = key_of(api_key)
        client = _client(self.base_url, key, timeout=timeout, at_once=concurrency, transport=transport)
        self._exchange = Exchange(
            client=client, key=key, retries=retries, timeout=timeout, first_wait=first_wait
        )
        self._listed: dict[str, Mapping[str, Any]] = {}
        self._seen: dict[str, Counter[str]] = {
            "finish": Counter(),
            "fingerprint": Counter(),
            "model": Counter(),
        }
        self._repeated = 0
        self._background = Background("asking")
        self._closed = False
        try:
            self._unreached = self._look()
            self.model = self._chosen(model)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------- what it is

    @property
    def id(self) -> str:
        """The model's name, and its server."""
        return f"{self.model} at {self.base_url}"

    @property
    def template(self) -> str:
        """Who lays out the prompt."""
        return "the server's own; it is given one user message, images before the text"

    @property
    def trained(self) -> bool:
        """A server's model is taken to be."""
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """What its results depend on, in words, as far as was seen until now."""
        notes = ["images are sent as PNG data URLs; how they are brought to size is the server's own"]
        finishes, total = self._seen["finish"], self._seen["finish"].total()
        if cut := finishes["length"]:
            notes.append(f"{cut} of {total} replies were cut at the longest that was asked for")
        if taken := finishes["content_filter"]:
            notes.append(f"{taken} of {total} replies were held back by the server's filter")
        for what, name in (("fingerprint", "system fingerprints"), ("model", "models")):
            if len(self._seen[what]) > 1:
                notes.append(
                    f"answers came from {len(self._seen[what])} {name}: {', '.join(sorted(self._seen[what]))}"
                )
        return tuple(notes)

    @property
    def cannot(self) -> dict[Capability, str]:
        """The capabilities it lacks, each with the reason."""
        return {one: WHY for one in Capability if one is not Capability.GENERATE}

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can be asked for."""
        return frozenset({Capability.GENERATE})

    def require(self, capability: Capability, *, for_: str) -> None:
        """Go on only if it has a capability.

        Raises:
            Incapable: it has not.
        """
        if capability is not Capability.GENERATE:
            raise Incapable(
                f"{for_} needs the capability {capability.value!r}, which {self.id} does not have: {WHY}"
            )

    def describe(self) -> dict[str, Any]:
        """The `model` block of results.json and manifest.json; the key is not in it."""
        listed = self._listed.get(self.model, {})
        return {
            "id": self.id,
            "base_url": self.base_url,
            "served_model": self.model,
            "served": {name: listed[name] for name in _KEPT if name in listed},
            "answered_as": sorted(self._seen["model"]),
            "system_fingerprints": sorted(self._seen["fingerprint"]),
            "finish_reasons": dict(sorted(self._seen["finish"].items())),
            "repeated": self._repeated,
            "revision": self.revision,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "adapter": None,
            "capabilities": sorted(one.value for one in self.capabilities),
            "cannot": {one.value: why for one, why in sorted(self.cannot.items())},
            "trained": self.trained,
            "dtype": self.dtype,
            "device": None,
            "attn": None,
            "template": self.template,
            "notes": list(self.notes),
        }

    # ------------------------------------------------------------------------------------- asking it

    def replies(
        self, prompts: Iterable[tuple[str, Prompt]], *, max_new_tokens: int
    ) -> Iterator[tuple[str, str]]:
        """Each prompt's reply under its key, as they come.

        Prompts are taken from their iterator when there is room for one, so no more than `concurrency` are held. A reply
        that was given is not asked for again. A prompt that fails for good does not end the others. Whoever stops taking
        replies, by an interruption too, ends what is under way at once.

        An empty reply is a reply: it is what the model said, and is not asked for again.

        Raises:
            Unanswered: after all others were answered, where some were not; earlier where as many in a row failed as
                are asked at once, or the first ones were refused and nothing was answered.
            UserError: the server cannot be reached or refuses the key. What was under way is given before.
        """

        def put(prompt: Prompt) -> "Future[Answer]":
            self._reach()
            return self._background.start(
                self._exchange.ask(prompt, model=self.model, max_new_tokens=max_new_tokens, seed=self.seed)
            )

        asking = Asking(put, iter(prompts), at_once=self.concurrency, whom=self.id)
        try:
            for key, answer in asking:
                self._note(answer)
                yield key, answer.text
        finally:
            asking.cancel()
        asking.settle()

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """The replies to all of these prompts, in their order, as a VLM held here gives them.

        Raises:
            UserError: see `replies`.
        """
        keyed = ((str(place), prompt) for place, prompt in enumerate(prompts))
        said = dict(self.replies(keyed, max_new_tokens=max_new_tokens))
        return [said[str(place)] for place in range(len(prompts))]

    def close(self) -> None:
        """End what is under way and close the connections; harmless the second time."""
        if not self._closed:
            self._closed = True
            self._background.run(self._exchange.client.aclose())
            self._background.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------- details

    def _reach(self) -> None:
        """Make sure that the server answers at all, where it did not at first.

        Raises:
            UserError: it does not, it refuses the key, or the connections were closed.
        """
        if self._closed:
            raise UserError(f"the connections to {self.base_url} were closed; make a new Server")
        if self._unreached:
            self._unreached = self._look()
        if self._unreached:
            raise UserError(self._unreached)

    def _note(self, answer: Answer) -> None:
        self._repeated += answer.tries - 1
        self._seen["finish"][answer.finish or "unsaid"] += 1
        for name in ("fingerprint", "model"):
            if value := getattr(answer, name):
                self._seen[name][value] += 1

    def _look(self) -> str:
        """Ask which models there are; says why where nobody answers.

        Raises:
            UserError: the key is refused.
        """
        try:
            response = self._background.run(self._exchange.client.get("models"))
        except httpx.HTTPError as error:
            return (
                f"no server answers at {self.base_url} ({type(error).__name__}: {error}); is it running, and is this its"
                " address?"
            )
        if response.status_code in (401, 403):
            raise UserError(refusal(response, hide=self._exchange.key))
        self._listed = models_of(response)
        return ""

    def _chosen(self, wish: str | None) -> str:
        """The model that is asked. A server that lists none, or other names, is asked for the one that was named."""
        if wish:
            return wish
        if self._unreached:
            raise UserError(self._unreached)
        if len(self._listed) == 1:
            return next(iter(self._listed))
        there = ", ".join(list(self._listed)[:20]) or "it lists none"
        raise UserError(
            f"{self.base_url} serves {len(self._listed)} models ({there}); say which one, as in: eyechart score NAME --base-url"
            f" {self.base_url}"
        )


def _client(
    url: str, key: str, *, timeout: float, at_once: int, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url + "/",
        headers={"Authorization": f"Bearer {key}"},
        timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
        transport=transport,
    )
