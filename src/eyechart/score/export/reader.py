"""The reader of replies as one text without imports of Eyechart, for files that have to work without it.

The text is cut out of the modules that read replies here, so what a harness reads is what Eyechart reads.
"""

import ast
from collections.abc import Iterable, Iterator
from importlib import resources

_MODULES = ("replies.py", "grading.py")
_LEFT_OUT = frozenset({"grade_reply", "grade_scores", "_graded"})
"""What makes records of Eyechart out of what was read."""

Cut = tuple[ast.stmt, str]


def reader_source() -> str:
    """Python 3.10 or later, standard library only: `read_choice(reply, options, labels)` and what it needs."""
    here = resources.files("eyechart.score")
    cuts = [cut for name in _MODULES for cut in _cut(here.joinpath(name).read_text("utf8"))]
    used = {node.id for cut, _ in cuts for node in ast.walk(cut) if isinstance(node, ast.Name)}
    body = "".join(_spaced([cut for cut in cuts if not _is_import(cut[0])])).strip("\n")
    return "\n".join(_imports((node for node, _ in cuts), used)) + f"\n\n{body}\n"


def _cut(source: str) -> Iterator[Cut]:
    """The statements of a module with their text, but for its docstring and what is left out."""
    lines = source.splitlines()
    for node in ast.parse(source).body[1:]:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eyechart"):
            continue
        if getattr(node, "name", "") in _LEFT_OUT:
            continue
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        yield node, "\n".join(lines[first - 1 : node.end_lineno])


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _imports(nodes: Iterable[ast.stmt], used: set[str]) -> list[str]:
    """Import lines for the names that are used: plain ones first, names of one module together."""
    plain: set[str] = set()
    of: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            plain |= {each.name for each in node.names if each.name in used}
        elif isinstance(node, ast.ImportFrom):
            of.setdefault(str(node.module), set()).update(
                each.name for each in node.names if each.name in used
            )
    return [
        *(f"import {name}" for name in sorted(plain)),
        *(
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(of.items())
            if names
        ),
    ]


def _spaced(cuts: list[Cut]) -> Iterator[str]:
    """Two blank lines around functions and classes, none between plain lines."""
    blocks = (ast.FunctionDef, ast.ClassDef)
    before = False
    for node, text in cuts:
        block = isinstance(node, blocks)
        yield ("\n\n\n" if block or before else "\n") + text
        before = block
