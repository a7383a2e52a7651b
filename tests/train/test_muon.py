"""Muon and AdamW as one optimiser: who trains what, how far a step goes, and that a checkpoint holds both."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eyechart.train.loop import Batch, Settings, fit
from eyechart.train.muon import FullMuon, MuonAndAdamW, in_block, orthogonalised


class Net(nn.Module):
    """Embeddings, two blocks, a head: matrices of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(2))
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        states = self.words(ids)
        for layer in self.layers:
            states = states + layer(states)
        return self.head(states)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def optimiser(
    model: nn.Module, rate: float = 0.01, muon_rate: float = 2.0, decay: float = 0.0
) -> MuonAndAdamW:
    return MuonAndAdamW(
        model,
        learning_rate=rate,
        muon_rate=muon_rate,
        weight_decay=decay,
        undecayed=lambda name: name.endswith("bias") or ".0." in name,
    )


def batch(step: int) -> Batch:
    drawn = torch.randint(0, 11, (6,), generator=torch.Generator().manual_seed(step))
    return {"ids": drawn}


def objective(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch["ids"]), (batch["ids"] + 1) % 11)


def one_step(model: nn.Module, made: torch.optim.Optimizer, step: int = 0) -> dict[str, Tensor]:
    """Take it; the gradients it was taken on."""
    made.zero_grad()
    objective(model, batch(step)).backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    made.step()
    return grads


def test_every_parameter_is_trained_by_one_of_the_two_and_matrices_of_blocks_by_muon() -> None:
    model = net()
    made = optimiser(model, decay=0.1)
    names = {id(value): name for name, value in model.named_parameters()}
    muon = [names[id(value)] for group in made.muon.param_groups for value in group["params"]]
    decayed, plain = ([names[id(v)] for v in group["params"]] for group in made.adamw.param_groups)
    assert muon == ["layers.0.1.weight", "layers.1.1.weight"]
    assert decayed == ["words.weight", "head.weight"]
    assert sorted([*muon, *decayed, *plain]) == sorted(names.values())
    assert [group["weight_decay"] for group in made.adamw.param_groups] == [0.1, 0.0]
    assert [group["lr"] for group in made.param_groups] == [0.02, 0.01, 0.01]


def test_frozen_parameters_stay_out() -> None:
    model = net()
    model.layers[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    one_step(model, optimiser(model))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "layers.1.1.weight" in moved
    assert not {name for name in moved if name.startswith("layers.0")}


def test_a_model_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block of the model has a matrix"):
        optimiser(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("name", "shape", "mine"),
    [
        ("vision_model.encoder.layers.0.mlp.fc1.weight", (4, 2), True),
        ("layers.0.self_attn.q_proj.weight", (2, 2), True),
        ("encoder.layer.3.attention.weight", (2, 2), True),
        ("layers.0.norm.weight", (2,), False),
        ("embed_tokens.weight", (4, 2), False),
        ("projector.linear_1.weight", (2, 2), False),
        ("my_layers.weight", (2, 2), False),
    ],
)
def test_who_is_in_a_block(name: str, shape: tuple[int, ...], *, mine: bool) -> None:
    assert in_block(name, torch.zeros(shape)) is mine


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), rate=st.floats(1e-4, 0.1))
def test_a_step_of_a_matrix_is_its_gradient_with_all_singular_values_brought_near_one(
    seed: int, rate: float
) -> None:
    model = net(seed)
    made = optimiser(model, rate=rate)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    grads = one_step(model, made, seed)
    for name in ("layers.0.1.weight", "layers.1.1.weight"):
        moved = (before[name] - dict(model.named_parameters())[name].detach()).double()
        left, sizes, right = torch.linalg.svd(grads[name].double())
        ahead = sizes > 0.05 * sizes[0]  # Newton and Schulz's five rounds leave tiny ones small
        turned = (left.T @ moved @ right.T).diagonal()[ahead] / (2 * rate * 0.2 * 8**0.5)
        assert (turned > 0.5).all()
        assert (turned < 1.35).all()


