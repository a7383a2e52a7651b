"""The parts of a VLM are found without literal paths, and are the right ones."""

import ast
import inspect
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as FAMILIES

from checkpoints import VLMS
from eyechart.core.errors import Incapable
from eyechart.core.records import Prompt
from eyechart.models.processors import load_processor
from eyechart.models.vlms import blocks, dataflow, resolve_towers, towers
from eyechart.models.vlms.generating import greedy_config, run_generate
from eyechart.models.vlms.objects import undisturbed
from eyechart.models.vlms.prompting import Prompting, image_positions
from pictures import picture

PROJECTORS = {
    "llava": "model.multi_modal_projector",
    "llava_next": "model.multi_modal_projector",
    "qwen2_5_vl": "model.visual.merger",
    "smolvlm": "model.connector",
    "idefics3": "model.connector",
    "paligemma": "model.multi_modal_projector",
    "mllama": "model.multi_modal_projector",
    "instructblip": "qformer",
    "blip_2": "qformer",
    "qwen2_vl": "model.visual.merger",
    "qwen3_vl": "model.visual.merger",
    "gemma3": "model.multi_modal_projector",
    "internvl": "model.multi_modal_projector",
    "llava_onevision": "model.multi_modal_projector",
    "idefics2": "model.connector",
    "aya_vision": "model.multi_modal_projector",
    "florence2": "model.multi_modal_projector",
    "kosmos2": "image_to_text_projection",
}
COMMON = ("llava", "qwen2_5_vl", "smolvlm", "paligemma", "mllama", "instructblip", "florence2", "qwen3_vl")
ALL = [pytest.param(name, marks=() if name in COMMON else pytest.mark.slow) for name in VLMS]


class Found:
    """A small VLM, its towers and the inputs they were followed with."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder)
        self.processor = load_processor(str(folder))
        with undisturbed(self.model, self.processor):
            self.prompting = Prompting(self.model, self.processor)
            self.inputs = self.prompting.inputs([Prompt(text="A dog?", images=(picture(90, 60, 1),))])
            self.towers = resolve_towers(self.model, run=self.run)

    def run(self) -> object:
        config = greedy_config(self.model, self.processor.tokenizer, max_new_tokens=1)
        return run_generate(self.model, self.inputs, config)


@pytest.fixture(scope="module")
def found(checkpoint_dir: Callable[[str], Path]) -> Callable[[str], Found]:
    cache: dict[str, Found] = {}
    return lambda name: cache.get(name) or cache.setdefault(name, Found(checkpoint_dir(name)))


def test_every_checkpoint_has_its_projector_written_down_here():
    assert set(PROJECTORS) == set(VLMS)


@pytest.mark.parametrize("name", ALL)
def test_the_projector_is_what_carries_the_image(found, name):
    parts = found(name).towers
    assert parts.projector_name == PROJECTORS[name]
    assert parts.projector is found(name).model.get_submodule(PROJECTORS[name])
    assert parts.bridge_names[0] == parts.projector_name


@pytest.mark.parametrize("name", ALL)
def test_one_self_attention_for_each_block_in_order(found, name):
    model, parts = found(name).model, found(name).towers
    for tower in ("vision", "language"):
        sites = parts.self_attentions(tower)
        order = [path for path, _ in model.named_modules()]
        assert [site.name for site in sites] == sorted((site.name for site in sites), key=order.index)
        assert [site.layer for site in sites] == sorted({site.layer for site in sites})
        assert len({id(site.module) for site in sites}) == len(sites)
        assert all(model.get_submodule(site.name) is site.module for site in sites)
        assert all(site.tower == tower for site in sites)
        assert not any(re.search("cross|qformer|perceiver", site.name.lower()) for site in sites)


@pytest.mark.parametrize("name", ALL)
def test_blocks_and_heads_are_as_many_as_the_config_says(found, name):
    model, parts = found(name).model, found(name).towers
    text = model.config.get_text_config(decoder=True)
    layers = [getattr(text, key, None) for key in ("encoder_layers", "num_hidden_layers")]
    assert len(parts.language_blocks) == next(count for count in layers if count)
    crossing = getattr(text, "cross_attention_layers", [])
    assert len(parts.self_attentions("language")) == len(parts.language_blocks) - len(crossing)
    assert {site.heads for site in parts.self_attentions("language")} == {text.num_attention_heads}
    if name != "florence2":  # its tower has stages, with blocks of other heads in each
        vision = model.config.vision_config
        depth = getattr(vision, "depth", None) or vision.num_hidden_layers
        assert len(parts.self_attentions("vision")) == depth + getattr(vision, "num_global_layers", 0)
        heads = [
            getattr(vision, key, None) for key in ("num_heads", "num_attention_heads", "attention_heads")
        ]
        assert {site.heads for site in parts.self_attentions("vision")} == {next(h for h in heads if h)}


@pytest.mark.parametrize("name", ALL)
def test_embeddings_head_and_final_norm(found, name):
    one = found(name)
    assert one.towers.embeddings is one.model.get_input_embeddings()
    assert one.towers.lm_head is one.model.get_output_embeddings()
    assert one.towers.width == 32
    if name == "florence2":  # BART's layers end in norms of their own
        assert one.towers.final_norm is None
        assert one.towers.language_encoder
    else:
        assert one.towers.final_norm is not None
        assert not one.towers.language_encoder
    for part in ("vision", "language", "embeddings", "lm_head", "final_norm", "projector"):
        module, path = getattr(one.towers, part), getattr(one.towers, f"{part}_name")
        assert (module is None and path is None) or one.model.get_submodule(path) is module


@pytest.mark.parametrize("name", ALL)
def test_the_image_is_seen_where_its_tokens_stand(found, name):
    """Followed through the model, the image arrives at the placeholders' positions, row separators left out."""
    one = found(name)
    assert one.towers.flow is not None
    seen = set(one.towers.flow.positions)
    if name == "mllama":
        assert one.towers.flow.by_cross_attention
        assert not seen
        return
    named = set(image_positions(one.inputs, one.prompting.image_token_id))
    separators = {"llava_next": 10, "llava_onevision": 10}.get(name, 0)
    assert seen <= named
    assert len(named - seen) == separators
    assert not one.towers.flow.by_cross_attention


