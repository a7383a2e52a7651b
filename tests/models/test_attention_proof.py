"""A knockout proves itself on every architecture, and a broken one is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attention_parts import Small, cross, cut
from checkpoints import VLMS
from eyechart.core.errors import Incapable, NeverFired, NoEdges, UserError
from eyechart.models.attention import Call, Cut
from eyechart.models.attention import proof as proving
from eyechart.models.attention.cuts import _Cutter, _Square
from eyechart.models.attention.leaks import Sealed, prove_sealed
from eyechart.models.attention.proof import KnockoutProof, prove_knockout
from eyechart.models.vlms.towers import AttentionSite
from planted_towers import TOKENS, Planted

COMMON = ("llava", "qwen2_5_vl")
UNUSED = ("llava", "llava_next")
"""Models that are fed by the last vision block but one."""

STAGES = "florence2"
"""A vision tower in stages, fewer tokens in each, whose blocks attend over channels too: it has no knockouts."""

ALL = [
    pytest.param(name, attn, tower, marks=() if name in COMMON and attn == "sdpa" else pytest.mark.slow)
    for name in VLMS
    for attn in ("eager", "sdpa")
    for tower in ("vision", "language")
    if (name, tower) != (STAGES, "vision")
]


@pytest.fixture(scope="module")
def small(checkpoint_dir: Callable[[str], Path]) -> Callable[..., Small]:
    cache: dict[tuple[object, ...], Small] = {}

    def load(name: str = "llava", attn: str = "eager", dtype: torch.dtype = torch.float32) -> Small:
        key = (name, attn, dtype)
        if key not in cache:
            cache[key] = Small(checkpoint_dir(name), attn, dtype)
        return cache[key]

    return load


def proved(one: Small, *knockouts: Cut) -> KnockoutProof:
    return prove_knockout(one.towers, one.run, knockouts)


def part_from_rest(one: Small, tower: str = "vision", layers: tuple[int, ...] = (0, 1), **more: Any) -> Cut:
    size = one.tokens(tower)
    return cut(cross(size, [size // 2, size // 2 + 1]), layers, tower, **more)


@pytest.mark.parametrize(("name", "attn", "tower"), ALL)
def test_part_from_rest_is_proved_on_every_architecture(small, name, attn, tower):
    """In all blocks, one, and the last; a last vision block that the model does not use is refused."""
    one = small(name, attn)
    layers = one.layers(tower)
    for chosen in (layers, layers[:1], layers[-1:]):
        knockout = part_from_rest(one, tower, chosen)
        if tower == "vision" and chosen == layers[-1:] and name in UNUSED:
            with pytest.raises(NeverFired, match="behind the block that its features are taken from"):
                proved(one, knockout)
            continue
        proof = proved(one, knockout).towers[0]
        assert proof.layers == chosen
        assert proof.edges > 0
        assert 0 < proof.weight_before < 1.001
        assert proof.weight_after == 0
        assert proof.drift < 0.01
        assert proof.change > 0
        assert proof.leak == 0
        assert proof.shielded > 0
        assert proof.sources > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attn", "tower"), [one.values for one in ALL])
def test_one_head_is_proved_on_every_architecture(small, name, attn, tower):
    one = small(name, attn)
    layer = one.layers(tower)[1]
    proof = proved(one, part_from_rest(one, tower, (layer,), heads=[1])).towers[0]
    assert proof.weight_after == 0
    assert proof.weight_before > 0
    assert proof.shielded == 0


@pytest.mark.slow
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_a_vision_tower_in_stages_is_refused(small, attn):
    """Its stages have different numbers of tokens, and its attention over channels goes round every cut."""
    one = small(STAGES, attn)
    first, last = one.layers("vision")
    with pytest.raises(UserError, match="are over 256 tokens, and the tower has 64 a prompt"):
        proved(one, part_from_rest(one, layers=(first, last)))
    with pytest.raises(NeverFired, match="there is a way round the cut"):
        proved(one, part_from_rest(one, layers=(first,)))


@pytest.mark.parametrize(
    ("attn", "dtype"),
    [
        ("eager", torch.bfloat16),
        ("sdpa", torch.float16),
        pytest.param("eager", torch.float16, marks=pytest.mark.slow),
        pytest.param("sdpa", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_proved_as_well(small, attn, dtype):
    one = small("llava", attn, dtype)
    vision, language = proved(one, part_from_rest(one), part_from_rest(one, "language", (0, 1, 2))).towers
    for proof in (vision, language):
        assert proof.weight_after == proof.leak == 0
        assert proof.weight_before > 0
        assert proof.shielded > 0
    assert (vision.shielded, vision.sources) == (2, 48)


def test_the_unused_last_block_does_not_make_the_proof_of_the_others_empty(small):
    """At the tower's end everything depends on everything again; the leak is looked for where the cuts end."""
    one = small()
    proof = proved(one, part_from_rest(one)).towers[0]
    assert (proof.shielded, proof.sources, proof.leak) == (2, 48, 0.0)


