"""A sweep gives what whole passes give, and runs no block more often than it must."""

import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from checkpoints import VLMS
from eyechart.core.errors import NoEdges, UserError
from eyechart.core.records import Prompt
from eyechart.models.attention import Condition, Cut, cutting, replay, sweep_proof
from eyechart.models.attention import sweep as sweep_module
from eyechart.models.attention.sweep import layer_passes, sweep
from eyechart.models.attention.sweep_proof import Ways, prove_replay
from eyechart.models.attention.sweep_tree import Path as Way
from eyechart.models.attention.sweep_tree import Stack, fewest_rows, walk
from eyechart.models.vlms import VLM, load_vlm
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.states import forward_inputs
from pictures import picture

REPLAYED = (
    "llava", "llava_next", "qwen2_5_vl", "paligemma", "smolvlm", "idefics3", "internvl", "gemma3", "instructblip", "blip_2",
    "qwen2_vl", "llava_onevision", "idefics2", "aya_vision", "kosmos2",
)  # fmt: skip
WHOLE = ("qwen3_vl", "mllama")
COMMON = ("llava", "qwen2_5_vl")
CASES = [
    pytest.param(name, attn, marks=() if name in COMMON and attn == "sdpa" else pytest.mark.slow)
    for name in (*REPLAYED, *WHOLE)
    for attn in ("eager", "sdpa")
]
PROMPT = Prompt(text="Is it a dog?", images=(picture(90, 60, 1),))


@dataclass(frozen=True)
class Whole:
    """States of one pass, by hooks on the blocks."""

    vision: list[Tensor]
    language: list[Tensor]
    logits: Tensor


@dataclass(frozen=True)
class Ready:
    """A model, how it sweeps, and the sizes of its sequences for the prompt."""

    vlm: VLM
    ways: Ways
    intact: Whole

    @property
    def vision_tokens(self) -> int:
        return self.intact.vision[0].numel() // self.intact.vision[0].shape[-1]

    @property
    def length(self) -> int:
        return self.intact.language[0].shape[0]


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def whole(vlm: VLM, condition: Condition, prompt: Prompt = PROMPT) -> Whole:
    """The slow way: the model as it is, from pixels to logits."""
    seen: dict[int, list[Tensor]] = {}
    handles = []
    for block in (*vlm.towers.vision_blocks, *vlm.towers.language_blocks):
        note = seen.setdefault(id(block), [])
        handles.append(block.register_forward_hook(lambda m, a, o, note=note: note.append(first(o).clone())))
    for blocks in (vlm.towers.vision_blocks, vlm.towers.language_blocks):
        note = seen.setdefault(-id(blocks[0]), [])
        handles.append(
            blocks[0].register_forward_pre_hook(
                lambda m, a, k, note=note: note.append((a[0] if a else k["hidden_states"]).clone()),
                with_kwargs=True,
            )
        )
    with undisturbed(vlm.model, vlm.processor), cutting(vlm.towers, [condition.cuts]):
        out = vlm.model(**forward_inputs(vlm.model, vlm.prompting.inputs([prompt])), use_cache=False)
    for handle in handles:
        handle.remove()

    def states(blocks: Sequence[nn.Module]) -> list[Tensor]:
        return [torch.cat(seen[-id(blocks[0])]), *(torch.cat(seen[id(block)]) for block in blocks)]

    return Whole(
        vision=states(vlm.towers.vision_blocks),
        language=[one[0] for one in states(vlm.towers.language_blocks)],
        logits=out.logits[0, -1],
    )


@pytest.fixture(scope="module")
def ready(checkpoint_dir: Callable[[str], Path]) -> Callable[[str, str], Ready]:
    cache: dict[tuple[str, str], Ready] = {}

    def get(name: str, attn: str = "sdpa") -> Ready:
        if (name, attn) not in cache:
            vlm = load_vlm(str(checkpoint_dir(name)), attn=attn)
            cache[name, attn] = Ready(vlm, prove_replay(vlm, PROMPT), whole(vlm, Condition(name="intact")))
        return cache[name, attn]

    return get


def edges(tokens: int, seed: int, share: float = 0.4) -> Tensor:
    """Random edges, none of a token to itself."""
    drawn = torch.rand(tokens, tokens, generator=torch.Generator().manual_seed(seed)) < share
    return drawn.fill_diagonal_(False)


