"""The random-weight models that stand in for a model: whole checkpoints, the same each time, and marked as such."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from eyechart.models.encoders import load_encoder
from eyechart.models.untrained import Untrained, draw_weights, is_untrained, make_untrained, tiny_tokenizer
from pictures import picture


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    """The two checkpoints, written once."""
    return make_untrained(tmp_path_factory.mktemp("untrained"))


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by relative path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_bytes_come_out_each_time(made: Untrained, tmp_path: Path) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = make_untrained(tmp_path)
    assert files(again.vlm) == files(made.vlm)
    assert files(again.reference) == files(made.reference)
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's generator was touched"
    assert sum(map(len, files(made.vlm).values())) < 3_000_000


def test_both_say_that_they_have_learnt_nothing(made: Untrained, tmp_path: Path) -> None:
    for folder in (made.vlm, made.reference):
        assert is_untrained(AutoConfig.from_pretrained(folder))
    model = AutoModelForImageTextToText.from_pretrained(made.vlm)
    assert is_untrained(model.config)
    model.save_pretrained(tmp_path)
    assert is_untrained(AutoConfig.from_pretrained(tmp_path))
    assert not is_untrained(AutoConfig.for_model("llava"))


def test_the_vlm_is_asked_like_any_other(made: Untrained) -> None:
    model = AutoModelForImageTextToText.from_pretrained(made.vlm)
    processor = AutoProcessor.from_pretrained(made.vlm)
    content = [{"type": "image"}, {"type": "text", "text": "Is it left? (a) Yes (b) No"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == "USER: <image>\nIs it left? (a) Yes (b) No ASSISTANT:"
    logits = []
    for seed in (1, 2):
        inputs = processor(images=[picture(80, 60, seed)], text=[prompt], return_tensors="pt")
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 49
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 0.1
    reply = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert reply.shape[1] > inputs["input_ids"].shape[1]


def test_the_reference_is_an_encoder_like_any_other(made: Untrained) -> None:
    encoder = load_encoder(str(made.reference))
    rows = encoder.embed([picture(80, 60, seed) for seed in range(3)])
    assert (encoder.kind, rows.shape, encoder.notes) == ("vision_only", (3, 64), ())
    assert torch.pdist(rows).min() > 0.1


@pytest.mark.parametrize(
    "text", ["Is the dog facing left?", "naïve café — 漢字 🙂", "A\n\tB  C", "<image>a</s>"]
)
def test_the_tokenizer_gives_back_any_text(text: str) -> None:
    tokenizer = tiny_tokenizer(["<image>"])
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_special_tokens_are_never_split() -> None:
    tokenizer = tiny_tokenizer(["<image>"], named={"video_token": "<video>"}, bos=False, eos=True)
    ids = tokenizer("a<image><image>b<video>")["input_ids"]
    assert ids.count(tokenizer.get_vocab()["<image>"]) == 2
    assert ids[-2:] == [tokenizer.video_token_id, tokenizer.eos_token_id]


def test_drawing_reaches_every_parameter() -> None:
    """What starts as nought or one (gates, norms, biases) would otherwise hide the picture or the layer."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Embedding(5, 8))
    model.register_parameter("gate", torch.nn.Parameter(torch.zeros(1)))
    before = {name: value.clone() for name, value in model.named_parameters()}
    draw_weights(model, seed=0)
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert model.gate.item() == pytest.approx(0.8)
    assert not model.training
