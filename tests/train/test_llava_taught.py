"""The training step on stored features: its loss is the model's own, its gradients reach what should move and no more."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from eyechart.core.errors import UserError
from eyechart.models.quiet import quiet
from eyechart.models.vlms.feeding import feeding_of
from eyechart.train.adapters import load_adapters, save_adapters
from eyechart.train.collate import Tokeniser
from eyechart.train.dataset import Batches, make_ready
from eyechart.train.feature_store import FeatureStore, direct, identity_of
from eyechart.train.lora import LoraPlan, linear_names, put_lora, save_lora
from eyechart.train.packs import NO_TARGET
from eyechart.train.samples import open_picture, read_samples
from eyechart.train.taught import Auxiliary, TaughtParts, loss_of
from llava_parts import PATCHES, save_small_llava, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("taught")
    save_small_llava(made)
    write_rows(made / "data")
    return made


class Made:
    """A model taken apart, its data, and one batch of all rows."""

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder / "llava", dtype=torch.float32)
        self.processor = AutoProcessor.from_pretrained(folder / "llava")
        self.feeding = feeding_of(self.model, self.processor)
        self.tokeniser = Tokeniser(self.processor, self.feeding.image_token_id, max_length=200)
        self.data = make_ready(read_samples(folder / "data" / "llava.json"), self.tokeniser, self.feeding)
        self.read = direct(self.feeding.features, self.data.pictures)
        if store is not None:
            identity = identity_of(self.feeding, self.model, self.processor, "float32")
            self.read = FeatureStore(store, self.feeding.features, identity)
            self.read.fill(self.data.pictures, batch=4)
            self.read.reload()
        self.batches = Batches(self.data, self.tokeniser, self.read, batch_size=4, seed=0)

    def batch(self, kind: str = "all"):
        rows = {
            "all": self.data.rows,
            "text": [row for row in self.data.rows if not row.images],
            "shown": [row for row in self.data.rows if row.images],
        }[kind]
        return self.batches.collated(rows)

    def parts(self, train="adapters+language", **options):
        parts = TaughtParts(self.model, self.feeding, train, **options)
        parts.know_widths(self.read(list(self.data.pictures)[:1])[0])
        return parts


@pytest.fixture
def made(folder):
    return Made(folder)


def own_loss(made: Made, row) -> tuple[float, int]:
    """transformers' loss of one row on pixels, summed, and its number of labels."""
    tokens = made.tokeniser(row.sample, row.image_tokens)
    labels = torch.from_numpy(tokens.labels)[None]
    shown = [open_picture(one).image for one in row.sample.images]
    pixels = (
        {"pixel_values": made.processor.image_processor(shown, return_tensors="pt")["pixel_values"]}
        if shown
        else {}
    )
    count = int((labels[:, 1:] != NO_TARGET).sum())
    with torch.no_grad():
        out = made.model(input_ids=torch.from_numpy(tokens.ids)[None], labels=labels, **pixels)
    return float(out.loss) * count, count


@pytest.mark.parametrize("stored", [True, False])
def test_the_loss_is_the_models_own_on_pixels(folder, tmp_path, stored):
    made = Made(folder, tmp_path / "store" if stored else None)
    plain = [own_loss(made, row) for row in made.data.rows]
    batch = made.batch()
    with torch.no_grad():
        loss = float(loss_of(made.parts(), batch).detach())
    labels = int((batch["labels"] != NO_TARGET).sum())
    assert labels == sum(count for _, count in plain)
    assert loss / labels == pytest.approx(sum(one for one, _ in plain) / labels, abs=1e-6)


def moved(made: Made, train, kind="shown", **options) -> tuple[set[str], set[str]]:
    """The model's parameters that get a gradient which is not zero, and those that may move."""
    parts = made.parts(train, **options)
    loss_of(parts, made.batch(kind)).backward()
    named = dict(made.model.named_parameters())
    return (
        {name for name, one in named.items() if one.grad is not None and bool((one.grad != 0).any())},
        {name for name, one in named.items() if one.requires_grad},
    )