def some_cut(one: Ready, tower: str, layers: Sequence[int], seed: int = 0, heads: Any = None) -> Cut:
    tokens = one.vision_tokens if tower == "vision" else one.length
    return Cut(
        name=f"{tower} {seed}", tower=tower, edges=edges(tokens, seed), layers=tuple(layers), heads=heads
    )


def sites(one: Ready, tower: str) -> list[int]:
    return [site.layer for site in one.vlm.towers.self_attentions(tower)]


def two_by_two(one: Ready) -> list[Condition]:
    """Both towers intact and cut, windows, heads, and one condition twice."""
    seeing, speaking = sites(one, "vision")[:2], sites(one, "language")
    vision, language = some_cut(one, "vision", seeing, 1), some_cut(one, "language", speaking, 2)
    late, head = (
        some_cut(one, "vision", seeing[1:], 3, heads=(0,)),
        some_cut(one, "language", speaking[-1:], 4, heads=(1,)),
    )
    return [
        Condition(name="language", cuts=(language,)),
        Condition(name="intact"),
        Condition(name="vision", cuts=(vision,)),
        Condition(name="both", cuts=(language, vision)),
        Condition(name="one head", cuts=(head,)),
        Condition(name="late vision and one head", cuts=(late, head)),
        Condition(name="intact again"),
    ]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.std()), rtol=1e-4)


# ------------------------------------------------------------------------------------------ whole passes


def test_every_checkpoint_whose_attention_can_be_edited_is_here():
    assert set(REPLAYED) | set(WHOLE) | {"florence2"} == set(VLMS)


