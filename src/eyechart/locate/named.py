"""Sets of attention edges by name: `part<-rest` is every edge by which a part reads the rest.

`query<-key` reads "query looks at key". A name gives a boolean matrix query x key over a tower's whole
sequence, true where an edge is to be cut, and only for edges that the tower has. The source (arXiv
2506.05439) does not say which edges it cuts; names and choices here are ours, after the wording of its
findings and the tables of Geva et al. (arXiv 2304.14767) and Neo et al. (arXiv 2410.07149) for the language
tower.

Choices:

- Edges of a token to itself stay, so that no query is left without a key, unless `self_edges` asks for them.
- Edges to the first position of a language sequence stay, unless `sink` asks for them: it is an attention
  sink (BOS, mostly), and cutting it breaks a model for other reasons. Where an image comes first, its first
  token is that position.
- Special tokens belong to the rest, and to the image: class token and registers in the vision tower, and in
  the language tower text that stands between tiles and rows of the image. With them left in, what is cut
  comes back by way of them. `special_is_rest=False` leaves them in.
- In a language tower that looks both ways (PaliGemma) the text round the image is another way back: there
  the part is alone only under `part<-rest+part<-text before+part<-question`.
- `a+b` is the union of two names: `part<-rest+rest<-part` cuts both ways.
- `random:NAME` is a control: as many edges as NAME has, from those NAME leaves. See `RANDOM`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from eyechart.core.errors import NoEdges, UserError, unknown
from eyechart.locate.edge_names import DEFAULT, NAMES, Choices, Seen, TowerName, places_of
from eyechart.locate.layout import LanguageLayout, Layout, VisionLayout
from eyechart.locate.random_edges import RANDOM, random_like
from eyechart.models.attention import Cut


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeSet:
    """A named set of edges of one tower."""

    name: str
    tower: TowerName
    edges: Bool[ndarray, "query key"]
    """True where an edge is cut; all of them are edges the tower has."""

    note: str
    """What the name left in place, in words; empty when nothing."""

    @property
    def count(self) -> int:
        """How many edges there are."""
        return int(self.edges.sum())

    def cut(self, layers: Iterable[int], heads: Iterable[int] | None = None) -> Cut:
        """The knockout of these edges in some layers and heads.

        Raises:
            NoEdges: there are no layers, or no heads.
        """
        return Cut(
            name=self.name,
            tower=self.tower,
            edges=torch.from_numpy(self.edges.copy()),
            layers=tuple(layers),
            heads=None if heads is None else tuple(heads),
        )


RANDOM_PREFIX = "random:"


def named_edges(
    name: str, layout: Layout, *, part: Iterable[int] = (), choices: Choices = DEFAULT
) -> EdgeSet:
    """The edges a name stands for.

    Args:
        name: one of `NAMES`, several joined by `+`, or `random:` before either.
        layout: of the tower to cut in.
        part: the part's tokens in that tower's sequence.
        choices: what the names leave open.

    Raises:
        UserError: there is no such name, the name is of the other tower, the part holds a place that is not
            the image's, or a query would be left without any key.
        NoEdges: the set is empty; the text says why.
    """
    if name.startswith(RANDOM_PREFIX):
        return _random(name, layout, part, choices)
    seen = Seen(layout=layout, part=places_of(set(part)), choices=choices)
    if stray := sorted(set(seen.part.tolist()) - set(seen.image.tolist())):
        raise UserError(f"{name}: the part's places {stray} hold none of the image")
    existing = layout.existing()
    wanted = np.zeros_like(existing)
    for one in name.split("+"):
        wanted |= _edges_of(one, seen)
    edges, note = _spared(wanted & existing, layout, choices)
    if not edges.any():
        raise NoEdges(f"{name} cuts nothing: {_why_empty(name, seen, wanted, existing)}")
    refuse_blind(edges, existing, name)
    return EdgeSet(name=name, tower=_tower(layout), edges=edges, note=note)


def refuse_blind(edges: Bool[ndarray, "query key"], existing: Bool[ndarray, "query key"], name: str) -> None:
    """Refuse a cut that leaves a query nothing to look at: its attention would be undefined.

    Raises:
        UserError: there is such a query.
    """
    blind = np.flatnonzero(existing.any(axis=1) & ~(existing & ~edges).any(axis=1))
    if len(blind):
        raise UserError(
            f"{name} leaves {len(blind)} queries without any key, the first at {blind[0]}; expected one key or more for each."
            " Leave the edges of tokens to themselves, or the first position, in place"
        )


def _tower(layout: Layout) -> TowerName:
    return "vision" if isinstance(layout, VisionLayout) else "language"


def _edges_of(name: str, seen: Seen) -> Bool[ndarray, "query key"]:
    if name not in NAMES:
        raise unknown("set of edges", name, NAMES)
    row, tower = NAMES[name], _tower(seen.layout)
    if tower not in row.towers:
        raise UserError(
            f"{name} is of the {row.towers[0]} tower, and the layout given is of the {tower} tower"
        )
    if row.needs_part and not len(seen.part):
        raise NoEdges(f"{name} cuts nothing: the part has no token in the {tower} tower")
    sides = row.sides(seen)
    edges = np.zeros((seen.layout.length, seen.layout.length), dtype=np.bool)
    edges[np.ix_(sides.query, sides.key)] = True
    return np.tril(edges, -1) if row.earlier else edges


def _spared(
    edges: Bool[ndarray, "query key"], layout: Layout, choices: Choices
) -> tuple[Bool[ndarray, "query key"], str]:
    """The edges without those that are never cut unasked, and which those were."""
    keep, words = spared_edges(layout, choices), []
    if not choices.self_edges and np.diagonal(edges).any():
        words.append("edges of tokens to themselves stay")
    if isinstance(layout, LanguageLayout) and not choices.sink and edges[:, layout.sink].any():
        held = "image" if layout.sink in layout.image else "text"
        words.append(f"edges to the first position ({held}) stay")
    return edges & ~keep, "; ".join(words)


def spared_edges(layout: Layout, choices: Choices = DEFAULT) -> Bool[ndarray, "query key"]:
    """Edges that no name cuts unless asked: to themselves, and to the first position of a language sequence."""
    keep = np.zeros((layout.length, layout.length), dtype=np.bool)
    if not choices.self_edges:
        np.fill_diagonal(keep, True)
    if isinstance(layout, LanguageLayout) and not choices.sink:
        keep[:, layout.sink] = True
    return keep


def _why_empty(
    name: str, seen: Seen, wanted: Bool[ndarray, "query key"], existing: Bool[ndarray, "query key"]
) -> str:
    if not wanted.any():
        sides = {
            one: (len(NAMES[one].sides(seen).query), len(NAMES[one].sides(seen).key))
            for one in name.split("+")
        }
        return "it names " + ", ".join(
            f"{query} queries and {key} keys in {one}" for one, (query, key) in sides.items()
        )
    if not (wanted & existing).any():
        return "the tower has none of its edges (a causal tower has none to later positions, tiles none to each other)"
    return "all its edges are those of tokens to themselves or to the first position, which stay unless asked for"


def _random(name: str, layout: Layout, part: Iterable[int], choices: Choices) -> EdgeSet:
    like = named_edges(name.removeprefix(RANDOM_PREFIX), layout, part=part, choices=choices)
    pool = layout.existing() & ~spared_edges(layout, choices) & ~like.edges
    edges = random_like(like.edges, pool, match=choices.match, seed=choices.seed, name=like.name)
    refuse_blind(edges, layout.existing(), name)
    return EdgeSet(
        name=name,
        tower=like.tower,
        edges=edges,
        note=f"{like.count} edges, {RANDOM[choices.match]} Seed {choices.seed}.",
    )
