"""Standing where attention is called: what is not changed stays as it is to the bit, and nothing is left behind."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama import modeling_llama

from attention_parts import PROMPT, Small, cross, cut
from checkpoints import VLMS
from eyechart.core.errors import Incapable
from eyechart.models.attention import Call, cutting, taking_calls
from eyechart.models.vlms.towers import AttentionSite, resolve_towers

COMMON = ("llava", "qwen2_5_vl")
ALL = [
    pytest.param(name, attn, marks=() if name in COMMON and attn == "sdpa" else pytest.mark.slow)
    for name in VLMS
    for attn in ("eager", "sdpa")
]


@pytest.fixture(scope="module")
def small(checkpoint_dir: Callable[[str], Path]) -> Callable[..., Small]:
    cache: dict[tuple[str, str], Small] = {}

    def load(name: str = "llava", attn: str = "eager") -> Small:
        return cache.get((name, attn)) or cache.setdefault((name, attn), Small(checkpoint_dir(name), attn))

    return load


@pytest.fixture(autouse=True)
def registries_are_left_as_they_were() -> Any:
    """Before and after every test here, each registry of attention functions holds the same objects."""

    def held() -> list[dict[str, Any]]:
        found = [
            vars(module)["ALL_ATTENTION_FUNCTIONS"]
            for name, module in sorted(sys.modules.items())
            if name.startswith("transformers.models.") and "ALL_ATTENTION_FUNCTIONS" in vars(module)
        ]
        distinct = {id(one): one for one in found}.values()
        return [dict(mapping) for one in distinct for mapping in (one._local_mapping, one._global_mapping)]

    before = held()
    yield
    after = held()[: len(before)]
    assert all(
        list(a) == list(b) and all(a[key] is b[key] for key in a) for a, b in zip(before, after, strict=True)
    )


def outputs(one: Small) -> list[Tensor]:
    """Logits and every layer's states of one pass."""
    out = one.run(output_hidden_states=True, return_dict=True)
    states = getattr(out, "hidden_states", None) or getattr(out, "encoder_hidden_states", None) or ()
    return [out.logits, *states]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ------------------------------------------------------------------------------------------ idle


@pytest.mark.parametrize(("name", "attn"), ALL)
def test_every_block_of_both_towers_is_met_and_passing_on_changes_no_bit(small, name, attn):
    one = small(name, attn)
    plain, met = outputs(one), set()

    def keep(call: Call) -> Any:
        met.add((call.site.tower, call.site.layer))
        assert call.eager == (attn == "eager")
        assert call.query.shape[1] == call.site.heads
        return call.run()

    with taking_calls(one.towers.sites, keep):
        inside = outputs(one)
    assert same(plain, inside)
    assert met == {(site.tower, site.layer) for site in one.towers.sites}
    with cutting(one.towers, [()]) as applied:
        assert same(plain, outputs(one))
    assert not applied.calls
    assert same(plain, outputs(one))


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_an_exception_inside_leaves_nothing_behind(small, attn):
    one = small("llava", attn)
    plain = outputs(one)
    knockout = cut(cross(50, [3]), [0])

    def breaks() -> None:
        with cutting(one.towers, [[knockout]]):
            one.run()
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        breaks()

    def fails(call: Call) -> Any:
        raise ZeroDivisionError("in a handler")

    with pytest.raises(ZeroDivisionError, match="in a handler"), taking_calls(one.towers.sites, fails):
        one.run()
    assert same(plain, outputs(one))


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_cuts_inside_cuts_add_up_and_come_off_one_by_one(small, attn):
    one = small("llava", attn)
    first, second = cut(cross(50, [3], [7, 8]), [0]), cut(cross(50, [4], [9]), [0, 1])
    with cutting(one.towers, [[first, second]]):
        both = one.run().logits
    with cutting(one.towers, [[first]]):
        only = one.run().logits
    with cutting(one.towers, [[first]]):
        with cutting(one.towers, [[second]]):
            nested = one.run().logits
        with pytest.raises(Exception, match="and the tower has 100 a prompt"):  # the outer one ran already
            one.run()
    torch.testing.assert_close(nested, both, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(nested, only, atol=1e-5)


def test_another_model_of_the_same_class_is_not_touched(small, checkpoint_dir):
    one, other = small(), Small(checkpoint_dir("llava"))
    plain = outputs(other)
    with cutting(one.towers, [[cut(cross(50, [3]), [0, 1])]]):
        assert same(plain, outputs(other))
        changed = outputs(one)
    assert not torch.equal(changed[0], plain[0])
    with (
        cutting(one.towers, [[cut(cross(50, [3]), [0, 1])]]),
        cutting(other.towers, [[cut(cross(50, [9]), [0])]]),
    ):
        assert same(changed, outputs(one))
        assert not same(changed, outputs(other))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_peft_model_is_cut_as_the_model_in_it_is(small, checkpoint_dir):
    peft = pytest.importorskip("peft")
    one, other = small(), Small(checkpoint_dir("llava"))
    wrapped = peft.get_peft_model(
        other.model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=True)
    ).eval()
    towers = resolve_towers(wrapped)
    inputs = other.inputs(PROMPT)
    for tower in ("vision", "language"):
        knockout = cut(cross(one.tokens(tower), [20, 21]), [0, 1], tower)
        with cutting(towers, [[knockout]]), torch.no_grad():
            found = wrapped(**inputs, use_cache=False).logits
        with cutting(one.towers, [[knockout]]):
            torch.testing.assert_close(found, one.run().logits, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, one.run().logits, atol=1e-5)