@pytest.mark.parametrize(("name", "attn"), CASES)
def test_states_are_those_of_whole_passes(ready, name, attn):
    one = ready(name, attn)
    assert one.ways.replays == (name in REPLAYED), one.ways.note
    conditions = two_by_two(one)
    positions = [0, one.length // 2, -1]
    vision_layers = (2, 0) if name != "mllama" else ()
    for batch in (1, 3, None):
        reads = list(
            sweep(
                one.vlm, PROMPT, conditions, positions=positions, vision_layers=vision_layers, logits=True,
                batch=batch, ways=one.ways,
            )
        )  # fmt: skip
        assert sorted(read.number for read in reads) == list(range(len(conditions)))
        for read in reads:
            assert read.condition is conditions[read.number]
            wanted = whole(one.vlm, read.condition)
            assert len(read.states) == len(wanted.language)
            for layer, state in enumerate(wanted.language):
                close(read.states[layer], state[positions])
            close(read.logits, wanted.logits)
            for found, layer in zip(read.vision if vision_layers else (), vision_layers, strict=True):
                close(found.reshape(wanted.vision[layer].shape), wanted.vision[layer])


@pytest.mark.parametrize(("name", "attn"), CASES)
def test_image_positions_are_read_from_a_prompt_that_ends_there(ready, name, attn):
    if name == "mllama":
        pytest.skip("its image stands beside the sequence")
    one = ready(name, attn)
    image = one.vlm.image_positions(PROMPT)
    conditions = two_by_two(one)
    reads = sweep(one.vlm, PROMPT, conditions, layers=(-1, 0, 1), ways=one.ways, batch=4)
    for read in reads:
        wanted = whole(one.vlm, read.condition)
        assert read.positions == image
        assert read.layer_numbers == (len(wanted.language) - 1, 0, 1)
        assert read.logits is None
        assert read.vision is None
        for found, layer in zip(read.states, read.layer_numbers, strict=True):
            close(found, wanted.language[layer][list(image)])


@pytest.mark.parametrize(
    ("name", "attn"),
    [("llava", "eager"), ("llava", "sdpa"), pytest.param("gemma3", "sdpa", marks=pytest.mark.slow)],
)
def test_one_at_a_time_over_the_whole_prompt_the_numbers_are_the_same_to_the_bit(ready, name, attn):
    one = ready(name, attn)
    reads = sweep(one.vlm, PROMPT, two_by_two(one), positions="all", logits=True, batch=1, ways=one.ways)
    for read in reads:
        wanted = whole(one.vlm, read.condition)
        assert torch.equal(read.states, torch.stack(wanted.language))
        close(read.logits, wanted.logits)  # the unembedding of one position, and not of all


def test_states_are_what_the_model_itself_gives(ready):
    """Against transformers' own `output_hidden_states`, whose last layer alone is normed."""
    one = ready("llava")
    (read,) = sweep(one.vlm, PROMPT, [Condition(name="intact")], ways=one.ways)
    own = one.vlm.hidden_states(PROMPT)
    close(read.states[:-1], own.layers[:-1])
    close(one.vlm.towers.final_norm(read.states[-1]).detach(), own.layers[-1])


def test_a_prompt_with_two_pictures(ready):
    one = ready("llava")
    prompt = Prompt(text="Same?", images=(picture(90, 60, 1), picture(50, 70, 2)))
    intact = whole(one.vlm, Condition(name="intact"), prompt)
    two = Ready(one.vlm, one.ways, intact)
    conditions = two_by_two(two)
    for read in sweep(one.vlm, prompt, conditions, vision_layers=(1,), ways=one.ways):
        wanted = whole(one.vlm, read.condition, prompt)
        for found, state in zip(read.states, wanted.language, strict=True):
            close(found, state[list(read.positions)])
        close(read.vision[0], wanted.vision[1])


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_conditions_in_any_batches(ready, data):
    one = ready("llava")
    layers = {"vision": 2, "language": 3}  # the vision tower's third block is dead

    def cut(tower: str) -> st.SearchStrategy[tuple[Any, ...]]:
        chosen = st.sets(st.integers(0, layers[tower] - 1), min_size=1).map(sorted)
        heads = st.none() | st.sets(st.integers(0, 1), min_size=1).map(tuple)
        return st.tuples(st.just(tower), chosen, st.integers(0, 2), heads)

    some = st.lists(cut("vision") | cut("language"), max_size=3)
    drawn = data.draw(st.lists(some, min_size=1, max_size=5))
    conditions = [
        Condition(name=str(number), cuts=tuple(some_cut(one, *what) for what in cuts))
        for number, cuts in enumerate(drawn)
    ]
    batch = data.draw(st.integers(1, 5))
    passes = layer_passes(one.vlm, PROMPT, conditions, ways=one.ways)
    with counting(one.vlm) as counted:
        reads = list(sweep(one.vlm, PROMPT, conditions, batch=batch, ways=one.ways))
    assert counted == {"vision": passes.vision, "language": passes.language}
    assert sorted(read.number for read in reads) == list(range(len(conditions)))
    for read in reads:
        wanted = whole(one.vlm, read.condition)
        close(read.states, torch.stack(wanted.language)[:, list(read.positions)])


# ------------------------------------------------------------------------------------------ how much is run


@contextmanager
def counting(vlm: VLM) -> Iterator[Counter[str]]:
    """How often the MLP of each block ran on one row: no stand-in for a block runs it, nor a look at its attention."""
    counted: Counter[str] = Counter(vision=0, language=0)
    handles = []
    for tower, blocks in (("vision", vlm.towers.vision_blocks), ("language", vlm.towers.language_blocks)):
        for block in blocks:
            count = lambda m, a, o, tower=tower: counted.update({tower: len(a[0])})  # noqa: E731
            handles.append(block.mlp.register_forward_hook(count))
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def test_no_block_runs_more_often_than_it_must(ready):
    """By hand, for 3 language blocks, and 2 vision blocks before the dead one."""
    one = ready("llava")
    language = [Condition(name=str(at), cuts=(some_cut(one, "language", [at], 7),)) for at in range(3)]
    seen = Condition(name="vision", cuts=(some_cut(one, "vision", [1], 8),))
    both = Condition(name="both", cuts=(*seen.cuts, *language[1].cuts))
    for conditions, wanted in (
        ([Condition(name="intact")], (2, 3)),
        ([Condition(name="intact")] * 4, (2, 3)),  # the same four times
        ([language[2]], (2, 3)),  # the only one: nothing is run but it
        ([Condition(name="intact"), language[2]], (2, 3 + 1)),
        (language, (2, 2 + 3 + 3)),  # the first block cut and not, the second cut for half of the latter
        ([*language, Condition(name="intact")], (2, 2 + 3 + 4)),
        ([Condition(name="intact"), seen], (2 + 1, 3 + 3)),
        ([seen, both], (2, 3 + 2)),
    ):
        for batch in (1, 2, 8):
            with counting(one.vlm) as counted:
                list(sweep(one.vlm, PROMPT, conditions, batch=batch, ways=one.ways))
            assert (counted["vision"], counted["language"]) == wanted, [c.name for c in conditions]


def test_nothing_after_the_last_layer_read_is_run(ready):
    one = ready("llava")
    conditions = [
        Condition(name="cut", cuts=(some_cut(one, "language", [0, 2], 7),)),
        Condition(name="intact"),
    ]
    for layers, wanted in (((0,), 0), ((1,), 2), ((2, 1), 4)):
        if layers == (0,):
            conditions = conditions[1:] * 2
        else:
            conditions = [
                Condition(name="cut", cuts=(some_cut(one, "language", [0, 2], 7),)),
                Condition(name="intact"),
            ]
        with counting(one.vlm) as counted:
            list(sweep(one.vlm, PROMPT, conditions, layers=layers, ways=one.ways))
        assert counted["language"] == wanted
    with counting(one.vlm) as counted:
        list(sweep(one.vlm, PROMPT, conditions[1:], layers=(), vision_layers=(1,), ways=one.ways))
    assert counted == {"vision": 1, "language": 0}


@pytest.mark.parametrize("logits", [True, False])
def test_nothing_after_the_last_position_read_is_run(ready, logits):
    one = ready("llava")
    lengths = set()
    block = one.vlm.towers.language_blocks[0]
    handle = block.mlp.register_forward_hook(lambda m, a, o: lengths.add(a[0].shape[1]))
    list(sweep(one.vlm, PROMPT, [Condition(name="intact")], logits=logits, ways=one.ways))
    handle.remove()
    assert lengths == {one.length if logits else max(one.vlm.image_positions(PROMPT)) + 1}
    assert max(one.vlm.image_positions(PROMPT)) + 1 < one.length


def test_a_position_behind_the_image_is_the_last_that_is_run(ready):
    one = ready("llava")
    lengths = set()
    block = one.vlm.towers.language_blocks[0]
    handle = block.mlp.register_forward_hook(lambda m, a, o: lengths.add(a[0].shape[1]))
    reads = list(sweep(one.vlm, PROMPT, two_by_two(one), positions=[-3, 1], ways=one.ways))
    handle.remove()
    assert lengths == {one.length - 2}
    for read in reads:
        close(read.states, torch.stack(whole(one.vlm, read.condition).language)[:, [-3, 1]])


def test_the_unembedding_runs_only_for_logits(ready):
    one = ready("llava")
    calls: list[int] = []
    handle = one.vlm.towers.lm_head.register_forward_hook(lambda m, a, o: calls.append(a[0].shape[1]))
    list(sweep(one.vlm, PROMPT, two_by_two(one), ways=one.ways))
    assert calls == []
    list(sweep(one.vlm, PROMPT, two_by_two(one), logits=True, ways=one.ways))
    handle.remove()
    assert calls == [1] * 7


def test_a_batch_is_computed_when_it_is_taken(ready):
    one = ready("llava")
    conditions = [Condition(name=str(at), cuts=(some_cut(one, "language", [0], at),)) for at in range(6)]
    reads = sweep(one.vlm, PROMPT, conditions, batch=2, ways=one.ways)
    for wanted in (2, 0, 2, 0, 2, 0):
        with counting(one.vlm) as counted:
            next(reads)
        assert counted["language"] == 3 * wanted
    assert next(reads, None) is None


def test_the_model_is_as_it_was_whenever_a_reading_is_handed_over(ready):
    one = ready("llava")
    one.vlm.model.train()
    blocks = (*one.vlm.towers.vision_blocks, *one.vlm.towers.language_blocks)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in one.vlm.model.modules())
    for _ in sweep(one.vlm, PROMPT, two_by_two(one), logits=True, batch=2, ways=one.ways):
        assert torch.is_grad_enabled()
        assert one.vlm.model.training
        assert not any("forward" in vars(block) for block in blocks)
        assert hooks == sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) for m in one.vlm.model.modules()
        )
    one.vlm.model.eval()


