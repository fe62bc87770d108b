"""Hardware profiles: their numbers, several nodes, and hw=auto on machines that fake tools describe."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT, VERIFIED, resolved
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from preflight import machine, names
from preflight.memory.plan import plan_of
from preflight.mistakes import Mistake

GPU = sorted(set(names.groups()["hw"]) - {"auto", "cpu", "cpu_x2"})
ONE = [name for name in GPU if not name.endswith("x8")]
RUNS = json.loads(
    (ROOT / "tests/bench/memory_runs_gpu.json").read_text()
)  # a profile's own: as it is
SETTINGS = {"attention", "remove_padding", "gradient_checkpointing", "weights_dtype", "compute_dtype",
            "rollout_dtype", "compile", "tokens_per_gpu", "samples_per_step", "sft_batch_size", "rollout_memory",
            "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "free_cache", "prefork",
            "weight_bucket_mib", "dataloader_workers", "ray_cpus", "ray_gpus", "device"}  # fmt: skip
SIZES = {
    "1.5": "Qwen/Qwen2.5-1.5B-Instruct", "3": "Qwen/Qwen2.5-3B-Instruct", "4": "Qwen/Qwen3-4B",
    "7": "Qwen/Qwen2.5-7B-Instruct", "8": "Qwen/Qwen3-8B", "14": "Qwen/Qwen2.5-14B-Instruct",
    "32": "Qwen/Qwen2.5-32B-Instruct", "72": "Qwen/Qwen2.5-72B-Instruct",
}  # fmt: skip
RTX4090 = "NVIDIA GeForce RTX 4090, 24564, 8.9, GPU-{}"
H100 = "NVIDIA H100 80GB HBM3, 81559, 9.0, GPU-{}"


@pytest.fixture(scope="module")
def profiles(composer):
    """`profiles[name]` → the resolved lab.hw and lab.model of hw=name, without the groups above them."""
    rest = [f"~{group}" for group in names.groups() if group not in ("hw", "model")]
    labs = {name: composer(f"hw={name}", *rest).lab for name in [*GPU, "cpu", "cpu_x2"]}
    return {
        name: {"hw": resolved(lab.hw), "model": resolved(lab.model)} for name, lab in labs.items()
    }


def cards(line: str, count: int) -> list[str]:
    return [line.format(number) for number in range(count)]


def test_a_gpu_profile_has_the_numbers_that_the_planner_reads(profiles):
    for name in GPU:
        hw = profiles[name]["hw"]
        numbers = [hw[key] for key in ("memory_gib", "bf16_tflops", "memory_gb_s")]
        assert all(isinstance(n, int | float) and n > 0 for n in numbers), name
        assert hw["cards"] and (hw["gpus_per_node"] == 8) == name.endswith("x8"), name
    for name in ("cpu", "cpu_x2"):
        hw = profiles[name]["hw"]
        assert hw["memory_gib"] is hw["bf16_tflops"] is hw["memory_gb_s"] is None


def test_every_profile_knows_the_same_words(profiles):
    """A trainer file, a check or the planner may ask any profile for any of them."""
    own = {"cards"}
    known = set(profiles["cpu"]["hw"])
    assert known >= SETTINGS
    for name, config in profiles.items():
        assert set(config["hw"]) - own == known, name


def test_numbers_are_where_one_looks_for_them():
    """Of one card in its own file; of eight only what differs. hw=auto reads the files so."""
    for name in GPU:
        own = yaml.safe_load((machine.HW / f"{name}.yaml").read_text())["lab"]["hw"]
        assert {"tokens_per_gpu", "rollout_memory", "samples_per_step", "sft_batch_size"} <= set(
            own
        )
        assert ("cards" in own) == ("memory_gib" in own) == (name in ONE), name
    assert sorted(machine.shipped()) == ONE
    every = [card for hw in machine.shipped().values() for card in hw["cards"]]
    assert len(every) == len(set(every))


def test_each_file_says_what_it_is_and_whether_anyone_tried():
    for file in machine.HW.glob("**/*.yaml"):
        first, second, *rest = file.read_text().splitlines()
        assert first == "# @package _global_" and second.startswith("# "), file
        assert len(rest) < 38, file
        if file.parent == machine.HW:
            verified = file.stem.startswith("cpu") or file.stem in RUNS
            assert re.search(VERIFIED if verified else r"\. # unverified$", second), file
            assert not re.search("# (un)?verified", "\n".join(rest)), file


def test_the_first_line_promises_what_the_plan_finds(composer):
    """`all weights up to 3B`: that size of Qwen fits, and the next does not. A LoRA is one of rank 32."""
    for name in GPU:
        line = names.groups()["hw"][name]
        promised = re.findall(r"(all weights|LoRA) up to ([\d.]+)B", line)
        assert promised, name
        config = composer(f"hw={name}")
        for what, size in promised:
            config.lab.lora_rank = 32 if what == "LoRA" else 0
            for number, fits in enumerate((True, False), list(SIZES).index(size)):
                config.lab.model.path = list(SIZES.values())[number]
                assert plan_of(config).fits is fits, f"hw={name}, {what}, {config.lab.model.path}"


def test_sequences_are_packed_on_every_gpu(profiles):
    """Cards for games without flash-attn, with a mask; their entropy comes in pieces, or is compiled."""
    for name in GPU:
        hw = profiles[name]["hw"]
        assert hw["remove_padding"], name
        assert hw["compile"] or hw["entropy_chunk"], name
        assert (hw["attention"] == "sdpa") == name.startswith("rtx"), name


def test_more_nodes(composer):
    one, two = (composer("hw=h100x8", f"lab.hw.nodes={n}") for n in (1, 2))
    assert (two.trainer.nnodes, two.trainer.n_gpus_per_node) == (2, 8)
    storage = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
    for key in ("actor_rollout_ref.rollout.agent.num_workers", "reward.num_workers", storage):
        assert [OmegaConf.select(config, key) for config in (one, two)] == [8, 16], key
    assert composer("hw=rtx4090", "algo=sft", "lab.hw.nodes=3").trainer.nnodes == 3


@pytest.mark.parametrize("name", ONE)
def test_auto_knows_the_card_of_every_profile(tool, name):
    hw = machine.shipped()[name]
    for card in hw["cards"]:
        if card.startswith("AMD"):
            rows = {"card0": {"Card Series": card, "VRAM Total Memory (B)": str(192 << 30)}}
            tool("rocm-smi", "WARNING: low-power state", json.dumps(rows | {"system": {"x": "1"}}))
        else:
            tool("nvidia-smi", f"{card}, {int(1.01 * 1024 * hw['memory_gib'])}, 8.0, GPU-1")
        assert machine.profile() == {"defaults": [name], "lab": {"hw": {"gpus_per_node": 1}}}


def test_auto_without_a_gpu_is_cpu(tool, composer, profiles):
    tool()
    assert machine.gpus() == []
    assert resolved(composer("hw=auto"))["lab"]["hw"] == profiles["cpu"]["hw"]
    assert HydraConfig.get().runtime.choices.hw == "auto"
    tool("nvidia-smi", "No devices were found", status=6)
    assert machine.profile() == {"defaults": ["cpu"]}


def test_auto_takes_all_gpus(tool, composer, profiles, capsys):
    tool("nvidia-smi", *cards(H100, 8))
    config = resolved(composer("hw=auto", "algo=sft"))
    assert config["lab"]["hw"] == profiles["h100x8"]["hw"]
    assert config["lab"]["model"] == profiles["h100x8"]["model"]
    assert "hw=auto: 8 × NVIDIA H100 80GB HBM3: hw=h100" in capsys.readouterr().err
    tool("nvidia-smi", *cards(RTX4090, 2))
    config = composer("hw=auto", "model=tiny", "lab.hw.tokens_per_gpu=512")
    assert config.trainer.n_gpus_per_node == 2 and config.lab.hw.tokens_per_gpu == 512
    assert config.lab.model.path != profiles["rtx4090"]["model"]["path"]


def test_auto_divides_a_step_among_any_number_of_gpus(tool):
    for count in (1, 2, 3, 5, 6, 8, 10):
        tool("nvidia-smi", *cards(RTX4090, count))
        hw = machine.shipped()["rtx4090"] | machine.profile()["lab"]["hw"]
        assert hw["gpus_per_node"] == count
        assert hw["samples_per_step"] >= 256 and hw["samples_per_step"] % (16 * count) == 0
        assert hw["sft_batch_size"] >= 32 and hw["sft_batch_size"] % count == 0


@pytest.mark.parametrize(
    "line, name, memory_gib",
    [
        ("NVIDIA GeForce RTX 3090, 24576, 8.6, GPU-1", "rtx4090", 23.0),
        ("NVIDIA RTX A6000, 49140, 8.6, GPU-1", "l40s", 46.1),
        ("NVIDIA GeForce RTX 4060, 8188, 8.9, GPU-1", "rtx4070", 7.7),  # smaller than all
        ("NVIDIA GeForce RTX 4090, 16376, 8.9, GPU-1", "rtx4080", 15.4),  # less than the card has
        ("NVIDIA B300 SXM6 AC, 275040, 10.3, GPU-1", "b200", 257.8),
    ],
)
def test_auto_with_a_card_that_has_no_profile(tool, line, name, memory_gib):
    """The settings of the next smaller one, the machine's own memory, and no data sheet."""
    tool("nvidia-smi", line)
    made = machine.profile()
    assert made["defaults"] == [name]
    assert made["lab"]["hw"] == {
        "gpus_per_node": 1, "cards": [line.split(", ")[0]], "memory_gib": memory_gib,
        "bf16_tflops": None, "memory_gb_s": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "visible, indices",
    [("", []), ("1", [1]), ("2, 0", [2, 0]), ("GPU-2,1", [2, 1]), ("0,7,1", [0]), ("-1", [])],
)
def test_the_gpus_that_cuda_may_see(tool, monkeypatch, visible, indices):
    tool("nvidia-smi", *cards(RTX4090, 3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.index for gpu in machine.gpus()] == indices


def test_what_auto_cannot_use(tool, monkeypatch):
    def said() -> str:
        with pytest.raises(Mistake) as mistake:
            machine.profile()
        assert "\n" not in str(mistake.value)
        return str(mistake.value)

    tool("nvidia-smi", RTX4090.format(0), "NVIDIA T400, 4096, 7.5, GPU-1", RTX4090.format(2))
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,2" in said()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    tool()
    assert "lab.hw.memory_gib" in said()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool("nvidia-smi", "Tesla T4, 15360, 7.5, GPU-1")
    assert "compute capability 8.0" in said()
    tool("nvidia-smi", "NVIDIA GB10, [N/A], 12.1, GPU-1")
    assert "says no memory" in said()
    tool("nvidia-smi", "NVIDIA-SMI has failed because it couldn't", "communicate", status=9)
    assert "nvidia-smi fails: NVIDIA-SMI has failed because it couldn't communicate" in said()
    radeon = {
        "card0": {"Card series": "Radeon RX 7900 XTX", "VRAM Total Memory (B)": "25753026560"}
    }
    for broken in ("[]", '{"card0": {}}', '{"card0": 1}'):
        tool("rocm-smi", broken)
        assert "names no card" in said()
    tool("rocm-smi", json.dumps(radeon))
    assert "an Instinct card can" in said()


def test_a_tool_that_hangs(tool, monkeypatch):
    monkeypatch.setattr(machine, "TIMEOUT_S", 0.3)
    tool("nvidia-smi", "late", sleep_s=20)
    with pytest.raises(Mistake, match="doesn't answer"):
        machine.gpus()


def test_only_auto_asks(tool, composer, tmp_path):
    tool("nvidia-smi", *cards(RTX4090, 2))
    composer("hw=rtx4090", "algo=sft")
    assert not (tmp_path / "calls").exists()


def test_a_run_that_goes_on_asks_again(tool, composer, tmp_path):
    tool("nvidia-smi", *cards(RTX4090, 2))
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("- hw=auto\n- algo=sft\n")
    argv = names.check_argv([f"resume={tmp_path}", "lab.seed=3"])
    config = composer(*[arg for arg in argv if not arg.startswith("hydra.run.dir")])
    assert (config.trainer.n_gpus_per_node, config.lab.seed) == (2, 3)


def test_the_command_line(tool, tmp_path):
    """One line for a broken driver; a name like others in a multirun."""
    env = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def launch(*args: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "launch.py", *args]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)

    tool("nvidia-smi", "broken", status=9)
    done = launch("hw=auto", "--cfg", "job")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nvidia-smi fails: broken hw=cpu runs without a GPU.\n"
    tool("nvidia-smi", *cards(RTX4090, 2))
    folder = tmp_path / "sweep"
    done = launch("-m", "hw=cpu,auto", "lab.model.path=/nowhere", f"hydra.sweep.dir={folder}")
    assert done.returncode == 2 and done.stderr.count("hw=auto: 2 × NVIDIA GeForce RTX 4090") == 1
    assert re.findall(r"(?m)^ *\d +(\w+) .* refused$", done.stdout) == ["cpu", "auto"]
