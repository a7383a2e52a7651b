"""One function for each small encoder: the model and its processor, as the real checkpoint has them."""

from typing import Any

import transformers as tf
from tokenizers import pre_tokenizers

from checkpoint_parts import Made, build, clip_images, square, tower
from eyechart.models.untrained import tiny_tokenizer


def clip_tokenizer() -> Any:
    """CLIP's own tokenizer without merges: bytes, bytes that end a word, then start and end of text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return tf.CLIPTokenizer(
        vocab={token: place for place, token in enumerate(tokens)}, merges=[], model_max_length=77
    )


def text_tower(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """The config of a text tower of width 32."""
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": len(tokenizer), "max_position_embeddings": 77, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, **more,
    }  # fmt: skip


def clip(**text: Any) -> Made:
    tokenizer = clip_tokenizer()
    config = tf.CLIPConfig(
        vision_config=tower("clip_vision_model", projection_dim=24),
        text_config=text_tower(tokenizer, projection_dim=24, **text),
        projection_dim=24,
    )
    return build(tf.CLIPModel, config), tf.CLIPProcessor(clip_images(56), tokenizer)


def clip_legacy() -> Made:
    """As OpenAI's checkpoints: the config says that texts end in token 2, and pooling is by the largest id."""
    return clip(eos_token_id=2)


def clip_vision() -> Made:
    """The bare vision tower of a CLIP."""
    config = tf.CLIPVisionConfig(**tower("clip_vision_model", projection_dim=24))
    return build(tf.CLIPVisionModel, config), clip_images(56)


def clip_vision_projected() -> Made:
    """The vision tower of a CLIP with its projection."""
    config = tf.CLIPVisionConfig(**tower("clip_vision_model", projection_dim=24))
    return build(tf.CLIPVisionModelWithProjection, config), clip_images(56)


def metaclip_2() -> Made:
    tokenizer = tiny_tokenizer(eos=True, padding_side="right")
    config = tf.MetaClip2Config(
        vision_config=tower("metaclip_2_vision_model", projection_dim=24),
        text_config=text_tower(tokenizer, projection_dim=24),
        projection_dim=24,
    )
    tokenizer.model_max_length = 77
    return build(tf.MetaClip2Model, config), tf.CLIPProcessor(clip_images(56), tokenizer)


def chinese_clip() -> Made:
    tokenizer = tiny_tokenizer(eos=True, padding_side="right")
    config = tf.ChineseCLIPConfig(
        vision_config=tower("chinese_clip_vision_model", projection_dim=24),
        text_config=text_tower(tokenizer, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        projection_dim=24,
    )
    images = tf.ChineseCLIPImageProcessorPil(size=square(56), do_center_crop=False)
    return build(tf.ChineseCLIPModel, config), tf.ChineseCLIPProcessor(images, tokenizer)


def siglip_tokenizer() -> Any:
    """A tokenizer that ends each text, and whose texts SigLIP has seen padded to 64 tokens."""
    tokenizer = tiny_tokenizer(bos=False, eos=True, padding_side="right")
    tokenizer.model_max_length = 64
    return tokenizer


def siglip(side: int = 56) -> Made:
    """SigLIP, and SigLIP 2 of a fixed resolution, which is the same class."""
    tokenizer = siglip_tokenizer()
    config = tf.SiglipConfig(
        vision_config=tower("siglip_vision_model", side=side),
        text_config=text_tower(tokenizer, max_position_embeddings=64, projection_size=32),
    )
    return build(tf.SiglipModel, config), tf.SiglipProcessor(
        tf.SiglipImageProcessorPil(size=square(side)), tokenizer
    )


def siglip2_naflex() -> Made:
    """SigLIP 2 for any aspect ratio: patches come cut, masked, and with the shape of their grid."""
    tokenizer = siglip_tokenizer()
    vision = tower("siglip2_vision_model", patch=8, num_patches=49)
    del vision["image_size"]
    config = tf.Siglip2Config(
        vision_config=vision,
        text_config=text_tower(tokenizer, max_position_embeddings=64, projection_size=32),
    )
    images = tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=49)
    return build(tf.Siglip2Model, config), tf.Siglip2Processor(images, tokenizer)


def bit_images(side: int) -> Any:
    """DINOv2's image processor: resize the short side, crop the centre."""
    return tf.BitImageProcessorPil(size={"shortest_edge": side}, crop_size=square(side))


def dinov2() -> Made:
    config = tf.Dinov2Config(**tower("dinov2"), mlp_ratio=2)
    return build(tf.Dinov2Model, config), bit_images(56)


def dinov2_with_registers() -> Made:
    config = tf.Dinov2WithRegistersConfig(
        **tower("dinov2_with_registers"), mlp_ratio=2, num_register_tokens=4
    )
    return build(tf.Dinov2WithRegistersModel, config), bit_images(56)


def dinov3() -> Made:
    """DINOv3: rotary positions, four registers. Its own image processor exists on torchvision only."""
    config = tf.DINOv3ViTConfig(**tower("dinov3_vit"), num_register_tokens=4)
    images = tf.ViTImageProcessorPil(
        size=square(56), image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    return build(tf.DINOv3ViTModel, config), images


def vit() -> Made:
    config = tf.ViTConfig(**tower("vit"))
    return build(tf.ViTModel, config), tf.ViTImageProcessorPil(size=square(56))


def vit_mae() -> Made:
    """As Facebook's checkpoints: encoder and decoder, three patches of four masked."""
    config = tf.ViTMAEConfig(
        **tower("vit_mae"), decoder_num_attention_heads=2, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_intermediate_size=32,
    )  # fmt: skip
    return build(tf.ViTMAEForPreTraining, config), tf.ViTImageProcessorPil(size=square(56))
