"""What tests/bench/bench_memory.py measures: shapes of models, settings of the engine, sequences."""

SMALL = {
    "model_type": "qwen2", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip
MIDDLE = SMALL | {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
                  "vocab_size": 16384}  # fmt: skip
QWEN3 = SMALL | {
    "model_type": "qwen3",
    "head_dim": 128,
    "vocab_size": 12288,
    "tie_word_embeddings": False,
}
LLAMA = SMALL | {
    "model_type": "llama",
    "hidden_size": 384,
    "num_attention_heads": 6,
    "tie_word_embeddings": False,
}
HALF = {  # Qwen2.5-0.5B
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
# facts, settings of preflight.memory.training.Engine, (sequences, tokens of each)
POINTS = {
    "small": (SMALL, {}, (8, 256)),
    "small_bf16": (SMALL, {"c": 2}, (8, 256)),
    "small_checkpointing": (SMALL, {"checkpointing": True}, (16, 256)),
    "small_bf16_checkpointing": (SMALL, {"c": 2, "checkpointing": True}, (16, 256)),
    "small_packed": (SMALL, {"packed": True}, (8, 128)),
    "small_bf16_packed": (SMALL, {"c": 2, "packed": True, "checkpointing": True}, (8, 256)),
    "small_entropy": (SMALL, {"entropy": True}, (8, 128)),
    "small_scaled": (SMALL, {"scaled": True, "packed": True, "c": 2}, (8, 128)),
    "small_lora": (SMALL, {"rank": 16}, (8, 256)),
    "small_bf16_lora": (SMALL, {"c": 2, "rank": 16, "checkpointing": True}, (16, 256)),
    "small_four_passes": (SMALL, {"passes": 4}, (8, 128)),
    "small_value": (SMALL, {"head": "value"}, (8, 256)),
    "small_two_shards": (SMALL, {"shards": 2, "checkpointing": True}, (4, 64)),
    "middle_two_shards_bf16": (MIDDLE, {"shards": 2, "c": 2, "checkpointing": True}, (2, 64)),
    "qwen3_two_shards": (QWEN3, {"shards": 2, "checkpointing": True}, (2, 64)),
    "middle": (MIDDLE, {}, (4, 256)),
    "middle_bf16_checkpointing": (MIDDLE, {"c": 2, "checkpointing": True}, (8, 256)),
    "middle_four_passes": (MIDDLE, {"passes": 4, "checkpointing": True}, (8, 64)),
    "middle_few_tokens": (MIDDLE, {"checkpointing": True}, (2, 32)),
    "middle_bf16_weights": (MIDDLE, {"w": 2, "c": 2, "checkpointing": True, "passes": 2}, (8, 128)),
    "middle_foreach": (MIDDLE, {"foreach": True, "checkpointing": True}, (2, 64)),
    "qwen3": (QWEN3, {"checkpointing": True}, (8, 256)),
    "qwen3_bf16": (QWEN3, {"c": 2}, (8, 256)),
    "llama_bf16": (LLAMA, {"c": 2}, (8, 256)),
    "half_a_billion": (HALF, {"checkpointing": True}, (2, 128)),
    "half_a_billion_bf16_lora": (HALF, {"w": 2, "c": 2, "rank": 32, "checkpointing": True, "packed": True}, (4, 128)),
}  # fmt: skip

ONE_AND_A_HALF = HALF | {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                         "num_attention_heads": 12}  # fmt: skip
SEVEN = HALF | {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
                "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}  # fmt: skip
GPU = {"cuda": True, "foreach": True, "c": 2, "softmax": 4, "checkpointing": True, "packed": True}
LORA = GPU | {"w": 2, "rank": 32}
POINTS_GPU = {
    "7b_lora": (SEVEN, LORA | {"chunk": 512}, (4, 1024)),
    "0.5b": (HALF, GPU, (4, 1024)),
    "0.5b_few_tokens": (HALF, GPU, (2, 128)),
    "0.5b_padded": (HALF, GPU | {"packed": False}, (4, 1024)),
    "0.5b_keeps_activations": (HALF, GPU | {"checkpointing": False}, (4, 512)),
    "0.5b_entropy": (HALF, GPU | {"entropy": True}, (4, 1024)),
    "0.5b_entropy_compiled": (HALF, GPU | {"entropy": True, "compiled": True}, (4, 1024)),
    "0.5b_four_passes": (HALF, GPU | {"passes": 4, "chunk": 512}, (8, 1024)),
    "0.5b_value": (HALF, GPU | {"head": "value"}, (8, 1024)),
    "1.5b_lora": (ONE_AND_A_HALF, LORA | {"chunk": 512}, (4, 1024)),
    "1.5b": (ONE_AND_A_HALF, GPU, (2, 1024)),
}  # fmt: skip
