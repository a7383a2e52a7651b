"""The mixture as a model of transformers: two vision towers, what mixes them, adapters, and a language model."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel, slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

from eyechart.core.errors import UserError
from eyechart.models.mixtures.config import MixtureConfig
from eyechart.models.mixtures.encoding import patch_features, patch_grid
from eyechart.models.mixtures.mixing import (
    AnyFeatures,
    ChannelStatistics,
    Grid,
    added,
    concatenated,
    interleaved,
    resampled,
    square,
)
from eyechart.models.mixtures.parts import Adapter, MixtureModelOutput, MixtureOutput, Standardiser

_AUTO: Any = AutoModel

FIRST, SECOND = "vision_tower", "second_vision_tower"
"""The names of the encoders: attributes of the model, and keys of its features."""


class MixturePreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What transformers needs to know of both classes."""

    config: MixtureConfig
    config_class = MixtureConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, Standardiser):
            module.mean.zero_()
            module.deviation.fill_(1)
            module.tokens.zero_()


class MixtureModel(MixturePreTrainedModel):  # type: ignore[no-untyped-call]
    """Two vision towers, what mixes them, adapters and a language model without its unembedding."""

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__(config)
        first: Any = config.vision_config
        second: Any = config.second_vision_config
        text: Any = config.text_config
        self.vision_tower = _AUTO.from_config(first)
        if second is not None:
            self.second_vision_tower = _AUTO.from_config(second)
        width = first.hidden_size + (second.hidden_size if config.mixture == "concatenated" else 0)
        self.multi_modal_projector = Adapter(width, text.hidden_size, config.adapter_act)
        if config.mixture == "interleaved":
            self.second_multi_modal_projector = Adapter(
                second.hidden_size, text.hidden_size, config.adapter_act
            )
        if config.standardise == "per_channel":
            widths = {FIRST: first.hidden_size} | ({} if second is None else {SECOND: second.hidden_size})
            self.standardisers = nn.ModuleDict({name: Standardiser(size) for name, size in widths.items()})
        self.language_model = _AUTO.from_config(text)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The vision towers that are run, by name."""
        names = {"first": FIRST, "second": SECOND}
        return {names[one]: getattr(self, names[one]) for one in self.config.active}

    @property
    def adapters(self) -> dict[str, nn.Module]:
        """The adapters, by name."""
        names = ("multi_modal_projector", "second_multi_modal_projector")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def get_encoder(self, modality: str | None = None) -> Any:
        """The vision tower that is examined (`MixtureConfig.examined`), or what transformers gives for other kinds."""
        if modality not in ("image", "video"):
            return super().get_encoder(modality)
        return self.vision_tower if self.config.examined_encoder == "first" else self.second_vision_tower

    def encoded(
        self, pixel_values: Tensor, second_pixel_values: Tensor | None = None
    ) -> tuple[dict[str, AnyFeatures], dict[str, Grid]]:
        """The patch features of every encoder that is run and their grids, before resampling and standardising.

        Raises:
            UserError: the second encoder's pixels are missing, or are of another number of images.
        """
        config, given = self.config, {FIRST: pixel_values, SECOND: pixel_values}
        if config.second_sees == "own" and SECOND in self.encoders:
            if second_pixel_values is None or len(second_pixel_values) != len(pixel_values):
                got = None if second_pixel_values is None else len(second_pixel_values)
                raise UserError(
                    f"{len(pixel_values)} images in pixel_values and {got} in second_pixel_values; expected one for each, "
                    "from the mixture's own processor"
                )
            given[SECOND] = second_pixel_values
        read = {
            FIRST: (config.vision_layer, config.vision_norm),
            SECOND: (config.second_layer, config.second_norm),
        }
        features, grids = {}, {}
        for name, tower in self.encoders.items():
            layer, norm = read[name]
            features[name] = patch_features(tower, given[name], layer=layer, norm=norm)
            grids[name] = patch_grid(tower.config, given[name])
        return features, grids

    def fed(
        self, features: Mapping[str, AnyFeatures], grids: Mapping[str, Grid] | None = None
    ) -> dict[str, AnyFeatures]:
        """What each adapter reads, by the adapter's name.

        Args:
            features: of each encoder that is run, as `encoded` gives them.
            grids: rows and columns of each; None takes them for squares.
        """
        places = grids or {name: square(rows.shape[1]) for name, rows in features.items()}
        wanted = self.config.cells or places[FIRST if FIRST in features else SECOND]
        return self.mixed(
            {
                name: resampled(rows, places[name], wanted, self.config.resample)
                for name, rows in features.items()
            }
        )

    def mixed(self, features: Mapping[str, AnyFeatures]) -> dict[str, AnyFeatures]:
        """What each adapter reads of features that stand on one grid, whole or the same patches of each; see `fed`."""
        config, ready = self.config, dict(features)
        if config.standardise == "per_channel":
            ready = {name: self.standardisers[name](rows) for name, rows in features.items()}
        if config.mixture == "interleaved":
            return dict(zip(self.adapters, (ready[FIRST], ready[SECOND]), strict=True))
        if len(ready) == 1:
            mixed = next(iter(ready.values()))
        elif config.mixture == "additive":
            mixed = added(ready[FIRST], ready[SECOND], config.alpha)
        else:
            mixed = concatenated(ready[FIRST], ready[SECOND])
        return {"multi_modal_projector": mixed}

    def tokens(self, read: Mapping[str, AnyFeatures]) -> Float[Tensor, "image token hidden"]:
        """The tokens that stand for each image, of what each adapter reads."""
        tokens = [self.adapters[name](rows) for name, rows in read.items()]
        return tokens[0] if len(tokens) == 1 else interleaved(*tokens)

    def projected(
        self, features: Mapping[str, AnyFeatures], grids: Mapping[str, Grid] | None = None
    ) -> Float[Tensor, "image token hidden"]:
        """The tokens that stand for each image; arguments as for `fed`."""
        return self.tokens(self.fed(features, grids))

    def get_image_features(
        self,
        pixel_values: Tensor,
        second_pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """The tokens of each image in `pooler_output`, as a list, by the custom of transformers' VLMs.

        `generate` calls it with settings of other models besides, which are not read.
        """
        features, grids = self.encoded(pixel_values, second_pixel_values)
        tokens: Any = list(self.projected(features, grids))
        return BaseModelOutputWithPooling(pooler_output=tokens)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Int[Tensor, "row position"] | None = None,
        pixel_values: Tensor | None = None,
        second_pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "row position hidden"] | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> MixtureModelOutput:
        """States of the language model for texts, with image tokens replaced by what the images give.

        Raises:
            ValueError: both or none of `input_ids` and `inputs_embeds` are given.
            UserError: there are more or fewer image tokens in the texts than the images make.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        image = (mm_encoder_outputs or {}).get("image")
        if image is None and pixel_values is not None and len(pixel_values):
            image = self.get_image_features(pixel_values, second_pixel_values)
        tokens = None
        if image is not None:
            tokens = torch.cat(list(image.pooler_output)).to(inputs_embeds.device, inputs_embeds.dtype)
            held = self._image_positions(input_ids, inputs_embeds, len(tokens))
            inputs_embeds = inputs_embeds.masked_scatter(held[..., None], tokens)
        out = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return MixtureModelOutput(
            last_hidden_state=out.last_hidden_state,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            image_hidden_states=tokens,
        )

    def _image_positions(self, input_ids: Tensor | None, embeddings: Tensor, tokens: int) -> Tensor:
        """Where the image tokens stand, checked against how many the images make."""
        token = self.config.image_token_id
        if input_ids is not None:
            held = input_ids == token
        else:
            wanted = torch.tensor(token, device=embeddings.device)
            held = (embeddings == self.get_input_embeddings()(wanted)).all(-1)
        if int(held.sum()) != tokens:
            raise UserError(
                f"the texts hold {int(held.sum())} image tokens, the images make {tokens}; expected as many of one as of "
                "the other, from the mixture's own processor and without cutting the text"
            )
        there: Tensor = held.to(embeddings.device)
        return there


