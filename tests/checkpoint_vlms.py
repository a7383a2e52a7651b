"""One function for each small VLM: the model and its processor, as the real checkpoint has them."""

from typing import Any

import transformers as tf

from checkpoint_parts import (
    Made,
    build,
    chatml,
    clip_images,
    ids,
    language,
    plain,
    square,
    tower,
)
from eyechart.models.processors import NoVideo, images_only
from eyechart.models.untrained import TEMPLATE, tiny_tokenizer


def llava(*, chat: bool = True) -> Made:
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE if chat else None)
    config = tf.LlavaConfig(
        vision_config=tower("clip_vision_model", projection_dim=16),
        text_config=language("llama", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=49,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = tf.LlavaProcessor(
        clip_images(56), tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE if chat else None,
    )  # fmt: skip
    return build(tf.LlavaForConditionalGeneration, config), processor


def llava_next() -> Made:
    tokenizer = tiny_tokenizer(["<image>"], chat_template=TEMPLATE)
    pinpoints = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    config = tf.LlavaNextConfig(
        vision_config=tower("clip_vision_model", projection_dim=16),
        text_config=language("mistral", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=49,
    )
    images = tf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=square(56), image_grid_pinpoints=pinpoints
    )
    processor = tf.LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    return build(tf.LlavaNextForConditionalGeneration, config), processor


QWEN_TOKENS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def qwen_tokenizer() -> tuple[Any, dict[str, int]]:
    """Qwen's special tokens, and the fields its configs want them in."""
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer = tiny_tokenizer(QWEN_TOKENS, bos=False, chat_template=template)
    places = {
        "vision_start": "vision_start",
        "vision_end": "vision_end",
        "image": "image_pad",
        "video": "video_pad",
    }
    return tokenizer, {
        f"{field}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for field, token in places.items()
    }


def qwen_processor(processor_class: Any, tokenizer: Any, video: str, *, patch: int = 14) -> Any:
    """Qwen's processor, with pictures kept small."""
    images = tf.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 30 * (2 * patch) ** 2},
        patch_size=patch, merge_size=2, temporal_patch_size=2,
    )  # fmt: skip
    videos = NoVideo(video_processor_type=video, patch_size=patch, merge_size=2, temporal_patch_size=2)
    return images_only(processor_class)(images, tokenizer, videos, chat_template=tokenizer.chat_template)


def qwen2_vl() -> Made:
    tokenizer, places = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    config = tf.Qwen2VLConfig(
        vision_config={
            "depth": 3, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 14
        },
        text_config=language("qwen2_vl_text", tokenizer, rope_parameters=rope, max_window_layers=3),
        **places,
    )  # fmt: skip
    processor = qwen_processor(tf.Qwen2VLProcessor, tokenizer, "Qwen2VLVideoProcessor")
    return build(tf.Qwen2VLForConditionalGeneration, config), processor


def qwen2_5_vl() -> Made:
    tokenizer, places = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    config = tf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14,
            "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1],
        },
        text_config=language("qwen2_5_vl_text", tokenizer, rope_parameters=rope, max_window_layers=3),
        **places,
    )  # fmt: skip
    processor = qwen_processor(tf.Qwen2_5_VLProcessor, tokenizer, "Qwen2VLVideoProcessor")
    return build(tf.Qwen2_5_VLForConditionalGeneration, config), processor


def qwen3_vl() -> Made:
    tokenizer, places = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = tf.Qwen3VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
            "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
        },
        text_config=language("qwen3_vl_text", tokenizer, rope_parameters=rope, head_dim=8),
        **places,
    )  # fmt: skip
    processor = qwen_processor(tf.Qwen3VLProcessor, tokenizer, "Qwen3VLVideoProcessor", patch=16)
    return build(tf.Qwen3VLForConditionalGeneration, config), processor