def test_a_batch_is_as_large_as_memory_allows(ready):
    one = ready("llava")
    conditions = [Condition(name=str(at), cuts=(some_cut(one, "language", [0], at),)) for at in range(6)]

    def rows(**what: Any) -> int:
        seen: list[int] = []
        mlp = one.vlm.towers.language_blocks[-1].mlp
        handle = mlp.register_forward_hook(lambda m, a, o: seen.append(len(a[0])))
        list(sweep(one.vlm, PROMPT, conditions, ways=one.ways, **what))
        handle.remove()
        assert sum(seen) == 6
        return max(seen)

    assert rows() == 6
    assert rows(memory=1) == 1
    assert rows(memory=1, batch=4) == 4
    many = [rows(memory=size) for size in (100_000, 300_000, 1_000_000)]
    assert many == sorted(many)
    assert many[0] < many[-1]


def test_on_a_cpu_a_batch_holds_so_many_tokens(ready, monkeypatch):
    one = ready("llava")
    conditions = [Condition(name=str(at), cuts=(some_cut(one, "language", [0], at),)) for at in range(6)]
    tokens = max(max(one.vlm.image_positions(PROMPT)) + 1, one.vision_tokens)
    for asked, wanted in ((tokens - 1, 1), (3 * tokens, 3), (4 * tokens - 1, 3), (6 * tokens, 6)):
        monkeypatch.setattr(sweep_module, "TOKENS", asked)
        seen: list[int] = []
        mlp = one.vlm.towers.language_blocks[-1].mlp
        handle = mlp.register_forward_hook(lambda m, a, o, seen=seen: seen.append(len(a[0])))
        list(sweep(one.vlm, PROMPT, conditions, ways=one.ways))
        handle.remove()
        assert max(seen) == wanted


