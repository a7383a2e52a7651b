"""One vision-language model behind one face: ask it, score options, read its states, and say what it cannot do."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from eyechart.core.errors import Incapable, UserError
from eyechart.core.geometry import Geometry
from eyechart.core.records import Capability, Prompt
from eyechart.models import fed, geometry
from eyechart.models.mixtures.modeling import MixtureForConditionalGeneration
from eyechart.models.mixtures.reading import mixture_fed
from eyechart.models.sources import Fingerprint
from eyechart.models.untrained import is_untrained
from eyechart.models.vlms.capabilities import missing
from eyechart.models.vlms.describing import attention_of, devices_of, notes_of
from eyechart.models.vlms.generating import generate_new, greedy_config, run_generate
from eyechart.models.vlms.objects import is_encoder_decoder, tokenizer_of, undisturbed
from eyechart.models.vlms.prompting import REFUSALS, Inputs, Prompting, image_positions
from eyechart.models.vlms.proof import Proof, parts, probe_picture, prove
from eyechart.models.vlms.states import (
    HiddenStates,
    VisionStates,
    language_states,
    pick_layers,
    pick_positions,
    vision_states,
)
from eyechart.models.vlms.together import score_alone, score_options, score_steps
from eyechart.models.vlms.towers import AttentionSite, TowerName, Towers, resolve_towers, unwrapped

logger = logging.getLogger(__name__)


class VLM:
    """A vision-language model of any architecture that transformers loads for images and text.

    Every method leaves model and processor as it found them. What a model lacks is in `cannot`, with the reason.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        fingerprint: Fingerprint,
        adapter: Fingerprint | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.model = unwrapped(model)
        """The transformers model; a PEFT wrapper's layers are inside it."""

        if _prompt_learning(model):
            raise UserError(
                f"the PEFT wrapper {type(model).__name__} learns a prompt; expected one such as LoRA"
            )
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.id = fingerprint.id
        self.revision = fingerprint.revision
        self.sha256 = fingerprint.sha256
        self.adapter = adapter
        self._joins: dict[bool, str] = {}
        self._geometries: dict[tuple[int, int], Geometry] = {}
        with undisturbed(self.model, processor):
            self.prompting = Prompting(self.model, processor)
            self.proof: Proof = prove(self.model, self.prompting)
        self.notes = (*notes, *notes_of(self.prompting, self.proof))
        """Choices made for this model that its results depend on, in words."""

    @classmethod
    def from_objects(cls, model: Any, processor: Any, *, name: str | None = None) -> "VLM":
        """A VLM from a model and processor in memory; both stay as they are, where they are.

        Raises:
            UserError: the processor has no image half or no tokenizer, or the model fails on a plain picture.
        """
        if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
            raise UserError(
                f"a {type(processor).__name__} was given; expected a processor with an image_processor and a "
                "tokenizer, as AutoProcessor loads it for a vision-language model"
            )
        path = getattr(unwrapped(model), "name_or_path", "") or type(unwrapped(model)).__name__
        return cls(model, processor, fingerprint=Fingerprint(id=name or path, revision=None, sha256=None))

    # ------------------------------------------------------------------------------------- what it is

    @property
    def architecture(self) -> str:
        """The class of the model."""
        return type(self.model).__name__

    @property
    def trained(self) -> bool:
        """False for the random-weight models that Eyechart makes itself."""
        return not is_untrained(self.model.config)

    @property
    def dtype(self) -> str:
        """The number format of the weights."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        """Where the weights are; several devices are joined by commas."""
        return devices_of(self.model)

    @property
    def attn(self) -> str:
        """The attention implementation in use; where the towers differ, each tower's."""
        return attention_of(self.model, self.proof.towers)

    @property
    def template(self) -> str:
        """How prompts are laid out, in words; begins with `none:` without a chat template."""
        return self.prompting.note

    @cached_property
    def _missing(self) -> dict[Capability, str]:
        """`cannot`, before the spatial map is tried out."""
        return missing(self.model, self.proof)

    @cached_property
    def cannot(self) -> dict[Capability, str]:
        """The capabilities this model lacks, each with the reason."""
        if Capability.SPATIAL_MAP in self._missing or not (why := self._why_no_map()):
            return self._missing
        return {**self._missing, Capability.SPATIAL_MAP: why}

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this model can be asked for."""
        return frozenset(Capability) - frozenset(self.cannot)

    def require(self, capability: Capability, *, for_: str) -> None:
        """Go on only if the model has a capability.

        Raises:
            Incapable: it has not; the text names the model, the capability, what needs it, and why it is missing.
        """
        lacking = self.cannot if capability == Capability.SPATIAL_MAP else self._missing
        if capability in lacking:
            raise Incapable(
                f"{for_} needs the capability {capability.value!r}, which {self.id} ({self.architecture}) does not "
                f"have: {lacking[capability]}"
            )

    def describe(self) -> dict[str, Any]:
        """The `model` block of results.json and manifest.json."""
        return {
            "id": self.id,
            "revision": self.revision,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "adapter": None
            if self.adapter is None
            else {"id": self.adapter.id, "sha256": self.adapter.sha256},
            "capabilities": sorted(capability.value for capability in self.capabilities),
            "cannot": {capability.value: why for capability, why in sorted(self.cannot.items())},
            "trained": self.trained,
            "dtype": self.dtype,
            "device": self.device,
            "attn": self.attn,
            "template": self.template,
            "notes": list(self.notes),
        }

    # ------------------------------------------------------------------------------------- asking it

    def render(self, prompt: Prompt) -> str:
        """The text a prompt becomes, image tokens not yet repeated."""
        return self.prompting.render(prompt)

    def inputs(self, prompts: Sequence[Prompt]) -> Inputs:
        """The tensors the model is fed for a batch of prompts."""
        with undisturbed(self.model, self.processor):
            return self.prompting.inputs(prompts)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """Greedy replies, new text only.

        Prompts go through the model in one batch, or one at a time where `notes` says so; a prompt's reply does
        not depend on the others but for rounding.

        Raises:
            Incapable: a prompt has no image and the model cannot do without.
        """
        self.require(Capability.GENERATE, for_="generating replies")
        self._check_text_only(prompts)
        config = self._greedy(max_new_tokens)
        replies = [""] * len(prompts)
        with undisturbed(self.model, self.processor):
            for places in self._batches(prompts):
                inputs = self.prompting.inputs([prompts[place] for place in places])
                for place, tokens in zip(places, generate_new(self.model, inputs, config), strict=True):
                    replies[place] = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return replies

    def option_scores(
        self, prompt: Prompt, options: Sequence[str], *, per_token: bool = False
    ) -> tuple[float, ...]:
        """`option_scores_of` for one prompt."""
        return self.option_scores_of([prompt], [options], per_token=per_token)[0]

    def option_scores_of(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]], *, per_token: bool = False
    ) -> list[tuple[float, ...]]:
        """The log-probability of each option as the continuation of its prompt, in nats.

        A prompt with its images is read once for all its options, and prompts go through the model in one batch (where
        they cannot, `notes` says so); a prompt's scores do not depend on the others but for rounding. An option
        follows the rendered prompt exactly as it is written: put `join` before it, the space that many prompts need.
        The end of the reply is not scored. In an encoder-decoder the option is the decoder's text from its start.

        Args:
            options: those of each prompt; their number may differ from prompt to prompt.
            per_token: divide each by its number of tokens.

        Raises:
            UserError: there are not as many lists of options as prompts, a list is empty, or an option is.
            Incapable: the model cannot be asked without an image, and a prompt has none.
        """
        self.require(Capability.OPTION_SCORES, for_="scoring options")
        if len(prompts) != len(options):
            raise UserError(
                f"{len(prompts)} prompts, but options for {len(options)}; expected one list for each"
            )
        for some in options:
            if not some or not all(some):
                raise UserError(f"options must be one or more texts that are not empty, got {list(some)!r}")
        self._check_text_only(prompts)
        config = self._greedy(1)
        alone = score_alone if self.proof.why_not_shared else score_steps
        way: Callable[..., Any] = alone
        if not self.proof.why_not_together:
            way = partial(score_options, begin=len(prompts) > 1 and not self.why_not_parted)
        scores: list[tuple[float, ...]] = [()] * len(prompts)
        with undisturbed(self.model, self.processor):
            for places in self._batches(prompts, alone=bool(self.proof.why_not_together)):
                asked = [prompts[place] for place in places]
                found = way(self.model, self.prompting, config, asked, [options[place] for place in places])
                for place, each in zip(places, found, strict=True):
                    scores[place] = tuple(sum(one) / (len(one) if per_token else 1) for one in each)
        return scores

    def join(self, prompt: Prompt) -> str:
        """What belongs between a rendered prompt and an option: a space, or nothing where none is needed.

        None is needed after white space, after a special token, and where a decoder starts empty.
        """
        seen = bool(prompt.images)
        if seen not in self._joins:
            self._joins[seen] = self._join(prompt)
        return self._joins[seen]

    # ------------------------------------------------------------------------------------- reading it

    @property
    def towers(self) -> Towers:
        """The model's parts.

        Raises:
            Incapable: it has no vision tower of its own.
        """
        if self.proof.towers is None:
            raise Incapable(self.proof.why_no_towers)
        return self.proof.towers

    def self_attentions(self, tower: TowerName) -> tuple[AttentionSite, ...]:
        """The self-attention modules of a tower in layer order, one for each block that has one."""
        return self.towers.self_attentions(tower)

    def image_positions(self, prompt: Prompt) -> tuple[int, ...]:
        """Where the language model's sequence holds the prompt's images.

        Raises:
            Incapable: the image does not stand in the sequence.
        """
        return self._image_positions(self.inputs([prompt]))

    def hidden_states(
        self, prompt: Prompt, *, positions: Sequence[int] | str = "image", layers: Sequence[int] | None = None
    ) -> HiddenStates:
        """The language model's states at the image positions, or at others.

        Args:
            positions: `image`, `all`, or positions in the prompt's sequence, negative ones from its end.
            layers: layer numbers to keep, 0 for what the first block reads; None for all.

        Raises:
            Incapable: image positions are asked for and the image does not stand in the sequence, the model does
                not give its states, or it cannot do without an image and the prompt has none.
            UserError: there is no such layer or position.
        """
        if positions == "image":
            self.require(Capability.HIDDEN_STATES, for_="reading hidden states at image positions")
        self._check_text_only([prompt])
        inputs = self.inputs([prompt])
        holds_image = Capability.HIDDEN_STATES not in self._missing and bool(prompt.images)
        image = self._image_positions(inputs) if holds_image else ()
        with undisturbed(self.model, self.processor):
            states, normed = language_states(self.model, inputs, self.towers)
        kept = pick_positions(positions, image, len(states[0]))
        numbers = pick_layers(states, layers)
        place = torch.tensor(kept, dtype=torch.long)
        return HiddenStates(
            layers=torch.stack([states[number][place.to(states[number].device)].cpu() for number in numbers]),
            layer_numbers=numbers,
            last_layer=len(states) - 1,
            last_is_normed=normed,
            positions=kept,
            image_positions=image,
            grid=self._grid(prompt) if image else None,
            input_ids=tuple(inputs["input_ids"][0].tolist()) if "input_ids" in inputs else (),
            of_encoder=self.towers.language_encoder,
        )

    def vision_states(
        self, images: Sequence[Image.Image], *, layers: Sequence[int] | None = None
    ) -> list[VisionStates]:
        """The vision tower's states for each image, one image at a time.

        Raises:
            Incapable: the model has no vision tower, or its blocks hold states of different shapes.
            UserError: there is no such layer.
        """
        towers = self.towers
        config = self._greedy(1)
        found = []
        with undisturbed(self.model, self.processor):
            for image in images:
                inputs = self.prompting.inputs([Prompt(text="a", images=(image,))])
                states = vision_states(towers, partial(run_generate, self.model, inputs, config))
                numbers = pick_layers(states, layers)
                kept = torch.stack([states[number].cpu() for number in numbers])
                found.append(VisionStates(layers=kept, layer_numbers=numbers))
        return found

    def fed(self, images: Sequence[Image.Image]) -> list[fed.Fed]:
        """What the projector really reads of each image: the features, their layer, their tokens and grid.

        Raises:
            Incapable: there is no projector.
        """
        self.require(Capability.FED_FEATURES, for_="reading fed features")
        with undisturbed(self.model, self.processor):
            if isinstance(self.model, MixtureForConditionalGeneration):
                return mixture_fed(self.model, self.processor, images, self.towers)
            return fed.fed_features(self.model, self.processor, images, self.towers)

    def geometry(self, image: Image.Image) -> Geometry:
        """The map between an image's pixels and its LLM positions; k there is the k-th of `image_positions`.

        Raises:
            Incapable: the model has no such map, or none for an image of this size.
        """
        if image.size not in self._geometries:
            self.require(Capability.HIDDEN_STATES, for_="a map from pixels to the language model's positions")
            self._geometries[image.size] = self._derived(image)
        return self._geometries[image.size]

    # ------------------------------------------------------------------------------------- details

    def _derived(self, image: Image.Image) -> Geometry:
        with undisturbed(self.model, self.processor):
            return geometry.derive_geometry(self.processor, self.model, image, towers=self.towers)

    def _why_no_map(self) -> str:
        try:
            self._derived(probe_picture(96, 64))
        except Incapable as error:
            return str(error)
        return ""

    def _join(self, prompt: Prompt) -> str:
        fed = self.inputs([prompt])
        if is_encoder_decoder(self.model) or "input_ids" not in fed:
            return ""
        last = int(fed["input_ids"][0, -1])
        bare = last in self.tokenizer.all_special_ids or not self.tokenizer.decode([last]).strip()
        return "" if bare else " "

    def _greedy(self, max_new_tokens: int) -> GenerationConfig:
        use_cache = not self.proof.why_no_cache
        return greedy_config(self.model, self.tokenizer, max_new_tokens=max_new_tokens, use_cache=use_cache)

    def _batches(self, prompts: Sequence[Prompt], *, alone: bool = False) -> list[list[int]]:
        """Places of prompts that go through the model together: as many images each, or one by one."""
        if alone or self.proof.why_no_batches:
            return [[place] for place in range(len(prompts))]
        groups: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(len(prompt.images), []).append(place)
        return list(groups.values())

    def _check_text_only(self, prompts: Sequence[Prompt]) -> None:
        if any(not prompt.images for prompt in prompts) and self.why_no_text_only:
            raise Incapable(
                f"{self.id} ({self.architecture}) cannot be asked without an image: {self.why_no_text_only}"
            )

    @cached_property
    def why_not_parted(self) -> str:
        """Why prompts are read whole, and not once up to the end of an image that several have; empty when parted."""
        if why := self.proof.why_no_batches or self.proof.why_not_together:
            return why
        if not self.proof.image_ids_hold:
            return "its inputs do not say where an image ends"
        with undisturbed(self.model, self.processor):
            return parts(self.model, self.prompting)

    @cached_property
    def why_no_text_only(self) -> str:
        """Why the model cannot answer a prompt without an image; empty when it can."""
        config = self._greedy(1)
        with undisturbed(self.model, self.processor):
            try:
                generate_new(self.model, self.prompting.inputs([Prompt(text="Hello.")]), config)
            except torch.OutOfMemoryError:
                raise
            except REFUSALS as error:
                return f"{type(error).__name__}: {str(error)[:200]}"
        return ""

    def _image_positions(self, inputs: Inputs) -> tuple[int, ...]:
        self.require(Capability.HIDDEN_STATES, for_="finding image positions")
        named = image_positions(inputs, self.prompting.image_token_id) if self.proof.image_ids_hold else None
        if named is not None:
            return named
        config = self._greedy(1)
        with undisturbed(self.model, self.processor):
            towers = resolve_towers(self.model, run=lambda: run_generate(self.model, inputs, config))
        assert towers.flow is not None
        return towers.flow.positions

    def _grid(self, prompt: Prompt) -> tuple[int, int] | None:
        """The grid of a prompt's one image, where its positions are one grid and nothing else."""
        if len(prompt.images) != 1 or Capability.SPATIAL_MAP in self.cannot:
            return None
        record = self.geometry(prompt.images[0])
        rows, columns = record.tiles[0].grid
        whole = tuple(tuple(range(row * columns, (row + 1) * columns)) for row in range(rows))
        plain = (
            len(record.tiles) == 1 and record.tiles[0].positions == whole and record.length == rows * columns
        )
        return (rows, columns) if plain else None


def _prompt_learning(model: Any) -> bool:
    config = getattr(model, "active_peft_config", None)
    return bool(getattr(config, "is_prompt_learning", False))
