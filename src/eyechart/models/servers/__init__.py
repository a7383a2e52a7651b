"""OpenAI-compatible servers: asked with images as data URLs, several questions at once, again where they fail."""

from eyechart.models.servers.address import is_server, parse_server
from eyechart.models.servers.asking import Unanswered
from eyechart.models.servers.server import Server

__all__ = ["Server", "Unanswered", "is_server", "parse_server"]
