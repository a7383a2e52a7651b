"""How prompts are laid out, how options are cut into tokens, and what happens when a shortcut does not hold."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint_parts import build, square, tower
from eyechart.core.errors import Incapable, UserError
from eyechart.core.records import Capability, Prompt
from eyechart.models.processors import load_processor
from eyechart.models.untrained import tiny_tokenizer
from eyechart.models.vlms import VLM, load_vlm, scoring, together
from eyechart.models.vlms import proof as proving
from eyechart.models.vlms.prompting import image_positions
from eyechart.models.vlms.scoring import continuations, cut_inputs
from pictures import picture

IMAGE = picture(90, 60, 1)
PROMPT = Prompt(text="Is the dog facing left?", images=(IMAGE,))
TOKENIZER = tiny_tokenizer(["<image>"])


@pytest.fixture
def folder(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> Path:
    """A small LLaVA to be changed."""
    return Path(shutil.copytree(checkpoint_dir("llava"), tmp_path / "llava"))


@pytest.fixture(scope="module")
def vlm(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], VLM]:
    cache: dict[str, VLM] = {}
    return lambda name: (
        cache.get(name) or cache.setdefault(name, load_vlm(str(checkpoint_dir(name)), device="cpu"))
    )


def templated(folder: Path, template: str | None) -> None:
    """Give a checkpoint another chat template, or none, in its tokenizer only."""
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    for name in ("processor_config.json", "tokenizer_config.json"):
        path = folder / name
        config = json.loads(path.read_text()) if path.exists() else {}
        config.pop("chat_template", None)
        if template is not None and name == "tokenizer_config.json":
            config["chat_template"] = template
        path.write_text(json.dumps(config))


# ------------------------------------------------------------------------------------------ layouts


def test_the_chat_template_gets_the_image_as_a_part(vlm):
    assert vlm("llava").render(PROMPT) == "USER: <image>\nIs the dog facing left? ASSISTANT:"
    assert vlm("llava").template == "chat template of the processor"


def test_two_images_stand_before_the_text(vlm):
    pair = Prompt(text="Which?", images=(IMAGE, picture(60, 130, 2)))
    assert vlm("qwen2_5_vl").render(pair).count("<|image_pad|>") == 2
    one, other = (Prompt(text="Which?", images=(image,)) for image in pair.images)
    counts = [len(vlm("qwen2_5_vl").image_positions(prompt)) for prompt in (one, other, pair)]
    assert counts[0] + counts[1] == counts[2]
    assert vlm("qwen2_5_vl").hidden_states(pair, layers=[0]).grid is None


def test_a_template_for_plain_strings_gets_the_image_token_in_the_text(folder):
    templated(
        folder,
        "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] + '' }}</>{% endfor %}"
        "{% if add_generation_prompt %}<reply>{% endif %}",
    )
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.render(PROMPT) == "<user><image>\nIs the dog facing left?</><reply>"
    assert vlm.template == "chat template of the tokenizer, with '<image>' written before the text"
    assert len(vlm.image_positions(PROMPT)) == 49


def test_a_template_that_drops_images_gets_the_image_token_in_the_text(folder):
    templated(
        folder,
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}",
    )
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.render(PROMPT) == "<image>\nIs the dog facing left?"
    assert "with '<image>' written before the text" in vlm.template


def test_without_a_template_no_format_is_made_up(vlm):
    assert vlm("llava_no_chat").render(PROMPT) == "<image>\nIs the dog facing left?"
    assert vlm("llava_no_chat").template.startswith("none: the checkpoint has no chat template")
    assert any(note.startswith("template: none: ") for note in vlm("llava_no_chat").notes)


@pytest.mark.parametrize("name", ["paligemma", "instructblip"])
def test_a_processor_that_places_the_image_gets_the_text_alone(vlm, name):
    assert vlm(name).render(PROMPT) == PROMPT.text
    assert vlm(name).template.startswith("none: ")


def test_a_question_that_holds_the_image_token_is_refused(vlm):
    with pytest.raises(
        UserError, match=r"the prompt 'What is <image> for.*holds '<image>', which stands for an image"
    ):
        vlm("llava").generate([Prompt(text="What is <image> for?", images=(IMAGE,))], max_new_tokens=2)


def test_neither_of_two_image_tokens_may_stand_in_a_question(vlm):
    for token in ("<start_of_image>", "<image_soft_token>"):
        with pytest.raises(UserError, match=f"holds '{token}', which stands for an image"):
            vlm("gemma3").render(Prompt(text=f"What is {token}?", images=(IMAGE,)))


def test_the_bos_token_of_a_template_is_not_doubled(vlm):
    ids = vlm("smolvlm").inputs([PROMPT])["input_ids"][0].tolist()
    assert vlm("smolvlm").render(PROMPT).startswith("<s>")
    assert ids.count(vlm("smolvlm").tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("name", "between"),
    [("llava", " "), ("qwen2_5_vl", ""), ("paligemma", ""), ("florence2", ""), ("smolvlm", " ")],
)
def test_what_joins_prompt_and_option(vlm, name, between):
    """A space after `ASSISTANT:`, nothing after a line break (PaliGemma's processor adds one) or a fresh decoder."""
    assert vlm(name).join(PROMPT) == between


# ------------------------------------------------------------------------------------------ options as tokens


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_options_are_what_the_tokenizer_adds():
    made = continuations(TOKENIZER, "Answer:", [" A", " left or right"], [1, *ids("Answer:")])
    assert made.cut == 0
    assert [list(each) for each in made.tokens] == [ids(" A"), ids(" left or right")]


def test_an_option_that_merges_with_the_prompt_takes_the_prompts_end_along_for_all():
    """'le' + 'ft' is one token ' left', so every option is counted from before ' le'."""
    prompt = ids("to the le")
    whole = ids("to the left")
    assert whole[: len(prompt)] != prompt
    made = continuations(TOKENIZER, "to the le", ["ft", "?"], prompt)
    kept = next(i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b)
    assert made.cut == len(prompt) - kept > 0
    assert list(made.tokens[0]) == whole[kept:]
    assert list(made.tokens[1]) == ids("to the le?")[kept:]


def test_a_line_break_that_the_processor_adds_belongs_to_the_prompt():
    made = continuations(TOKENIZER, "Colour?", ["Red"], [1, *ids("Colour?\n")])
    assert made.cut == 0
    assert list(made.tokens[0]) == ids("Red")


def test_a_prompt_that_cannot_be_recognised_leaves_the_options_as_they_are():
    made = continuations(TOKENIZER, "Colour?", ["Red"], [7, 8, 9, 10, 11])
    assert (made.cut, [list(t) for t in made.tokens]) == (0, [ids("Red")])


@settings(max_examples=60, deadline=None)
@given(
    st.text("abeflt i?\n.", min_size=1, max_size=12),
    st.lists(st.text("aeflt i.", min_size=1, max_size=6), min_size=1),
)
def test_prompt_and_option_together_are_always_the_tokens_of_the_whole_text(text, options):
    prompt = ids(text)
    made = continuations(TOKENIZER, text, options, prompt)
    for option, tokens in zip(options, made.tokens, strict=True):
        assert tokens
        if made.cut or list(tokens) != ids(option):
            assert prompt[: len(prompt) - made.cut] + list(tokens) == ids(text + option)


def test_merging_options_are_scored_like_the_whole_text(folder):
    """The prompt's last token goes with the option, against one forward pass over the text as a whole."""
    templated(folder, None)
    vlm = load_vlm(str(folder), device="cpu")
    prompt = Prompt(text="to the le", images=(IMAGE,))
    scores = vlm.option_scores(prompt, ["ft", "?"])
    start = vlm.inputs([prompt])["input_ids"].shape[1]
    cut = continuations(
        vlm.tokenizer, vlm.render(prompt), ["ft", "?"], vlm.inputs([prompt])["input_ids"][0].tolist()
    ).cut
    assert cut > 0
    for option, score in zip(("ft", "?"), scores, strict=True):
        whole = vlm.inputs([Prompt(text=f"to the le{option}", images=(IMAGE,))])
        with torch.no_grad():
            likely = vlm.model(**whole).logits[0].log_softmax(-1)
        tokens = whole["input_ids"][0, start - cut :]
        before = likely[start - cut - 1 : -1]
        assert score == pytest.approx(float(before.gather(1, tokens[:, None]).sum()), abs=1e-3)


def test_everything_as_long_as_the_sequence_is_cut_with_it():
    inputs = {
        "input_ids": torch.arange(5)[None],
        "cross_attention_mask": torch.ones(1, 5, 1, 2),
        "pixel_values": torch.ones(1, 3, 8, 8),
    }
    assert {key: tuple(value.shape) for key, value in cut_inputs(inputs, 2).items()} == {
        "input_ids": (1, 3),
        "cross_attention_mask": (1, 3, 1, 2),
        "pixel_values": (1, 3, 8, 8),
    }
    assert cut_inputs(inputs, 0) is inputs


@pytest.mark.parametrize("options", [[], ["A", ""]])
def test_no_options_or_empty_ones_are_refused(vlm, options):
    with pytest.raises(UserError, match=r"options must be one or more texts that are not empty, got \["):
        vlm("llava").option_scores(PROMPT, options)


def test_a_long_prompt_goes_beyond_the_sliding_window(vlm):
    """Gemma3's local layers see 64 tokens here; shared and separate readings must still agree."""
    one = vlm("gemma3")
    long = Prompt(text="Is the dog facing left or right? " * 6, images=(IMAGE,))
    fed = one.inputs([long])
    assert fed["input_ids"].shape[1] > 100
    option = ids_of(one, " The dog faces left")
    score = one.option_scores(long, [" The dog faces left"])[0]
    whole = {
        **fed,
        "input_ids": torch.cat([fed["input_ids"], torch.tensor([option])], 1),
        "attention_mask": torch.ones(1, fed["input_ids"].shape[1] + len(option), dtype=torch.long),
        "token_type_ids": torch.cat(
            [fed["token_type_ids"], torch.zeros(1, len(option), dtype=torch.long)], 1
        ),
    }
    with torch.no_grad():
        likely = one.model(**whole).logits[0, -len(option) - 1 : -1].log_softmax(-1)
    assert score == pytest.approx(float(likely.gather(1, torch.tensor(option)[:, None]).sum()), abs=1e-3)


def ids_of(vlm: VLM, text: str) -> list[int]:
    return vlm.tokenizer(text, add_special_tokens=False)["input_ids"]


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(("positions", "expected"), [("all", slice(None)), ([0, -1], [0, -1]), ([3], [3])])
def test_states_at_other_positions_and_layers(vlm, positions, expected):
    one = vlm("llava")
    states = one.hidden_states(PROMPT, positions=positions, layers=[-1, 1])
    with torch.no_grad():
        reference = one.model(**one.inputs([PROMPT]), output_hidden_states=True).hidden_states
    assert states.layer_numbers == (3, 1)
    assert torch.equal(states.layers[0], reference[-1][0, expected])
    assert torch.equal(states.layers[1], reference[1][0, expected])
    assert len(states.image_positions) == 49
    assert states.grid == (7, 7)


def test_layers_and_positions_that_are_not_there_are_errors(vlm):
    with pytest.raises(UserError, match=r"no layer 4: this tower has layers 0 \(its input\) to 3"):
        vlm("llava").hidden_states(PROMPT, layers=[4])
    with pytest.raises(UserError, match=r"no layer -5: this tower has layers 0 \(its input\) to 3"):
        vlm("llava").vision_states([IMAGE], layers=[-5])
    with pytest.raises(UserError, match=r"no position 999: this prompt has \d+ positions"):
        vlm("llava").hidden_states(PROMPT, positions=[999])
    with pytest.raises(UserError, match=r"no kind of positions named 'img'\. Did you mean 'image'"):
        vlm("llava").hidden_states(PROMPT, positions="img")


def test_the_first_vision_state_is_what_clip_calls_its_embeddings(vlm):
    one = vlm("llava")
    pixels = one.inputs([PROMPT])["pixel_values"]
    with torch.no_grad():
        reference = one.towers.vision(pixels, output_hidden_states=True).hidden_states
    states = one.vision_states([IMAGE])[0].layers
    assert torch.equal(states, torch.stack(reference))


def test_positions_where_nothing_names_them():
    assert image_positions({"input_ids": torch.tensor([[1, 2]])}, None) is None
    assert image_positions({"pixel_values": torch.ones(1)}, 5) is None


# ------------------------------------------------------------------------------------------ when a shortcut fails


def test_a_state_that_cannot_be_taken_up_is_no_crash(checkpoint_dir, monkeypatch):
    def refuses(*_):
        raise ValueError("this cache cannot be copied")

    monkeypatch.setattr(scoring, "_copied", refuses)
    monkeypatch.setattr(together, "_repeated", refuses)
    vlm = load_vlm(str(checkpoint_dir("qwen2_5_vl")), device="cpu")
    assert any("cannot be taken up again: this cache cannot be copied" in note for note in vlm.notes)
    assert all(score < 0 for score in vlm.option_scores(PROMPT, ["A", "No way"]))


def test_a_batch_that_fails_is_no_crash(checkpoint_dir, vlm, monkeypatch):
    """Planted: a processor that refuses two texts at once."""
    processor = load_processor(str(checkpoint_dir("llava")))
    call = type(processor).__call__

    def one_only(self, images=None, text=None, **options):
        if len(text) > 1:
            raise ValueError("one text only")
        return call(self, images=images, text=text, **options)

    monkeypatch.setattr(type(processor), "__call__", one_only)
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    alone = VLM.from_objects(model, processor)
    assert any(
        "one at a time: a batch of two prompts" in note and "one text only" in note for note in alone.notes
    )
    prompts = [PROMPT, Prompt(text="Colour?", images=(picture(60, 130, 2),))]
    replies = alone.generate(prompts, max_new_tokens=4)
    monkeypatch.undo()
    assert replies == vlm("llava").generate(prompts, max_new_tokens=4)


def test_too_little_memory_is_told_from_a_wrong_processor(checkpoint_dir):
    def too_big(*_):
        raise torch.OutOfMemoryError("out of memory, on purpose")

    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    processor = load_processor(str(checkpoint_dir("llava")))
    handle = model.register_forward_pre_hook(too_big)
    with pytest.raises(
        UserError, match=r"LlavaForConditionalGeneration with one small picture.*memory of cpu; try"
    ):
        VLM.from_objects(model, processor)
    handle.remove()
    vlm = VLM.from_objects(model, processor)
    handle = model.register_forward_pre_hook(too_big)
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        vlm.generate([Prompt(text="No picture.")], max_new_tokens=1)
    handle.remove()
    assert len(vlm.generate([Prompt(text="No picture.")], max_new_tokens=1)) == 1


def test_a_processor_that_wants_images_in_one_list_gets_them_so(checkpoint_dir, vlm, monkeypatch):
    processor = load_processor(str(checkpoint_dir("llava")))
    call = type(processor).__call__

    def flat_only(self, images=None, text=None, **options):
        if images is not None and isinstance(images[0], list):
            raise ValueError("nested images are not supported")
        return call(self, images=images, text=text, **options)

    monkeypatch.setattr(type(processor), "__call__", flat_only)
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    flat = VLM.from_objects(model, processor)
    replies = flat.generate([PROMPT, PROMPT], max_new_tokens=4)
    monkeypatch.undo()
    assert replies == vlm("llava").generate([PROMPT, PROMPT], max_new_tokens=4)


def test_agreement_is_measured_against_the_spread():
    first = torch.tensor([0.0, 10.0, -10.0])
    assert proving.agree(first, first + 1e-4, torch.float32)
    assert not proving.agree(first, first + 0.1, torch.float32)
    assert proving.agree(first, first + 0.1, torch.bfloat16)
    assert not proving.agree(first, first + 5.0, torch.bfloat16)


def test_an_undecided_cache_is_used(checkpoint_dir, monkeypatch):
    """Where a pass over the whole text contradicts generation with and without a cache, that pass is not believed."""
    monkeypatch.setattr(proving, "whole", lambda model, inputs, option: [-9.0] * len(option))
    vlm = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert vlm.proof.why_no_cache == ""
    assert not any("cache" in note for note in vlm.notes)


# ------------------------------------------------------------------------------------------ odd architectures


def test_a_captioner_that_takes_no_question_says_so():
    """ViT and GPT-2: its processor makes labels of the text, so no question ever reaches the model."""
    tokenizer = tiny_tokenizer(eos=True)
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        tf.ViTConfig(**{k: v for k, v in tower("vit").items() if k != "model_type"}),
        tf.GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2,
            pad_token_id=3,
        ),
    )  # fmt: skip
    config.decoder_start_token_id, config.pad_token_id = 1, 3
    model = build(tf.VisionEncoderDecoderModel, config)
    vlm = VLM.from_objects(model, tf.TrOCRProcessor(tf.ViTImageProcessorPil(size=square(56)), tokenizer))
    with pytest.raises(Incapable, match=r"generating replies needs .*leaves the text of a question out"):
        vlm.generate([PROMPT], max_new_tokens=2)
    with pytest.raises(Incapable, match=r"scoring options needs .*leaves the text of a question out"):
        vlm.option_scores(PROMPT, ["A"])
    assert Capability.HIDDEN_STATES in vlm.cannot
    assert len(vlm.self_attentions("vision")) == 3


