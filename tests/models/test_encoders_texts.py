"""The text side of CLIP-like encoders: transformers' own path, and pooling where the text ends."""

import functools
import gzip
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from transformers import AutoModel, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from checkpoint_encoders import text_tower
from checkpoint_parts import build, clip_images, tower
from eyechart.core.errors import Incapable, UserError
from eyechart.models.encoders import Encoder, load_encoder

Checkpoints = Callable[[str], Path]
Encoders = Callable[[str], Encoder]

TEXTS = ["a dog", "a photo of two cats on a mat", "left"]
CLIPS = ("clip", "clip_legacy", "metaclip_2", "chinese_clip")
SIGLIPS = ("siglip", "siglip2_naflex")


@pytest.fixture(scope="module")
def encoders(checkpoint_dir: Checkpoints) -> Encoders:
    """A function from a checkpoint's name to its encoder, loaded once. Don't change it."""
    return functools.cache(lambda name: load_encoder(str(checkpoint_dir(name))))


@functools.cache
def own_parts(folder: Path) -> tuple[Any, Any]:
    """The checkpoint's model and tokenizer as transformers loads them, loaded once."""
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def own_features(folder: Path, texts: list[str], **padding: object) -> torch.Tensor:
    """What transformers itself gives for these texts in one batch."""
    model, tokenizer = own_parts(folder)
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    with torch.no_grad():
        return model.get_text_features(**tokens).pooler_output


@pytest.mark.parametrize("name", CLIPS)
def test_texts_are_as_transformers_embeds_them(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints
) -> None:
    encoder = encoders(name)
    found = encoder.embed_texts(TEXTS)
    assert found.shape == (3, encoder.dims["projected"])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    for padding in ({"padding": True}, {"padding": "max_length", "max_length": 70}):
        torch.testing.assert_close(found, own_features(checkpoint_dir(name), TEXTS, **padding))


@pytest.mark.parametrize("name", SIGLIPS)
def test_siglip_texts_are_padded_to_full_length(
    name: str, encoders: Encoders, checkpoint_dir: Checkpoints
) -> None:
    found = encoders(name).embed_texts(TEXTS)
    full = own_features(checkpoint_dir(name), TEXTS, padding="max_length", max_length=64)
    torch.testing.assert_close(found, full)
    short = own_features(checkpoint_dir(name), TEXTS, padding=True)
    assert (found - short).abs().max() > 0.1, "padding made no difference, so this shows nothing"


@pytest.mark.parametrize("name", [*CLIPS, *SIGLIPS])
def test_neighbours_change_no_text(name: str, encoders: Encoders) -> None:
    encoder = encoders(name)
    together = encoder.embed_texts(TEXTS)
    for row, text in enumerate(TEXTS):
        assert torch.equal(encoder.embed_texts([text])[0], together[row])


def end_token(folder: Path, token: int) -> None:
    """Say in the config that texts end in this token."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = token
    (folder / "config.json").write_text(json.dumps(config))


def test_pooling_at_the_largest_id_where_that_is_not_the_end(
    checkpoint_dir: Checkpoints, tmp_path: Path
) -> None:
    """With eos_token_id 2 transformers pools at the largest id: a token added after the end token steals it."""
    folder = shutil.copytree(checkpoint_dir("clip_legacy"), tmp_path / "extended")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["sphere"])
    tokenizer.save_pretrained(folder)
    encoder = load_encoder(str(folder))
    torch.testing.assert_close(encoder.embed_texts(["a dog"]), own_features(folder, ["a dog"]))
    with pytest.raises(
        UserError, match=r"pools texts at the largest token id .* ends texts with token 513; for 'a sphere'"
    ):
        encoder.embed_texts(["a sphere"])


@pytest.mark.parametrize("name", ["clip", "metaclip_2"])
def test_pooling_at_a_token_that_no_text_has(name: str, checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    """transformers then pools every text at its first token, so that all texts come out the same."""
    folder = shutil.copytree(checkpoint_dir(name), tmp_path / name)
    end_token(folder, 49407)
    with pytest.raises(UserError, match="pools texts at token 49407"):
        load_encoder(str(folder)).embed_texts(["a dog"])


def test_clips_real_vocabulary_ends_at_its_largest_id(shared_data: Path, tmp_path: Path) -> None:
    """With OpenAI's own vocabulary, whose end token is the last, pooling by the largest id is right."""
    written = gzip.decompress(
        (shared_data / "clip-tokenizer-and-prompts" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    )
    merges = [tuple(line.split()) for line in written.decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = tf.CLIPTokenizer(
        vocab={token: place for place, token in enumerate(vocabulary)}, merges=merges
    )
    config = tf.CLIPConfig(
        vision_config=tower("clip_vision_model", projection_dim=24),
        text_config=text_tower(tokenizer) | {"eos_token_id": 2},
        projection_dim=24,
    )
    model = build(tf.CLIPModel, config)
    model.save_pretrained(tmp_path)
    tf.CLIPProcessor(clip_images(56), tokenizer).save_pretrained(tmp_path)
    text = "a photo of the number: 7, naïvely"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids[0, :4].tolist() == [49406, 320, 1125, 539], (
        "these are the ids of 'a photo of' in OpenAI's CLIP"
    )
    with torch.no_grad():
        states = model.text_model(ids).last_hidden_state[0]
        expected = model.text_projection(states[ids[0].tolist().index(49407)])
    torch.testing.assert_close(load_encoder(str(tmp_path)).embed_texts([text])[0], expected)


def test_a_text_that_may_be_cut_is_told(
    checkpoint_dir: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(str(checkpoint_dir("clip")))
    with caplog.at_level(logging.WARNING):
        encoder.embed_texts(["a dog " * 40])
    assert "fills all 77 tokens and may be cut" in caplog.text


def test_encoders_without_texts(checkpoint_dir: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(Incapable, match="Dinov2Model has no text tower"):
        load_encoder(str(checkpoint_dir("dinov2"))).embed_texts(["a dog"])
    folder = shutil.copytree(checkpoint_dir("clip"), tmp_path / "wordless")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="has a text tower but no tokenizer"):
        load_encoder(str(folder))
