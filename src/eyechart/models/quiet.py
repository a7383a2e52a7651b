"""Keep transformers from drawing bars and giving advice while a block runs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no messages below errors from transformers; afterwards its settings are as before.

    The bars of downloads from the hub stay as they are: those are long waits.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _set_downloads(shown=downloads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # between transformers and peft, no concern of the person's
            yield
    finally:
        logging.set_verbosity(verbosity)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the hub's bars may be off by HF_HUB_DISABLE_PROGRESS_BARS
            if bars:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        _set_downloads(shown=downloads)


def _set_downloads(*, shown: bool) -> None:
    """transformers switches the hub's bars together with its own; put them back."""
    if not shown:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            disable_progress_bars()
    else:
        enable_progress_bars()
