"""What counts as a server's URL, and which key goes with it."""

import os
import re

import httpx

from eyechart.core.errors import UserError

KEY, NO_KEY = "OPENAI_API_KEY", "EMPTY"
"""Where the key is looked for, and what is sent where there is none, as vLLM's documentation has it."""

_VERSION = re.compile(r"v\d+[a-z0-9]*")
_EXAMPLE = "expected one such as http://localhost:8000/v1"


def is_server(text: str) -> bool:
    """Whether a model's name is a server's URL: it begins with http:// or https://."""
    return text.startswith(("http://", "https://"))


def parse_server(text: str) -> str:
    """A server's URL as requests are sent to it, without a slash at its end.

    `/v1` is added where the path names no version of its own (`/v1`, `/v1beta/openai`); the end `/chat/completions`
    is taken off.

    Raises:
        UserError: it is no http(s) URL, or holds a user, a password or a query: a run's records keep the URL, and a
            key must not get there.
    """
    try:
        url = httpx.URL(text.strip())
        host = url.host
    except httpx.InvalidURL as error:
        raise UserError(f"the server's URL cannot be read ({error}); {_EXAMPLE}") from None
    if url.scheme not in ("http", "https") or not host:
        raise UserError(f"{text!r} is no server's URL; {_EXAMPLE}")
    if url.userinfo or url.query or url.fragment:
        where = f"{url.scheme}://{host}{url.path}"
        raise UserError(
            f"the URL of the server {where} holds a user, a password or a query, which a run's records would keep;"
            f" give the bare URL, and a key by the environment variable {KEY}"
        )
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    if not any(_VERSION.fullmatch(part) for part in path.split("/")):
        path += "/v1"
    return str(url.copy_with(path=path))


def key_of(given: str | None) -> str:
    """The key to send: the one given, else the environment's, else `EMPTY`.

    Raises:
        UserError: it has signs that no header can carry. The key is not in the text.
    """
    key = (given or os.environ.get(KEY) or NO_KEY).strip() or NO_KEY
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"the key for the server (api_key, or the environment variable {KEY}) holds white space or signs outside"
            " ASCII, which no header can carry; was it copied whole?"
        )
    return key
