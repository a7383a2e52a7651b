"""How every zoo model was trained and every study was run: one page each, read top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What can be said of a recipe without running it; `eyechart train` and `eyechart list recipes` say it."""

    name: str
    about: str
    """One sentence."""

    needs: tuple[str, ...]
    """Recipes that must have been run into the same folder, and the sets of scenes, rendered where there are none."""

    minutes: int | None
    """About so many on one core, another training on the other, without rendering; None where it was not measured."""

    loader: str | None
    """The class of transformers that loads what it writes; None where it writes no one model."""


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="tokenizer",
            about="The tokenizer of the whole zoo: about a thousand tokens, every word of the world one of them.",
            needs=(),
            minutes=1,
            loader="AutoTokenizer",
        ),
        Recipe(
            name="clip",
            about="A CLIP trained on pictures and captions that tell each fact at a rate of its own (--rates).",
            needs=("tokenizer", "scenes"),
            minutes=40,
            loader="AutoModel",
        ),
        Recipe(
            name="masked",
            about="A masked autoencoder (MAE): a vision-only encoder trained by painting in hidden patches.",
            needs=("scenes",),
            minutes=36,
            loader="AutoModel",
        ),
        Recipe(
            name="two-view",
            about="A vision-only encoder that goes on from mae to tell scenes apart that differ in a single fact.",
            needs=("masked", "families"),
            minutes=23,
            loader="AutoModel",
        ),
        Recipe(
            name="language-model",
            about="A small Llama that reads scenes told in words and answers questions on them.",
            needs=("tokenizer",),
            minutes=53,
            loader="AutoModelForCausalLM",
        ),
        Recipe(
            name="vlm",
            about="A LLaVA on one of the CLIPs (--clip) and the language model, taught to answer questions.",
            needs=("clip", "language-model", "scenes"),
            minutes=59,
            loader="AutoModelForImageTextToText",
        ),
        Recipe(
            name="cards",
            about="Measure every model that is there on test scenes, and write its card and the zoo's gate.",
            needs=("whichever models are to be measured",),
            minutes=None,
            loader=None,
        ),
        Recipe(
            name="zoo",
            about="All of the above in their order, three CLIPs and three VLMs; what is there is passed over.",
            needs=(),
            minutes=None,
            loader=None,
        ),
    )
}
"""Everything that `eyechart train` can run, by name, in the order in which it can be run."""
