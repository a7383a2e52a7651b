"""What a server's response says: an answer, a failure that may pass, or a refusal that will not."""

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from eyechart.core.errors import UserError
from eyechart.models.servers.address import KEY, NO_KEY

ITS_OWN = frozenset({400, 413, 415, 422})
"""Codes by which a server refuses one question; others may be answered."""

AGAIN = frozenset({408, 409, 425, 429})
"""Codes after which the same question is put again, besides all from 500 on; every other one is the asker's own."""

_NO_WORDS = ("length", "content_filter")
"""Why a well-formed answer may have no text: it was cut in its reasoning, or taken out by the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said to one question."""

    text: str
    finish: str | None
    """Why it stopped: `stop`, or `length` where the reply was cut at the longest that was asked for."""

    fingerprint: str | None
    """The `system_fingerprint`, where the server gives one."""

    model: str | None
    """The model that the server says has answered."""

    tries: int


class Failed(Exception):
    """One try that failed and may be made again, after `wait` seconds where the server said so."""

    def __init__(self, why: str, *, wait: float | None = None, busy: bool = False) -> None:
        super().__init__(why)
        self.wait = wait
        self.busy = busy
        """Whether the server said that it is asked too often (429)."""


class Refused(Exception):
    """A question that the server will not answer, however often it is put: too long, or a picture it does not take."""


def read_answer(response: httpx.Response, *, hide: str, tries: int) -> Answer:
    """The answer of a chat completion.

    An empty text is an answer, and so is a missing one where the server says that the reply was cut (`length`) or taken
    out (`content_filter`): the same question would end the same way. A missing text without such a reason is a failure.

    Raises:
        Failed: the server is busy or broken, or this is no chat completion.
        Refused: the server refuses this question.
        UserError: it refuses the key, or knows no such address or model.
    """
    status = response.status_code
    if status in AGAIN or status >= 500:
        wait = retry_after(response.headers.get("retry-after"))
        raise Failed(f"HTTP {status}: {words_of(response, hide=hide)}", wait=wait, busy=status == 429)
    if status in ITS_OWN:
        raise Refused(refusal(response, hide=hide))
    if status != 200:
        raise UserError(refusal(response, hide=hide))
    try:
        data = response.json()
        choice = data["choices"][0]
        finish, text = choice.get("finish_reason"), _text(choice["message"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        begins = _hidden(response.text, hide)[:120]
        raise Failed(f"no chat completion ({type(error).__name__}); it begins {begins!r}") from error
    if text is None and finish not in _NO_WORDS:
        raise Failed(f"an answer without text (finish_reason {finish!r})")
    return Answer(
        text=text or "",
        finish=finish if isinstance(finish, str) else None,
        fingerprint=_string(data, "system_fingerprint"),
        model=_string(data, "model"),
        tries=tries,
    )


def _text(message: Mapping[str, Any]) -> str | None:
    """The words of a message: a string, text parts, or a stated refusal; None where there are none."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] == "text")
    if content is None:
        content = message.get("refusal")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content of type {type(content).__name__}")
    return content


def _string(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) and value else None


def retry_after(header: str | None) -> float | None:
    """Seconds of a `Retry-After` header, given as a number or a date; None where it says neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def refusal(response: httpx.Response, *, hide: str) -> str:
    """What a person is told of an answer that no repetition would change."""
    said, where = words_of(response, hide=hide), str(response.request.url)
    status = response.status_code
    if status in (401, 403):
        return f"{where} refuses the key (HTTP {status}: {said}); give one that it takes by the environment variable {KEY}"
    if status == 404:
        return (
            f"{where} knows no such address or model (HTTP 404: {said}); check the URL and the model's name"
        )
    if 300 <= status < 400:
        return f"{where} has moved (HTTP {status}) to {response.headers.get('location', 'it does not say')}; give that URL"
    return f"{where} refuses the question (HTTP {status}: {said})"


def words_of(response: httpx.Response, *, hide: str) -> str:
    """The server's own words of an error, shortened; a key that it repeats is taken out."""
    try:
        data = response.json()
        error = data.get("error", data.get("detail", data)) if isinstance(data, dict) else data
        said = error.get("message", error) if isinstance(error, dict) else error
    except ValueError:
        said = response.text
    return " ".join(_hidden(str(said), hide).split())[:300] or "no words"


def _hidden(text: str, key: str) -> str:
    return text if key == NO_KEY else text.replace(key, "[key]")


def models_of(response: httpx.Response) -> dict[str, Mapping[str, Any]]:
    """The models a server lists, by id; none where it does not list them in OpenAI's shape."""
    try:
        rows = response.json()["data"] if response.status_code == 200 else []
        return {str(row["id"]): row for row in rows}
    except (ValueError, KeyError, TypeError):
        return {}
