"""A set made into a function of a model in memory, to be scored while the model is trained.

score = scorer(load_benchmark("./my-set"), processor)
ScoreCallback(score, every_steps=200).attach(trainer)      # train.callback
"""

from collections.abc import Callable
from typing import Any

from eyechart.core.records import Benchmark
from eyechart.models.vlms import VLM
from eyechart.models.vlms.towers import unwrapped
from eyechart.score.answers import Ask, answers_of
from eyechart.score.rules import measure
from eyechart.score.variants import Variant, put


def scorer(
    benchmark: Benchmark,
    processor: Any,
    *,
    variant: Variant | None = None,
    ask: Ask = "options",
    max_new_tokens: int = 16,
    batch_size: int = 8,
) -> Callable[[Any], dict[str, float]]:
    """A function that puts all items to a model and gives the measures of the set's rule.

    Args:
        benchmark: the set; leave out a few pairs of each pattern with `load_benchmark(limit=...)` to keep it quick. It
            must not be the set that is reported in the end if the training is steered by it.
        processor: of the model; left as it is.
        variant: how items are put; by default as `eyechart score` does.
        ask: `options` compares the labels' log-probabilities, one forward pass an item; `generate` reads replies.
        max_new_tokens: longest reply, where they are read.
        batch_size: items at a time.

    Returns:
        A function of a model: `pair_accuracy` (or what the rule puts first), its ends `_low` and `_high` of the 95 %
        interval, and the rule's other measures over all items. A measure that is undefined is left out.

    Raises:
        UserError: the variant is a control that the set has nothing for.
    """
    asked = put(benchmark, variant or Variant())
    kept: list[VLM] = []

    def score(model: Any) -> dict[str, float]:
        if not kept or kept[0].model is not unwrapped(model):
            kept[:] = [VLM.from_objects(model, processor)]
        graded = [
            one
            for start in range(0, len(asked), batch_size)
            for one in answers_of(
                kept[0], asked[start : start + batch_size], ask=ask, max_new_tokens=max_new_tokens
            )
        ]
        found: dict[str, float] = {}
        for one in measure(benchmark.rule, benchmark.items, graded):
            if one.of is None and one.value is not None:
                ends = {"low": one.low, "high": one.high}
                found[one.name] = one.value
                found |= {f"{one.name}_{end}": value for end, value in ends.items() if value is not None}
        return found

    return score
