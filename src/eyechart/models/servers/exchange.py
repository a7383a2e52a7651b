"""One question put to a server until it is answered: what is sent, what comes back, and what is tried again."""

import base64
import email.utils
import io
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt

ITS_OWN = frozenset({400, 413, 415, 422})
"""Codes by which a server refuses one question; others may be answered."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""HTTP status codes after which the same question is put again; every other error is the asker's own."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the first repetition, and at most; each wait is twice as long as the one before, with jitter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said to one question."""

    text: str
    finish: str | None
    """Why it stopped: `stop`, or `length` where the reply was cut at the longest that was asked for."""

    fingerprint: str | None
    """The `system_fingerprint`, where the server gives one."""

    tries: int


class Unanswered(Exception):
    """A question that was put as often as allowed and not answered; the text is the last failure."""


class Refused(Exception):
    """A question that the server will not answer, however often it is put: too long, or a picture it does not take."""


class _Failed(Exception):
    """One try that failed and may be made again, after `wait` seconds where the server said so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


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
        "stream": False,
    }
    return body if seed is None else body | {"seed": seed}


def data_url(image: Image.Image) -> str:
    """A picture's pixels without loss, in the form in which chat completions take images."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def ask_until_answered(
    client: httpx.Client,
    body: Mapping[str, Any],
    *,
    retries: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Post a question, and again after failures that may pass.

    Args:
        client: with the server's base URL and headers.
        body: see `body_of`.
        retries: how often it is put again at most.
        sleep: waits so many seconds; it may raise to give up.

    Raises:
        Unanswered: every try failed.
        Refused: the server refuses this question.
        UserError: it refuses the key, or knows no such model.
    """
    for tried in range(retries + 1):
        try:
            return _once(client, body, tried + 1)
        except _Failed as failure:
            if tried == retries:
                raise Unanswered(f"{failure} ({tried + 1} tries)") from failure
            sleep(wait_before(tried, failure.wait))
    raise AssertionError("unreachable")


def wait_before(tried: int, told: float | None, *, rng: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many tries: what the server said, else twice as long each time, half of it by chance."""
    if told is not None:
        return min(max(told, 0.0), LONGEST_WAIT)
    whole: float = min(FIRST_WAIT * 2**tried, LONGEST_WAIT)
    return whole * (0.5 + rng() / 2)


def _once(client: httpx.Client, body: Mapping[str, Any], tries: int) -> Answer:
    try:
        response = client.post("chat/completions", json=body)
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise _Failed(f"{type(error).__name__}: {error}") from error
    if response.status_code in AGAIN:
        said = words_of(response)
        raise _Failed(
            f"HTTP {response.status_code}: {said}", retry_after(response.headers.get("retry-after"))
        )
    if response.status_code in ITS_OWN:
        raise Refused(refusal(response))
    if response.status_code != 200:
        raise UserError(refusal(response))
    return _read(response, tries)


def _read(response: httpx.Response, tries: int) -> Answer:
    try:
        data = response.json()
        choice = data["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Failed(
            f"not the answer of a chat completion ({type(error).__name__}): {response.text[:200]!r}"
        ) from error
    if not isinstance(text, str):
        raise _Failed(f"an answer without text: {text!r:.200}")
    finish, fingerprint = choice.get("finish_reason"), data.get("system_fingerprint")
    return Answer(
        text=text,
        finish=finish if isinstance(finish, str) else None,
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        tries=tries,
    )


def retry_after(header: str | None) -> float | None:
    """Seconds of a `Retry-After` header, given as a number or a date; None where it says neither."""
    if header is None:
        return None
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def refusal(response: httpx.Response) -> str:
    """What a person is told of an answer that no repetition would change."""
    said = words_of(response)
    where = f"{response.request.url.copy_with(userinfo=b'')}"
    if response.status_code in (401, 403):
        return (
            f"{where} refuses the key (HTTP {response.status_code}: {said}); give one that it takes by the environment variable"
            " OPENAI_API_KEY"
        )
    if response.status_code == 404:
        return (
            f"{where} knows no such address or model (HTTP 404: {said}); check the URL and the model's name"
        )
    return f"{where} refuses the question (HTTP {response.status_code}: {said})"


def words_of(response: httpx.Response) -> str:
    """The server's own words of an error, shortened."""
    try:
        data = response.json()
        error = data.get("error", data.get("detail", data)) if isinstance(data, dict) else data
        said = error.get("message", error) if isinstance(error, dict) else error
    except ValueError:
        said = response.text
    return " ".join(str(said).split())[:300] or "no words"