def test_stage_one_teaches_exactly_the_adapters(made):
    reached, may = moved(made, "adapters")
    assert (
        reached
        == may
        == {
            f"model.multi_modal_projector.linear_{number}.{kind}"
            for number in (1, 2)
            for kind in ("weight", "bias")
        }
    )


def test_stage_two_teaches_exactly_adapters_and_language_model(made):
    reached, may = moved(made, "adapters+language")
    assert reached == may
    assert {name for name, _ in made.model.named_parameters()} - may == {
        name for name, _ in made.model.named_parameters() if "vision_tower" in name
    }


def test_text_alone_gives_the_adapters_a_gradient_of_exactly_zero_but_gives_one(made):
    """Every parameter takes part on every process, so that none waits for another."""
    parts = made.parts()
    loss_of(parts, made.batch("text")).backward()
    for parameter in parts.adapters.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    frozen = made.parts("adapters")
    batch = made.batch("text")
    held = []
    handle = made.model.model.language_model.layers[0].register_full_backward_hook(lambda *_: held.append(1))
    loss_of(frozen, batch).backward()
    handle.remove()
    assert held == [1], (
        "the backward pass must go through a frozen language model, as it does on other processes"
    )


def test_text_alone_with_no_image_ever_seen_says_what_is_missing(made):
    parts = TaughtParts(made.model, made.feeding, "adapters+language")
    with pytest.raises(UserError, match="no image was ever seen"):
        loss_of(parts, made.batch("text"))


def test_every_parameter_has_a_numerical_gradient(made):
    """A few entries of each part against the slope of the loss."""
    parts, batch = made.parts().double(), made.batch("shown")
    batch["features"] = {name: rows.double() for name, rows in batch["features"].items()}
    loss_of(parts, batch).backward()
    rng = np.random.default_rng(0)
    for name in (
        "adapters.multi_modal_projector.linear_1.weight",
        "language.language_model.layers.1.mlp.up_proj.weight",
    ):
        parameter = dict(parts.named_parameters())[name]
        place = tuple(int(rng.integers(size)) for size in parameter.shape)
        found = []
        with torch.no_grad():
            for step in (1e-2, -1e-2):
                parameter[place] += step
                found.append(float(loss_of(parts, batch)))
                parameter[place] -= step
        assert parameter.grad is not None
        assert float(parameter.grad[place]) == pytest.approx((found[0] - found[1]) / 2e-2, rel=3e-2, abs=5e-3)


def test_lora_teaches_adapters_and_lora_alone_and_changes_nothing_before_training(made):
    before = float(loss_of(made.parts(), made.batch()).detach())
    put_lora(made.model, made.feeding.language, LoraPlan(r=2), seed=0)
    parts = made.parts()
    assert float(loss_of(parts, made.batch()).detach()) == pytest.approx(before, abs=1e-5)
    names = parts.trained_names
    assert {name.split(".")[0] for name in names if "lora_" not in name} == {"adapters"}
    assert (
        sum("lora_" in name for name in names) == 2 * 7 * 3
    )  # two matrices, seven linear layers, three blocks
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_lora_merged_or_beside_gives_the_same_logits(folder, tmp_path):
    logits = {}
    for save in ("merged", "adapter"):
        made = Made(folder)
        assert not any("vision" in name for name in linear_names(made.model, made.feeding.language))
        wrapped = put_lora(made.model, made.feeding.language, LoraPlan(r=2, lora_alpha=8), seed=1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, one in made.model.named_parameters():
                if "lora_B" in name:
                    one.copy_(torch.randn(one.shape, generator=generator) / 10)
        row = made.data.rows[0]
        ids = torch.from_numpy(made.tokeniser(row.sample, row.image_tokens).ids)[None]
        pixels = made.processor.image_processor(
            [open_picture(row.sample.images[0]).image], return_tensors="pt"
        )["pixel_values"]
        with torch.no_grad():
            logits["trained"] = made.model(input_ids=ids, pixel_values=pixels).logits
        plain = save_lora(wrapped, tmp_path / "lora", save)
        plain.save_pretrained(tmp_path / save)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path / save)
        if save == "adapter":
            from peft import PeftModel

            with quiet():
                again = PeftModel.from_pretrained(again, tmp_path / "lora")
        again.eval()
        with torch.no_grad():
            logits[save] = again(input_ids=ids, pixel_values=pixels).logits
    assert torch.allclose(logits["merged"], logits["trained"], atol=1e-4)
    assert torch.allclose(logits["adapter"], logits["trained"], atol=1e-4)


