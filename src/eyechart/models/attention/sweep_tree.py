"""Run many paths through one stack of blocks, and every stretch that paths share only once.

Conditions of a sweep are paths: at each block a path says what is done there (a step, compared by equality). Two paths from one root
that agree up to a block hold the same state there, so the paths form a tree, and a row of a batch is a branch of it. Paths are
sorted, so that those which part late stand together; a batch of them runs block by block with as many rows as there are distinct branches,
and a state from which a later batch goes on is kept until that batch has begun. The number of rows run at a block is the
number of distinct beginnings of paths that end there, which no order can undercut.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Prefix = tuple[int, tuple[int, ...]]
"""A root and the steps taken from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Where a condition starts, and what is done to it at each block; equal steps do the same."""

    root: int
    steps: tuple[int, ...]

    def upto(self, depth: int) -> Prefix:
        """Its beginning, `depth` blocks long."""
        return self.root, self.steps[:depth]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A state between two blocks, and what was kept of those on the way there: for this path, or for one that shares the way."""

    state: Tensor
    kept: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What runs: `enter` gives the state of a root, `step` one block on some rows, `keep` what is kept of a state."""

    enter: Callable[[int], Tensor]
    step: Callable[[int, Tensor, Sequence[int]], Tensor]
    """Layer, states with a row each, and for each row the place of a path that runs through it."""

    keep: Callable[[int, Tensor, int], Tensor | None]
    """Depth, one state, and the place of a path that runs through it; None where nothing is kept there. The result shares no
    memory with the state."""


def shared(first: Path, second: Path) -> int:
    """How many blocks two paths have in common; -1 when not even their roots are the same."""
    if first.root != second.root:
        return -1
    pairs = zip(first.steps, second.steps, strict=True)
    return next((depth for depth, (a, b) in enumerate(pairs) if a != b), len(first.steps))


def fewest_rows(paths: Sequence[Path]) -> int:
    """How often a block must be run on one row, at the least, for all paths: the edges of their tree."""
    return len({path.upto(depth) for path in paths for depth in range(1, len(path.steps) + 1)})


def walk(paths: Sequence[Path], stack: Stack, *, batch: int) -> Iterator[list[tuple[int, Node]]]:
    """The ends of all paths, a batch at a time, in sorted order.

    Args:
        paths: all of one length; equal ones share a row.
        batch: rows that a block is given at most.

    Yields:
        The place of a path among `paths`, and its end; nothing else holds on to these.
    """
    places: dict[Path, list[int]] = {}
    for place, path in enumerate(paths):
        places.setdefault(path, []).append(place)
    order = sorted(places, key=lambda path: (path.root, path.steps))
    batches = [order[first : first + batch] for first in range(0, len(order), batch)]
    store = _Store(batches)
    for some in batches:
        yield _ends(some, places, _run(some, store, stack, [places[path][0] for path in some]))


def _ends(
    some: Sequence[Path], places: dict[Path, list[int]], nodes: dict[Prefix, Node]
) -> list[tuple[int, Node]]:
    return [(place, nodes[path.upto(len(path.steps))]) for path in some for place in places[path]]


class _Store:
    """States that a later batch starts from; each is let go when the last of them has."""

    def __init__(self, batches: Sequence[Sequence[Path]]) -> None:
        self.depths: dict[Path, int] = {}
        for before, some in pairwise(batches):
            self.depths |= {path: shared(before[-1], path) for path in some}
        self.wanted = Counter(path.upto(depth) for path, depth in self.depths.items() if depth >= 0)
        self.nodes: dict[Prefix, Node] = {}

    def offer(self, prefix: Prefix, node: Node) -> None:
        """Keep a copy of a state, and of what was kept on the way there, if a later batch starts there.

        What this batch keeps is handed over before then, to someone who may write on it.
        """
        if self.wanted[prefix] and prefix not in self.nodes:
            own = {id(one) for other in self.nodes.values() for one in other.kept}
            kept = tuple(one if id(one) in own else one.clone() for one in node.kept)
            self.nodes[prefix] = Node(state=node.state.clone(), kept=kept)

    def take(self, path: Path) -> Node | None:
        """The state that a path starts from, where an earlier batch had one."""
        prefix = path.upto(max(self.depths.get(path, -1), 0))
        if self.depths.get(path, -1) < 0:
            return None
        node = self.nodes[prefix]
        self.wanted[prefix] -= 1
        if not self.wanted[prefix]:
            del self.nodes[prefix]
        return node


def _run(some: Sequence[Path], store: _Store, stack: Stack, places: Sequence[int]) -> dict[Prefix, Node]:
    """The ends of one batch."""
    starts = {path: max(store.depths.get(path, 0), 0) for path in some}
    nodes = _begun(some, places, starts, store, stack)
    rows: _Rows | None = None
    for layer in range(min(starts.values()), len(some[0].steps)):
        running = {
            path.upto(layer + 1): place
            for path, place in zip(some, places, strict=True)
            if starts[path] <= layer
        }
        parents = [(root, steps[:-1]) for root, steps in running]
        states = stack.step(layer, _gathered(parents, nodes, rows), list(running.values()))
        rows = _Rows(prefixes=tuple(running), states=states)
        for prefix, parent, state in zip(running, parents, states, strict=True):
            before = nodes[parent].kept
            nodes[prefix] = Node(state=state, kept=_kept(stack, layer + 1, state, running[prefix], before))
            store.offer(prefix, nodes[prefix])
        _forget(nodes, layer + 1, starts)
    return nodes


def _begun(
    some: Sequence[Path], places: Sequence[int], starts: dict[Path, int], store: _Store, stack: Stack
) -> dict[Prefix, Node]:
    """The states from which the paths of a batch go on: of an earlier batch, or of their roots."""
    nodes: dict[Prefix, Node] = {}
    for path, place in zip(some, places, strict=True):
        node, prefix = store.take(path), path.upto(starts[path])
        if node is not None:
            nodes[prefix] = node
        elif prefix not in nodes:
            state = stack.enter(path.root)
            nodes[prefix] = Node(state=state, kept=_kept(stack, 0, state, place, ()))
            store.offer(prefix, nodes[prefix])
    return nodes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The states that the last block gave, as one tensor."""

    prefixes: tuple[Prefix, ...]
    states: Tensor


def _gathered(parents: Sequence[Prefix], nodes: dict[Prefix, Node], rows: _Rows | None) -> Tensor:
    """The states of the next rows; the last block's own tensor where its rows go on as they are."""
    if rows is not None and tuple(parents) == rows.prefixes:
        return rows.states
    if len(parents) == 1:
        return nodes[parents[0]].state[None]
    return torch.stack([nodes[parent].state for parent in parents])


def _kept(
    stack: Stack, depth: int, state: Tensor, place: int, before: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    found = stack.keep(depth, state, place)
    return before if found is None else (*before, found)


def _forget(nodes: dict[Prefix, Node], depth: int, starts: dict[Path, int]) -> None:
    """Let go what lies behind: only states at this depth, and starts of paths that have not begun, are needed."""
    waiting = {path.upto(start) for path, start in starts.items() if start > depth}
    for prefix in [prefix for prefix in nodes if len(prefix[1]) != depth and prefix not in waiting]:
        del nodes[prefix]