class MixtureForConditionalGeneration(MixturePreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A mixture of features that answers (Tong et al. 2024, arXiv 2401.06209, section 5).

    It loads, saves and generates as any model of transformers. Parts have the names they
    have in transformers' LLaVA, so that a `single` mixture takes its `state_dict` as it is.
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.model = MixtureModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding."""
        head: nn.Module = self.lm_head
        return head

    def get_encoder(self, modality: str | None = None) -> Any:
        """The vision tower that is examined, or what transformers gives for other kinds."""
        if modality not in ("image", "video"):
            return super().get_encoder(modality)
        return self.model.get_encoder(modality)

    def get_image_features(self, pixel_values: Tensor, second_pixel_values: Tensor | None = None) -> Any:
        """The tokens of each image in `pooler_output`."""
        return self.model.get_image_features(pixel_values, second_pixel_values)

    def set_channel_statistics(self, statistics: Mapping[str, ChannelStatistics]) -> None:
        """Give each encoder (`vision_tower`, `second_vision_tower`) the statistics of its features.

        They belong to features as `model.encoded` gives them, resampled where grids differ.

        Raises:
            UserError: the mixture does not standardise, there is no such encoder, or widths differ.
        """
        if self.config.standardise != "per_channel":
            raise UserError(f"standardise is {self.config.standardise!r}; statistics need 'per_channel'")
        there = self.model.standardisers
        for name, one in statistics.items():
            if name not in there:
                raise UserError(f"no encoder named {name!r}; there are: {', '.join(there)}")
            module = there[name]
            assert isinstance(module, Standardiser)
            module.set(one)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Int[Tensor, "row position"] | None = None,
        pixel_values: Tensor | None = None,
        second_pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "row position hidden"] | None = None,
        labels: Int[Tensor, "row position"] | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> MixtureOutput:
        """Logits, and the loss where labels are given; errors as `MixtureModel.forward`."""
        out = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            second_pixel_values=second_pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        text: Any = self.config.text_config
        logits = self.lm_head(slice_logits_to_keep(out[0], logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=text.vocab_size, **kwargs)
        return MixtureOutput(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            image_hidden_states=out.image_hidden_states,
        )
