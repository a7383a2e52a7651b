"""What a mixture is made of: its encoders, what is read of each, how they are mixed, and the language model."""

from typing import Any, ClassVar, Literal, no_type_check

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from eyechart.core.errors import UserError

Mixture = Literal["single", "additive", "interleaved", "concatenated"]
Encoder = Literal["first", "second"]
Resample = Literal["bilinear", "bicubic", "area", "nearest"]

ENCODERS: tuple[Encoder, ...] = ("first", "second")


@no_type_check  # at run time only: transformers' init takes more than the fields, and `strict` checks those
@strict
class MixtureConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Config of a mixture of features (Tong et al. 2024, arXiv 2401.06209, section 5).

    `vision_config` is the first encoder (in the paper CLIP), `second_vision_config` the second (the paper's DINOv2, MAE
    or MoCo v3). `mixture` says what reaches the language model:

    - `single`: the first encoder alone; there is no second.
    - `additive` (A-MoF): alpha * first + (1 - alpha) * second, then one adapter. Widths must be equal.
    - `interleaved` (I-MoF): an adapter each; tokens in turn, first encoder even, second odd, row by row.
    - `concatenated`: both side by side along the channels, then one adapter.

    Raises:
        UserError: the fields contradict each other; the text says which, and what to do.
    """

    model_type = "eyechart_mixture"
    attribute_map: ClassVar[dict[str, str]] = {"image_token_id": "image_token_index"}
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "second_vision_config": SubConfigSpec(config_class=AutoConfig, model_type="dinov2", optional=True),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    second_vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    mixture: Literal["single", "additive", "interleaved", "concatenated"] = "single"

    vision_layer: int = -2
    """Of the first encoder, counted as in `hidden_states`: 0 is what the first block reads, -1 what the last gives."""

    vision_norm: bool = False
    """Whether the first encoder's final LayerNorm is applied to that layer."""

    second_layer: int = -1
    second_norm: bool = False
    second_sees: Literal["own", "first"] = "own"
    """Which tensor the second encoder is given: its own processor's, or (the released behaviour) the first's."""

    alpha: float = 0.5
    """Share of the first encoder in `additive`. At 1 the second is not run, at 0 the first is not."""

    standardise: Literal["none", "per_channel"] = "none"
    """Per channel: minus a mean, over a deviation, both stored with the weights (`channel_statistics`)."""

    grid: list[int] | None = None
    """Rows and columns to which features are resampled; None is the first encoder's own grid."""

    resample: Literal["bilinear", "bicubic", "area", "nearest"] = "bilinear"
    adapter_act: str = "gelu"
    image_token_index: int = 32000
    examined: Literal["first", "second"] = "first"
    """Which encoder is *the* vision tower where one is asked for: vision states, knockouts, fed layer."""

    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the sub-configs, and check that all fields fit together."""
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        text: Any = self.text_config
        if not self.tie_word_embeddings and getattr(text, "tie_word_embeddings", False):
            self.tie_word_embeddings = True
        for vision in (self.vision_config, self.second_vision_config):
            if hasattr(vision, "mask_ratio"):  # MAE: every patch is read
                setattr(vision, "mask_ratio", 0.0)  # noqa: B010
        _check(self)

    @property
    def ssl_share(self) -> float:
        """1 - alpha: the share of the second encoder, as the paper's table and part of the literature count."""
        return 1 - self.alpha

    @property
    def active(self) -> tuple[Encoder, ...]:
        """The encoders that are run: of `additive` at alpha 1 or 0 only one."""
        if self.mixture == "single" or (self.mixture == "additive" and self.alpha == 1):
            return ("first",)
        return ("second",) if self.mixture == "additive" and self.alpha == 0 else ENCODERS

    @property
    def tokens_per_cell(self) -> int:
        """Image tokens for each cell of the grid: two where tokens are interleaved."""
        return 2 if self.mixture == "interleaved" else 1

    @property
    def examined_encoder(self) -> Encoder:
        """The encoder that stands for the vision tower: the one named, if it is run."""
        return self.examined if self.examined in self.active else self.active[0]

    @property
    def cells(self) -> tuple[int, int] | None:
        """The grid to which features are resampled; None for the first encoder's own."""
        return None if self.grid is None else (self.grid[0], self.grid[1])

    @property
    def examined_config(self) -> Any:
        """The config of the encoder that stands for the vision tower."""
        return self.vision_config if self.examined_encoder == "first" else self.second_vision_config

    @property
    def examined_pixels(self) -> str:
        """The input that holds what that encoder sees."""
        own = self.examined_encoder == "second" and self.second_sees == "own"
        return "second_pixel_values" if own else "pixel_values"


def _check(config: MixtureConfig) -> None:
    first: Any = config.vision_config
    second: Any = config.second_vision_config
    if (second is None) != (config.mixture == "single"):
        there = "none" if second is None else second.model_type
        raise UserError(
            f"mixture {config.mixture!r} with second encoder {there}: 'single' takes no second encoder, every other "
            "mixture takes one; set second_vision_config accordingly"
        )
    if not 0 <= config.alpha <= 1:
        raise UserError(f"alpha is the first encoder's share, from 0 to 1, got {config.alpha}")
    if config.mixture == "additive" and first.hidden_size != second.hidden_size:
        raise UserError(
            f"an additive mixture adds features of one width, got {first.hidden_size} ({first.model_type}) and "
            f"{second.hidden_size} ({second.model_type}); take 'interleaved' or 'concatenated', or encoders of one width"
        )
    if config.grid is not None and (len(config.grid) != 2 or min(config.grid) < 1):
        raise UserError(f"grid is rows and columns, two numbers from 1, got {config.grid}")
    if config.examined == "second" and second is None:
        raise UserError("examined is 'second', but a single mixture has no second encoder; take 'first'")
    for name, layer, vision in (
        ("vision", config.vision_layer, first),
        ("second", config.second_layer, second),
    ):
        if vision is not None and not -vision.num_hidden_layers - 1 <= layer <= vision.num_hidden_layers:
            raise UserError(
                f"{name}_layer {layer}: {vision.model_type} has layers 0 (what its first block reads) to "
                f"{vision.num_hidden_layers}, or -1 to {-vision.num_hidden_layers - 1} from the end"
            )
