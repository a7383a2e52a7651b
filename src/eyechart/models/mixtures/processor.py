"""The mixture's processor: pictures for each encoder, and the right number of image tokens in the text."""

from typing import Any, no_type_check

from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ProcessorMixin

from eyechart.core.errors import UserError


class MixtureProcessor(ProcessorMixin):
    """Text and pictures to a mixture's inputs: `pixel_values`, `second_pixel_values`, and texts with image tokens.

    Args:
        image_processor: the first encoder's own.
        second_image_processor: the second encoder's own; given, and not used, where `second_sees` is `first`.
        tokenizer: of the language model; it knows the image token.
        grid: rows and columns of cells that stand for a picture.
        tokens_per_cell: image tokens for each cell: 2 where tokens are interleaved, else 1.
        second_sees: `own` makes `second_pixel_values`; with `first` there are none, and the second encoder, if there is
            one, is given `pixel_values` (the released I-MoF code).
        image_token: what stands for a picture in a text.
    """

    second_image_processor: Any
    grid: list[int]
    tokens_per_cell: int
    second_sees: str
    image_token: str
    image_token_id: int

    @no_type_check  # at run time only: transformers reads the names of the arguments off the code of this function
    def __init__(
        self,
        image_processor: Any = None,
        second_image_processor: Any = None,
        tokenizer: Any = None,
        grid: list[int] | tuple[int, int] | None = None,
        tokens_per_cell: int = 1,
        second_sees: str = "own",
        chat_template: str | None = None,
        image_token: str = "<image>",
        **kwargs: Any,
    ) -> None:
        if (
            grid is None
            or len(grid) != 2
            or second_sees not in ("own", "first")
            or tokens_per_cell not in (1, 2)
        ):
            raise UserError(
                f"grid {grid}, tokens_per_cell {tokens_per_cell}, second_sees {second_sees!r}: expected two numbers, 1 or 2, "
                "and 'own' or 'first'"
            )
        self.grid = list(grid)
        self.tokens_per_cell = tokens_per_cell
        self.second_sees = second_sees
        self.image_token = getattr(tokenizer, "image_token", None) or image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        if self.image_token_id is None or self.image_token_id == tokenizer.unk_token_id:
            raise UserError(f"the tokenizer has no token {self.image_token!r}; add it as a special token")
        super().__init__(image_processor, second_image_processor, tokenizer, chat_template=chat_template)

    @property
    def tokens_per_image(self) -> int:
        """How many image tokens stand for one picture."""
        return self.grid[0] * self.grid[1] * self.tokens_per_cell

    def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for one picture: its image tokens."""
        return self.image_token * self.tokens_per_image

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        """Both encoders' tensors; every setting given in a call goes to both processors."""
        flat = make_flat_list_of_images(images)
        made, replacements = super()._process_images(flat, **kwargs)
        if self.second_sees == "own":
            made["second_pixel_values"] = self.second_image_processor(flat, **kwargs)["pixel_values"]
        return made, replacements

    @property
    def model_input_names(self) -> list[str]:
        """The names of what it makes."""
        names = [*self.tokenizer.model_input_names, "pixel_values"]
        return [*names, "second_pixel_values"] if self.second_sees == "own" else names