IDEFICS_TOKENS = [
    "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]  # fmt: skip


def idefics3() -> Made:
    tokenizer = tiny_tokenizer(IDEFICS_TOKENS, chat_template=plain("<image>"), bos=False)
    config = tf.Idefics3Config(
        vision_config=tower("idefics3_vision", side=64),
        text_config=language("llama", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = tf.Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    processor = tf.Idefics3Processor(
        images, tokenizer, image_seq_len=16, chat_template=tokenizer.chat_template
    )
    return build(tf.Idefics3ForConditionalGeneration, config), processor


def smolvlm() -> Made:
    tokenizer = tiny_tokenizer(IDEFICS_TOKENS, chat_template=plain("<image>"), bos=False)
    config = tf.SmolVLMConfig(
        vision_config=tower("smolvlm_vision", side=64),
        text_config=language("llama", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = images_only(tf.SmolVLMProcessor)(
        tf.SmolVLMImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer,
        NoVideo(video_processor_type="SmolVLMVideoProcessor"),
        image_seq_len=16,
        chat_template=tokenizer.chat_template,
    )
    return build(tf.SmolVLMForConditionalGeneration, config), processor


def paligemma() -> Made:
    tokenizer = tiny_tokenizer(named={"image_token": "<image>"})
    images = tf.SiglipImageProcessorPil(size=square(56))
    images.image_seq_length = 49
    processor = tf.PaliGemmaProcessor(images, tokenizer)
    config = tf.PaliGemmaConfig(
        vision_config=tower("siglip_vision_model", projection_dim=32, vision_use_head=False),
        text_config=language("gemma", tokenizer, head_dim=8),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
    )
    return build(tf.PaliGemmaForConditionalGeneration, config), processor


def mllama() -> Made:
    tokenizer = tiny_tokenizer(
        ["<|image|>", "<|python_tag|>", "<|im_start|>", "<|im_end|>"], chat_template=chatml("<|image|>")
    )
    config = tf.MllamaConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_global_layers": 1,
            "attention_heads": 4, "image_size": 56, "patch_size": 8, "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 2], "vision_output_dim": 96,
        },
        text_config=language("mllama_text_model", tokenizer, cross_attention_layers=[1], num_hidden_layers=4),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    images = tf.MllamaImageProcessorPil(size=square(56), max_image_tiles=4)
    processor = tf.MllamaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    return build(tf.MllamaForConditionalGeneration, config), processor


def qformer(**more: Any) -> dict[str, Any]:
    """The config of a Q-Former of width 32."""
    return {
        "vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "encoder_hidden_size": 32, "max_position_embeddings": 512, **more,
    }  # fmt: skip


def instructblip() -> Made:
    tokenizer = tiny_tokenizer(["<image>"])
    config = tf.InstructBlipConfig(
        vision_config=tower("instructblip_vision_model"),
        qformer_config=qformer(),
        text_config=language("llama", tokenizer),
        num_query_tokens=8,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = tf.BlipImageProcessorPil(size=square(56))
    processor = tf.InstructBlipProcessor(
        images, tokenizer, tiny_tokenizer(padding_side="right"), num_query_tokens=8
    )
    return build(tf.InstructBlipForConditionalGeneration, config), processor


def blip_2() -> Made:
    tokenizer = tiny_tokenizer(["<image>"])
    config = tf.Blip2Config(
        vision_config=tower("blip_2_vision_model"),
        qformer_config=qformer(),
        text_config={
            "model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 3,
            "num_attention_heads": 4, "word_embed_proj_dim": 32, "max_position_embeddings": 1024, **ids(tokenizer),
        },
        num_query_tokens=8,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = tf.Blip2Processor(tf.BlipImageProcessorPil(size=square(56)), tokenizer, num_query_tokens=8)
    return build(tf.Blip2ForConditionalGeneration, config), processor


def gemma3() -> Made:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = tiny_tokenizer(["<end_of_utterance>"], named=named, chat_template=plain("<start_of_image>"))
    config = tf.Gemma3Config(
        vision_config=tower("siglip_vision_model", vision_use_head=False, side=64),
        text_config=language(
            "gemma3_text", tokenizer, head_dim=8, query_pre_attn_scalar=8, sliding_window=64
        ),
        mm_tokens_per_image=16,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    images = tf.Gemma3ImageProcessorPil(size=square(64))
    processor = tf.Gemma3Processor(
        images, tokenizer, image_seq_length=16, chat_template=tokenizer.chat_template
    )
    return build(tf.Gemma3ForConditionalGeneration, config), processor


def internvl() -> Made:
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer = tiny_tokenizer(
        ["<|im_start|>", "<|im_end|>"], named=named, bos=False, chat_template=chatml("<IMG_CONTEXT>\n")
    )
    config = tf.InternVLConfig(
        vision_config=tower("internvl_vision", side=[56, 56], patch=[7, 7]),
        text_config=language("qwen2", tokenizer),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=16,
        downsample_ratio=0.5,
    )
    processor = images_only(tf.InternVLProcessor)(
        tf.GotOcr2ImageProcessorPil(size=square(56), crop_to_patches=True, max_patches=4),
        tokenizer,
        NoVideo(video_processor_type="InternVLVideoProcessor", size=square(56)),
        image_seq_length=16,
        chat_template=tokenizer.chat_template,
    )
    return build(tf.InternVLForConditionalGeneration, config), processor


def llava_onevision() -> Made:
    tokenizer = tiny_tokenizer(
        ["<|im_start|>", "<|im_end|>", "<image>", "<video>"], bos=False, chat_template=chatml("<image>\n")
    )
    pinpoints = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = tf.LlavaOnevisionConfig(
        vision_config=tower("siglip_vision_model", vision_use_head=False),
        text_config=language("qwen2", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    processor = images_only(tf.LlavaOnevisionProcessor)(
        tf.LlavaOnevisionImageProcessorPil(size=square(56), image_grid_pinpoints=pinpoints),
        tokenizer,
        NoVideo(video_processor_type="LlavaOnevisionVideoProcessor", size=square(56)),
        num_image_tokens=49,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )
    return build(tf.LlavaOnevisionForConditionalGeneration, config), processor


def idefics2() -> Made:
    tokenizer = tiny_tokenizer(IDEFICS_TOKENS[:3], chat_template=plain("<image>"), bos=False)
    config = tf.Idefics2Config(
        vision_config=tower("idefics2_vision", side=64),
        perceiver_config={
            "hidden_size": 32, "resampler_n_latents": 8, "resampler_depth": 2, "resampler_n_heads": 4,
            "resampler_head_dim": 8, "num_key_value_heads": 2,
        },
        text_config=language("mistral", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = tf.Idefics2ImageProcessorPil(
        size={"shortest_edge": 32, "longest_edge": 64}, do_image_splitting=False
    )
    processor = tf.Idefics2Processor(
        images, tokenizer, image_seq_len=8, chat_template=tokenizer.chat_template
    )
    return build(tf.Idefics2ForConditionalGeneration, config), processor


AYA_TOKENS = [
    "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<image>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL", "<|IMG_PATCH|>",
    "<|im_start|>", "<|im_end|>",
]  # fmt: skip


def aya_vision() -> Made:
    tokenizer = tiny_tokenizer(AYA_TOKENS, chat_template=chatml("<image>"))
    config = tf.AyaVisionConfig(
        vision_config=tower("siglip_vision_model", vision_use_head=False, side=64),
        text_config=language("cohere2", tokenizer, head_dim=8),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    images = tf.GotOcr2ImageProcessorPil(size=square(64), crop_to_patches=True, max_patches=4)
    processor = tf.AyaVisionProcessor(
        images,
        tokenizer,
        patch_size=8,
        img_size=64,
        downsample_factor=2,
        chat_template=tokenizer.chat_template,
    )
    return build(tf.AyaVisionForConditionalGeneration, config), processor


def florence2() -> Made:
    tokenizer = tiny_tokenizer(named={"image_token": "<image>"}, padding_side="right", eos=True)
    config = tf.Florence2Config(
        vision_config={
            "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
            "patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [2, 4], "num_groups": [2, 4],
            "window_size": 4, "projection_dim": 32, "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "max_position_embeddings": 1024, "decoder_start_token_id": 2,
            "forced_eos_token_id": None, **ids(tokenizer),
        },
        image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    images = tf.CLIPImageProcessorPil(size=square(64), do_center_crop=False, crop_size=square(64))
    images.image_seq_length = 65
    processor = tf.Florence2Processor(image_processor=images, tokenizer=tokenizer)
    return build(tf.Florence2ForConditionalGeneration, config), processor


KOSMOS_TOKENS = ["<image>", "</image>", "<phrase>", "</phrase>", "<object>", "</object>", "<grounding>"]


def kosmos2() -> Made:
    tokenizer = tiny_tokenizer(KOSMOS_TOKENS, padding_side="right")
    config = tf.Kosmos2Config(
        text_config={
            "embed_dim": 32, "layers": 3, "ffn_dim": 64, "attention_heads": 4,
            "max_position_embeddings": 512, **ids(tokenizer),
        },
        vision_config=tower("kosmos_2_vision_model"),
        latent_query_num=64,
    )  # fmt: skip
    processor = tf.Kosmos2Processor(clip_images(56), tokenizer, num_patch_index_tokens=16)
    config.text_config.vocab_size = len(tokenizer)
    return build(tf.Kosmos2ForConditionalGeneration, config), processor
