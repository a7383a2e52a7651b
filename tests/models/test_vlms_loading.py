"""Loading a VLM: number formats, attention, adapters, objects in memory, and every way a checkpoint can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf

from eyechart.core.errors import UserError
from eyechart.core.records import Prompt
from eyechart.models.processors import load_processor
from eyechart.models.untrained import tiny_tokenizer
from eyechart.models.vlms import VLM, load_vlm
from pictures import picture

PROMPT = Prompt(text="Is the dog facing left?", images=(picture(90, 60, 1),))
PEFT_WARNING = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


@pytest.fixture
def folder(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> Path:
    """A small LLaVA to be changed."""
    return Path(shutil.copytree(checkpoint_dir("llava"), tmp_path / "llava"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def stored_as(folder: Path, dtype: torch.dtype) -> None:
    model = tf.AutoModelForImageTextToText.from_pretrained(folder).to(dtype)
    model.save_pretrained(folder)


# ------------------------------------------------------------------------------------------ what is loaded


def test_a_folder_has_its_name_hash_and_settings(checkpoint_dir):
    folder = checkpoint_dir("llava")
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.id == str(folder)
    assert vlm.revision is None
    assert len(vlm.sha256) == 64
    assert (vlm.device, vlm.dtype, vlm.attn) == ("cpu", "float32", "sdpa")
    assert not vlm.model.training
    assert vlm.trained


def test_random_weights_of_our_own_are_known(folder):
    edit(folder / "config.json", eyechart_untrained=True)
    assert load_vlm(str(folder), device="cpu").describe()["trained"] is False


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_auto_takes_half_to_float32_on_a_cpu_and_says_so(folder, dtype):
    stored_as(folder, dtype)
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.dtype == "float32"
    name = str(dtype).removeprefix("torch.")
    assert f"dtype: float32, since a CPU is slow and inexact in the checkpoint's {name}" in vlm.notes


def test_auto_looks_at_the_weights_when_the_config_is_silent(folder):
    stored_as(folder, torch.bfloat16)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config))
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.dtype == "float32"
    assert any(note.startswith("dtype: float32, since") for note in vlm.notes)


def test_a_number_format_asked_for_is_kept(folder):
    vlm = load_vlm(str(folder), device="cpu", dtype="bfloat16")
    assert vlm.dtype == "bfloat16"
    assert "dtype: bfloat16, asked for" in vlm.notes
    assert vlm.hidden_states(PROMPT).layers.dtype == torch.bfloat16
    assert len(vlm.generate([PROMPT, PROMPT], max_new_tokens=3)) == 2


def test_eager_and_sdpa_agree(checkpoint_dir):
    eager = load_vlm(str(checkpoint_dir("llava")), device="cpu", attn="eager")
    sdpa = load_vlm(str(checkpoint_dir("llava")), device="cpu", attn="sdpa")
    assert (eager.attn, sdpa.attn) == ("eager", "sdpa")
    options = ["A", "No way"]
    assert eager.option_scores(PROMPT, options) == pytest.approx(
        sdpa.option_scores(PROMPT, options), abs=1e-4
    )


def test_a_device_map_is_handed_on(checkpoint_dir):
    vlm = load_vlm(str(checkpoint_dir("llava")), device_map={"": "cpu"})
    plain = load_vlm(str(checkpoint_dir("llava")), device="cpu")
    assert vlm.device == "cpu"
    assert vlm.generate([PROMPT], max_new_tokens=3) == plain.generate([PROMPT], max_new_tokens=3)


def test_the_sampling_settings_of_a_checkpoint_are_not_let_in(folder):
    calm = load_vlm(str(folder), device="cpu").generate([PROMPT], max_new_tokens=8)
    edit(
        folder / "generation_config.json", do_sample=True, temperature=5.0, top_k=3, repetition_penalty=9.0,
        no_repeat_ngram_size=1, min_new_tokens=8, num_beams=3, forced_bos_token_id=7, suppress_tokens=[5, 6],
    )  # fmt: skip
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.model.generation_config.repetition_penalty == 9.0
    assert vlm.generate([PROMPT], max_new_tokens=8) == calm
    assert vlm.model.generation_config.repetition_penalty == 9.0


def test_end_tokens_of_the_generation_config_and_the_tokenizer_both_end_a_reply(folder):
    vlm = load_vlm(str(folder), device="cpu")
    assert vlm.generate([PROMPT], max_new_tokens=4) != [""]
    with torch.no_grad():
        first = int(vlm.model(**vlm.inputs([PROMPT])).logits[0, -1].argmax())
    edit(folder / "generation_config.json", eos_token_id=[first])
    assert load_vlm(str(folder), device="cpu").generate([PROMPT], max_new_tokens=4) == [""]


# ------------------------------------------------------------------------------------------ adapters


def lora(folder: Path, target: Path) -> Path:
    """Save a LoRA with weights of its own for the model in `folder`."""
    peft = pytest.importorskip("peft")
    model = tf.AutoModelForImageTextToText.from_pretrained(folder)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    wrapped.save_pretrained(target)
    return target


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_an_adapter_changes_the_model_as_merging_it_would(folder, tmp_path):
    adapter = lora(folder, tmp_path / "lora")
    plain = load_vlm(str(folder), device="cpu")
    tuned = load_vlm(str(folder), device="cpu", adapter=str(adapter))
    options = ["A", "No way"]
    assert tuned.option_scores(PROMPT, options) != pytest.approx(
        plain.option_scores(PROMPT, options), abs=1e-2
    )
    import peft

    base = tf.AutoModelForImageTextToText.from_pretrained(folder)
    merged = VLM.from_objects(
        peft.PeftModel.from_pretrained(base, adapter).merge_and_unload(), plain.processor
    )
    assert tuned.option_scores(PROMPT, options) == pytest.approx(
        merged.option_scores(PROMPT, options), abs=1e-4
    )
    assert [site.name for site in tuned.self_attentions("language")] == [
        site.name for site in plain.self_attentions("language")
    ]
    described = tuned.describe()
    assert described["adapter"]["id"] == str(adapter)
    assert len(described["adapter"]["sha256"]) == 64
    assert described["sha256"] == plain.sha256
    assert plain.describe()["adapter"] is None


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_an_adapter_for_another_model_is_refused(folder, tmp_path):
    adapter = lora(folder, tmp_path / "lora")
    edit(adapter / "adapter_config.json", target_modules=["no_such_layer"])
    with pytest.raises(UserError, match="lora' does not fit the model: "):
        load_vlm(str(folder), device="cpu", adapter=str(adapter))


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_an_adapter_that_learns_a_prompt_is_refused(folder, tmp_path):
    adapter = lora(folder, tmp_path / "lora")
    model = tf.AutoModelForImageTextToText.from_pretrained(folder)
    import peft

    wrapped = peft.PeftModel.from_pretrained(model, adapter)
    wrapped.peft_config["default"] = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="PeftModel learns a prompt"):
        VLM.from_objects(wrapped, load_processor(str(folder)))


def test_an_adapter_folder_without_an_adapter_is_refused(folder, tmp_path):
    with pytest.raises(
        UserError, match=f"no adapter at '{tmp_path}': expected a folder with an adapter_config.json"
    ):
        load_vlm(str(folder), device="cpu", adapter=str(tmp_path))


# ------------------------------------------------------------------------------------------ objects in memory


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "florence2"])
def test_objects_in_memory_are_left_as_they_were_found(checkpoint_dir, name):
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir(name))
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.5
    processor = load_processor(str(checkpoint_dir(name)))
    model.train()
    model.get_encoder("image").eval()
    processor.tokenizer.padding_side = "right"
    kept = model.generation_config
    flags = {n: m.training for n, m in model.named_modules()}
    wants = {n: p.requires_grad for n, p in model.named_parameters()}
    weights = {n: p.clone() for n, p in model.state_dict().items()}
    deltas = [getattr(m, "rope_deltas", "none") for m in model.modules()]
    vlm = VLM.from_objects(model, processor, name="mine")
    replies = vlm.generate([PROMPT], max_new_tokens=4)
    vlm.option_scores(PROMPT, ["A", "No way"])
    vlm.hidden_states(PROMPT)
    assert vlm.id == "mine"
    assert vlm.sha256 is None
    assert vlm.model is model
    assert {n: m.training for n, m in model.named_modules()} == flags
    assert {n: p.requires_grad for n, p in model.named_parameters()} == wants
    assert all(torch.equal(p, weights[n]) for n, p in model.state_dict().items())
    assert model.generation_config is kept
    assert [getattr(m, "rope_deltas", "none") for m in model.modules()] == deltas
    assert processor.tokenizer.padding_side == "right"
    assert replies == load_vlm(str(checkpoint_dir(name)), device="cpu").generate([PROMPT], max_new_tokens=4)


def test_a_tokenizer_without_padding_token_is_lent_one(checkpoint_dir):
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    processor = load_processor(str(checkpoint_dir("llava")))
    processor.tokenizer.pad_token = None
    vlm = VLM.from_objects(model, processor)
    assert not any("one at a time" in note for note in vlm.notes)
    assert len(vlm.generate([PROMPT, Prompt(text="Hi", images=PROMPT.images)], max_new_tokens=3)) == 2
    assert processor.tokenizer.pad_token is None


def test_objects_left_after_an_error_are_as_they_were(checkpoint_dir):
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava")).train()
    processor = load_processor(str(checkpoint_dir("llava")))
    vlm = VLM.from_objects(model, processor)
    handle = model.register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(ZeroDivisionError("on purpose"))
    )
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        vlm.generate([PROMPT], max_new_tokens=2)
    handle.remove()
    assert all(m.training for m in model.modules())


def test_a_bare_tokenizer_is_no_processor(checkpoint_dir):
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    with pytest.raises(
        UserError, match="was given; expected a processor with an image_processor and a tokenizer"
    ):
        VLM.from_objects(model, tiny_tokenizer())


def test_a_processor_of_another_model_is_refused(checkpoint_dir):
    model = tf.AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    processor = load_processor(str(checkpoint_dir("idefics3")))
    with pytest.raises(
        UserError, match=r"LlavaForConditionalGeneration fails .* \(Idefics3Processor\).*belong together"
    ):
        VLM.from_objects(model, processor)


# ------------------------------------------------------------------------------------------ what can be wrong


def test_a_text_only_checkpoint_is_refused(tmp_path):
    config = tf.LlamaConfig(
        vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    tf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"is a text-only language model.*model_type 'llama'.*Expected .*llava"
    ):
        load_vlm(str(tmp_path))


@pytest.mark.parametrize("name", ["clip", "dinov2", "siglip"])
def test_an_encoder_checkpoint_is_refused(checkpoint_dir, name):
    with pytest.raises(UserError, match=f"is an image encoder.*model_type '{name}'"):
        load_vlm(str(checkpoint_dir(name)))


@pytest.mark.parametrize("text", ["timm:vit_tiny_patch16_224", "open_clip:ViT-B-32/openai"])
def test_an_encoder_by_name_is_refused(text):
    with pytest.raises(UserError, match=f"'{text}' names an encoder; expected a vision-language model"):
        load_vlm(text)


def test_a_server_is_refused():
    with pytest.raises(UserError, match="'http://localhost:8000/v1' is a server; expected a checkpoint"):
        load_vlm("http://localhost:8000/v1")


def test_a_hub_id_that_is_not_here_is_an_error_with_a_way_out():
    with pytest.raises(
        UserError, match=r"no model 'nobody/nothing' at revision 'v9'.*network.*or give a folder"
    ):
        load_vlm("nobody/nothing@v9")


def test_a_config_that_no_family_knows_is_an_error(folder):
    edit(folder / "config.json", model_type="no_such_type", architectures=["NoSuch"])
    with pytest.raises(UserError, match=r"the config of .*llava' cannot be read: .*no_such_type"):
        load_vlm(str(folder))


def test_missing_processor_files_are_named(folder):
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(
        UserError, match=r"llava' .*expected a processor_config.json or preprocessor_config.json"
    ):
        load_vlm(str(folder))


def test_missing_tokenizer_files_are_named(folder):
    for path in [*folder.glob("tokenizer*"), *folder.glob("special*")]:
        path.unlink()
    with pytest.raises(UserError, match=r"llava' .*expected .* the tokenizer's files"):
        load_vlm(str(folder))


def test_missing_weights_are_counted_not_made_up(folder):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1." not in name or "vision" in name}
    safetensors.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    lacking = len(weights) - len(kept)
    assert lacking
    with pytest.raises(
        UserError, match=rf"llava' lacks {lacking} of its weights \(.*layers\.1\..*random numbers"
    ):
        load_vlm(str(folder))


def test_no_weight_file_at_all_is_an_error(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"the model .*llava' cannot be loaded: .*model.safetensors"):
        load_vlm(str(folder))


def test_weights_of_other_sizes_are_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"the model .*llava' cannot be loaded: "):
        load_vlm(str(folder))


def test_unknown_names_of_formats_devices_and_attention_are_errors(folder):
    with pytest.raises(UserError, match=r"no dtype named 'float23'\. Did you mean 'float32'"):
        load_vlm(str(folder), dtype="float23")
    with pytest.raises(UserError, match="no device named 'gpu'"):
        load_vlm(str(folder), device="gpu")
    with pytest.raises(UserError, match=r"give device \('cpu'\) or device_map \('auto'\), not both"):
        load_vlm(str(folder), device="cpu", device_map="auto")
    with pytest.raises(UserError, match=r"cannot be loaded: .*no_such_attention"):
        load_vlm(str(folder), device="cpu", attn="no_such_attention")


def test_code_of_a_checkpoint_is_not_run_unless_asked(folder):
    edit(
        folder / "config.json",
        model_type="mine",
        auto_map={"AutoConfig": "mine.Mine", "AutoModelForImageTextToText": "mine.M"},
    )
    (folder / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(UserError, match=r"llava' comes with code of its own.*--trust-remote-code"):
        load_vlm(str(folder), device="cpu")