def test_rows_without_a_cut_run_as_the_model_would_run_them(ready):
    """A batch with and without cuts in a layer: only those with one are given a mask."""
    one = ready("llava")
    conditions = [
        Condition(name=str(number), cuts=(some_cut(one, "language", [layer], number),) if layer else ())
        for number, layer in enumerate((0, 1, 2, 1, 0, 2))
    ]
    masked: dict[int, list[int]] = {1: [], 2: []}
    bare: dict[int, list[int]] = {1: [], 2: []}
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, *args: Any, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        (bare if attn_mask is None else masked)[layer[0]].append(len(query))
        return real(query, *args, attn_mask=attn_mask, **kwargs)

    layer = [0]
    handles = [
        block.register_forward_pre_hook(lambda m, a, n=number: layer.__setitem__(0, n))
        for number, block in enumerate(one.vlm.towers.language_blocks)
    ]
    bare[0], masked[0] = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        list(sweep(one.vlm, PROMPT, conditions, ways=one.ways, batch=6))
    for handle in handles:
        handle.remove()
    assert (sum(masked[1]), sum(bare[1])) == (2, 1)  # those cut in the third block are still the intact row
    assert (sum(masked[2]), sum(bare[2])) == (2, 1 + 2)
    assert masked[0] == []


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_reading_may_be_written_on(ready, batch):
    """What is handed over belongs to the one who has it: later readings do not stand on its memory."""
    one = ready("llava")
    conditions = two_by_two(one)
    wanted = {
        read.number: read.states.clone()
        for read in sweep(one.vlm, PROMPT, conditions, ways=one.ways, batch=batch)
    }
    seen = set()
    for read in sweep(one.vlm, PROMPT, conditions, ways=one.ways, batch=batch):
        assert torch.equal(read.states, wanted[read.number])
        read.states.fill_(torch.nan)
        seen.add(read.number)
    assert len(seen) == len(conditions)


def test_a_reading_is_let_go_with_its_holder(ready):
    one = ready("llava")
    held: list[Any] = []
    for read in sweep(one.vlm, PROMPT, two_by_two(one), ways=one.ways, batch=7):
        held.append(weakref.ref(read.states))
        assert sum(one() is not None for one in held) <= 2  # this one, and at most the one before
    del read
    assert all(one() is None for one in held)


# ------------------------------------------------------------------------------------------ the proof