def test_a_go_between_that_was_left_open_makes_no_promise_over_two_blocks_but_over_one(small):
    """With the class token left open a part patch sees the rest through it, so what is shown is one block's doing."""
    one = small()
    patches = [token for token in range(1, 50) if token not in (25, 26)]
    proof = proved(one, cut(cross(50, [25, 26], patches), [0, 1])).towers[0]
    assert (proof.shielded, proof.sources) == (2, 47)


def test_a_knockout_that_is_fine_has_a_record(small):
    one = small()
    both = proved(one, part_from_rest(one, name="a"), part_from_rest(one, "language", name="b"))
    held = both.to_dict()
    assert held["name"] == "a and b"
    assert held["idle"] is True
    assert [tower["tower"] for tower in held["towers"]] == ["vision", "language"]
    assert held["towers"][0]["edges"] == 2 * 2 * 48
    size = one.tokens("language")
    assert held["towers"][1]["edges"] == 2 * (2 * (size // 2))


# ------------------------------------------------------------------------------------------ broken on purpose


def false_in_a_float_mask(self: Call, cut: Tensor) -> Call:
    """The published slip: `False` written into an additive mask is 0, which allows."""
    mask = torch.zeros(cut.shape, dtype=self.query.dtype) if self.mask is None else self.mask
    return replace(self, mask=torch.where(cut, 0.0, mask))


def unchanged(self: Call, cut: Tensor) -> Call:
    return self


def a_little(self: Call, cut: Tensor) -> Call:
    """A large negative number, but one that leaves a weight."""
    mask = torch.zeros(cut.shape, dtype=self.query.dtype) if self.mask is None else self.mask
    return replace(self, mask=torch.where(cut, -10.0, mask))


def next_head(self: Call, cut: Tensor) -> Call:
    return WITHOUT(self, cut.roll(1, dims=1))


def all_heads(self: Call, cut: Tensor) -> Call:
    return WITHOUT(self, cut.any(1, keepdim=True))


def transposed(self: Call, cut: Tensor) -> Call:
    return WITHOUT(self, cut.transpose(-1, -2))


def whole_query(self: Call, cut: Tensor) -> Call:
    """All of a query's edges but the one to itself, where one was asked for."""
    eye = torch.eye(cut.shape[-1], dtype=torch.bool)
    return WITHOUT(self, cut.any(-1, keepdim=True) & ~eye)


def one_edge_more(self: Call, cut: Tensor) -> Call:
    more = cut.clone()
    more[..., 40, 3] = True
    return WITHOUT(self, more)


def causality_lost(self: Call, cut: Tensor) -> Call:
    return replace(self, mask=torch.where(cut, -torch.inf, torch.zeros((), dtype=self.query.dtype)))


WITHOUT = Call.without
HEADS = {"heads": [1]}
STILL, MORE = "a cut edge still carries a weight", "more was changed than was asked for"
BROKEN = {
    "False in a float mask": (false_in_a_float_mask, "vision", {}, STILL),
    "False in a causal mask": (false_in_a_float_mask, "language", {}, STILL),
    "the call unchanged": (unchanged, "vision", {}, STILL),
    "the call unchanged, language": (unchanged, "language", {}, STILL),
    "a finite number": (a_little, "vision", {}, STILL),
    "another head": (next_head, "vision", HEADS, STILL),
    "all heads for one": (all_heads, "language", HEADS, MORE),
    "keys for queries": (transposed, "vision", {}, STILL),
    "all keys for some": (whole_query, "vision", {}, MORE),
    "one edge too many": (one_edge_more, "vision", {}, MORE),
    "the causal mask overwritten": (causality_lost, "language", {}, MORE),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_mask_that_is_written_wrongly_is_refused(small, monkeypatch, how):
    broken, tower, more, text = BROKEN[how]
    one = small()
    size = one.tokens(tower)
    knockout = cut(cross(size, [25], [3, 4]), (0, 1), tower, **more)
    assert proved(one, knockout).idle
    monkeypatch.setattr(Call, "without", broken)
    with pytest.raises(NeverFired, match=text):
        proved(one, knockout)


def test_a_causal_tower_that_is_taken_for_a_bidirectional_one_is_refused(small, monkeypatch):
    """Under SDPA no mask means causal; a mask that is made without knowing so opens the future."""
    one = small("llava", "sdpa")
    assert proved(one, part_from_rest(one, "language")).idle
    monkeypatch.setattr(Call, "_causal_by_itself", False)
    with pytest.raises(NeverFired, match=MORE):
        proved(one, part_from_rest(one, "language"))


def test_a_mask_that_is_read_wrongly_is_refused(small, monkeypatch):
    one = small()
    right = Call.allowed

    def blind(self: Call) -> Tensor:
        found = right(self).clone()
        found[..., 30, 2] = False
        return found

    monkeypatch.setattr(Call, "allowed", blind)
    with pytest.raises(NeverFired, match="edges carry weight that the mechanism takes for missing"):
        proved(one, part_from_rest(one))


EDGES = _Cutter._edges


def without_the_class_token(self: _Cutter, site: AttentionSite, square: _Square) -> Tensor | None:
    """The go-between: all is cut as asked but for the edges to and from the class token."""
    found = EDGES(self, site, square)
    if found is not None:
        found[..., 0] = False
    return found


def without_a_layer(self: _Cutter, site: AttentionSite, square: _Square) -> Tensor | None:
    return None if site.layer == 1 else EDGES(self, site, square)


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("broken", [without_the_class_token, without_a_layer])
def test_a_cut_with_a_hole_is_refused(small, monkeypatch, attn, broken):
    one = small("llava", attn)
    monkeypatch.setattr(_Cutter, "_edges", broken)
    with pytest.raises(NeverFired, match=STILL):
        proved(one, part_from_rest(one))


def test_hooks_on_another_block_are_refused(small):
    """Each record names one block and holds the module of the next."""
    one = small()
    sites = one.towers.self_attentions("vision")
    modules = [site.module for site in sites]
    moved = [
        replace(site, module=module) for site, module in zip(sites, modules[1:] + modules[:1], strict=True)
    ]
    wrong = replace(one.towers, sites=(*moved, *one.towers.self_attentions("language")))
    with pytest.raises(NeverFired, match="is not in block 0 of the vision tower"):
        prove_knockout(wrong, one.run, [part_from_rest(one)])


@pytest.mark.parametrize("layer", [0, 1])
def test_blocks_that_run_in_another_order_are_refused(small, layer):
    """Blocks and sites agree, and both are wrong about which of two blocks comes first."""
    one = small()
    (first, second, last), (a, b, c) = one.towers.vision_blocks, one.towers.self_attentions("vision")
    wrong = replace(
        one.towers,
        vision_blocks=(second, first, last),
        sites=(replace(b, layer=0), replace(a, layer=1), c, *one.towers.self_attentions("language")),
    )
    with pytest.raises(NeverFired, match=r"run in the order \[1, 0, 2\]"):
        prove_knockout(wrong, one.run, [part_from_rest(one, layers=(layer,))])


def test_a_change_before_the_first_cut_block_is_refused(small):
    """Something else gets at the model while edges are cut: here, a hook on an earlier block that is put in with the cut."""
    one = small()
    right = _Cutter.__init__

    def meddling(self: _Cutter, *args: Any) -> None:
        right(self, *args)
        one.towers.vision_blocks[0].register_forward_hook(lambda _m, _a, output: output + 1e-3)

    assert proved(one, part_from_rest(one, layers=(1,))).idle
    hooks = dict(one.towers.vision_blocks[0]._forward_hooks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Cutter, "__init__", meddling)
        with pytest.raises(NeverFired, match="changes states before block 1, the first that was cut"):
            proved(one, part_from_rest(one, layers=(1,)))
    one.towers.vision_blocks[0]._forward_hooks.clear()
    one.towers.vision_blocks[0]._forward_hooks.update(hooks)


@contextmanager
def beside(block: nn.Module, way: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A path in a block that goes beside its attention."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return way(output) if isinstance(output, Tensor) else (way(output[0]), *output[1:])

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("layers", [(0, 1), (1,)])
def test_a_path_beside_the_attention_is_found(small, layers):
    """Each token takes a little of its neighbour, as a convolution would: the weights show nothing of it."""
    one = small()
    with beside(one.towers.vision_blocks[1], lambda states: states + 1e-3 * states.roll(1, dims=-2)):
        with pytest.raises(NeverFired, match="there is a way round the cut"):
            proved(one, part_from_rest(one, layers=layers))


def test_numbers_that_are_none_are_refused(small):
    one = small()
    with beside(one.towers.vision_blocks[2], lambda states: states * torch.nan):
        with pytest.raises(NeverFired, match=r"not what they are without it|changes nothing"):
            proved(one, part_from_rest(one))


def test_a_model_that_is_not_the_same_twice_is_refused(small):
    one = small()
    with beside(one.towers.vision_blocks[0], lambda states: states + torch.randn_like(states)):
        with pytest.raises(NeverFired, match="with the mechanism in place and nothing cut"):
            proved(one, part_from_rest(one))


def test_a_mechanism_that_is_not_idle_when_nothing_is_cut_is_refused(small, monkeypatch):
    one = small()
    right = Call.run
    monkeypatch.setattr(Call, "run", lambda self: (right(self)[0] * 1.0001, None))
    with pytest.raises(NeverFired, match="with the mechanism in place and nothing cut"):
        proved(one, part_from_rest(one))


def test_a_vision_tower_that_the_language_model_does_not_listen_to_is_refused(small):
    one = small()
    with beside(one.model.model.multi_modal_projector, torch.zeros_like):
        with pytest.raises(NeverFired, match="changes nothing that the language model holds"):
            proved(one, part_from_rest(one))


def test_an_edge_that_carries_nothing_changes_nothing():
    """A block whose values are zero: its weights are cut as asked, and it makes no difference."""
    planted = Planted([{}, {2: 4}, {}])
    towers = planted.towers()
    edges = cross(TOKENS, [2], [4])
    assert prove_knockout(towers, lambda: planted(4, 0), [cut(edges, [1])]).towers[0].change > 0
    with pytest.raises(
        NeverFired, match=r"cutting 1 edges of the vision tower in blocks \[0\] changes nothing$"
    ):
        prove_knockout(towers, lambda: planted(4, 0), [cut(edges, [0])])


def test_edges_that_carried_no_weight_are_refused_though_rounding_makes_a_difference(monkeypatch):
    """An edge so weak that its weight is zero: what changes is another kernel's rounding, put in by hand here."""
    planted = Planted([{}, {2: 4}, {}])
    planted.blocks[1].attention.looks[2, 4] = 1e4
    monkeypatch.setattr(proving, "_change", lambda before, after: 1e-8)
    with pytest.raises(NeverFired, match="does nothing: they carried no weight before"):
        prove_knockout(planted.towers(), lambda: planted(4, 0), [cut(cross(TOKENS, [2], [0]), [1])])


def test_what_cannot_be_cut_is_no_failed_knockout(small):
    one = small()
    size = one.tokens("language")
    with pytest.raises(NoEdges, match="a causal tower has none to later positions"):
        proved(one, cut(cross(size, [5], [6, 7]), [0], "language"))
    with pytest.raises(UserError, match="without any key"):
        proved(one, cut(torch.ones(50, 50, dtype=torch.bool), [0]))
    with pytest.raises(UserError, match="names layers"):
        proved(one, part_from_rest(one, layers=(9,)))
    with pytest.raises(NeverFired, match="never passed through"):
        prove_knockout(one.towers, lambda: None, [part_from_rest(one)])


# ------------------------------------------------------------------------------------------ what depends on what


def sealed(planted: Planted, knockouts: list[Cut], *, size: int = TOKENS) -> list[Sealed]:
    """What `prove_sealed` finds in a tower whose blocks have all edges."""
    existing = {layer: torch.ones(size, size, dtype=torch.bool) for layer in range(3)}
    left = {layer: edges.clone() for layer, edges in existing.items()}
    for one in knockouts:
        for layer in one.layers:
            left[layer] &= ~one.edges
    towers = planted.towers()
    return prove_sealed(towers, "vision", lambda: planted(4, 0), knockouts, existing, left, "here")


def brute_force(edges: Tensor, layers: list[int]) -> tuple[int, int]:
    """Positions cut off and their sources after consecutive blocks, by following every path step by step."""
    found = []
    for query in range(TOKENS):
        seen = {query}
        for _ in layers:
            seen |= {key for holder in seen for key in range(TOKENS) if not edges[holder, key]}
        found.append(set(range(TOKENS)) - seen)
    most = max(found, key=len)
    return (sum(most <= one for one in found), len(most)) if most else (0, 0)


@settings(max_examples=20, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=24),
    layers=st.sampled_from([[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]]),
)
def test_who_is_shielded_from_whom_is_what_following_the_paths_gives(pairs, layers):
    """Over all the cut blocks, or where paths through them lead everywhere, over the first. What a token holds it keeps, also
    without the edge to itself."""
    edges = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for query, key in pairs:
        edges[query, key] = True
    assume((~edges).any(dim=1).all())
    planted = Planted([{0: 1}, {2: 4}, {5: 3}])
    (found,) = sealed(planted, [cut(edges, layers)])
    expected = brute_force(edges, layers)
    if expected[1] == 0:
        expected = brute_force(edges, layers[:1])
    assert (found.shielded, found.sources) == expected
    assert found.leak == 0


def test_each_run_of_cut_blocks_is_tested_by_itself():
    """Blocks 0 and 2 with an intact one between: two runs, each of one block."""
    planted = Planted([{0: 1}, {2: 4}, {5: 3}])
    edges = cross(TOKENS, [2])
    assert [(one.shielded, one.sources) for one in sealed(planted, [cut(edges, [0, 2])])] == [(1, 5), (1, 5)]


def test_the_first_block_that_promises_a_zero_by_itself_is_tested():
    """A token without the edge to itself still holds what it held: of two such blocks the second is the one to test."""
    planted = Planted([{0: 1}, {2: 4}, {5: 3}])
    itself, rest = cut(torch.eye(TOKENS) > 0, [0]), cut(cross(TOKENS, [2]), [1])
    assert [(one.shielded, one.sources) for one in sealed(planted, [itself, rest])] == [(1, 5)]
    assert [(one.shielded, one.sources) for one in sealed(planted, [itself])] == [(0, 0)]


def test_a_block_that_does_not_answer_to_its_input_shows_no_leak_and_is_refused():
    planted = Planted([{0: 1}, {2: 4}, {5: 3}])
    with beside(planted.blocks[1], torch.zeros_like):
        with pytest.raises(NeverFired, match="blocks 1 to 1 give the same when their input changes"):
            sealed(planted, [cut(cross(TOKENS, [2]), [1])])


def test_blocks_that_hold_another_number_of_states_than_their_attention_are_refused():
    planted = Planted([{0: 1}, {2: 4}, {5: 3}])
    with beside(planted.blocks[1], lambda states: torch.cat([states, states[:, :1]], dim=1)):
        with pytest.raises(Incapable, match="hold 7 states, and their attention is over 6 tokens"):
            prove_sealed(
                planted.towers(), "vision", lambda: planted.blocks[1](torch.ones(1, TOKENS, 10).double()),
                [cut(cross(TOKENS, [2]), [1])], {1: torch.ones(6, 6, dtype=torch.bool)},
                {1: ~cross(TOKENS, [2])}, "here",
            )  # fmt: skip
