"""Options of several prompts in one batch give the numbers of one prompt, one option and one token at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import VLMS
from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.vlms import VLM, load_vlm, scoring
from eyechart.models.vlms import together as joint
from eyechart.models.vlms.beginnings import why_never
from eyechart.models.vlms.objects import undisturbed
from pictures import picture

pytestmark = pytest.mark.slow

COMMON = ("llava", "qwen2_5_vl", "smolvlm", "paligemma", "mllama", "instructblip", "gemma3")
ALL = [pytest.param(name, marks=() if name in COMMON else pytest.mark.slow) for name in VLMS]

NOT_TOGETHER = ("kosmos2",)
"""Their options are scored one prompt at a time: Kosmos-2's cache is not to be trusted."""

WHOLE = (
    "llava_next",
    "paligemma",
    "instructblip",
    "blip_2",
    "gemma3",
    "idefics2",
    "aya_vision",
    "florence2",
    "kosmos2",
)
"""Read whole: windows, an image that also looks at the question, no padding, positions of its own kind."""

ALONE = ("instructblip",)
NEEDS_IMAGE = ("paligemma", "instructblip", "blip_2", "kosmos2")

PROMPTS = (
    Prompt(text="Is the dog facing left?", images=(picture(90, 60, 1),)),
    Prompt(
        text="How many people are there? Answer with A, B or C, " * 3 + "please.",
        images=(picture(60, 130, 2),),
    ),
    Prompt(text="Colour?", images=(picture(31, 27, 3),)),
)
OPTIONS = (
    (" A", " B"),
    (" Yes, it is facing left", " No way", " A", " Neither of the two, I should say"),
    (" right", " left"),
)


@pytest.fixture(scope="module")
def vlm(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], VLM]:
    cache: dict[str, VLM] = {}
    return lambda name: (
        cache.get(name) or cache.setdefault(name, load_vlm(str(checkpoint_dir(name)), device="cpu"))
    )


