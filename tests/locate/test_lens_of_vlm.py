"""The lens of real architectures gives their own logits back; caps and scales are found by that; the rest is refused."""

import pytest
import torch
from PIL import Image
from torch import nn

from eyechart.core.errors import Incapable
from eyechart.core.records import Prompt
from eyechart.locate.labels import LabelRule, labels_of, speller_of
from eyechart.locate.lens import Unembedding, lens_ranks
from eyechart.locate.lens_of_vlm import already_normed, lens_of, make_lens
from eyechart.models.vlms import load_vlm

NAMES = ("llava", "qwen2_5_vl", "paligemma", "gemma3", "smolvlm", "aya_vision", "kosmos2")


@pytest.fixture(scope="module")
def llava(checkpoint_dir):
    """Loaded once; tests that change it change it back."""
    return load_vlm(str(checkpoint_dir("llava")), device="cpu")


def own_log_probabilities(vlm, prompt):
    """The model's own, at every position, over the tokens of its tokenizer."""
    with torch.no_grad():
        logits = vlm.model(**vlm.inputs([prompt])).logits[0].float()
    return logits[:, : len(vlm.tokenizer)].log_softmax(-1)


def read_last(vlm, prompt):
    lens = lens_of(vlm)
    labels = labels_of(["color", "e"], speller_of(vlm.tokenizer), rule=LabelRule.FIRST).labels
    states = vlm.hidden_states(prompt, positions="all")
    found = lens_ranks(states.layers, labels, lens, normed=already_normed(states), log_probabilities=True)
    own = own_log_probabilities(vlm, prompt)[:, [label.tokens[0] for label in labels]]
    return found.log_probabilities, own, found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_reads_what_the_model_says(checkpoint_dir, square_picture, name):
    vlm = load_vlm(str(checkpoint_dir(name)), device="cpu")
    read, own, found = read_last(vlm, Prompt(text="What is it?", images=(square_picture,)))
    assert torch.allclose(read[-1], own, atol=1e-4)
    assert not torch.allclose(read[-2], own, atol=1e-2), "only the last layer says what the model says"
    assert found.ranks.min() >= 1
    assert found.ranks.max() <= len(vlm.tokenizer)


def test_llava_at_every_position_and_layer_subsets_in_any_order(llava, square_picture):
    prompt = Prompt(text="What is it?", images=(square_picture,))
    read, own, _ = read_last(llava, prompt)
    assert torch.allclose(read[-1], own, atol=1e-4)
    assert "logits as they are" in lens_of(llava).note
    states = llava.hidden_states(prompt, layers=[-1, 0])
    assert already_normed(states) == (True, False)
    labels = labels_of(["color"], speller_of(llava.tokenizer), rule=LabelRule.FIRST).labels
    some = lens_ranks(states.layers, labels, lens_of(llava), normed=already_normed(states))
    every = llava.hidden_states(prompt)
    whole = lens_ranks(every.layers, labels, lens_of(llava), normed=already_normed(every))
    assert torch.equal(some.ranks, whole.ranks[[-1, 0]])


class Scaled(nn.Module):
    """A model whose logits are changed on their way out, as some families change theirs."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __call__(self, module, args, output):
        output.logits = self.change(output.logits)
        return output


@pytest.mark.parametrize(
    ("field", "change", "note"),
    [
        ("final_logit_softcapping", lambda logits: torch.tanh(logits / 1.5) * 1.5, "logits capped at 1.5"),
        ("logit_scale", lambda logits: logits * 1.5, "logits times logit_scale 1.5"),
        ("logits_scaling", lambda logits: logits / 1.5, "logits over logits_scaling 1.5"),
    ],
)
def test_what_is_done_to_the_logits_is_found(llava, square_picture, monkeypatch, field, change, note):
    monkeypatch.setattr(llava.model.config.text_config, field, 1.5, raising=False)
    assert "logits as they are" in lens_of(llava).note, "the field alone proves nothing"
    hook = llava.model.register_forward_hook(Scaled(change))
    try:
        assert note in lens_of(llava).note
        read, own, _ = read_last(llava, Prompt(text="What is it?", images=(square_picture,)))
        assert torch.allclose(read[-1], own, atol=1e-4)
        monkeypatch.delattr(llava.model.config.text_config, field)
        with pytest.raises(
            Incapable, match="its logits at the last layer are not what its final norm and unembedding"
        ):
            lens_of(llava)
    finally:
        hook.remove()


def test_models_without_a_lens_are_refused(checkpoint_dir, llava, monkeypatch):
    florence = load_vlm(str(checkpoint_dir("florence2")), device="cpu")
    with pytest.raises(Incapable, match="its image is read by an encoder, whose states no unembedding reads"):
        lens_of(florence)

    class Towers:
        language_encoder = False
        final_norm = None
        lm_head = None

    monkeypatch.setattr(type(llava), "towers", Towers)
    with pytest.raises(Incapable, match="no final norm and unembedding is to be found"):
        lens_of(llava)


class Words:
    """A tokenizer of so many tokens."""

    def __init__(self, ids):
        self.ids = ids

    def get_vocab(self):
        return {f"w{number}": number for number in self.ids}


def test_rows_without_a_token_are_known():
    lens = make_lens(nn.LayerNorm(4), nn.Linear(4, 64), Words([0, 1, 2, 5, 6]), rows=64)
    assert (lens.tokens, lens.unused) == (7, (3, 4))
    assert make_lens(nn.LayerNorm(4), nn.Linear(4, 64), Words(range(99)), rows=64).tokens == 64


def test_a_plain_head_is_read_as_a_matrix_and_another_is_called():
    head = nn.Linear(4, 9)
    lens = make_lens(nn.LayerNorm(4), head, Words(range(9)), rows=9)
    assert isinstance(lens.head, Unembedding)
    assert not lens.head.weight.requires_grad
    for other in (nn.Sequential(head), with_hook(nn.Linear(4, 9))):
        assert make_lens(nn.LayerNorm(4), other, Words(range(9)), rows=9).head is other


def with_hook(module):
    """As accelerate marks a module whose weights it moves."""
    module._hf_hook = object()
    return module


def test_half_precision_is_read(checkpoint_dir):
    vlm = load_vlm(str(checkpoint_dir("llava")), device="cpu", dtype="bfloat16")
    lens = lens_of(vlm)
    states = vlm.hidden_states(Prompt(text="a", images=(Image.new("RGB", (64, 64), (200, 30, 30)),)))
    assert states.layers.dtype == torch.bfloat16
    labels = labels_of(["color"], speller_of(vlm.tokenizer), rule=LabelRule.FIRST).labels
    ranks = lens_ranks(states.layers, labels, lens, normed=already_normed(states)).ranks
    assert ranks.shape == (*states.layers.shape[:2], 1)
