"""OpenAI-compatible servers: asked with images as data URLs, several questions at once, again where they fail."""

from eyechart.models.servers.server import Server, is_server

__all__ = ["Server", "is_server"]
