"""Knockouts cut what they were asked to cut, where and when, and nothing else; what cuts nothing says so."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from attention_parts import PROMPT, Small, cross, cut, renormalised
from eyechart.core.errors import NeverFired, NoEdges, UserError
from eyechart.core.records import Prompt
from eyechart.models.attention import Cut, cutting
from pictures import picture
from planted_towers import TOKENS, Planted

LONGER = Prompt(text="What is on the left side of it?", images=(picture(60, 90, 2),))
TOWERS = ("vision", "language")


@pytest.fixture(scope="module")
def small(checkpoint_dir: Callable[[str], Path]) -> Callable[..., Small]:
    cache: dict[tuple[str, str], Small] = {}

    def load(name: str = "llava", attn: str = "eager") -> Small:
        return cache.get((name, attn)) or cache.setdefault((name, attn), Small(checkpoint_dir(name), attn))

    return load


def image_span(one: Small, prompt: Prompt) -> list[int]:
    """The language positions of the picture's tokens."""
    ids = one.inputs(prompt)["input_ids"][0]
    return (ids == one.prompting.image_token_id).nonzero().flatten().tolist()


# ------------------------------------------------------------------------------ the weights, by transformers itself


@pytest.mark.parametrize("tower", TOWERS)
def test_cut_edges_carry_zero_and_the_rest_is_renormalised_in_transformers_own_weights(small, tower):
    """One prompt three times in a batch, with other edges cut in each row, and none in the last."""
    one = small()
    rows = [PROMPT] * 3
    size = one.tokens(tower)
    first, other = cross(size, [20, 21]), cross(size, [30], [3, 4])
    before = one.weights(tower, *rows)
    with cutting(one.towers, [[cut(first, [1, 2], tower)], [cut(other, [0, 1], tower)], []]):
        after = one.weights(tower, *rows)
    causal = torch.ones(size, size, dtype=torch.bool)
    causal = causal.tril() if tower == "language" else causal
    for row, (edges, layers) in enumerate([(first & causal, (1, 2)), (other & causal, (0, 1))]):
        for layer in layers:
            assert before[layer][row][:, edges].min() > 0
            assert after[layer][row][:, edges].abs().max() == 0
        begun = layers[0]
        expected = renormalised(before[begun][row], edges)
        torch.testing.assert_close(after[begun][row].double(), expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(after[0][0], before[0][0])  # before its first cut layer a row is what it was
    for layer, weights in after.items():
        torch.testing.assert_close(weights[2], before[layer][2], rtol=1e-5, atol=1e-7)


def test_the_weights_that_these_tests_read_are_those_of_output_attentions(small):
    one = small()
    edges = cross(one.tokens("language"), [20, 21])
    with cutting(one.towers, [[cut(edges, [0, 2], "language")]]):
        ours = one.weights("language")
    with cutting(one.towers, [[cut(edges, [0, 2], "language")]]):
        theirs = one.run(output_attentions=True).attentions
    assert all(torch.equal(ours[layer], theirs[layer]) for layer in range(3))
    assert theirs[0][0][:, edges].abs().max() == 0
    edges = cross(one.tokens("vision"), [20, 21])
    with cutting(one.towers, [[cut(edges, [1])]]), torch.no_grad():
        seen = one.towers.vision(one.inputs(PROMPT)["pixel_values"], output_attentions=True).attentions
    assert seen[1][0][:, edges].abs().max() == 0
    assert seen[0][0][:, edges].min() > 0


@pytest.mark.parametrize("tower", TOWERS)
def test_single_heads_are_cut_and_the_others_are_not(small, tower):
    """The language model has four query heads over two key heads: a knockout counts query heads."""
    one = small()
    edges = cross(one.tokens(tower), [30], [3, 4])
    before = one.weights(tower)
    with cutting(one.towers, [[cut(edges, [1], tower, heads=[1, 2])]]) as applied:
        after = one.weights(tower)
    gone = torch.zeros_like(before[1], dtype=torch.bool)
    gone[:, 1:3] = edges
    torch.testing.assert_close(after[1].double(), renormalised(before[1], gone), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(after[1][:, [0, 3]], before[1][:, [0, 3]], rtol=0, atol=0)
    assert applied.edges == {(0, tower, 1): 4}
    assert applied.calls == {(tower, 1): 1}


@pytest.mark.parametrize("tower", TOWERS)
def test_eager_and_sdpa_agree_after_a_cut(small, tower):
    found = []
    for attn in ("eager", "sdpa"):
        one = small("llava", attn)
        with cutting(one.towers, [[cut(cross(one.tokens(tower), [20, 21]), [0, 2], tower)]]):
            found.append(one.run().logits)
        assert not torch.allclose(found[-1], one.run().logits, atol=1e-4)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------ attention in numpy


def in_numpy(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, allowed: np.ndarray, scale: float
) -> np.ndarray:
    """Attention of one head, query by query over the keys that it may look at, by the definition."""
    found = np.zeros((len(query), value.shape[1]))
    for q in range(len(query)):
        keys = [k for k in range(len(key)) if allowed[q, k]]
        logits = [scale * sum(query[q, d] * key[k, d] for d in range(query.shape[1])) for k in keys]
        shares = [np.exp(logit - max(logits)) for logit in logits]
        for k, share in zip(keys, shares, strict=True):
            found[q] += share / sum(shares) * value[k]
    return found


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("cutting_it", [False, True])
def test_a_block_of_the_vision_tower_is_what_numpy_says(small, attn, cutting_it):
    """From the projections of the module to what its output projection reads, without transformers in between."""
    one = small("llava", attn)
    site = one.towers.self_attentions("vision")[1]
    edges = cross(one.tokens("vision"), [7, 20], [0, 3, 8, 40])
    held = {}
    names = {"q": site.module.q_proj, "k": site.module.k_proj, "v": site.module.v_proj}
    handles = [
        module.register_forward_hook(lambda _m, _a, output, name=name: held.__setitem__(name, output[0]))
        for name, module in names.items()
    ]
    handles.append(
        site.module.out_proj.register_forward_pre_hook(lambda _m, args: held.__setitem__("out", args[0][0]))
    )
    with cutting(one.towers, [[cut(edges, [1])]]) if cutting_it else nullcontext():
        one.run()
    for handle in handles:
        handle.remove()
    heads, width = 4, 8
    allowed = np.ones(edges.shape, dtype=bool) & ~(edges.numpy() & cutting_it)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v, out = (held[name][:, part].double().numpy() for name in ("q", "k", "v", "out"))
        np.testing.assert_allclose(
            out[[7, 20, 21]], in_numpy(q, k, v, allowed, width**-0.5)[[7, 20, 21]], atol=1e-5
        )


# ------------------------------------------------------------------------------------------ random knockouts


@st.composite
def knockouts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], list[int], list[int] | None]:
    tower = draw(st.sampled_from(TOWERS))
    token = st.integers(0, 49)
    edges = draw(st.lists(st.tuples(token, token), min_size=1, max_size=40))
    layers = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    heads = draw(st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    return tower, edges, layers, heads


@settings(max_examples=15, deadline=None)
@given(asked=knockouts())
def test_any_knockout_does_what_it_says(small, asked):
    one = small()
    tower, pairs, layers, heads = asked
    size = one.tokens(tower)
    edges = torch.zeros(size, size, dtype=torch.bool)
    edges[tuple(zip(*pairs, strict=True))] = True
    existing = torch.ones(size, size, dtype=torch.bool)
    existing = existing.tril() if tower == "language" else existing
    knockout = cut(edges, layers, tower, heads=heads)
    gone = torch.zeros(4, size, size, dtype=torch.bool)
    gone[heads or slice(None)] = edges & existing
    before = one.weights(tower)
    if not gone.any():
        with pytest.raises(NoEdges, match="cuts nothing"), cutting(one.towers, [[knockout]]):
            one.run()
        return
    if not (existing & ~gone).any(-1).all():
        with pytest.raises(UserError, match="without any key"), cutting(one.towers, [[knockout]]):
            one.run()
        return
    with cutting(one.towers, [[knockout]]) as applied:
        after = one.weights(tower)
    for layer in range(3):
        if layer in layers:
            assert after[layer][0][gone].abs().max() == 0
            assert applied.edges[0, tower, layer] == int((gone if heads else gone[0]).sum())
        if layer < min(layers):
            assert torch.equal(after[layer], before[layer])
    begun = min(layers)
    torch.testing.assert_close(
        after[begun][0].double(), renormalised(before[begun][0], gone), rtol=1e-4, atol=1e-7
    )


# ------------------------------------------------------------------------------------------ leaks, as published

CLS = 0
PART = [20, 21, 27]
REST = [token for token in range(1, 50) if token not in PART]
LEAKS = {
    "none": (cross(50, PART), [], True),
    "part <- other patches, all blocks": (cross(50, PART, REST), [0, 1], True),
    "part <- other patches and CLS, all blocks": (cross(50, PART), [0, 1], False),
    "part <- other patches and CLS, all but first": (cross(50, PART), [1], True),
    "part <- other patches and CLS, all but the last used": (cross(50, PART), [0], True),
    "other patches <- part, all blocks": (cross(50, REST, PART), [0, 1], True),
}


def used_features(one: Small, cuts: list[Cut], *, change: int | None) -> torch.Tensor:
    """What the language model is given of the vision tower (what block 1 of 0 to 2 gives), with one patch of the input changed."""
    pixels = one.inputs(PROMPT)["pixel_values"].clone()
    if change is not None:
        row, column = divmod(change - 1, 7)
        pixels[0, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
    with cutting(one.towers, [cuts]), torch.no_grad():
        return one.towers.vision(pixels, output_hidden_states=True).hidden_states[-2][0]


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("row", LEAKS)
def test_what_leaks_into_the_part_is_what_theory_says(small, attn, row):
    """The table of leaks of a CLIP tower whose last block is not used: zero with the class token cut too, in every used block."""
    one = small("llava", attn)
    edges, layers, leaks = LEAKS[row]
    cuts = [cut(edges, layers)] if layers else []
    changed, still = (used_features(one, cuts, change=patch) for patch in (40, None))
    moved = (changed - still).abs().amax(-1)
    assert moved[40] > 0.01
    if leaks:
        assert moved[PART].min() > 1e-5
    else:
        assert moved[PART].max() == 0


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_the_reverse_cut_keeps_the_part_from_the_rest_and_not_the_rest_from_the_part(small, attn):
    one = small("llava", attn)
    cuts = [cut(cross(50, [CLS, *REST], PART), [0, 1])]
    moved = (used_features(one, cuts, change=21) - used_features(one, cuts, change=None)).abs().amax(-1)
    assert moved[[CLS, *REST]].max() == 0
    assert moved[PART].min() > 1e-5


# ------------------------------------------------------------------------------------------ planted truths


def told(planted: Planted, rows: list[list[Cut]], *, holder: int = 4, reader: int = 2) -> list[bool]:
    """For each row of cuts, whether the reader is told the holder's label, for both labels."""
    right = torch.ones(len(rows), dtype=torch.bool)
    for label in (0, 1):
        with cutting(planted.towers(), rows):
            end = planted(holder, label, len(rows))[:, reader]
        right &= (end[:, label] > 0.9) & (end[:, 1 - label] < 0.01)
    return right.tolist()


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_the_one_edge_and_layer_that_carry_a_label_are_found(attn):
    """Every edge in every layer is cut alone, each in a row of its own: the planted one destroys the label, no other does."""
    planted = Planted([{}, {2: 4}, {}], attn)
    places = [(layer, query, key) for layer in range(3) for query in range(TOKENS) for key in range(TOKENS)]
    rows = []
    for layer, query, key in places:
        edges = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
        edges[query, key] = True
        rows.append([cut(edges, [layer])])
    found = told(planted, [[], *rows])
    assert found[0]
    assert [place for place, there in zip(places, found[1:], strict=True) if not there] == [(1, 2, 4)]


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_a_label_that_goes_by_another_token_is_stopped_on_its_way_only(attn):
    """From 4 to 0 in the first block, from 0 to 2 in the second: cutting 2 <- 4 everywhere is not enough."""
    planted = Planted([{0: 4}, {2: 0}, {}], attn)
    straight, first, second, all_of_it = (
        cross(TOKENS, query, key) for query, key in (([2], [4]), ([0], [4]), ([2], [0]), ([2], None))
    )
    kept = [[], [cut(straight, [0, 1, 2])], [cut(first, [1, 2]), cut(second, [0, 2])]]
    stopped = [[cut(first, [0])], [cut(second, [1])], [cut(all_of_it, [0, 1, 2])]]
    assert told(planted, [*kept, *stopped]) == [True] * 3 + [False] * 3


# ------------------------------------------------------------------------------------------ batches, tiles, windows


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("tower", TOWERS)
def test_prompts_of_different_lengths_have_their_own_cuts_in_one_batch(small, attn, tower):
    """With left padding each prompt's states are what they are alone, and the cut edges stand where the prompt stands."""
    one = small("llava", attn)
    prompts = [PROMPT, LONGER]
    lengths = [one.inputs(prompt)["input_ids"].shape[1] for prompt in prompts]
    starts = [max(lengths) - length for length in lengths]
    assert starts[0] > 0
    parts = [image_span(one, prompt)[10:12] for prompt in prompts]
    sizes = lengths if tower == "language" else [50, 50]
    rows = [
        [cut(cross(size, part, range(1, part[0])), layers, tower)]
        for size, part, layers in zip(sizes, parts, ([0, 1], [1]), strict=True)
    ]
    with cutting(one.towers, rows, starts=starts) as applied:
        both = one.run(*prompts).logits
    for row, (prompt, cuts, start) in enumerate(zip(prompts, rows, starts, strict=True)):
        with cutting(one.towers, [cuts]) as alone:
            logits = one.run(prompt).logits
        torch.testing.assert_close(both[row, start:], logits[0], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(both[row, start:], one.run(prompt).logits[0], atol=1e-3)
        for layer in cuts[0].layers:
            assert applied.edges[row, tower, layer] == alone.edges[0, tower, layer] > 0
    assert applied.edges[1, tower, 0] == 0


def test_after_padding_the_edges_begin_where_the_prompt_begins(small):
    one = small()
    prompts = [PROMPT, LONGER]
    lengths = [one.inputs(prompt)["input_ids"].shape[1] for prompt in prompts]
    start = lengths[1] - lengths[0]
    edges = cross(lengths[0], [20, 21], range(3, 10))
    with cutting(one.towers, [[cut(edges, [0], "language")], []], starts=[start, 0]):
        after = one.weights("language", *prompts)[0]
    before = one.weights("language", *prompts)[0]
    assert after[0, :, start:, start:][:, edges].max() == 0
    gone = (after[0] == 0) & (before[0] > 0)
    assert int(gone.sum()) == int(edges.sum()) * 4
    with pytest.raises(UserError, match=f"over {lengths[0]} tokens, and the tower has {lengths[1]} a prompt"):
        with cutting(one.towers, [[cut(edges, [0], "language")], []]):
            one.run(*prompts)


def test_tiles_are_squares_on_the_diagonal_of_a_prompt(small):
    """LLaVA-NeXT reads a picture as several tiles, each a row: a tile's tokens see no other tile's."""
    one = small("llava_next")
    size = one.tokens("vision")
    tiles = size // 50
    assert tiles > 1
    before = one.weights("vision")[1]
    edges = cross(size, [50 + 7], range(50, 55))
    with cutting(one.towers, [[cut(edges, [1])]]) as applied:
        after = one.weights("vision")[1]
    assert applied.edges == {(0, "vision", 1): 5}
    assert after[1, :, 7, :5].max() == 0
    gone = torch.zeros(tiles, 1, 50, 50, dtype=torch.bool)
    gone[1, 0, 7, :5] = True
    torch.testing.assert_close(
        after.double(), renormalised(before, gone.expand_as(before)), rtol=1e-4, atol=1e-7
    )
    between = cross(size, [50 + 7], range(50))
    with pytest.raises(NoEdges, match="the model has none of its 50 edges"):
        with cutting(one.towers, [[cut(between, [0, 1])]]):
            one.run()


def test_several_pictures_are_tiles_of_one_prompt(small):
    one = small()
    two = Prompt(text="Same?", images=(picture(90, 60, 1), picture(60, 60, 2)))
    edges = cross(100, [50 + 20], range(50, 60))
    before = one.weights("vision", two)[0]
    with cutting(one.towers, [[cut(edges, [0])]]):
        after = one.weights("vision", two)[0]
    assert before.shape[0] == 2
    assert torch.equal(after[0], before[0])
    assert after[1, :, 20, :10].max() == 0
    with pytest.raises(UserError, match="are over 50 tokens, and the tower has 100 a prompt"):
        with cutting(one.towers, [[cut(cross(50, [20]), [0])]]):
            one.run(two)


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_windows_have_no_edges_between_them(small, attn):
    """Qwen2.5-VL's blocks 0 and 2 attend within windows, block 1 over the whole picture."""
    one = small("qwen2_5_vl", attn)
    size = one.tokens("vision")
    far = cross(size, [0], [size - 1])
    with pytest.raises(NoEdges, match="a windowed one none to other windows"):
        with cutting(one.towers, [[cut(far, [0, 2])]]):
            one.run()
    with cutting(one.towers, [[cut(far, [0, 1, 2])]]) as applied:
        one.run()
    assert {key: many for key, many in applied.edges.items() if many} == {(0, "vision", 1): 1}
    with cutting(one.towers, [[cut(cross(size, [0], [1]), [0, 1, 2])]]) as applied:
        one.run()
    assert sum(applied.edges.values()) == 3


def test_windows_of_several_prompts_are_told_apart(small):
    one = small("qwen2_5_vl")
    same = Prompt(text="A cat, or a dog?", images=PROMPT.images)
    size = one.tokens("vision")
    rows = [[cut(cross(size, [size - 1], [size - 2]), [0])], [cut(cross(size, [0], [1]), [1])]]
    with cutting(one.towers, rows) as applied:
        one.run(PROMPT, same)
    assert {key: many for key, many in applied.edges.items() if many} == {
        (0, "vision", 0): 1, (1, "vision", 1): 1,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ what is refused


def refused(one: Small, cuts: list[Cut], error: type[Exception], text: str, **more: object) -> None:
    before = one.run().logits
    with pytest.raises(error, match=re.escape(text)) as caught, cutting(one.towers, [cuts]):
        one.run(**more)
    assert caught.type is error
    assert torch.equal(one.run().logits, before)


def test_empty_knockouts_have_no_edges():
    edges = torch.zeros(4, 4, dtype=torch.bool)
    with pytest.raises(NoEdges, match="'part <- rest' cuts nothing: its set of edges is empty"):
        cut(edges, [0])
    with pytest.raises(NoEdges, match="names no layer, or no head"):
        cut(~edges, [])
    with pytest.raises(NoEdges, match="names no layer, or no head"):
        cut(~edges, [0], heads=[])
    with pytest.raises(ValueError, match="no square matrix"):
        cut(torch.ones(3, 4, dtype=torch.bool), [0])


def test_edges_to_later_positions_are_none_in_a_causal_tower(small):
    one = small()
    size = one.tokens("language")
    later = cross(size, [5], range(6, size))
    refused(one, [cut(later, [0, 1], "language")], NoEdges, "a causal tower has none to later positions")
    both = [cut(cross(size, [20], [5]), [0], "language"), cut(later, [0], "language", name="later")]
    refused(one, both, NoEdges, "the knockout 'later' cuts nothing")
    with cutting(one.towers, [[cut(later | cross(size, [20], [5]), [0], "language")]]) as applied:
        one.run()
    assert applied.edges == {(0, "language", 0): 1}


@pytest.mark.parametrize("layers", [[3], [-1], [0, 7]])
def test_a_layer_that_is_not_there(small, layers):
    missing = str([layer for layer in layers if layer not in (0, 1, 2)])
    text = f"names layers {missing} of the vision tower; those with self-attention are 0, 1, 2"
    refused(small(), [cut(cross(50, [3]), layers)], UserError, text)


@pytest.mark.parametrize("head", [4, -1])
def test_a_head_that_is_not_there(small, head):
    text = f"names heads [{head}]; layer 0 of the vision tower has 4 heads"
    refused(small(), [cut(cross(50, [3]), [0], heads=[head])], UserError, text)


@pytest.mark.parametrize(
    ("tower", "size"), [("vision", 49), ("vision", 51), ("vision", 25), ("language", 60)]
)
def test_edges_over_another_number_of_tokens(small, tower, size):
    refused(
        small(),
        [cut(cross(size, [3], [1]), [0], tower)],
        UserError,
        f"are over {size} tokens, and the tower has",
    )


def test_a_query_without_any_key(small):
    one = small()
    everything = torch.ones(50, 50, dtype=torch.bool)
    refused(one, [cut(everything, [0])], UserError, "without any key: keep the edge of a token to itself")
    first = torch.zeros(one.tokens("language"), one.tokens("language"), dtype=torch.bool)
    first[0, 0] = True
    refused(one, [cut(first, [0], "language")], UserError, "without any key")


def test_one_head_left_without_any_key(small):
    refused(
        small(), [cut(torch.ones(50, 50, dtype=torch.bool), [0], heads=[2])], UserError, "without any key"
    )


def test_a_pass_over_a_cache_of_earlier_keys(small):
    one = small()
    size = one.tokens("language")
    held = one.run(use_cache=True).past_key_values
    ids = one.inputs(PROMPT)["input_ids"][:, -1:]
    with pytest.raises(UserError, match=f"was given 1 queries and {size + 1} keys"), torch.no_grad():
        with cutting(one.towers, [[cut(cross(size, [20]), [0], "language")]]):
            one.model(input_ids=ids, past_key_values=held)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize(("given", "ran"), [(1, 2), (2, 1), (3, 2)])
def test_knockouts_for_another_number_of_prompts(small, tower, given, ran):
    one = small()
    rows = [[cut(cross(one.tokens(tower), [20]), [0], tower)] for _ in range(given)]
    with pytest.raises(UserError, match=r"prompts, and . were run|tokens, and the tower has"):
        with cutting(one.towers, rows):
            one.run(*[PROMPT] * ran)


def test_rows_of_other_numbers_of_tokens(small):
    rows = [[cut(cross(50, [20]), [0])], [cut(cross(100, [20]), [0])]]
    with pytest.raises(UserError, match="over 50 and 100 vision tokens"), cutting(small().towers, rows):
        pass


def test_one_start_for_each_prompt(small):
    rows = [[cut(cross(50, [20]), [0])]] * 2
    with pytest.raises(UserError, match="2 prompts have 1 starts"), cutting(small().towers, rows, starts=[0]):
        pass


@pytest.mark.parametrize("tower", TOWERS)
def test_a_layer_that_never_ran(small, tower):
    """Also where the other tower's block of the same number did run."""
    one = small()
    knockout = cut(cross(one.tokens(tower), [20]), [0, 1], tower)
    with pytest.raises(
        NeverFired, match=rf"layers \[0, 1\] of the {tower} tower, and the model never passed"
    ):
        with cutting(one.towers, [[knockout]]):
            pass
    other = "language" if tower == "vision" else "vision"
    both = [knockout, cut(cross(one.tokens(other), [20]), [0, 1], other)]
    with (
        pytest.raises(NeverFired, match="of the language tower"),
        cutting(one.towers, [both]),
        torch.no_grad(),
    ):
        one.towers.vision(one.inputs(PROMPT)["pixel_values"])


def test_gradient_checkpointing_is_refused_since_it_would_run_blocks_again_without_the_cut(checkpoint_dir):
    """Without gradients, or in eval mode, nothing runs twice, and the knockout is made."""
    one = Small(checkpoint_dir("llava"))
    knockout = cut(cross(50, [20]), [0])
    for block in one.towers.vision_blocks:
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    with cutting(one.towers, [[knockout]]):
        one.run()
    one.model.train()
    with torch.no_grad(), cutting(one.towers, [[knockout]]):
        one.run()
    with pytest.raises(UserError, match="backward pass would run it again without the knockout"):
        with cutting(one.towers, [[knockout]]):
            one.run()


def test_gradients_go_through_a_cut(small):
    """What is cut off gets no gradient: none from the part's states to the pixels of the rest, in the used blocks."""
    one = small("llava", "sdpa")
    pixels = one.inputs(PROMPT)["pixel_values"].clone().requires_grad_()
    with cutting(one.towers, [[cut(cross(50, PART), [0, 1])]]):
        used = one.towers.vision(pixels, output_hidden_states=True).hidden_states[-2][0]
    (found,) = torch.autograd.grad(used[PART].square().sum(), pixels)
    patches = found[0].abs().amax(0).reshape(7, 8, 7, 8).amax((1, 3)).flatten()
    assert patches[[patch - 1 for patch in PART]].min() > 0
    assert patches[[patch - 1 for patch in REST]].max() == 0
