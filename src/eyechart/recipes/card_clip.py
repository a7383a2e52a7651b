"""A CLIP's own tests on scenes of the world: zero-shot names, retrieval, and pairs of statements shaped like MMVP-VLM."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from eyechart.core.stats import Rate, cluster_rate, wilson
from eyechart.models.encoders.encoder import Encoder
from eyechart.recipes.card_scenes import PairScenes
from eyechart.world.captions import Rates, caption
from eyechart.world.facts import COLORS, PATTERNS, Facts
from eyechart.world.kinds import KINDS
from eyechart.world.questions import statements
from eyechart.world.words import a

Texts = Callable[[Sequence[str]], ndarray]
"""Texts to vectors in the space of the pictures' `projected` ones."""

POOL = 250
"""Pictures and captions of a retrieval."""


def texts_of(encoder: Encoder) -> Texts:
    """The text tower of a CLIP."""
    return lambda texts: encoder.embed_texts(list(texts)).numpy()


def clip_tests(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes, rates: Mapping[str, Rates]
) -> dict[str, Any]:
    """All three tests.

    Args:
        vectors: the pictures' projected vectors.
        rates: of the captions to retrieve by, by name.
    """
    alone = [place for place, facts in enumerate(known.facts()) if facts.other is None]
    return {
        "zero_shot": {
            "kind": zero_shot_kind(vectors, texts, known, alone).to_dict(),
            "color": zero_shot_color(vectors, texts, known, alone).to_dict(),
            "chance": {"kind": 1 / len(KINDS), "color": 1 / len(COLORS)},
        },
        "retrieval": {name: retrieval(vectors, texts, known, each) for name, each in rates.items()},
        "statements": statement_pairs(vectors, texts, known),
    }


def zero_shot_kind(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes, places: Sequence[int]
) -> Rate:
    """How often `a photo of a KIND` of the right kind is the nearest of all kinds."""
    names = sorted(KINDS)
    likely = _similarity(vectors[list(places)], texts([f"a photo of {a(name)}" for name in names]))
    truth = [names.index(known.scenes[place].facts.kind) for place in places]
    return _rate(_picked(likely, truth), known, places)


def zero_shot_color(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes, places: Sequence[int]
) -> Rate:
    """How often `a photo of a COLOUR KIND` of the right colour is the nearest of all colours, the kind being given."""
    names = sorted(KINDS)
    said = texts([f"a photo of {a(f'{color} {name}')}" for name in names for color in COLORS])
    likely = _similarity(vectors[list(places)], said).reshape(len(places), len(names), len(COLORS))
    facts = [known.scenes[place].facts for place in places]
    own = likely[np.arange(len(places)), [names.index(each.kind) for each in facts]]
    return _rate(_picked(own, [COLORS.index(each.color) for each in facts]), known, places)


def retrieval(
    vectors: Float[ndarray, "scene dim"],
    texts: Texts,
    known: PairScenes,
    rates: Rates,
    *,
    pool: int = POOL,
    seed: int = 0,
) -> dict[str, Any]:
    """Recall at 1 both ways, in a pool of first scenes of pairs with captions of given rates.

    An equal caption of another picture is as good as the own one; otherwise ties are wrong.
    """
    rng = random.Random(f"retrieval {seed}")
    firsts = range(0, len(known.scenes), 2)
    places = sorted(rng.sample(firsts, min(pool, len(firsts))))
    said = [caption(known.scenes[place].facts, rates, rng) for place in places]
    likely = _similarity(vectors[places], texts(said))
    same = np.array([[one == other for other in said] for one in said])
    return {
        "pool": len(places),
        "distinct_captions": len(set(said)),
        "image_to_text": _found(likely, same).to_dict(),
        "text_to_image": _found(likely.T, same).to_dict(),
        "chance": float(same.sum(axis=1).mean() / len(places)),
    }


def _found(likely: Float[ndarray, "query answer"], same: Bool[ndarray, "query answer"]) -> Rate:
    """How many queries have a right answer above all wrong ones."""
    best = np.where(same, likely, -np.inf).max(axis=1)
    wrong = np.where(same, -np.inf, likely).max(axis=1)
    return wilson(int((best > wrong).sum()), len(likely))


def statement_pairs(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes
) -> dict[str, dict[str, Any]]:
    """Pairs of statements and pictures by pattern, and of `all`.

    A pair counts where both statements pick their picture (`text_to_image`, the official score of MMVP-VLM, Tong et al.
    2024, section 3), where both pictures pick their statement (`image_to_text`), or where both hold (`group`, as in
    Winoground, Thrush et al. 2022). Ties are wrong. Chance is a quarter for the first two; a sixth for `group`, as of
    four similarities in random order.
    """
    ways = _statements_right(vectors, texts, known)
    patterns = np.array([scene.pattern for scene in known.scenes[::2]])
    chosen = {pattern: patterns == pattern for pattern in PATTERNS if (patterns == pattern).any()}
    chosen["all"] = np.ones(len(patterns), dtype=bool)
    return {
        name: {
            way: wilson(int(right[there].sum()), int(there.sum())).to_dict() for way, right in ways.items()
        }
        for name, there in chosen.items()
    }


def statement_hits(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes
) -> dict[str, dict[str, str]]:
    """What became of each pair in `statement_pairs`: for each pattern and way a text of 0 and 1, in the set's order."""
    ways = _statements_right(vectors, texts, known)
    patterns = np.array([scene.pattern for scene in known.scenes[::2]])
    return {
        pattern: {
            way: "".join("01"[int(hit)] for hit in right[patterns == pattern]) for way, right in ways.items()
        }
        for pattern in PATTERNS
        if (patterns == pattern).any()
    }


def _statements_right(
    vectors: Float[ndarray, "scene dim"], texts: Texts, known: PairScenes
) -> dict[str, Bool[ndarray, " pair"]]:
    pairs = range(0, len(known.scenes), 2)
    facts: Sequence[Facts] = known.facts()
    said = [
        text for place in pairs for text in statements(known.scenes[place].pattern, *facts[place : place + 2])
    ]
    shown, written = _unit(vectors).reshape(len(pairs), 2, -1), _unit(texts(said)).reshape(len(pairs), 2, -1)
    likely = np.einsum("pid,ptd->pit", shown, written)
    own_a, own_b, a_with_b, b_with_a = likely[:, 0, 0], likely[:, 1, 1], likely[:, 0, 1], likely[:, 1, 0]
    ways = {
        "text_to_image": (own_a > b_with_a) & (own_b > a_with_b),
        "image_to_text": (own_a > a_with_b) & (own_b > b_with_a),
    }
    ways["group"] = ways["text_to_image"] & ways["image_to_text"]
    return ways


def _picked(likely: Float[ndarray, "scene option"], truth: Sequence[int]) -> Bool[ndarray, " scene"]:
    """Where the right option is above all others."""
    own = likely[np.arange(len(truth)), truth]
    others = likely.copy()
    others[np.arange(len(truth)), truth] = -np.inf
    return np.asarray(own > others.max(axis=1))


def _rate(right: Bool[ndarray, " scene"], known: PairScenes, places: Sequence[int]) -> Rate:
    return cluster_rate(right.astype(float), [known.scenes[place].pair for place in places], seed=0)


def _similarity(
    images: Float[ndarray, "image dim"], texts: Float[ndarray, "text dim"]
) -> Float[ndarray, "image text"]:
    return np.asarray(_unit(images) @ _unit(texts).T)


def _unit(vectors: Float[ndarray, "row dim"]) -> Float[ndarray, "row dim"]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
