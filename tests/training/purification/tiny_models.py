"""A generative vision-language model and a SAM with random weights, built from their configurations."""

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

CHAT_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]


def save_qwen(folder):
    """Write a Qwen2.5-VL of two layers whose tokens are bytes."""
    vocab = {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), *SPECIAL])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=[], pad_token=SPECIAL[0], eos_token=SPECIAL[2], additional_special_tokens=SPECIAL[1:]
    )
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(vocab),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            bos_token_id=vocab[SPECIAL[1]],
            eos_token_id=vocab[SPECIAL[2]],
            pad_token_id=vocab[SPECIAL[0]],
        ),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            out_hidden_size=32,
            window_size=56,
            fullatt_block_indexes=[1],
        ),
        **{
            f"{name}_token_id": vocab[f"<|{token}|>"]
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def save_sam(folder):
    """Write a SAM for pictures of 64 px."""
    config = SamConfig(
        vision_config=dict(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            window_size=2,
            global_attn_indexes=[1],
            num_pos_feats=8,
            initializer_range=0.02,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=64, mask_input_channels=4),
        mask_decoder_config=dict(
            hidden_size=16,
            mlp_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            iou_head_depth=2,
            iou_head_hidden_dim=16,
        ),
    )
    torch.manual_seed(0)
    SamModel(config).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    processor = SamImageProcessor(
        size={"longest_edge": 64},
        pad_size=square,
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    SamProcessor(processor).save_pretrained(folder)
    return str(folder)