def test_the_fed_block_is_found_and_the_dead_ones_too(ready):
    one = ready("llava")
    assert one.vlm.model.config.vision_feature_layer == -2
    assert len(one.vlm.towers.vision_blocks) == 3
    assert one.ways.fed == (1,)  # its output is the second to last of the hidden states
    assert one.ways.truncates
    assert ready("paligemma").ways.fed == (len(ready("paligemma").vlm.towers.vision_blocks) - 1,)
    assert not ready("paligemma").ways.truncates  # its prompt looks both ways


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_bits_are_no_reason_for_whole_passes(checkpoint_dir, dtype):
    vlm = load_vlm(str(checkpoint_dir("llava")), dtype=dtype)
    ways = prove_replay(vlm, PROMPT)
    assert ways.replays, ways.note
    one = Ready(vlm, ways, whole(vlm, Condition(name="intact")))
    for read in sweep(vlm, PROMPT, two_by_two(one), positions="all", ways=ways, batch=1, logits=True):
        assert read.states.dtype == vlm.model.dtype
        assert torch.equal(read.states, torch.stack(whole(vlm, read.condition).language))


def test_packed_patches_go_one_condition_at_a_time(ready):
    assert not ready("qwen2_5_vl").ways.shares
    assert ready("llava").ways.shares


