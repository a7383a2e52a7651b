"""A vision-language model behind an OpenAI-compatible server.

Any server that answers `POST /v1/chat/completions` with images as data URLs will do (vLLM, SGLang, `transformers serve`,
hosted ones). What is asked of it is greedy replies; it has no states, no options' scores and no attention to cut.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import httpx

from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Capability, Prompt
from eyechart.models.servers.exchange import (
    Answer,
    Refused,
    Unanswered,
    ask_until_answered,
    body_of,
    words_of,
)

KEY, NO_KEY = "OPENAI_API_KEY", "EMPTY"
"""Where the key is looked for, and what is sent where there is none, as vLLM's documentation has it."""

WHY = "it is a server, which gives replies and nothing of what is inside"
SHOWN = 5
HOPELESS = 3
"""So many questions that failed for good while none was answered end the asking."""


class Server:
    """One model of one server, asked several questions at a time."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        retries: int = 6,
        timeout: float = 120.0,
        seed: int | None = 0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect, and find out which model answers.

        Args:
            base_url: with or without `/v1` at its end.
            model: which of the server's models; may be left out where it has one.
            api_key: by default what the environment variable OPENAI_API_KEY holds; it is written nowhere.
            concurrency: questions under way at once.
            retries: how often a question is put again after a failure that may pass.
            timeout: seconds to wait for an answer.
            seed: sent with every question, for servers that take one; None sends none.
            transport: of httpx, for tests.

        Raises:
            UserError: the server cannot be reached, refuses the key, or has several models and none was named.
        """
        if concurrency < 1 or retries < 0 or timeout <= 0:
            raise UserError(
                f"concurrency must be 1 or more, retries 0 or more and timeout above 0, got {concurrency}, {retries}, {timeout}"
            )
        self._url = _with_version(base_url)
        self.base_url = str(self._url.copy_with(userinfo=b""))
        self.concurrency, self.retries, self.seed = concurrency, retries, seed
        key = api_key or os.environ.get(KEY) or NO_KEY
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency),
            transport=transport,
        )
        self._listed: dict[str, Mapping[str, Any]] = {}
        self._finishes: Counter[str] = Counter()
        self._fingerprints: Counter[str] = Counter()
        self._tries = 0
        try:
            self.model = self._chosen(model)
        except BaseException:
            self._client.close()
            raise

    # ------------------------------------------------------------------------------------- what it is

    @property
    def id(self) -> str:
        """The model's name at its server."""
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
        if cut := self._finishes["length"]:
            notes.append(f"{cut} replies were cut at the longest that was asked for")
        if len(self._fingerprints) > 1:
            notes.append(f"answers came from {len(self._fingerprints)} system fingerprints")
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
            "served": {
                name: listed[name]
                for name in ("owned_by", "root", "created", "max_model_len")
                if name in listed
            },
            "revision": None,
            "sha256": None,
            "architecture": None,
            "adapter": None,
            "capabilities": sorted(one.value for one in self.capabilities),
            "cannot": {one.value: why for one, why in sorted(self.cannot.items())},
            "trained": self.trained,
            "dtype": None,
            "device": None,
            "attn": None,
            "template": self.template,
            "notes": list(self.notes),
            "system_fingerprints": sorted(self._fingerprints),
        }

    # ------------------------------------------------------------------------------------- asking it

    def replies(
        self, prompts: Iterable[tuple[str, Prompt]], *, max_new_tokens: int
    ) -> Iterator[tuple[str, str]]:
        """Each prompt's reply under its key, as they come.

        Prompts are taken from their iterator when there is room for one, so no more than `concurrency` are held. A reply
        that was given is not asked for again. A prompt that fails for good does not end the others.

        Raises:
            UserError: after all others were answered, where some were not: how many, and the last failure of the first; at once
                where the server refuses the key, or has answered nothing and failed several.
        """
        stopped = threading.Event()
        failed: dict[str, str] = {}
        waiting: dict[Future[Answer], str] = {}
        fatal: UserError | None = None
        answered, given = 0, iter(prompts)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="asking")
        try:
            while True:
                hopeless = answered == 0 and len(failed) >= HOPELESS
                while fatal is None and not hopeless and len(waiting) < self.concurrency:
                    if (pair := next(given, None)) is None:
                        break
                    waiting[pool.submit(self._ask, pair[1], max_new_tokens, stopped)] = pair[0]
                if not waiting:
                    break
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    key = waiting.pop(future)
                    try:
                        answer = future.result()
                    except (Unanswered, Refused) as error:
                        failed[key] = str(error)
                    except UserError as error:
                        fatal = fatal or error
                    else:
                        answered += 1
                        self._note(answer)
                        yield key, answer.text
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
        if fatal is not None:
            raise fatal
        if failed:
            raise UserError(self._missing(failed))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, prompt: Prompt, max_new_tokens: int, stopped: threading.Event) -> Answer:
        def sleep(seconds: float) -> None:
            if stopped.wait(seconds):
                raise Unanswered("stopped")

        body = body_of(prompt, model=self.model, max_new_tokens=max_new_tokens, seed=self.seed)
        return ask_until_answered(self._client, body, retries=self.retries, sleep=sleep)

    def _note(self, answer: Answer) -> None:
        self._finishes[answer.finish or "unsaid"] += 1
        self._tries += answer.tries
        if answer.fingerprint:
            self._fingerprints[answer.fingerprint] += 1

    def _missing(self, failed: Mapping[str, str]) -> str:
        names = ", ".join(list(failed)[:SHOWN]) + (", ..." if len(failed) > SHOWN else "")
        first = next(iter(failed.values()))
        return (
            f"{self.id} did not answer {len(failed)} questions ({names}); the first: {first}. All other answers are kept:"
            " the same command asks only these again"
        )

    def _chosen(self, wish: str | None) -> str:
        """The model that is asked. A server that lists none is asked for the one that was named."""
        try:
            response = self._client.get("models")
        except httpx.TransportError as error:
            raise UserError(
                f"no server answers at {self.base_url} ({type(error).__name__}: {error}); is it running, and is this its address?"
            ) from error
        if response.status_code in (401, 403):
            raise UserError(
                f"{self.base_url} refuses the key (HTTP {response.status_code}: {words_of(response)}); give one that it takes"
                f" by the environment variable {KEY}"
            )
        self._listed = _models(response)
        if wish is not None:
            return wish
        if len(self._listed) == 1:
            return next(iter(self._listed))
        there = ", ".join(list(self._listed)[:20]) or "it lists none"
        raise UserError(
            f"{self.base_url} serves {len(self._listed)} models ({there}); say which one, as in: eyechart score NAME --base-url"
            f" {self.base_url}"
        )


def is_server(text: str) -> bool:
    """Whether a model's name is a server's URL."""
    return text.startswith(("http://", "https://"))


def _with_version(base_url: str) -> httpx.URL:
    """The URL with `/v1/` at its end, where it has no path of its own.

    Raises:
        UserError: it is no http(s) URL.
    """
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise UserError(f"{base_url!r} is no URL ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{base_url!r} is no server's URL; expected one such as http://localhost:8000/v1")
    path = url.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return url.copy_with(path=path + "/", query=None)


def _models(response: httpx.Response) -> dict[str, Mapping[str, Any]]:
    """The models a server lists, by id; none where it does not list them in OpenAI's shape."""
    try:
        rows = response.json()["data"] if response.status_code == 200 else []
        return {str(row["id"]): row for row in rows}
    except (ValueError, KeyError, TypeError):
        return {}
