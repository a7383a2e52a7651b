"""One suite holds for every small VLM: it is asked, scored and read as transformers itself would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpoints import VLMS
from eyechart.core.errors import Incapable
from eyechart.core.records import Capability, Prompt
from eyechart.models.vlms import VLM, load_vlm
from pictures import picture

COMMON = (
    "llava",
    "llava_next",
    "qwen2_5_vl",
    "smolvlm",
    "paligemma",
    "mllama",
    "instructblip",
)
ALL = [pytest.param(name, marks=() if name in COMMON else pytest.mark.slow) for name in VLMS]

CANNOT = {
    "mllama": {Capability.HIDDEN_STATES, Capability.SPATIAL_MAP},
    "instructblip": {Capability.SPATIAL_MAP},
    "blip_2": {Capability.SPATIAL_MAP},
    "idefics2": {Capability.SPATIAL_MAP},
    "kosmos2": {Capability.SPATIAL_MAP},
    "florence2": {Capability.EDIT_ATTENTION, Capability.SPATIAL_MAP},
}
"""What each lacks; the others lack nothing."""

ALONE = ("instructblip",)
"""Their replies depend on the padding of a batch, so they are asked one prompt at a time."""

NO_CACHE = ("kosmos2",)
"""Decoding with their cache contradicts their forward pass (Kosmos-2's image ids here include the padding id)."""

NEEDS_IMAGE = ("paligemma", "instructblip", "blip_2", "kosmos2")

PROMPTS = (
    Prompt(text="Is the dog facing left?", images=(picture(90, 60, 1),)),
    Prompt(text="How many people are there? Answer with A, B or C.", images=(picture(60, 130, 2),)),
    Prompt(text="Colour?", images=(picture(31, 27, 3),)),
)
OPTIONS = ("A", "No way", "Yes, it is facing left")


@pytest.fixture(scope="module")
def vlm(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], VLM]:
    cache: dict[str, VLM] = {}
    return lambda name: (
        cache.get(name) or cache.setdefault(name, load_vlm(str(checkpoint_dir(name)), device="cpu"))
    )


def tokens(vlm: VLM, text: str) -> list[int]:
    return vlm.tokenizer(text, add_special_tokens=False)["input_ids"]


def greedy_by_hand(vlm: VLM, prompt: Prompt, steps: int) -> str:
    """Whole forward passes, no cache, the best token each time."""
    chosen: list[int] = []
    ends = {vlm.tokenizer.eos_token_id}
    for _ in range(steps):
        best = int(whole_pass(vlm, prompt, chosen)[-1].argmax())
        if best in ends:
            break
        chosen.append(best)
    return vlm.tokenizer.decode(chosen, skip_special_tokens=True)


def whole_pass(vlm: VLM, prompt: Prompt, option: list[int]) -> torch.Tensor:
    """Logits that predict each token of `option` and the one after, by one forward pass over everything."""
    inputs = vlm.inputs([prompt])
    extra = torch.tensor([option], dtype=torch.long)
    with torch.no_grad():
        if vlm.model.config.is_encoder_decoder:
            start = torch.tensor([[vlm.model.generation_config.decoder_start_token_id or 2]])
            logits = vlm.model(**inputs, decoder_input_ids=torch.cat([start, extra], 1)).logits[0]
        else:
            logits = vlm.model(**{key: longer(key, value, extra) for key, value in inputs.items()}).logits[0]
    return logits[-len(option) - 1 :].float()