def test_features_put_before_the_text_are_found_without_a_token():
    """GIT has no image token: its image positions are found by following the image."""
    tokenizer = tiny_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
    }  # fmt: skip
    model = build(tf.GitForCausalLM, tf.GitConfig(vision_config=tower("git_vision_model"), **text))
    images = tf.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=square(56))
    vlm = VLM.from_objects(model, tf.GitProcessor(images, tokenizer))
    assert vlm.image_positions(PROMPT) == tuple(range(50))
    states = vlm.hidden_states(PROMPT)
    with torch.no_grad():
        reference = model(**vlm.inputs([PROMPT]), output_hidden_states=True).hidden_states
    assert all(torch.equal(kept, full[0, :50]) for kept, full in zip(states.layers, reference, strict=True))
    assert not states.last_is_normed


def test_a_model_without_a_vision_tower_answers_and_says_what_it_lacks():
    """Chameleon turns pictures into words of its vocabulary."""
    tokenizer = tiny_tokenizer(["<image>", "<racm3:break>", "<eoss>"])
    names = {"IMGIMG" + "".join(chr(65 + int(digit)) for digit in str(k)) + "Z": 100 + k for k in range(16)}
    config = tf.ChameleonConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        vq_config={
            "embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32, "channel_multiplier": [1, 1],
            "num_res_blocks": 1, "resolution": 16,
        },
        vocabulary_map={**names, "<image>": tokenizer.convert_tokens_to_ids("<image>")},
    )  # fmt: skip
    model = build(tf.ChameleonForConditionalGeneration, config)
    images = tf.ChameleonImageProcessorPil(size={"shortest_edge": 16}, crop_size=square(16))
    vlm = VLM.from_objects(model, tf.ChameleonProcessor(images, tokenizer, image_seq_length=64))
    lacking = {
        Capability.FED_FEATURES,
        Capability.HIDDEN_STATES,
        Capability.EDIT_ATTENTION,
        Capability.SPATIAL_MAP,
    }
    assert set(vlm.cannot) == lacking
    assert all("has no vision tower" in why for why in vlm.cannot.values())
    assert vlm.generate([PROMPT, PROMPT], max_new_tokens=3) == 2 * vlm.generate([PROMPT], max_new_tokens=3)
    assert all(score < 0 for score in vlm.option_scores(PROMPT, ["A", "No way"]))
    with pytest.raises(Incapable, match="ChameleonForConditionalGeneration has no vision tower"):
        vlm.self_attentions("vision")
    with pytest.raises(Incapable, match="reading fed features needs the capability 'fed_features'"):
        vlm.fed([IMAGE])
