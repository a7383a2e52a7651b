"""One pass of a model over one prompt, as knockouts need it."""

from collections.abc import Callable

from eyechart.core.records import Prompt
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.states import forward_inputs
from eyechart.models.vlms.vlm import VLM


def one_pass(vlm: VLM, prompt: Prompt) -> Callable[[], object]:
    """A function that runs the model over the whole prompt without a cache, always the same; it leaves the model as it was."""
    inputs = forward_inputs(vlm.model, vlm.inputs([prompt]))

    def run() -> object:
        with undisturbed(vlm.model, vlm.processor):
            return vlm.model(**inputs, use_cache=False)

    return run