def slowly(vlm: VLM, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
    """Every option by a run of transformers' own decoding loop of its own, its tokens forced one by one."""
    with undisturbed(vlm.model, vlm.processor):
        found = joint.score_alone(vlm.model, vlm.prompting, vlm._greedy(1), prompts, options)
    return [tuple(sum(each) for each in some) for some in found]


def assert_close(found: Sequence[tuple[float, ...]], expected: Sequence[tuple[float, ...]]) -> None:
    assert [len(some) for some in found] == [len(some) for some in expected]
    for some, wanted in zip(found, expected, strict=True):
        assert some == pytest.approx(wanted, abs=1e-4)


def passes(vlm: VLM, work: Callable[[], object]) -> tuple[int, int]:
    """How often the vision tower and the language model's last block run."""
    calls = [0, 0]
    _ = vlm.why_not_parted  # finding out runs the model as well

    def count(place: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[place] += 1

        return hook

    handles = [
        vlm.towers.vision.register_forward_hook(count(0)),
        vlm.towers.language_blocks[-1].register_forward_hook(count(1)),
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return calls[0], calls[1]


# ------------------------------------------------------------------------------------------ every architecture


@pytest.mark.parametrize("name", ALL)
def test_a_batch_gives_the_scores_of_each_option_alone(vlm, name):
    """Texts of other lengths, pictures of other sizes, options of other numbers and lengths, on every architecture."""
    one = vlm(name)
    assert_close(one.option_scores_of(PROMPTS, OPTIONS), slowly(one, PROMPTS, OPTIONS))
    assert bool(one.proof.why_not_together) == (name in NOT_TOGETHER)
    assert any("one prompt at a time" in note for note in one.notes) is False


@pytest.mark.parametrize("name", ALL)
def test_letters_take_one_pass_and_texts_a_second(vlm, name):
    """Prompts of one length, so that nothing is to be gained by reading them in parts."""
    one = vlm(name)
    if name in NOT_TOGETHER:
        return
    prompts = [Prompt(text="Colour?", images=prompt.images) for prompt in PROMPTS]
    batches = len(prompts) if name in ALONE else 1
    letters = [("A", "B")] * len(prompts)
    read, gone_on = passes(one, lambda: one.option_scores_of(prompts, letters))
    assert (read, gone_on) == (batches, batches if name != "florence2" else 1)
    read, gone_on = passes(one, lambda: one.option_scores_of(prompts, OPTIONS))
    assert read == batches
    if name != "florence2":  # there the tower is the encoder, through which no option goes
        assert gone_on == batches + 1  # alone, only the second prompt has options of several tokens


# ------------------------------------------------------------------------------------------ in parts


@pytest.mark.parametrize("name", ALL)
def test_a_picture_that_is_asked_about_twice_is_read_once(vlm, name):
    """Two questions about one picture and one about another of its size; the same scores as alone.

    All begin with the same word, since a beginning takes one token after the image along.
    """
    one = vlm(name)
    first, other = picture(90, 60, 1), picture(90, 60, 5)
    prompts = [
        Prompt(text="Is the dog facing left?", images=(first,)),
        Prompt(text="Is the dog facing left, or does it face right?", images=(other,)),
        Prompt(text="Is it?", images=(first.copy(),)),
    ]
    rows = count_rows(one, lambda: one.option_scores_of(prompts, OPTIONS))
    assert_close(one.option_scores_of(prompts, OPTIONS), slowly(one, prompts, OPTIONS))
    assert bool(one.why_not_parted) == (name in WHOLE)
    if name not in (*WHOLE, "smolvlm", "idefics3"):  # these two cut pictures into tiles, and pad them
        assert rows * 3 == 2 * count_rows(one, lambda: one.option_scores_of(other_pictures(prompts), OPTIONS))


def other_pictures(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts, each about a picture of its own."""
    return [
        Prompt(text=prompt.text, images=(picture(90, 60, 10 + place),))
        for place, prompt in enumerate(prompts)
    ]


def count_rows(vlm: VLM, work: Callable[[], object]) -> int:
    """How many numbers the vision tower gives."""
    seen: list[int] = []

    def hook(_module: object, _given: object, out: object) -> None:
        values = out if torch.is_tensor(out) else out[0]  # type: ignore[index]
        seen.append(values.numel())

    _ = vlm.why_not_parted  # finding out runs the tower as well
    handle = vlm.towers.vision.register_forward_hook(hook)
    try:
        work()
    finally:
        handle.remove()
    return sum(seen)


def test_what_follows_the_image_may_be_cut(vlm):
    """Options that merge with the prompt's end, in prompts that share their picture."""
    one = vlm("llava_no_chat")
    prompts = [
        Prompt(text=text, images=PROMPTS[0].images) for text in ("to the le", "Is it here?", "and to the le")
    ]
    options = [("ft", "?"), (" Yes, it is", " No"), ("ft side", "?")]
    rows = count_rows(one, lambda: one.option_scores_of(prompts, options))
    assert 3 * rows == count_rows(one, lambda: one.option_scores_of(other_pictures(prompts), options))
    assert_close(one.option_scores_of(prompts, options), slowly(one, prompts, options))


def test_pictures_of_one_size_that_differ_in_one_pixel_are_two(vlm):
    one = vlm("llava")
    changed = PROMPTS[0].images[0].copy()
    changed.putpixel((45, 30), (1, 250, 3))
    prompts = [
        Prompt(text=text, images=(image,))
        for image, text in zip((PROMPTS[0].images[0], changed), ("Colour?", "Is it here?"), strict=True)
    ]
    scores = one.option_scores_of(prompts, OPTIONS[:2])
    assert_close(scores, slowly(one, prompts, OPTIONS[:2]))
    same = one.option_scores_of(
        [prompts[0], Prompt(text="Is it here?", images=prompts[0].images)], OPTIONS[:2]
    )
    assert scores[1] != same[1]


def test_parts_that_mislead_are_found_out_and_not_used(checkpoint_dir, vlm, monkeypatch):
    """Planted: positions after the beginning are one too high."""
    right = joint._selected
    monkeypatch.setattr(joint, "_selected", lambda state, rows, count: {
        **right(state, rows, count), "position_ids": right(state, rows, count)["position_ids"] + 1
    })  # fmt: skip
    spoilt = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert spoilt.why_not_parted.startswith("prompts read whole and in parts differ by ")
    scores = spoilt.option_scores_of(PROMPTS, OPTIONS)
    monkeypatch.undo()
    assert_close(scores, vlm("llava").option_scores_of(PROMPTS, OPTIONS))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sliding_window": 64}, "some of its layers see only a window"),
        ({"sliding_window": 64, "use_sliding_window": False}, ""),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "some of its layers see only a window"),
        ({"layer_types": ["linear_attention"]}, "some of its layers see only a window"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "its positions depend on the length"),
        ({"rope_parameters": {"rope_type": "default"}}, ""),
    ],
)
def test_where_length_decides_prompts_are_read_whole(vlm, monkeypatch, changed, why):
    model = vlm("llava").model
    for name, value in changed.items():
        monkeypatch.setattr(model.config.text_config, name, value, raising=False)
    assert why_never(model).startswith(why)
    assert bool(why_never(model)) == bool(why)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_prompts_with_no_image_one_or_two_go_in_batches_of_their_own(vlm, name):
    one = vlm(name)
    pair = Prompt(text="Which is larger?", images=(picture(90, 60, 1), picture(60, 60, 4)))
    prompts = [PROMPTS[0], Prompt(text="Is the sky blue?"), pair, PROMPTS[2], pair]
    options = [*OPTIONS[:2], OPTIONS[2], OPTIONS[1], OPTIONS[0]]
    assert_close(one.option_scores_of(prompts, options), slowly(one, prompts, options))


def test_scores_per_token_are_the_means(vlm):
    one = vlm("llava")
    sums = one.option_scores_of(PROMPTS, OPTIONS)
    means = one.option_scores_of(PROMPTS, OPTIONS, per_token=True)
    for some, each, options in zip(sums, means, OPTIONS, strict=True):
        lengths = [len(one.tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options]
        assert each == pytest.approx([s / n for s, n in zip(some, lengths, strict=True)], rel=1e-6)


def test_options_that_merge_with_the_prompt_are_cut_off_at_their_own_places(vlm):
    """Of the first prompt the last token goes with its options, of the second none does: both in one call."""
    one = vlm("llava_no_chat")
    prompts = [
        Prompt(text="to the le", images=PROMPTS[0].images),
        Prompt(text="Is it here?", images=PROMPTS[1].images),
        Prompt(text="and to the le", images=PROMPTS[2].images),
    ]
    options = [("ft", "?"), (" Yes, it is", " No"), ("ft side", "?")]
    with undisturbed(one.model, one.processor):
        cuts = [
            joint._continued(
                one.model,
                one.prompting,
                prompt,
                some,
                one.prompting.inputs([prompt])["input_ids"][0].tolist(),
            ).cut
            for prompt, some in zip(prompts, options, strict=True)
        ]
    assert cuts[0] == cuts[2] > cuts[1] == 0
    assert_close(one.option_scores_of(prompts, options), slowly(one, prompts, options))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_batch_of_any_options_gives_the_scores_of_each_alone(vlm, data):
    one = vlm("llava")
    words = st.lists(st.sampled_from([" A", " left", " no", "?", " 7", "xyz"]), min_size=1, max_size=4).map(
        "".join
    )
    places = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    options = [data.draw(st.lists(words, min_size=1, max_size=3)) for _ in places]
    prompts = [PROMPTS[place] for place in places]
    assert_close(one.option_scores_of(prompts, options), slowly(one, prompts, options))


# ------------------------------------------------------------------------------------------ what goes wrong


def test_a_pass_for_all_options_that_misleads_is_found_out_and_not_used(checkpoint_dir, vlm, monkeypatch):
    """Planted: each option goes on from the state of another prompt."""
    right = joint._repeated

    def crossed(model, input_ids, state, times):
        ids, state = right(model, input_ids, state, times)
        cache = state["past_key_values"]
        cache.reorder_cache(torch.arange(len(ids)).flip(0))
        return ids, state

    monkeypatch.setattr(joint, "_repeated", crossed)
    spoilt = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert any(
        note.startswith(
            "options are scored one prompt at a time, token by token: one pass for all options and"
        )
        for note in spoilt.notes
    )
    assert not any("pass of their own" in note for note in spoilt.notes)
    assert passes(spoilt, lambda: spoilt.option_scores_of(PROMPTS, OPTIONS))[0] == len(PROMPTS)
    scores = spoilt.option_scores_of(PROMPTS, OPTIONS)
    monkeypatch.undo()
    assert_close(scores, vlm("llava").option_scores_of(PROMPTS, OPTIONS))


def test_a_state_that_no_option_can_take_up_is_no_crash(checkpoint_dir, monkeypatch):
    def refuses(*_):
        raise ValueError("this state cannot be repeated")

    monkeypatch.setattr(joint, "_repeated", refuses)
    one = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert any("by all options at once: this state cannot be repeated" in note for note in one.notes)
    assert all(score < 0 for score in one.option_scores(PROMPTS[0], OPTIONS[1]))


def test_where_nothing_can_be_shared_every_option_has_a_pass_of_its_own(checkpoint_dir, vlm, monkeypatch):
    """Planted: both ways to share are spoilt, the second by one cache for all options."""
    monkeypatch.setattr(joint, "_of_tokens", lambda logits, tokens: torch.zeros(tokens.shape))
    monkeypatch.setattr(scoring, "_copied", lambda state: state)
    spoilt = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert any(note.startswith("options are scored with a pass of their own each: ") for note in spoilt.notes)
    count = sum(map(len, OPTIONS))
    assert passes(spoilt, lambda: spoilt.option_scores_of(PROMPTS, OPTIONS))[0] == count
    scores = spoilt.option_scores_of(PROMPTS, OPTIONS)
    monkeypatch.undo()
    assert_close(scores, vlm("llava").option_scores_of(PROMPTS, OPTIONS))


def test_lists_that_do_not_fit_and_empty_options_are_refused(vlm):
    one = vlm("llava")
    with pytest.raises(UserError, match="3 prompts, but options for 2; expected one list for each"):
        one.option_scores_of(PROMPTS, OPTIONS[:2])
    with pytest.raises(
        UserError, match=r"options must be one or more texts that are not empty, got \[' A', ''\]"
    ):
        one.option_scores_of(PROMPTS[:2], [OPTIONS[0], (" A", "")])
    assert one.option_scores_of([], []) == []


def test_the_model_is_left_as_it_was(vlm):
    one = vlm("qwen2_5_vl")
    before = (one.model.generation_config, one.tokenizer.padding_side, one.model.model.rope_deltas)
    one.option_scores_of(PROMPTS, OPTIONS)
    after = (one.model.generation_config, one.tokenizer.padding_side, one.model.model.rope_deltas)
    assert all(a is b for a, b in zip(after, before, strict=True))