def test_what_is_left_out_is_named_with_the_reason(found):
    excluded = " / ".join(found("mllama").towers.excluded)
    assert "model.language_model.layers.1.cross_attn: cross-attention" in excluded
    excluded = " / ".join(found("florence2").towers.excluded)
    assert "channel_attn: an attention over channels" in excluded
    assert "decoder.layers: blocks of the decoder" in excluded


def test_mergers_out_of_the_middle_of_the_tower_are_no_projector(found):
    assert found("qwen3_vl").towers.flow.side == tuple(
        f"model.visual.deepstack_merger_list.{place}" for place in range(2)
    )


def test_without_a_run_the_structure_alone_says_the_rest(found):
    one = found("llava")
    bare = resolve_towers(one.model)
    assert bare.projector is None
    assert bare.projector_name is None
    assert bare.flow is None
    assert bare.vision is one.towers.vision
    assert bare.final_norm is one.towers.final_norm
    assert [s.name for s in bare.sites] == [s.name for s in one.towers.sites]


def hooks(model: nn.Module) -> int:
    """How many hooks a model has; transformers keeps some of its own."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_following_leaves_no_hook_behind(found):
    one = found("llava")
    before = hooks(one.model)
    resolve_towers(one.model, run=one.run)
    assert hooks(one.model) == before


def test_a_pass_that_fails_leaves_no_hook_behind(found):
    one = found("llava")
    before = hooks(one.model)

    def fails() -> None:
        assert hooks(one.model) > before
        raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        resolve_towers(one.model, run=fails)
    assert hooks(one.model) == before


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_peft_model_has_the_same_parts(checkpoint_dir):
    peft = pytest.importorskip("peft")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    plain = resolve_towers(model)
    modules = {site.name: site.module for site in plain.sites}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    resolved = resolve_towers(wrapped)
    assert [site.name.removeprefix("base_model.model.") for site in resolved.sites] == list(modules)
    assert all(a.module is b for a, b in zip(resolved.sites, modules.values(), strict=True))
    assert wrapped.get_submodule(resolved.vision_name) is plain.vision


def test_a_model_without_a_vision_tower_is_refused():
    config = AutoConfig.for_model("fuyu")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    with pytest.raises(Incapable, match="FuyuForCausalLM has no vision tower"):
        resolve_towers(model)


def test_a_model_without_language_blocks_is_refused(checkpoint_dir):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_dir("llava"))
    model.get_decoder().layers = nn.ModuleList()
    with pytest.raises(Incapable, match="LlavaForConditionalGeneration has no list of language blocks"):
        resolve_towers(model)


@pytest.mark.parametrize("module", [towers, blocks, dataflow])
def test_no_path_of_a_module_is_written_in_the_code(module):
    """Names of parts that transformers' models really have stand in no string of the resolving code."""
    real = {"vision_tower", "visual", "vision_model", "language_model", "multi_modal_projector", "connector",
            "merger", "qformer", "layers", "self_attn", "embed_tokens", "lm_head"}  # fmt: skip
    tree = ast.parse(inspect.getsource(module))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
    }
    written = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
    }
    assert not real & set(itertools.chain.from_iterable(re.findall(r"\w+", text) for text in written))


# Their default configs cannot be built without more files or packages, or are no vision-language model at all.
UNBUILDABLE = 20


@pytest.mark.slow
def test_every_family_of_transformers_has_towers_or_says_why_not():
    """The default config of each architecture, on the meta device: real depths and names, no weights."""
    refused, resolved = {}, {}
    for kind in FAMILIES:
        try:
            with torch.device("meta"):
                model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind))
        except (ValueError, TypeError, KeyError, AttributeError, ImportError):
            continue
        try:
            resolved[kind] = resolve_towers(model)
        except Incapable as error:
            refused[kind] = str(error)
    assert len(resolved) + len(refused) >= len(FAMILIES) - UNBUILDABLE
    assert all("has no vision tower" in why for why in refused.values())
    assert len(refused) <= 8, refused
    for kind, parts in resolved.items():
        assert parts.self_attentions("language"), kind
        assert parts.vision_blocks or not parts.self_attentions("vision"), kind
        assert len({id(s.module) for s in parts.sites}) == len(parts.sites), kind
        assert all(site.heads for site in parts.sites), kind
