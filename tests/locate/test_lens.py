"""Ranks without logits are those that plain full logits and a sort give, ties as asked, the norm once."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from eyechart.core.errors import UserError
from eyechart.locate import lens as lens_module
from eyechart.locate.labels import Label, LabelRule
from eyechart.locate.lens import Lens, Ties, Unembedding, lens_ranks


def label(*tokens, rule=LabelRule.WHOLE):
    return Label(word="w", rule=rule, tokens=tokens, spelled=tuple(str(token) for token in tokens))


MEAN, VARIANTS = LabelRule.MEAN, LabelRule.VARIANTS


class Doubling(nn.Module):
    """A norm that doubles and counts the states it is given."""

    seen = 0

    def forward(self, states):
        self.seen += len(states)
        return states * 2


def full_logits(states, weight, *, normed, bias=None, finish=None, tokens=None):
    """All logits at once, as a notebook does it."""
    doubled = torch.stack([s if done else s * 2 for s, done in zip(states, normed, strict=True)])
    logits = doubled @ weight.T + (0 if bias is None else bias)
    logits = logits if finish is None else finish(logits)
    return logits[..., : tokens or len(weight)]


def slow_rank(logits, one, ties):
    """By scipy's ranking of all tokens with the word among them; `logits` of one state."""
    scores = logits.double().numpy()
    if one.rule is MEAN:
        own = np.float32(np.mean(scores[list(one.tokens)]))
        above, level = (scores > own).sum(), (np.delete(scores, list(one.tokens)) == own).sum()
        return 1 + above + {"pessimistic": level, "optimistic": 0, "average": level / 2}[ties.value]
    best = max(one.tokens, key=lambda token: scores[token])
    others = [token for token in one.tokens if token != best and scores[token] == scores[best]]
    kept = np.delete(scores, others)
    place = best - sum(token < best for token in others)
    method = {"pessimistic": "max", "optimistic": "min", "average": "average"}[ties.value]
    return scipy.stats.rankdata(-kept, method=method)[place]


def made(layers=3, positions=5, dim=4, tokens=11, seed=0, *, whole=False):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (
            torch.randint(-2, 3, shape, generator=generator).float()
            if whole
            else torch.randn(*shape, generator=generator)
        )

    return draw(layers, positions, dim), draw(tokens, dim)


def lens(weight, **more):
    more = {"tokens": len(weight)} | more
    return Lens(norm=Doubling(), head=Unembedding(weight=weight), **more)