@pytest.mark.parametrize("tower", ["vision", "language"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_replay_that_is_not_the_model_is_not_used(ready, monkeypatch, tower, alone):
    one = ready("llava")
    step = replay.Chain.step

    def slightly_off(self: replay.Chain, layer: int, states: Tensor) -> Tensor:
        wrong = self.tower == tower and layer == 1 and (alone or len(states) > 1)
        return step(self, layer, states) * (1.001 if wrong else 1)

    monkeypatch.setattr(replay.Chain, "step", slightly_off)
    ways = prove_replay(one.vlm, PROMPT)
    if tower == "vision" and not alone:  # then the vision tower takes one at a time
        assert ways.replays
        assert not ways.shares
    else:
        assert not ways.replays
        assert "a whole pass for each condition" in ways.note


def test_alone_the_arithmetic_has_to_be_the_same(ready, monkeypatch):
    """What would pass for another order of sums in a batch does not pass for one condition over the whole prompt."""
    one = ready("llava")
    step = replay.Chain.step
    monkeypatch.setattr(
        replay.Chain, "step", lambda self, layer, states: step(self, layer, states) * (1 + 5e-6)
    )
    ways = prove_replay(one.vlm, PROMPT)
    assert not ways.replays
    assert "replayed one by one" in ways.note


def test_a_prompt_is_not_cut_short_where_that_changes_states(ready, monkeypatch):
    one = ready("llava")
    monkeypatch.setattr(
        sweep_proof, "truncated", lambda inputs, whole, tokens: {**inputs, "pixel_values": inputs["pixel_values"] * 2}
        if tokens < whole else inputs,
    )  # fmt: skip
    ways = prove_replay(one.vlm, PROMPT)
    assert ways.replays
    assert not ways.truncates


def test_where_there_is_no_replay_the_note_says_why(ready):
    note = ready("qwen3_vl").ways.note
    assert "something stands between the blocks of the language tower" in note
    with pytest.raises(UserError, match="layer passes are counted for replays"):
        layer_passes(ready("qwen3_vl").vlm, PROMPT, [Condition(name="intact")], ways=ready("qwen3_vl").ways)


# ------------------------------------------------------------------------------------------ what is refused


def refused(one: Ready, cut: Cut, **what: Any) -> None:
    sweep(one.vlm, PROMPT, [Condition(name="wrong", cuts=(cut,))], ways=one.ways, **what)


def test_a_cut_that_cannot_show_is_refused(ready):
    one = ready("llava")
    with pytest.raises(NoEdges, match=r"'vision 1' of the condition 'wrong' cannot show .* layers \[2\]"):
        refused(one, some_cut(one, "vision", [2], 1))  # the dead block
    with pytest.raises(NoEdges, match="among the 1 layers"):
        refused(one, some_cut(one, "language", [1, 2]), layers=(1,))
    last = torch.zeros(one.length, one.length, dtype=torch.bool)
    last[-1, : one.length // 2] = True
    with pytest.raises(NoEdges, match="tokens that the reading depends on"):
        refused(one, Cut(name="last<-image", tower="language", edges=last, layers=(0,)))
    with pytest.raises(NoEdges, match="cannot show"):
        refused(one, Cut(name="acausal", tower="language", edges=last.T.contiguous(), layers=(0,)))
    refused(one, Cut(name="last<-image", tower="language", edges=last, layers=(0,)), positions=[-1])


def test_what_the_model_has_not_is_refused(ready):
    one = ready("llava")
    short = Cut(name="short", tower="language", edges=edges(one.length - 1, 0), layers=(0,))
    with pytest.raises(
        UserError, match=f"over {one.length - 1} tokens, and the language tower has {one.length}"
    ):
        refused(one, short)
    with pytest.raises(UserError, match=r"names layers \[9\] of the language tower"):
        refused(one, some_cut(one, "language", [0, 9]))
    with pytest.raises(UserError, match=r"names heads \[5\]"):
        refused(one, some_cut(one, "language", [0], heads=(5,)))
    with pytest.raises(UserError, match="no layer 4: the language tower has layers 0"):
        refused(one, some_cut(one, "language", [0]), layers=(4,))
    with pytest.raises(UserError, match="no layer -5: the vision tower has layers 0"):
        refused(one, some_cut(one, "language", [0]), vision_layers=(-5,))
    with pytest.raises(UserError, match="no position 999"):
        refused(one, some_cut(one, "language", [0]), positions=[999])
    with pytest.raises(UserError, match="a batch of 0 conditions"):
        refused(one, some_cut(one, "language", [0]), batch=0)
    with pytest.raises(UserError, match="given no condition"):
        sweep(one.vlm, PROMPT, [], ways=one.ways)


# ------------------------------------------------------------------------------------------ the tree


def folded(root: int, steps: Sequence[int]) -> list[int]:
    """One path by itself: what each block makes of it."""
    states = [root + 1]
    for layer, step in enumerate(steps):
        states.append((states[-1] * 31 + step * 7 + layer) % 1_000_003)
    return states


@given(
    paths=st.integers(0, 4).flatmap(
        lambda depth: st.lists(
            st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=depth, max_size=depth)),
            min_size=1,
            max_size=12,
        )
    ),
    batch=st.integers(1, 5),
)
def test_paths_end_where_they_would_alone_and_share_all_they_can(paths, batch):
    ways = [Way(root=root, steps=tuple(steps)) for root, steps in paths]
    ran: list[int] = []
    entered: list[int] = []

    def enter(root: int) -> Tensor:
        entered.append(root)
        return torch.tensor([root + 1])

    def step(layer: int, states: Tensor, places: Sequence[int]) -> Tensor:
        ran.append(len(states))
        assert len(states) == len(places) <= batch
        return (
            states * 31 + torch.tensor([[ways[place].steps[layer] * 7 + layer] for place in places])
        ) % 1_000_003

    def keep(depth: int, state: Tensor, place: int) -> Tensor | None:
        assert folded(ways[place].root, ways[place].steps)[depth] == int(
            state
        )  # the path does run through it
        return state.clone() if depth % 2 == 0 else None

    stack = Stack(enter=enter, step=step, keep=keep)
    ends = dict(itertools.chain.from_iterable(walk(ways, stack, batch=batch)))
    assert sorted(ends) == list(range(len(ways)))
    for place, way in enumerate(ways):
        states = folded(way.root, way.steps)
        assert ends[place].state.tolist() == [states[-1]]
        assert [int(one) for one in ends[place].kept] == states[::2]
    beginnings = {(way.root, way.steps[:depth]) for way in ways for depth in range(1, len(way.steps) + 1)}
    assert sum(ran) == len(beginnings) == fewest_rows(ways)
    assert sorted(entered) == sorted({way.root for way in ways})


def test_sliding_windows_cost_what_lies_above_their_first_layer():
    """Windows of 9 in 32 layers beside the intact pass: 32 below, and from each window's first layer on its own."""
    windows = [tuple(int(first <= layer < first + 9) for layer in range(32)) for first in range(24)]
    ways = [Way(root=0, steps=steps) for steps in [*windows, (0,) * 32]]
    assert fewest_rows(ways) == 32 + sum(32 - first for first in range(24))
