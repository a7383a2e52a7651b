"""The bundled checkpoints themselves: plain transformers loads them, and they have learnt what they are for."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from eyechart import zoo
from eyechart.models import load_vlm
from eyechart.recipes.examine import examine
from eyechart.recipes.forms import ask
from eyechart.recipes.zoo import LARGEST
from eyechart.train.prompts import prompt, told
from eyechart.world.captions import told as in_words
from eyechart.world.draw import draw_facts
from eyechart.world.kinds import KINDS
from eyechart.world.questions import questions
from eyechart.world.sets import render_set
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan, SetPlan
from eyechart.world.words import a

LOADERS = {
    "clip": AutoModel,
    "vit": AutoModel,
    "llama": AutoModelForCausalLM,
    "llava": AutoModelForImageTextToText,
    "eyechart_mixture": AutoModelForImageTextToText,
}
CLIPS = [name for name in zoo.names() if name.startswith("clip-")]
VLMS = [name for name in zoo.names() if name.startswith(("llava-", "imof-"))]


@pytest.mark.parametrize("name", zoo.names())
def test_plain_transformers_loads_it_as_float32_from_half_precision_files(name):
    folder = zoo.path(name)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = LOADERS[kind].from_pretrained(folder)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    with safe_open(folder / "model.safetensors", "pt") as stored:
        assert {stored.get_tensor(key).dtype for key in stored.keys()} == {torch.float16}


def test_the_zoo_is_small_enough():
    files = [path for name in zoo.names() for path in zoo.path(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Test scenes, which no training has used."""
    plan = SetPlan(split="test", scenes=150, seed=11)
    return render_set(tmp_path_factory.mktemp("scenes"), plan, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_names_the_object_of_scenes_it_never_saw(name, scenes):
    """14 kinds: 7 % by chance, 11 of 150."""
    model = AutoModel.from_pretrained(zoo.path(name)).eval()
    processor = AutoProcessor.from_pretrained(zoo.path(name))
    names = sorted(KINDS)
    given = processor(
        text=[f"a photo of {a(kind)}" for kind in names],
        images=[Image.fromarray(np.asarray(image)) for image in scenes.images],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        found = model(**given).logits_per_image.argmax(1).tolist()
    right = sum(names[n] == scene.facts.kind for n, scene in zip(found, scenes.scenes, strict=True))
    assert right > 75, f"{right} of 150"


@pytest.mark.slow
@pytest.mark.skipif("lm" not in zoo.names(), reason="no language model is bundled")
def test_the_language_model_answers_from_a_scene_in_words():
    """80 questions with two options: 40 by guessing."""
    model = AutoModelForCausalLM.from_pretrained(zoo.path("lm")).eval()
    tokenizer = AutoTokenizer.from_pretrained(zoo.path("lm"))
    rng, right = random.Random(5), 0
    for _ in range(80):
        facts = draw_facts(rng)
        question = rng.choice(questions(facts, rng))
        text, answers = ask(question.text, question.options, "letter")
        ids = tokenizer(
            prompt(told(in_words(facts), text), image=False), add_special_tokens=False, return_tensors="pt"
        )
        with torch.no_grad():
            best = model(input_ids=ids["input_ids"]).logits[0, -1].argmax().item()
        wanted = tokenizer(f" {answers[question.answer]}", add_special_tokens=False)["input_ids"][0]
        right += best == wanted
    assert right >= 56, f"{right} of 80"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of the test split whose scenes differ in the word on a sign, and in whether a door is open."""
    plan = PairPlan(pairs=30, seed=11, patterns=("text", "state"))
    return render_pairs(tmp_path_factory.mktemp("pairs"), plan, workers=1)


@pytest.mark.slow
@pytest.mark.skipif(not VLMS, reason="no VLM is bundled")
@pytest.mark.parametrize("name", VLMS)
def test_a_vlm_answers_from_the_picture_and_not_without_it(name, pairs):
    """A quarter of the pairs by chance; the same answer to both scenes, as without a picture, is right on no pair."""
    vlm = load_vlm(str(zoo.path(name)), device="cpu")
    shown, blank = (examine(vlm, pairs, shown=how).summary.score.pairs for how in ("picture", "blank"))
    assert blank.hits == 0
    assert shown.low > 0.25, f"{shown.hits} of {shown.n}"


@pytest.mark.parametrize("name", zoo.names())
def test_no_config_names_a_folder_of_the_machine_it_was_made_on(name):
    assert "_name_or_path" not in (zoo.path(name) / "config.json").read_text()