LABELS = [
    label(0),
    label(7),
    label(3, 5, rule=MEAN),
    label(2, 2, 9, rule=MEAN),
    label(1, 4, 8, rule=VARIANTS),
]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ties=st.sampled_from(Ties),
    held=st.integers(1, 200),
    whole=st.booleans(),
    shape=st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1, 5), st.integers(10, 40)),
    counted=st.sampled_from([1, 30, 1 << 18]),
)
def test_ranks_and_log_probabilities_are_those_of_full_logits(seed, ties, held, whole, shape, counted):
    layers, positions, dim, tokens = shape
    states, weight = made(layers, positions, dim, tokens, seed, whole=whole)
    normed = [seed + layer & 1 == 0 for layer in range(layers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lens_module, "COUNTED", counted)
        found = lens_ranks(
            states, LABELS, lens(weight), normed=normed, ties=ties, held=held, log_probabilities=True
        )
    logits = full_logits(states, weight, normed=normed)
    logs = logits.log_softmax(-1)
    assert found.ranks.shape == (layers, positions, len(LABELS))
    for layer, position, place in np.ndindex(found.ranks.shape):
        one, got = LABELS[place], float(found.ranks[layer, position, place])
        if whole:  # sums of small whole numbers are exact, so that ties are ties
            assert got == slow_rank(logits[layer, position], one, ties)
        else:
            assert abs(got - slow_rank(logits[layer, position], one, ties)) <= 1
        own = logs[layer, position, list(one.tokens)]
        want = own.mean() if one.rule is MEAN else own.max()
        assert float(found.log_probabilities[layer, position, place]) == pytest.approx(float(want), abs=1e-4)


def test_ranks_of_distinct_logits_are_exact():
    states, weight = made(2, 40, 16, 500, seed=4)
    found = lens_ranks(states, [label(3), label(77)], lens(weight), normed=[False, False], held=900)
    logits = full_logits(states, weight, normed=[False, False])
    order = logits.argsort(dim=-1, descending=True).argsort(dim=-1) + 1
    assert torch.equal(found.ranks, order[..., [3, 77]])


def test_a_planted_word_is_first_where_it_was_put_and_nowhere_else():
    weight = torch.eye(20)
    states = torch.zeros(4, 6, 20)
    states[:, :, 19] = 1.0
    states[2, 3, 7] = 2.0
    ranks = lens_ranks(states, [label(7)], lens(weight), normed=[False] * 4).ranks[..., 0]
    assert ranks[2, 3] == 1
    assert (ranks == 1).sum() == 1
    assert set(ranks.flatten().tolist()) == {1, 20}, "elsewhere the word ties with 18 others below one"


@pytest.mark.parametrize(("ties", "wanted"), [("pessimistic", 20), ("optimistic", 1), ("average", 10.5)])
def test_a_flat_distribution(ties, wanted):
    states, weight = torch.zeros(1, 3, 4), torch.randn(20, 4)
    found = lens_ranks(states, [label(5)], lens(weight), normed=[False], ties=Ties(ties))
    assert set(found.ranks.flatten().tolist()) == {wanted}
    assert found.ranks.dtype == (torch.float32 if ties == "average" else torch.int64)


def test_padding_rows_and_rows_without_a_token_are_no_rivals():
    states, weight = made(1, 4, 8, 96, seed=1)
    weight[80:] = states[0, 0] * 100  # likelier than anything, and no token
    weight[[40, 41]] = states[0, 0] * 100
    found = lens_ranks(
        states, [label(0)], lens(weight, tokens=80, unused=(40, 41)), normed=[True], log_probabilities=True
    )
    real = [token for token in range(80) if token not in (40, 41)]
    logits = full_logits(states, weight, normed=[True])[0][:, real]
    assert found.ranks[0, :, 0].tolist() == (logits >= logits[:, :1]).sum(-1).tolist()
    assert torch.allclose(found.log_probabilities[0, :, 0], logits.log_softmax(-1)[:, 0], atol=1e-5)
    assert lens_ranks(states, [label(0)], lens(weight), normed=[True]).ranks[0, 0, 0] >= 18


def test_every_state_is_normed_once_and_a_normed_layer_never():
    states, weight = made(4, 7, 4, 11)
    one = lens(weight)
    lens_ranks(states, [label(2)], one, normed=[False, True, False, True], held=11 * 5)
    assert one.norm.seen == 2 * 7
    logs = [
        lens_ranks(states, [label(2)], lens(weight), normed=normed, log_probabilities=True).log_probabilities
        for normed in ([False] * 4, [False, False, False, True])
    ]
    assert torch.equal(logs[0][:3], logs[1][:3])
    assert not torch.allclose(logs[0][3], logs[1][3])
    assert torch.allclose(logs[1][3, :, 0], (states[3] @ weight.T).log_softmax(-1)[:, 2], atol=1e-5)


def test_capping_changes_the_mean_of_pieces_and_makes_far_logits_tie():
    states, weight = torch.ones(1, 1, 1), torch.tensor([[9.0], [0.1], [4.0], [30.0], [50.0]])

    def cap(logits):
        return 2 * torch.tanh(logits / 2)

    pieces, far = label(0, 1, rule=MEAN), label(3)
    plain = lens_ranks(states, [pieces, far], lens(weight), normed=[True], log_probabilities=True)
    capped = lens_ranks(
        states, [pieces, far], lens(weight, finish=cap), normed=[True], log_probabilities=True
    )
    assert plain.ranks[0, 0].tolist() == [4, 2]
    assert capped.ranks[0, 0].tolist() == [5, 2], "0.1 and 9 now average below 4"
    assert capped.log_probabilities[0, 0, 1] == pytest.approx(
        float(cap(weight[:, 0]).log_softmax(0)[3]), abs=1e-5
    )


def test_any_head_is_called_and_a_bias_added():
    states, weight = made(2, 5, 4, 11)
    bias = torch.arange(11.0)
    head = nn.Linear(4, 11)
    head.weight, head.bias = nn.Parameter(weight), nn.Parameter(bias)
    arms = [
        Lens(norm=Doubling(), head=head, tokens=11),
        Lens(norm=Doubling(), head=Unembedding(weight=head.weight, bias=head.bias), tokens=11),
    ]
    found = [lens_ranks(states, LABELS, arm, normed=[False, False], log_probabilities=True) for arm in arms]
    assert torch.equal(found[0].ranks, found[1].ranks)
    assert torch.allclose(found[0].log_probabilities, found[1].log_probabilities, atol=1e-5)
    assert not found[0].ranks.requires_grad
    assert not found[1].log_probabilities.requires_grad
    want = full_logits(states, weight, normed=[False, False], bias=bias).log_softmax(-1)[..., 7]
    assert torch.allclose(found[1].log_probabilities[..., 1], want.detach(), atol=1e-5)


@pytest.mark.parametrize("cast", [1, 40, 1 << 22])
def test_weights_in_16_bits_are_read_in_float32(monkeypatch, cast):
    monkeypatch.setattr(lens_module, "CAST", cast)
    states, weight = (one.bfloat16() for one in made(2, 9, 16, 300, seed=2))
    found = lens_ranks(states, [label(4), label(250)], lens(weight), normed=[True, False])
    logits = full_logits(states.float(), weight.float(), normed=[True, False])
    order = logits.argsort(dim=-1, descending=True).argsort(dim=-1) + 1
    assert (found.ranks - order[..., [4, 250]]).abs().max() <= 1
    assert (found.ranks == order[..., [4, 250]]).float().mean() > 0.9
    coarse = (states[0] @ weight.T).float()
    assert len(coarse[0].unique()) < 300, "in 16 bits tokens tie, which they do not here"


def test_no_tensor_holds_more_logits_than_were_allowed():
    states, weight = made(8, 30, 16, 1000)
    with _Largest() as largest:
        lens_ranks(
            states,
            [label(4), label(5, 6, rule=MEAN)],
            lens(weight),
            normed=[False] * 8,
            held=8000,
            log_probabilities=True,
        )
    assert largest.numel <= 16_000, "the weights are 16,000 numbers; all logits would be 240,000"


class _Largest(TorchFunctionMode):
    """The largest tensor that any operation gives back."""

    numel = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_what_cannot_be_read_is_said():
    states, weight = made()
    one = lens(weight)
    for labels, normed, match in (
        ([], [False] * 3, "no label was given"),
        ([label(0)], [False] * 2, "3 layers, but 2 flags"),
        (
            [label(11)],
            [False] * 3,
            r"the label 'w' has the tokens \(11,\), of which \[11\] are none of the 11",
        ),
        ([label(-1)], [False] * 3, r"of which \[-1\] are none"),
        ([label()], [False] * 3, r"has the tokens \(\), of which \[\] are none"),
    ):
        with pytest.raises(UserError, match=match):
            lens_ranks(states, labels, one, normed=normed)
    with pytest.raises(UserError, match=r"of which \[3\] are none"):
        lens_ranks(states, [label(3)], lens(weight, unused=(3,)), normed=[False] * 3)
    states[1, 2, 0] = torch.inf * 0
    with pytest.raises(UserError, match="no numbers"):
        lens_ranks(states, [label(0)], one, normed=[False] * 3)


def test_no_positions_are_no_ranks():
    assert lens_ranks(
        torch.ones(2, 0, 4), [label(1)], lens(torch.ones(9, 4)), normed=[True, True]
    ).ranks.shape == (2, 0, 1)
