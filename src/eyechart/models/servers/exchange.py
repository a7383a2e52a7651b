"""One question put to a server until it is answered: what is sent, and when it is sent again."""

import asyncio
import base64
import io
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from eyechart.core.records import Prompt
from eyechart.models.servers.responses import Answer, Failed, Refused, read_answer

LONGEST_WAIT = 60.0
"""Seconds before a repetition, at most, where the server does not say; each wait is twice the one before, with jitter."""

LONGEST_TOLD = 600.0
"""A server that says to come back later than in so many seconds is not waited for."""

LARGEST = 16 * 2**20
"""Bytes of a response beyond which it cannot be an answer."""

_NEWER = "max_completion_tokens"
"""The name of `max_tokens` that some of OpenAI's models insist on."""


class GaveUp(Exception):
    """A question that was put as often as allowed and not answered; the text is the last failure."""


@dataclass(slots=True)
class Pace:
    """What the questions under way at one server know of each other."""

    answered: int = 0
    until: float = 0.0
    """On the monotonic clock: nobody asks before."""

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long."""
        self.until = max(self.until, time.monotonic() + seconds)

    async def passed(self) -> None:
        """Wait until anybody may ask, not all in the same instant."""
        while (left := self.until - time.monotonic()) > 0:
            await asyncio.sleep(left * (1 + random.random() / 4))


def body_of(prompt: Prompt, *, model: str, max_new_tokens: int, seed: int | None) -> dict[str, Any]:
    """The body of a chat completion: the images as PNG data URLs before the text, greedy."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in prompt.images
    ]
    content: Any = [*parts, {"type": "text", "text": prompt.text}] if parts else prompt.text
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.0,
        "max_tokens": max_new_tokens,
    }
    return body if seed is None else body | {"seed": seed}


def data_url(image: Image.Image) -> str:
    """A picture's pixels without loss, in the form in which chat completions take images.

    PNG, so that the server gets the pixels that a model held here would get, whatever the file was.
    """
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def wait_before(tried: int, first: float, *, rng: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many tries: twice as long each time, half of it by chance."""
    return float(min(first * 2.0**tried, LONGEST_WAIT)) * (0.5 + rng() / 2)


@dataclass(slots=True, kw_only=True)
class Exchange:
    """How questions go to one server."""

    client: httpx.AsyncClient
    key: str
    retries: int
    timeout: float
    """Seconds for one try, from the connection to the last byte."""

    first_wait: float
    pace: Pace = field(default_factory=Pace)
    newer_name: bool = False
    """Whether the server wants `max_completion_tokens`, as it has said itself."""

    async def ask(self, prompt: Prompt, *, model: str, max_new_tokens: int, seed: int | None) -> Answer:
        """Post a question, and again after failures that may pass.

        A busy server (429) that goes on answering other questions uses up no try, and the count begins again.

        Raises:
            GaveUp: every try failed.
            Refused, UserError: see `read_answer`.
        """
        body = await asyncio.to_thread(body_of, prompt, model=model, max_new_tokens=max_new_tokens, seed=seed)
        tries = failures = 0
        seen = self.pace.answered
        while True:
            await self.pace.passed()
            tries += 1
            try:
                answer = await self._once(body, tries)
            except Failed as failure:
                progress = failure.busy and self.pace.answered > seen
                seen = self.pace.answered
                failures = 0 if progress else failures + 1
                far = (failure.wait or 0.0) > LONGEST_TOLD
                if failures > self.retries or far:
                    told = f"; it says to come back in {failure.wait:.0f} s" if far else ""
                    raise GaveUp(f"{failure} ({tries} tries{told})") from failure
                await self._wait(failure, max(failures - 1, 0))
            else:
                self.pace.answered += 1
                return answer

    async def _wait(self, failure: Failed, failures: int) -> None:
        if failure.wait is None:
            await asyncio.sleep(wait_before(failures, self.first_wait))
        else:
            self.pace.hold(failure.wait)

    async def _once(self, body: dict[str, Any], tries: int) -> Answer:
        newer = self.newer_name
        response = await self._post({_NEWER if newer and k == "max_tokens" else k: body[k] for k in body})
        try:
            return read_answer(response, hide=self.key, tries=tries)
        except Refused as refused:
            if newer or _NEWER not in str(refused):
                raise
        self.newer_name = True
        return await self._once(body, tries)

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        try:
            async with asyncio.timeout(self.timeout):
                async with self.client.stream("POST", "chat/completions", json=body) as response:
                    content = bytearray()
                    async for chunk in response.aiter_bytes():
                        content += chunk
                        if len(content) > LARGEST:
                            raise Failed(f"a response of more than {LARGEST} bytes")
        except TimeoutError as error:
            raise Failed(f"no answer within {self.timeout:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Failed(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        headers = [(k, v) for k, v in response.headers.multi_items() if k != "content-encoding"]
        return httpx.Response(
            response.status_code, headers=headers, content=bytes(content), request=response.request
        )
