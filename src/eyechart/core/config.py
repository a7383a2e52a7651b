"""Options from YAML files and command lines as frozen dataclasses; what is left over or of a wrong type is an error."""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from .errors import UserError, unknown

T = TypeVar("T")

_WORDS = {"array": "list", "object": "mapping", "string": "text"}
"""JSON's words for kinds of value, in the words of YAML and of people."""


def build(cls: type[T], options: Mapping[str, Any], *, name: str = "") -> T:
    """A config of the frozen, keyword-only dataclass `cls` from a mapping, nested where `cls` is.

    Types are taken as they stand: "3" is no integer and 1 no boolean; an integer does for a float, a list for a
    tuple, text for a `Path` or an enum's value.

    Args:
        cls: the dataclass; its `__post_init__` may refuse values by ValueError or UserError.
        options: what was given; the rest takes its defaults.
        name: what messages call it; the default is the class's name.

    Raises:
        UserError: an option is unknown, missing, or of a wrong type or value; key, given and expected are named.
        TypeError: `cls` is not such a dataclass, or `options` hold what no file or command line could.
    """
    if not _is_config(cls):
        raise TypeError(f"{cls!r} is not a frozen, keyword-only dataclass")
    name = name or cls.__name__
    _refuse_left_overs(cls, options, name, "")
    stored = plain(options)
    try:
        text = json.dumps(stored, ensure_ascii=False).encode()
        return TypeAdapter(cls).validate_json(text, strict=True)
    except UnicodeEncodeError as error:
        raise UserError(f"{name}: text that is not Unicode: {stored!r:.200} ({error.reason})") from None
    except ValidationError as error:
        raise UserError(_findings(error, stored, name)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """A config as a plain mapping of what YAML and JSON can hold; `build` makes an equal config of it.

    Raises:
        TypeError: `config` is not a dataclass object, or a value in it cannot be stored.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{config!r} is not a config object")
    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def plain(value: Any) -> Any:
    """`value` with paths and enums as text, tuples as lists and dataclasses as mappings, all the way down."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) has no place in a config")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping out of several, the later winning, nested mappings merged: file, then command line."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            inner = merged.get(key)
            both = isinstance(value, Mapping) and isinstance(inner, Mapping)
            merged[key] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The options in a YAML file.

    Unlike YAML 1.1, `1e-4` is a number; a key that stands there twice is an error.

    Raises:
        UserError: the file is missing, is not YAML, repeats a key, or holds no mapping.
    """
    try:
        options = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if options is None:
        return {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path} must hold options as 'name: value', got {options!r:.80}")
    return options


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number and a repeated key an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look for repeated keys as they stand in the file, before `<<` merges others in."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = f"{key.tag} {key.value}"
            if name in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"{key.value!r} stands there twice", key.start_mark
                )
            seen.add(name)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _is_config(kind: Any) -> bool:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return False
    frozen = bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return frozen and all(field.kw_only for field in dataclasses.fields(kind))


def _refuse_left_overs(cls: type, options: Mapping[str, Any], name: str, where: str) -> None:
    """Look for options that no field takes, here and in nested configs."""
    fields = [field.name for field in dataclasses.fields(cls)]
    hints = get_type_hints(cls)
    for key, value in options.items():
        if key not in fields:
            raise unknown(f"{name} option", f"{where}{key}", [f"{where}{field}" for field in fields])
        for inner, piece, place in _nested(hints[key], value, f"{where}{key}"):
            _refuse_left_overs(inner, piece, name, f"{place}.")


def _nested(hint: Any, value: Any, place: str) -> Iterator[tuple[type, Mapping[str, Any], str]]:
    """The configs in `hint` beside the mappings in `value` they are to be built from."""
    inner = get_args(hint)
    if _is_config(hint):
        yield from [(hint, value, place)] if isinstance(value, Mapping) else []
    elif get_origin(hint) in (Union, UnionType):
        for kind in inner:
            yield from _nested(kind, value, place)
    elif inner and isinstance(value, Mapping):
        for key, one in value.items():
            yield from _nested(inner[-1], one, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            for kind in inner:
                yield from _nested(kind, one, f"{place}.{number}")


def _findings(error: ValidationError, options: Any, name: str) -> str:
    """Pydantic's findings in the package's voice, one line an option."""
    said: dict[str, list[Any]] = {}
    for one in error.errors(include_url=False):
        said.setdefault(_place(one, options), []).append(one)
    return "\n".join(_say(f"{name} option {key!r}" if key else name, group) for key, group in said.items())


def _place(error: Any, options: Any) -> str:
    """The dotted name of the option an error is about, without pydantic's own labels for a union's members."""
    parts = []
    for part in error["loc"]:
        known = range(len(options)) if isinstance(options, list) else options
        if isinstance(options, dict | list) and part in known:
            options = options[part]
            parts.append(str(part))
    if error["type"] == "missing":
        parts.append(str(error["loc"][-1]))
    return ".".join(parts)


def _say(option: str, errors: list[Any]) -> str:
    kinds = {error["type"]: error for error in errors}
    if "missing" in kinds:
        return f"{option} is missing"
    if "value_error" in kinds:
        return f"{option}: {kinds['value_error']['msg'].removeprefix('Value error, ')}"
    words = [re.sub(r"^Input should be (a |an )?(valid )?", "", error["msg"]) for error in errors]
    expected = " or ".join(_WORDS.get(word, word) for word in words)
    given = errors[0]["input"]
    near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{option} is {given!r} ({type(given).__name__}), expected {expected}{hint}"
