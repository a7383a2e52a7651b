"""Errors a person can mend, apart from bugs, and `need` for optional packages."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class UserError(Exception):
    """The person can mend this: the CLI prints it without a traceback and exits with 2."""


class Incapable(UserError):
    """A model was asked for something it does not have; the text names both."""


class NeverFired(RuntimeError):
    """An intervention was set up and the model never passed through it."""


class NoEdges(UserError):
    """An intervention was asked for on an empty set of attention edges."""


def unknown(what: str, given: str, known: Iterable[str]) -> UserError:
    """The one voice of every "no such thing": what was given, the nearest name, and all there are.

    >>> str(unknown("pooling", "clas", ["cls", "mean_patch"]))
    "no pooling named 'clas'. Did you mean 'cls'? There are: cls, mean_patch."
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = f"There are: {', '.join(names)}." if names else "There are none."
    return UserError(f"no {what} named {given!r}.{hint} {listed}")


def need(module: str, *, why: str, extra: str | None = None) -> ModuleType:
    """Import a heavy or optional package, or say who needs it and how to install it.

    Raises:
        UserError: the package is absent. A package that is there but broken raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        wanted = f"'eyechart[{extra}]'" if extra else "eyechart"
        raise UserError(
            f"{why} needs the package {module!r}. Install it with: pip install {wanted}"
        ) from None
