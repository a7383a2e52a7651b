"""What an exam is held on where nobody said: the models, the benchmark and the reference encoder, in one place."""

from collections.abc import Mapping

from eyechart import zoo

UNTRAINED = "untrained"
"""The name of the random-weight LLaVA, which is examined by default where there is no zoo."""

EXAMINED = ("llava-biased", "llava-told-all")
"""Zoo models that are examined when no model is named, as far as they are there; the page is the first one's."""

ZOO_REFERENCES = ("two-view", "mae")
"""Zoo encoders that may serve as reference on the world; the first that is there does."""

HUB_REFERENCE = "facebook/dinov2-base"
"""The reference on other benchmarks; CLIP-blind pairs were first mined with a DINOv2 (arXiv 2401.06209)."""

ABOUT: Mapping[str, str] = {
    "zoo:llava-biased": "its CLIP was trained on captions that name colours often and directions, positions or"
    " letters seldom, as people's captions do",
    "zoo:llava-told-all": "the same recipe and the same pictures, but its CLIP was trained on captions that"
    " mention every kind of fact equally often",
    "zoo:imof-biased": "the same recipe and the same pictures, but beside the CLIP of llava-biased it has an encoder that"
    " learnt from pictures alone, their tokens in turn (I-MoF)",
    "zoo:llava-permuted": "the same recipe and the same pictures, but its CLIP was trained on captions that name"
    " often what the biased ones name seldom, and the other way round",
}
"""A word on each of the zoo's VLMs, for the page that shows several."""


def default_models() -> tuple[str, ...]:
    """The models examined when none is named; never empty."""
    there = zoo.names()
    return tuple(f"zoo:{name}" for name in EXAMINED if name in there) or (UNTRAINED,)


def zoo_reference() -> str | None:
    """The zoo's reference encoder, None where the zoo has none."""
    there = zoo.names()
    return next((f"zoo:{name}" for name in ZOO_REFERENCES if name in there), None)