def near_one(made, batch):
    return (made.hidden_states[-1].square().mean() - 3).square()


def test_an_auxiliary_loss_counts_by_its_weight_for_each_label(made):
    batch = made.batch()
    labels = int((batch["labels"] != NO_TARGET).sum())
    plain = float(loss_of(made.parts(), batch).detach())
    alone = Auxiliary(weight=1.0, loss=near_one)
    once = float(loss_of(made.parts(auxiliaries={"near one": alone}), batch).detach()) - plain
    half = Auxiliary(weight=0.5, loss=near_one)
    assert float(loss_of(made.parts(auxiliaries={"a": half}), batch).detach()) - plain == pytest.approx(
        once / 2, rel=1e-3
    )
    assert once / labels > 1e-3


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda made, batch: made.logits.sum() * 0, "'beside' is 0.0: it teaches nothing"),
        (lambda made, batch: made.logits.mean() * float("nan"), "'beside' is nan: it teaches nothing"),
        (lambda made, batch: torch.ones(()), "'beside' has no gradient"),
        (
            lambda made, batch: torch.ones((), requires_grad=True) * 2,
            "gives a gradient to nothing that is trained",
        ),
    ],
)
def test_an_auxiliary_loss_that_teaches_nothing_is_an_error(made, loss, said):
    parts = made.parts(auxiliaries={"beside": Auxiliary(weight=1.0, loss=loss)})
    with pytest.raises(ValueError, match=said):
        loss_of(parts, made.batch())


def test_adapters_are_stored_under_exact_names_and_collide_with_none(tmp_path):
    """The published code kept what follows `mm_projector`, so the second adapter overwrote the first."""
    first = {"mm_projector": torch.nn.Linear(2, 3), "dino_mm_projector": torch.nn.Linear(2, 3)}
    other = {"mm_projector": torch.nn.Linear(2, 3), "dino_mm_projector": torch.nn.Linear(2, 3)}
    file = save_adapters(first, tmp_path / "adapters.safetensors")
    load_adapters(other, file)
    for name in first:
        assert torch.equal(first[name].weight, other[name].weight)
    assert not torch.equal(other["mm_projector"].weight, other["dino_mm_projector"].weight)
    with pytest.raises(UserError, match=r"holds other adapters than this model has.*dino_mm_projector\.bias"):
        load_adapters({"mm_projector": torch.nn.Linear(2, 3)}, file)
    with pytest.raises(UserError, match=r"another shape: mm_projector\.weight"):
        load_adapters(first | {"mm_projector": torch.nn.Linear(4, 3)}, file)
    with pytest.raises(UserError, match="there are no adapters"):
        load_adapters(first, tmp_path / "none.safetensors")


def test_frozen_values_are_all_that_is_not_trained(made):
    parts = made.parts("adapters")
    held = parts.frozen_values()
    still = {id(value) for value in made.model.parameters() if not value.requires_grad}
    assert still <= {id(value) for value in made.model.parameters()}
    assert len(held) >= len(still)
    assert not any(name.startswith("adapters.") for name in held)
    assert any("encoder.vision_tower" in name for name in held)


def test_a_data_set_counts_what_is_in_it(made):
    counts = made.data.counts
    assert (counts.rows, counts.text_only, counts.one_image, counts.more_images) == (12, 4, 7, 1)
    assert counts.image_tokens == PATCHES * 9
    assert len(made.data.pictures) == len({sha for row in made.data.rows for sha in row.images})
    assert counts.rejected == 0