SHAPES = ((6, 6), (6, 6), (12, 5), (5, 12))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shape=st.sampled_from(SHAPES))
def test_singular_values_go_through_the_polynomial_of_muon_and_vectors_stay(
    seed: int, shape: tuple[int, int]
) -> None:
    pushes = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    group = FullMuon([nn.Parameter(pushes[0])]).param_groups[0]
    a, b, c = group["ns_coefficients"]
    for push, found in zip(pushes, orthogonalised(pushes, group), strict=True):
        left, sizes, right = torch.linalg.svd(push.double(), full_matrices=False)
        sizes = sizes / sizes.norm()
        for _ in range(5):
            sizes = a * sizes + b * sizes**3 + c * sizes**5
        torch.testing.assert_close(found.double(), left * sizes @ right, atol=2e-5, rtol=0)


def test_it_steps_as_the_one_in_torch_does_but_for_rounding_and_reads_its_checkpoints() -> None:
    drawn = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=drawn) for shape in SHAPES]
    theirs, ours = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    torchs = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    made = FullMuon(ours, lr=0.01, weight_decay=0.1)
    for step in range(4):
        for one, other in zip(theirs, ours, strict=True):
            one.grad = torch.randn(one.shape, generator=drawn)
            other.grad = one.grad.clone()
        torchs.step()
        made.step()
        if step == 1:
            made = FullMuon(ours, lr=0.01, weight_decay=0.1)
            made.load_state_dict(copy.deepcopy(torchs.state_dict()))
    for one, other, began in zip(theirs, ours, start, strict=True):
        assert (one - other).abs().max() < 0.05 * (one - began).abs().max()


def test_a_matrix_without_a_gradient_stays() -> None:
    still, moving = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    moving.grad = torch.eye(3)
    FullMuon([still, moving], lr=0.1).step()
    assert torch.equal(still, torch.ones(3, 3))
    assert not torch.equal(moving, torch.ones(3, 3))


def test_the_rest_moves_as_under_adamw_alone() -> None:
    model = net()
    made = optimiser(model, decay=0.1)
    alone = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    plain = [alone[name] for name in alone if name.endswith("bias") or ".0." in name]
    groups = [
        {"params": [alone["words.weight"], alone["head.weight"]], "weight_decay": 0.1},
        {"params": plain, "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98))
    for step in range(3):
        for name, grad in one_step(model, made, step).items():
            alone[name].grad = grad
        other.step()
    for name, value in model.named_parameters():
        if not in_block(name, value):
            torch.testing.assert_close(value, alone[name])


def test_a_schedule_sets_the_rates_of_both_before_and_after_loading() -> None:
    model = net()
    made = optimiser(model)
    one_step(model, made)
    made.load_state_dict(copy.deepcopy(made.state_dict()))
    schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.5**step)
    before = copy.deepcopy(model.state_dict())
    one_step(model, made)
    schedule.step()
    assert made.muon.param_groups[0]["lr"] == 0.01
    assert made.adamw.param_groups[0]["lr"] == 0.005
    assert not torch.equal(model.layers[0][1].weight, before["layers.0.1.weight"])


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_weights_of_the_unbroken_one(tmp_path: Path) -> None:
    options = Settings(
        max_steps=6,
        per_device_train_batch_size=6,
        learning_rate=0.02,
        muon_rate=2.0,
        warmup_steps=1,
        save_steps=2,
        logging_steps=2,
    )

    class Killed(Exception):
        pass

    def until_four(step: int) -> Batch:
        if step == 4:
            raise Killed
        return batch(step)

    whole, broken, adamw = net(), net(), net()
    fit(whole, objective, batch, options, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(broken, objective, until_four, options, tmp_path / "broken")
    resumed = net(5)
    fit(resumed, objective, batch, options, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    plain = Settings(max_steps=6, per_device_train_batch_size=6, learning_rate=0.02, warmup_steps=1)
    fit(adamw, objective, batch, plain, tmp_path / "adamw")
    assert not torch.equal(adamw.layers[0][1].weight, whole.layers[0][1].weight)
