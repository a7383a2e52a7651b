"""The stages of a localisation that look at pictures with part masks: lens, knockouts and doses, a line a picture.

Each picture's line is written when the picture is done, so that a run that was stopped goes on at the next one. Knockouts are
proved on the first picture with a part, before any is counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Int
from numpy import ndarray
from PIL.Image import Image

from eyechart.core.config import plain
from eyechart.core.errors import UserError
from eyechart.core.files import JsonLines
from eyechart.core.images import open_image
from eyechart.core.records import Capability, Prompt
from eyechart.core.runs import RunFolder
from eyechart.locate.arms import ArmPlan, DosePlan, Towered, arms_of, doses_of
from eyechart.locate.config import WORLD, LocateConfig
from eyechart.locate.identify import ImageStates, MaskedPart, PartRanks, identify_parts
from eyechart.locate.identify_vlm import part_names
from eyechart.locate.knock import Pictured, knock_parts, plan_parts
from eyechart.locate.knock_rows import line_of, states_of
from eyechart.locate.labels import LabelSet, labels_of, speller_of
from eyechart.locate.layout_of_vlm import language_layout, vision_layout
from eyechart.locate.lens import Lens
from eyechart.locate.lens_of_vlm import already_normed, lens_of
from eyechart.locate.named_layers import Usable, usable_layers
from eyechart.locate.part_records import PartImage, PartSet
from eyechart.models.attention import Condition
from eyechart.models.attention.passes import one_pass
from eyechart.models.attention.proof import prove_knockout
from eyechart.models.attention.sweep import sweep
from eyechart.models.attention.sweep_proof import prove_replay
from eyechart.models.vlms import VLM
from eyechart.train.prompts import DESCRIBE
from eyechart.world.kinds import SHARED

Progress = Callable[[str, int, int], None]

LENS, KNOCKOUTS, DOSES = "lens.jsonl", "knockouts.jsonl", "doses.jsonl"


class PartStages:
    """A model and a set of pictures with parts, and what is made for both once."""

    def __init__(self, config: LocateConfig, vlm: VLM, parts: PartSet) -> None:
        """Check that the model can be read this way.

        Raises:
            Incapable: it gives no hidden states, no spatial map, no lens, or its attention cannot be edited.
        """
        for capability in (Capability.HIDDEN_STATES, Capability.SPATIAL_MAP):
            vlm.require(capability, for_="reading parts of a picture")
        self.config, self.vlm, self.parts = config, vlm, parts
        self.lens: Lens = lens_of(vlm)
        self._towered: dict[tuple[int, int], tuple[Towered, Any]] = {}

    @cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Of each object the names of its parts in this set."""
        return part_names(self.parts.images)

    @cached_property
    def labels(self) -> LabelSet:
        """The tokens of the parts' names."""
        words = [name for some in self.names.values() for name in some] + sorted(set(self.rivals.values()))
        return labels_of(words, speller_of(self.vlm.tokenizer), rule=self.config.label)

    @property
    def rivals(self) -> dict[tuple[str, str], str]:
        """Of the world's parts that share mesh and paint under two names, the other name."""
        if self.config.parts != WORLD:
            return {}
        return {one: other[1] for pair in SHARED for one, other in (pair, pair[::-1])}

    @cached_property
    def ways(self) -> Any:
        """How sweeps are run on this model."""
        return prove_replay(self.vlm, self.prompt(self._first()))

    def prompt(self, image: PartImage) -> Prompt:
        """What is put to the model with a picture; image positions do not see the text where the model is causal."""
        return Prompt(text=DESCRIBE, images=(open_image(image.image).image,))

    def _first(self) -> PartImage:
        return next(iter(self.parts.images))

    # ------------------------------------------------------------------------------------ lens

    def read_lens(self, run: RunFolder, progress: Progress) -> None:
        """Rank every part's name at every layer of the intact model, beside its controls."""
        log = run.jsonl(LENS, key="image")
        for image in self._left(log, "reading parts", progress):
            states = self.vlm.hidden_states(self.prompt(image))
            one = ImageStates(
                image=image.id,
                states=states.layers,
                layers=states.layer_numbers,
                normed=already_normed(states),
                geometry=self.vlm.geometry(open_image(image.image).image),
                parts=image.parts,
            )
            found = identify_parts([one], self.lens, self.labels, self.names, settings=self.config.settings)
            log.append(
                {
                    "image": image.id,
                    "parts": [_plain(part) for part in found.parts],
                    "not_ranked": [asdict(part) for part in found.not_ranked],
                }
            )

    # ------------------------------------------------------------------------------------ knockouts

    def knock(self, run: RunFolder, progress: Progress) -> None:
        """Read every part in every cell of the 2x2 and its controls."""
        self.vlm.require(Capability.EDIT_ATTENTION, for_="knockouts")
        log = run.jsonl(KNOCKOUTS, key="image")
        for image in self._left(log, "knocking out", progress):
            pictured = self.pictured(image)
            arms = self.arms(pictured.towers)
            read, missing = self._knocked(image, pictured, arms)
            if self.config.part_probe:
                run.write_bytes(states_file(image), safetensors.numpy.save(states_of(read, ["main"])))
            log.append(line_of(image.id, read, missing))

    def dose(self, run: RunFolder, progress: Progress) -> None:
        """Read every part at growing shares of the main arm's layers and edges."""
        self.vlm.require(Capability.EDIT_ATTENTION, for_="knockouts")
        log = run.jsonl(DOSES, key="image")
        for image in self._left(log, "doses", progress):
            pictured = self.pictured(image)
            arms = [arm for plan in self.doses(pictured.towers) for arm in plan.arms]
            log.append(line_of(image.id, *self._knocked(image, pictured, arms)))

    def arms(self, towers: Towered) -> tuple[ArmPlan, ...]:
        """The arms of this run, the main one first."""
        config = self.config
        return arms_of(
            towers,
            vision=config.vision_edges,
            language=config.language_edges,
            vision_layers=config.vision_layers,
            language_layers=config.language_layers,
            controls=config.controls,
        )

    def doses(self, towers: Towered) -> tuple[DosePlan, ...]:
        """The curves of doses of this run's main arm."""
        return doses_of(self.arms(towers)[0], towers, seed=self.config.seed)

    def _knocked(self, image: PartImage, pictured: Pictured, arms: Sequence[ArmPlan]) -> Any:
        prompt = self.prompt(image)

        def read(conditions: Sequence[Condition]) -> Iterator[Any]:
            for one in sweep(self.vlm, prompt, conditions, batch=self._batch, ways=self.ways):
                yield one.condition, one.states

        known = {label.word: label for label in self.labels.labels}
        options: dict[str, Any] = {"settings": self.config.settings, "choices": self.config.choices}
        return knock_parts(pictured, read, self.lens, known, arms, rivals=self.rivals, **options)

    @property
    def _batch(self) -> int | None:
        return None if self.config.batch_size == "auto" else self.config.batch_size

    def prove(self) -> list[dict[str, Any]]:
        """Prove the cuts of the first part that has all of them, in every cell of every arm.

        Raises:
            NeverFired: a knockout does not do what it says on this model.
            UserError: no part of any picture has all cuts.
        """
        known = {label.word: label for label in self.labels.labels}
        for image in self.parts.images:
            pictured = self.pictured(image)
            arms = self.arms(pictured.towers)
            options: dict[str, Any] = {"settings": self.config.settings, "choices": self.config.choices}
            planned, _ = plan_parts(pictured, known, arms, **options)
            whole = [one.conditions for one in planned if not one.conditions.missing]
            if whole:
                return self._proved(image, whole[0].cells)
        raise UserError(
            f"none of the {len(self.parts.images)} pictures of {self.parts.name} has a part for which every arm has edges to"
            " cut; name fewer --controls, or other edges"
        )

    def _proved(self, image: PartImage, cells: dict[Any, Condition]) -> list[dict[str, Any]]:
        run, proofs = one_pass(self.vlm, self.prompt(image)), []
        proved: set[tuple[str, str, tuple[int, ...]]] = set()
        for cell, condition in cells.items():
            cuts = {(cut.tower, cut.name, cut.layers) for cut in condition.cuts}
            if cuts <= proved:  # a cut in both towers is made of cuts that were proved
                continue
            proved |= cuts
            proof = prove_knockout(self.vlm.towers, run, condition.cuts, name=f"{cell[0]}: {cell[1]}")
            proofs.append({"arm": cell[0], "cell": cell[1], "image": image.id, **proof.to_dict()})
        return proofs

    # ------------------------------------------------------------------------------------ places

    def pictured(self, image: PartImage) -> Pictured:
        """A picture with its parts, and where things stand in both towers."""
        picture = open_image(image.image).image
        towers, vision = self._layouts(picture)
        geometry = self.vlm.geometry(picture)

        def vision_of(part: MaskedPart, cells: Int[ndarray, " position"]) -> tuple[int, ...]:
            try:
                return towers.vision.patches_of(cells.tolist(), geometry)
            except UserError:  # tiles that are no cells of the language side: the part's own patches
                own = vision.geometry.positions_of(part.mask, threshold=self.config.threshold)
                return tuple(towers.vision.patches[int(place)] for place in own)

        return Pictured(
            image=image.id, parts=image.parts, geometry=geometry, towers=towers, vision_of=vision_of
        )

    def _layouts(self, picture: Image) -> tuple[Towered, Any]:
        """Layouts depend on a picture's size alone."""
        if picture.size not in self._towered:
            vision = vision_layout(self.vlm, picture)
            language = language_layout(self.vlm, Prompt(text=DESCRIBE, images=(picture,)))
            fed = self.vlm.fed([picture])[0].layer
            towers = Towered(
                vision=vision.layout,
                language=language,
                vision_layers=usable_layers(self._sites("vision"), fed=fed),
                language_layers=Usable(layers=self._sites("language")),
            )
            self._towered[picture.size] = towers, vision
        return self._towered[picture.size]

    def _sites(self, tower: Any) -> tuple[int, ...]:
        return tuple(site.layer for site in self.vlm.self_attentions(tower))

    def _left(self, log: JsonLines, stage: str, progress: Progress) -> Iterator[PartImage]:
        """The pictures that have no line yet."""
        total = len(self.parts.images)
        for done, image in enumerate(self.parts.images):
            progress(stage, done, total)
            if image.id not in log:
                yield image
        progress(stage, total, total)


def states_file(image: PartImage) -> str:
    """Where the states of a picture's parts are kept."""
    return f"states/{image.sha256[:16]}.safetensors"


def _plain(part: PartRanks) -> dict[str, Any]:
    """A record as a line of JSON."""
    found = {field.name: getattr(part, field.name) for field in fields(part)}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else plain(value)
        for name, value in found.items()
    }
