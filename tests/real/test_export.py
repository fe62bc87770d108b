"""A LoRA run of verl on two workers, exported from what it really saved."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tools.export import main

pytestmark = pytest.mark.real


def test_what_verl_saved_is_exported(run, warm, tmp_path):
    """Merged from the shards alone, and the adapter; both answer held-out rows as the run did."""
    made = run("algo=grpo", "hw=cpu_x2", "lab.lora_rank=4", f"lab.model.path={warm.folder}", "trainer.save_freq=2",
               "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra]")  # fmt: skip
    assert "tools.export" in made.done.stdout
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    assert main([str(made.folder), "--to", str(whole), "--check-rows", "16"]) == 0
    assert main([str(made.folder), "--to", str(adapter), "--adapter", "--check-rows", "0"]) == 0
    about = json.loads((whole / "export.json").read_text())
    assert about["lora"] == {"r": 4, "alpha": 8, "merged": True}
    assert about["logits"]["largest_difference"] < 1e-4
    held_out = about["held_out"]
    assert held_out["in_validation"] >= 8  # of the rows that the run has validated
    assert held_out["same_text"] >= 0.8 * held_out["in_validation"]  # near ties may fall otherwise
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        one = AutoModelForCausalLM.from_pretrained(whole)(input_ids=ids).logits
        # verl's config.json says bfloat16, whatever the weights are
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        other = PeftModel.from_pretrained(model, adapter)(input_ids=ids).logits
    assert (one - other).abs().max() < 1e-4
