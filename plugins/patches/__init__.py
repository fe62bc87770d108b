"""What is patched in verl 0.9.1 (table.py lists it) and in vLLM (vllm.py).

This file imports nothing, so that the plan reads it without a wait.
"""

# Logits at a time, in chunks: a cache's worth, or enough to keep a GPU busy (assumed).
CHUNK = {"cpu": 1 << 20, "cuda": 1 << 23}
