"""Two views: the loss against a slow one, and facts that families alone make worth learning."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel

from eyechart.train.crops import Crops
from eyechart.train.loop import Settings, fit
from eyechart.train.pictures import FamilyBatches
from eyechart.train.towers import TowerShape, make_tower, to_pixels
from eyechart.train.two_view import (
    TwoView,
    TwoViewObjective,
    TwoViewSettings,
    encode_kept,
    export_two_view,
    family_loss,
    finding_loss,
    normed_patches,
)

SMALL = TowerShape(
    image_size=24,
    patch_size=6,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
)
SETTINGS = TwoViewSettings(head_size=32, decoder_size=32)
SAME = Crops(smallest=1.0, brightness=0.0, contrast=0.0)


def scenes(families, members, seed=0):
    """Families of one background each, whose members differ in where a small white square is; two shades of each."""
    rng = np.random.default_rng(seed)
    places = [(x, y) for x in (3, 9, 15) for y in (3, 9, 15)]
    first = np.zeros((families * members, 24, 24, 3), np.uint8)
    first[:] = rng.integers(20, 160, (families, 1, 1, 1, 3)).repeat(members, axis=0).reshape(-1, 1, 1, 3)
    where = np.concatenate([rng.permutation(len(places))[:members] for _ in range(families)])
    for picture, place in zip(first, where, strict=True):
        x, y = places[place]
        picture[y : y + 6, x : x + 6] = 255
    second = (first * rng.uniform(0.8, 1.0, (len(first), 1, 1, 1))).astype(np.uint8)
    return first, second, np.arange(families).repeat(members), where


def test_the_finding_loss_is_a_cross_entropy_over_cosines():
    torch.manual_seed(0)
    asked, answers = torch.randn(5, 7), torch.randn(5, 7)
    losses = []
    for i in range(5):
        cosines = [
            float(asked[i] @ answers[j] / (asked[i].norm() * answers[j].norm())) / 0.2 for j in range(5)
        ]
        losses.append(math.log(sum(math.exp(cosine) for cosine in cosines)) - cosines[i])
    assert finding_loss(asked, answers, 0.2).item() == pytest.approx(sum(losses) / 5, abs=1e-5)


def test_encoding_all_patches_is_the_tower_and_order_plays_no_part():
    torch.manual_seed(0)
    tower, pixels = make_tower(SMALL).eval(), torch.randn(2, 3, 24, 24)
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    given = encode_kept(tower, pixels, order)
    wanted = tower(pixels).last_hidden_state
    torch.testing.assert_close(given[:, 0], wanted[:, 0], rtol=1e-4, atol=1e-5)
    for row in range(2):
        torch.testing.assert_close(given[row, 1:], wanted[row, 1:][order[row]], rtol=1e-4, atol=1e-5)


def test_what_is_not_kept_plays_no_part():
    torch.manual_seed(0)
    tower, pixels = make_tower(SMALL).eval(), torch.randn(1, 3, 24, 24)
    changed = pixels.clone()
    changed[:, :, 6:12, 12:18] = 0  # the patch in row 1, column 2: number 6
    keep = torch.tensor([[0, 3, 5, 7, 15]])
    assert torch.equal(encode_kept(tower, pixels, keep), encode_kept(tower, changed, keep))
    keep = torch.tensor([[0, 3, 6]])
    assert not torch.equal(encode_kept(tower, pixels, keep), encode_kept(tower, changed, keep))


def test_normed_patches_run_row_by_row():
    pixels = torch.randn(2, 3, 24, 24)
    given = normed_patches(pixels, 6)
    for number in range(16):
        y, x = divmod(number, 4)
        patch = pixels[1, :, y * 6 : y * 6 + 6, x * 6 : x * 6 + 6].flatten()
        torch.testing.assert_close(
            given[1, number], (patch - patch.mean()) / patch.std(), rtol=1e-4, atol=1e-4
        )


def test_painting_counts_hidden_patches_only():
    """With a decoder that always paints nothing, the loss is the mean square of the hidden patches: about 1."""
    torch.manual_seed(0)
    model = TwoView(SMALL, SETTINGS)
    torch.nn.init.zeros_(model.decoder.paint[1].weight)
    torch.nn.init.zeros_(model.decoder.paint[1].bias)
    pixels, keep = torch.randn(2, 3, 24, 24), torch.tensor([[0, 1], [4, 9]])
    squares = normed_patches(pixels, 6).square().mean(dim=-1)
    hidden = [squares[0, place] for place in range(16) if place not in (0, 1)]
    hidden += [squares[1, place] for place in range(16) if place not in (4, 9)]
    loss = model.decoder(encode_kept(model.tower, pixels, keep), keep, pixels)
    assert loss.item() == pytest.approx(float(torch.stack(hidden).mean()), rel=1e-5)


def test_the_family_loss_is_a_cross_entropy_of_what_is_left_without_the_mean():
    torch.manual_seed(0)
    one, two = torch.randn(6, 7), torch.randn(6, 7)
    losses = []
    for a, b in ((one, two), (two, one)):
        for start in (0, 3):
            x, y = (side[start : start + 3] - side[start : start + 3].mean(0) for side in (a, b))
            for i in range(3):
                cosines = [float(x[i] @ y[j] / (x[i].norm() * y[j].norm())) / 0.2 for j in range(3)]
                losses.append(math.log(sum(math.exp(cosine) for cosine in cosines)) - cosines[i])
    given = family_loss(one, two, 3, 0.2)
    assert given.item() == pytest.approx(sum(losses) / 12, abs=1e-5)
    shared = torch.randn(2, 7).repeat_interleave(3, dim=0) * 100
    torch.testing.assert_close(family_loss(one + shared, two, 3, 0.2), given, rtol=1e-3, atol=1e-4)


def test_every_term_reaches_the_encoder_and_weighs_what_it_should():
    torch.manual_seed(0)
    settings = replace(SETTINGS, crops=SAME, family=2.0, painting=3.0)
    model = TwoView(SMALL, settings)
    pictures = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8)
    pixels = to_pixels(pictures)
    torch.manual_seed(1)
    terms = model(pixels, pixels)
    torch.manual_seed(1)
    with torch.random.fork_rng():
        loss = TwoViewObjective(settings)(model, {"first": pictures, "second": pictures})
    weight = model.tower.layers[0].mlp.fc1.weight
    for term in terms:
        (gradient,) = torch.autograd.grad(term, weight, retain_graph=True)
        assert gradient.abs().max() > 0
    assert math.isfinite(loss.item())
    bare = TwoView(SMALL, replace(settings, family=0.0, painting=0.0))
    assert bare.decoder is None
    assert bare(pixels, pixels)[1:] == (0.0, 0.0)


def _trained(folder, *, whole_families):
    """How often a scene of a new family is found among its family, after training on families or on strangers."""
    torch.manual_seed(0)
    first, second, families, _ = scenes(96, 4)
    if not whole_families:  # a batch of strangers: the background tells all of them apart
        order = np.arange(len(families)).reshape(96, 4).T.reshape(-1)
        first, second = first[order], second[order]
    settings = replace(SETTINGS, hidden=0.25, painting=0.0, crops=SAME, family=float(whole_families))
    model = TwoView(SMALL, settings)
    batches = FamilyBatches(first, second, families, 8)
    training = Settings(max_steps=60, per_device_train_batch_size=32, learning_rate=2e-3, warmup_steps=5)
    fit(model, TwoViewObjective(settings), batches, training, folder)
    new = scenes(60, 4, seed=9)[:2]
    with torch.no_grad():
        pooled = [
            model.eval().tower(to_pixels(torch.from_numpy(view))).last_hidden_state[:, 1:].mean(dim=1)
            for view in new
        ]
    one, two = (torch.nn.functional.normalize(view, dim=1).reshape(60, 4, -1) for view in pooled)
    return ((one @ two.transpose(1, 2)).argmax(dim=2) == torch.arange(4)).float().mean().item()


@pytest.mark.slow
def test_families_make_the_difference_worth_seeing(tmp_path):
    """The planted shortcut: strangers are told apart by background, members of a family only by the square."""
    strangers = _trained(tmp_path / "strangers", whole_families=False)
    families = _trained(tmp_path / "families", whole_families=True)
    assert families > 0.85, f"{families:.2f} found with families, {strangers:.2f} without"
    assert families > strangers + 0.2, f"{families:.2f} found with families, {strangers:.2f} without"


def test_the_export_is_the_encoder(tmp_path):
    torch.manual_seed(0)
    model = TwoView(SMALL, SETTINGS)
    pixels = torch.randn(2, 3, 24, 24)
    model.tower.half().float()
    loaded, report = AutoModel.from_pretrained(
        export_two_view(model, tmp_path / "model"), output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    given, wanted = (tower.eval()(pixels).last_hidden_state for tower in (loaded, model.tower))
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"temperatures must be above 0, got 0\.0 and 0\.2"):
        TwoViewSettings(temperature=0.0)
    with pytest.raises(ValueError, match=r"hidden must be at least 0 and below 1, got 1\.0"):
        TwoViewSettings(hidden=1.0)
    with pytest.raises(ValueError, match=r"painting 2\.0 with no patch hidden"):
        TwoViewSettings(hidden=0.0, painting=2.0)
    with pytest.raises(ValueError, match="families of 1"):
        TwoViewSettings(members=1)