def longer(key: str, value: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
    """An input for the prompt and what follows it: what follows is text, seen, and in PaliGemma's words a suffix."""
    n = extra.shape[1]
    if key == "input_ids":
        return torch.cat([value, extra], 1)
    if key == "attention_mask":
        return torch.cat([value, value.new_ones(1, n)], 1)
    if key == "token_type_ids":
        suffix = value.new_ones(1, n) if bool((value == 0).all()) else value.new_zeros(1, n)
        return torch.cat([value, suffix], 1)
    if key in ("mm_token_type_ids", "image_embeds_position_mask"):
        return torch.cat([value, value.new_zeros(1, n)], 1)
    if key == "cross_attention_mask":
        return torch.cat([value, *[value[:, -1:]] * n], 1)
    return value


@pytest.mark.parametrize("name", ALL)
def test_replies_are_greedy_new_text_and_do_not_depend_on_the_batch(vlm, name):
    one = vlm(name)
    together = one.generate(PROMPTS, max_new_tokens=4)
    assert together == [one.generate([prompt], max_new_tokens=4)[0] for prompt in PROMPTS]
    assert together[:2] == [greedy_by_hand(one, prompt, 4) for prompt in PROMPTS[:2]]
    assert any("one at a time" in note for note in one.notes) == (name in ALONE)


@pytest.mark.parametrize("name", ALL)
def test_option_scores_are_log_likelihoods_one_at_a_time(vlm, name):
    one = vlm(name)
    for prompt in PROMPTS[:2]:
        options = [one.join(prompt) + option for option in OPTIONS]
        for option, score in zip(options, one.option_scores(prompt, options), strict=True):
            ids = tokens(one, option)
            likely = whole_pass(one, prompt, ids).log_softmax(-1)
            expected = sum(float(likely[place, token]) for place, token in enumerate(ids))
            assert score == pytest.approx(expected, abs=2e-4 * len(ids))


@pytest.mark.parametrize("name", ALL)
def test_options_share_one_reading_of_the_image(vlm, name):
    one = vlm(name)
    calls = []
    handle = one.towers.vision.register_forward_hook(lambda *_: calls.append(1))
    try:
        one.option_scores(PROMPTS[0], OPTIONS)
    finally:
        handle.remove()
    assert len(calls) == (len(OPTIONS) if name in NO_CACHE else 1)
    assert any("pass of their own" in note for note in one.notes) == (name in NO_CACHE)
    assert any("without a cache" in note for note in one.notes) == (name in NO_CACHE)


@pytest.mark.parametrize("name", ALL)
def test_scores_per_token_are_the_means(vlm, name):
    one = vlm(name)
    options = [one.join(PROMPTS[0]) + option for option in OPTIONS]
    lengths = [len(tokens(one, option)) for option in options]
    sums = one.option_scores(PROMPTS[0], options)
    means = one.option_scores(PROMPTS[0], options, per_token=True)
    assert lengths[0] < lengths[1] < lengths[2]
    assert means == pytest.approx([s / n for s, n in zip(sums, lengths, strict=True)], rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_hidden_states_are_those_of_transformers(vlm, name):
    one = vlm(name)
    wanted = "all" if name == "mllama" else "image"
    states = one.hidden_states(PROMPTS[0], positions=wanted)
    inputs = one.inputs([PROMPTS[0]])
    with torch.no_grad():
        if name == "florence2":
            start = torch.tensor([[2]])
            out = one.model(**inputs, decoder_input_ids=start, output_hidden_states=True)
            reference = out.encoder_hidden_states
        else:
            out = one.model(**inputs, output_hidden_states=True)
            reference = getattr(out, "language_model_outputs", out).hidden_states
    assert states.layer_numbers == tuple(range(len(reference)))
    assert states.last_layer == len(reference) - 1 == len(one.towers.language_blocks)
    for kept, all_of_them in zip(states.layers, reference, strict=True):
        assert torch.equal(kept, all_of_them[0, list(states.positions)])
    assert states.last_is_normed == (name != "florence2")
    assert states.of_encoder == (name == "florence2")
    assert states.input_ids == tuple(inputs["input_ids"][0].tolist())


@pytest.mark.parametrize("name", ALL)
def test_image_positions_hold_placeholders_and_match_the_geometry(vlm, name):
    one = vlm(name)
    if Capability.HIDDEN_STATES in one.cannot:
        with pytest.raises(Incapable, match=r"'hidden_states'.*through cross-attention"):
            one.image_positions(PROMPTS[0])
        return
    positions = one.image_positions(PROMPTS[0])
    inputs = one.inputs([PROMPTS[0]])
    if "image_embeds_position_mask" in inputs:
        assert inputs["image_embeds_position_mask"][0, list(positions)].all()
    else:
        assert {int(t) for t in inputs["input_ids"][0, list(positions)]} == {one.prompting.image_token_id}
    if Capability.SPATIAL_MAP in one.capabilities:
        geometry = one.geometry(PROMPTS[0].images[0])
        assert geometry.length == len(positions)
        grid = one.hidden_states(PROMPTS[0], layers=[0]).grid
        assert grid is None or grid[0] * grid[1] == len(positions)
    else:
        assert one.hidden_states(PROMPTS[0], layers=[0]).grid is None


@pytest.mark.parametrize("name", ALL)
def test_it_says_what_it_cannot_do_and_does_the_rest(vlm, name):
    one = vlm(name)
    assert set(one.cannot) == CANNOT.get(name, set())
    assert one.capabilities == frozenset(Capability) - set(one.cannot)
    assert all(len(why) > 20 for why in one.cannot.values())
    for capability in Capability:
        if capability in one.capabilities:
            one.require(capability, for_="this test")
        else:
            with pytest.raises(Incapable, match=f"this test needs the capability '{capability}'") as refusal:
                one.require(capability, for_="this test")
            assert one.architecture in str(refusal.value)
            assert one.cannot[capability] in str(refusal.value)


@pytest.mark.parametrize("name", ALL)
def test_without_an_image_it_answers_or_refuses_in_words(vlm, name):
    one = vlm(name)
    asked = [Prompt(text="Is the sky blue?")]
    if name in NEEDS_IMAGE:
        with pytest.raises(Incapable, match=f"{one.architecture}.* cannot be asked without an image: "):
            one.generate(asked, max_new_tokens=3)
        with pytest.raises(Incapable, match="cannot be asked without an image: "):
            one.option_scores(asked[0], OPTIONS)
        with pytest.raises(Incapable, match="cannot be asked without an image: "):
            one.hidden_states(asked[0], positions="all")
        return
    mixed = one.generate([PROMPTS[0], asked[0], PROMPTS[1]], max_new_tokens=3)
    assert mixed[1] == one.generate(asked, max_new_tokens=3)[0]
    assert [mixed[0], mixed[2]] == one.generate(PROMPTS[:2], max_new_tokens=3)
    assert all(score < 0 for score in one.option_scores(asked[0], OPTIONS))


@pytest.mark.parametrize("name", ALL)
def test_vision_states_are_what_goes_through_the_blocks(vlm, name):
    one = vlm(name)
    if name == "florence2":
        with pytest.raises(Incapable, match="states of different shapes"):
            one.vision_states([PROMPTS[0].images[0]])
        return
    seen: list[torch.Tensor] = []
    last = one.towers.vision_blocks[-1]
    handle = last.register_forward_hook(
        lambda _m, _a, out: seen.append(out if torch.is_tensor(out) else out[0])
    )
    try:
        one.generate([Prompt(text="a", images=PROMPTS[0].images)], max_new_tokens=1)
    finally:
        handle.remove()
    states = one.vision_states([PROMPTS[0].images[0]])[0]
    assert states.layer_numbers == tuple(range(len(one.towers.vision_blocks) + 1))
    assert torch.equal(states.layers[-1].reshape(seen[0].shape), seen[0])
    one_layer = one.vision_states([PROMPTS[0].images[0]], layers=[-2])[0]
    assert one_layer.layer_numbers == (len(one.towers.vision_blocks) - 1,)
    assert torch.equal(one_layer.layers[0], states.layers[-2])


@pytest.mark.parametrize("name", ALL)
def test_the_fed_features_are_reached_through_it(vlm, name):
    fed = vlm(name).fed([PROMPTS[0].images[0], PROMPTS[1].images[0]])
    assert len(fed) == 2
    assert all(one.features.shape[1] in (32, 96, 128, 32 * 4) for one in fed)


@pytest.mark.parametrize("name", ALL)
def test_it_describes_itself_for_the_record(vlm, name):
    described = vlm(name).describe()
    assert described["architecture"] == vlm(name).architecture
    assert len(described["sha256"]) == 64
    assert described["dtype"] == "float32"
    assert described["device"] == "cpu"
    assert described["trained"] is True
    assert described["capabilities"] == sorted(described["capabilities"])
    assert set(described["cannot"]) == {str(c) for c in CANNOT.get(name, set())}
    without = name in (*NEEDS_IMAGE, "florence2")
    assert described["template"].startswith("none:") == without
    assert f"template: {described['template']}" in described["notes"]
