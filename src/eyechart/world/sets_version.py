"""Which world drew a set: a fingerprint of what the world does, so that no folder mixes two versions of it."""

import hashlib
import random
from functools import lru_cache

from eyechart.world.captions import told
from eyechart.world.draw import draw_facts
from eyechart.world.layout import lay_out
from eyechart.world.render import render
from eyechart.world.sets_plan import PairPlan, draw_pairs

_SCENES, _SIZE, _PAIRS = 84, 32, 3


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """A hash of 84 small pictures of scenes with fixed seeds, and of the scenes' records.

    It changes when kinds, layout, paints or the renderer draw anything otherwise (or a machine rounds otherwise),
    and not when their code is only written otherwise. A change that shows in none of the 84 goes unnoticed.
    """
    digest = hashlib.sha256()
    for number in range(_SCENES):
        scene = lay_out(draw_facts(random.Random(f"fingerprint {number}")), number)
        digest.update(repr(scene).encode() + render(scene, _SIZE).image.tobytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def fingerprint_of_words() -> str:
    """A hash of what is asked and told of three pairs of each pattern."""
    pairs = draw_pairs(PairPlan(pairs=_PAIRS))
    said = [(pair, [told(facts) for facts in pair.facts]) for pair in pairs]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