# ------------------------------------------------------------------------------------------ what cannot be taken


@pytest.mark.parametrize("name", ["flash_attention_2", "flex_attention", None])
def test_attention_without_dense_masks_is_refused_by_name(checkpoint_dir, name):
    one = Small(checkpoint_dir("llava"))
    site = one.towers.self_attentions("language")[1]
    site.module.config._attn_implementation = name
    text = rf"edges of {site.name} \(LlamaAttention\) cannot be cut under .*{name!r}.*--attn eager or sdpa"
    with pytest.raises(Incapable, match=text), taking_calls([site], Call.run):
        pass
    with pytest.raises(Incapable, match=text), cutting(one.towers, [[cut(cross(71, [9]), [1], "language")]]):
        pass


class ByItself(nn.Module):
    """An attention that asks no registry."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation="eager")

    def forward(self, states: Tensor) -> Tensor:
        return states


def test_attention_that_goes_by_no_registry_is_refused_by_name():
    site = AttentionSite(tower="vision", layer=0, name="blocks.0.attention", module=ByItself(), heads=1)
    with pytest.raises(
        Incapable, match=r"blocks\.0\.attention cannot be cut: the code of ByItself does not call"
    ):
        with taking_calls([site], Call.run):
            pass


# ------------------------------------------------------------------------------------------ weights and masks


@pytest.mark.parametrize("tower", ["vision", "language"])
@pytest.mark.parametrize("name", ["llava", "paligemma"])
def test_weights_read_through_the_function_are_transformers_own(small, name, tower):
    """To the bit under eager; under SDPA, which gives none, the same but for rounding. Grouped heads included."""
    own = small(name).weights(tower)
    for attn in ("eager", "sdpa"):
        found: dict[int, Tensor] = {}
        exists: dict[int, Tensor] = {}

        def keep(call: Call, found: dict[int, Tensor] = found, exists: dict[int, Tensor] = exists) -> Any:
            found[call.site.layer] = call.weights()
            exists[call.site.layer] = call.allowed().expand_as(found[call.site.layer])
            return call.run()

        one = small(name, attn)
        with taking_calls(one.towers.self_attentions(tower), keep):
            one.run()
        assert sorted(found) == sorted(own)
        for layer, weights in own.items():
            if attn == "eager":
                assert torch.equal(found[layer], weights)
            torch.testing.assert_close(found[layer], weights, rtol=1e-4, atol=1e-6)
            assert torch.equal(exists[layer], weights > 0)


QUERIES, HEADS, GROUPS, WIDTH = 7, 4, 2, 3
MASKS = ("none", "boolean", "additive", "additive, of all rows and heads")


def made(kind: str, *, eager: bool, causal: bool, seed: int) -> tuple[Call, np.ndarray]:
    """A call with random numbers, and the edges that exist in it, row x head x query x key."""
    drawn = torch.Generator().manual_seed(seed)
    query = torch.randn(2, HEADS, QUERIES, WIDTH, generator=drawn)
    key, value = (torch.randn(2, GROUPS, QUERIES, WIDTH, generator=drawn) for _ in range(2))
    some = torch.rand(2, 1, QUERIES, QUERIES, generator=drawn) > 0.3
    some |= torch.eye(QUERIES, dtype=torch.bool)
    if kind == "additive, of all rows and heads":
        some = some[:1].expand(1, 1, -1, -1)
    additive = torch.where(some, torch.randn(some.shape, generator=drawn), torch.finfo(torch.float32).min)
    mask = {"none": None, "boolean": some}.get(kind, additive)
    there = some if mask is not None else torch.ones_like(some)
    if mask is None and causal and not eager:
        there = there & torch.ones(QUERIES, QUERIES, dtype=torch.bool).tril()
    module: Any = nn.Module()
    module.num_key_value_groups, module.is_causal, module.training = HEADS // GROUPS, causal, False
    function: Any = modeling_llama.eager_attention_forward if eager else sdpa_attention_forward
    call = Call(
        site=AttentionSite(tower="language", layer=0, name="here", module=module, heads=HEADS),
        function=function, query=query, key=key, value=value, mask=mask, options={"scaling": 0.5}, eager=eager,
    )  # fmt: skip
    return call, there.expand(2, HEADS, -1, -1).numpy()


def by_hand(call: Call, edges: np.ndarray) -> np.ndarray:
    """Weights by the definition, number by number, over the edges given."""
    found = np.zeros(edges.shape)
    additive = call.mask is not None and call.mask.dtype != torch.bool
    added = call.mask.expand(edges.shape).numpy() if additive else np.zeros(edges.shape)
    for row, head, q in np.ndindex(edges.shape[:3]):
        keys = np.flatnonzero(edges[row, head, q])
        query, key = call.query[row, head, q].numpy(), call.key[row, head // (HEADS // GROUPS)].numpy()
        logits = np.array([0.5 * float(query @ key[k]) + float(added[row, head, q, k]) for k in keys])
        shares = np.exp(logits - logits.max())
        found[row, head, q, keys] = shares / shares.sum()
    return found


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(MASKS),
    eager=st.booleans(),
    causal=st.booleans(),
    seed=st.integers(0, 10**6),
    single=st.booleans(),
)
def test_a_cut_call_weighs_what_is_left_whatever_its_mask(kind, eager, causal, seed, single):
    """Both functions of transformers, every form of mask, grouped heads, cuts for all heads or for each."""
    if kind == "boolean" and eager:
        return
    call, there = made(kind, eager=eager, causal=causal, seed=seed)
    assert np.array_equal(call.allowed().expand(there.shape).numpy(), there)
    np.testing.assert_allclose(call.weights().numpy(), by_hand(call, there), atol=1e-5)
    drawn = torch.Generator().manual_seed(seed + 1)
    edges = torch.rand(2, 1 if single else HEADS, QUERIES, QUERIES, generator=drawn) > 0.6
    edges &= ~torch.eye(QUERIES, dtype=torch.bool)
    after = call.without(edges)
    left = there & ~edges.expand(there.shape).numpy()
    weights = after.weights().numpy()
    assert (weights[~left] == 0).all()
    np.testing.assert_allclose(weights, by_hand(call, left), atol=1e-5)
    output, _ = after.run()
    values = call.value.repeat_interleave(HEADS // GROUPS, dim=1).numpy()
    np.testing.assert_allclose(output.transpose(1, 2).numpy(), weights @ values, atol=1e-5)


def test_eager_adds_a_boolean_mask_and_shuts_nothing_with_it():
    """True adds one to a logit there: the mask allows all edges, and a cut is made all the same."""
    call, there = made("boolean", eager=True, causal=False, seed=3)
    assert not there.all()
    assert call.allowed().all()
    edges = torch.zeros(2, 1, QUERIES, QUERIES, dtype=torch.bool)
    edges[:, :, 2, 4:] = True
    before, after = call.weights(), call.without(edges).weights()
    gone = edges.expand(2, HEADS, -1, -1)
    assert after[gone].max() == 0
    kept = before.masked_fill(gone, 0)
    torch.testing.assert_close(after, kept / kept.sum(-1, keepdim=True), rtol=1e-5, atol=1e-7)


def test_the_cut_of_a_call_leaves_the_call_as_it_was():
    call, _ = made("additive", eager=True, causal=False, seed=1)
    mask = call.mask.clone()
    call.without(torch.ones(2, 1, QUERIES, QUERIES, dtype=torch.bool))
    assert torch.equal(call.mask, mask)
