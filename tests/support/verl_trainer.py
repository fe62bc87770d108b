"""A step of verl's V1 trainer without Ray and models: its own methods, on a queue in memory."""

from types import SimpleNamespace

import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from plugins.rollout import samples

PROMPT = 4  # tokens
PADDED = 128  # tokens of a sample that verl pads a batch with


class Queue:
    """What the trainer calls of TransferQueue; `reads` has the fields of each read."""

    def __init__(self):
        self.rows: dict[str, dict] = {}
        self.reads: list[list[str]] = []

    def kv_batch_get(self, keys, partition_id, select_fields):
        self.reads.append(list(select_fields))
        rows = [self.rows[key] for key in keys]
        found = {}
        for name in select_fields:
            if not all(name in row for row in rows):
                continue
            values = [row[name] for row in rows]
            if isinstance(values[0], torch.Tensor):
                found[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            else:
                found[name] = NonTensorStack(*values)
        return TensorDict(found, batch_size=len(rows))

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        for i, key in enumerate(keys):
            row = self.rows.setdefault(key, {})
            row |= {
                name: values[i] for name, values in (fields.items() if fields is not None else ())
            }
            row |= {"tag": tags[i]} if tags else {}
        return KVBatchMeta(keys=list(keys), tags=[self.rows[k].get("tag", {}) for k in keys],
                           partition_id=partition_id)  # fmt: skip

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.rows.pop(key, None)


class Actor:
    """Log-probabilities of nothing in particular, and OTB's sums where they are asked for."""

    def __init__(self, queue: Queue):
        self.queue = queue

    def compute_log_prob(self, batch):
        asked = ["log_probs", "entropy"]
        asked += ["sum_pi_squared"] * bool(batch.extra_info.get("calculate_sum_pi_squared"))
        for key in batch.keys:
            row = self.queue.rows[key]
            tokens = len(row["prompts"]) + len(row["responses"])
            row |= {name: torch.linspace(-1.0, -0.5, tokens).abs() for name in asked}
        return batch


class Sampler:
    """Answers each prompt that it is given with a reward of 0.25, as an agent loop would."""

    def __init__(self, queue: Queue):
        self.queue, self.asked, self.keys = queue, [], []

    def generate_sequences(self, batch) -> None:
        asked = {name: batch[name] for name in ("validate", "__rollout_n__") if name in batch}
        self.asked.append({"prompts": list(batch["uid"]), **asked})
        self.keys = [samples.make_key(uid, 0) for uid in batch["uid"]]
        for key in self.keys:
            self.queue.rows[key] = {"rm_scores": torch.tensor([0.0, 0.25])}

    def sample(self, global_steps, partition_id, batch_size):
        return KVBatchMeta(keys=self.keys, tags=[{}] * batch_size, partition_id=partition_id), {}


def make(trainer_base, adv_estimator: str, **algorithm):
    """A trainer at its first step. Its queue takes the place of verl's in `trainer_base`."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    trainer = PPOTrainerSync.__new__(PPOTrainerSync)
    trainer.queue = trainer_base.tq = Queue()
    base = {"adv_estimator": adv_estimator, "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0,
            "rollout_correction": {"bypass_mode": False, "rollout_is": None, "rollout_rs": None}}  # fmt: skip
    otb = "optimal_token_baseline" in adv_estimator
    actor = {
        "calculate_sum_pi_squared": otb,
        "loss_agg_mode": "token-mean",
        "loss_scale_factor": None,
    }
    rollout = {"n": 2, "temperature": 1.0, "calculate_log_probs": False}
    trainer.config = OmegaConf.create({
        "algorithm": base | algorithm,
        "actor_rollout_ref": {"actor": actor, "rollout": rollout, "model": {}},
    })  # fmt: skip
    trainer.actor_rollout_wg, trainer.global_steps = Actor(trainer.queue), 1
    trainer.use_critic, trainer.trainer_mode = False, "sync"
    trainer._rollout_moe_lb_metrics_accumulator = None
    trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
    trainer.agent_loop_manager = trainer.replay_buffer = Sampler(trainer.queue)
    return trainer


def answers(trainer, infos: dict[str, dict], padding: int = 0):
    """A batch of answers in the queue: key → what the reward returned, its `score` too.

    An answer whose info says `masked` has the mask and the uid that agent_loop.py gives it.
    """
    template = next(
        iter(infos.values())
    )  # verl pads with copies of a sample, without reward and mask
    rows = infos | {samples.make_key("padffff", i): template for i in range(padding)}
    tags = []
    for i, (key, info) in enumerate(rows.items()):
        sample, real, masked = samples.read_key(key), key in infos, bool(info.get("masked"))
        prompt, tokens = (PROMPT, 2 + i % 2) if real else (PADDED - 1, 1)
        learns = real and not masked
        rm_scores = torch.zeros(tokens)
        rm_scores[-1] = info["score"] if learns else 0.0
        tags.append({"min_global_steps": 0, "max_global_steps": 0})
        tags[-1] |= {} if real else {"is_padding": True}
        trainer.queue.rows[key] = {
            "uid": samples.masked_uid(*sample[:2]) if masked else sample.uid,
            "prompts": torch.zeros(prompt, dtype=torch.long),
            "responses": torch.zeros(tokens, dtype=torch.long),
            "response_mask": torch.full((tokens,), int(learns)),
            "rm_scores": rm_scores,
            "rollout_log_probs": torch.full((tokens,), -0.5),
            "num_turns": 2,
            "extra_fields": {"reward_extra_info": info},
            "tag": tags[-1],
        }
    return KVBatchMeta(keys=list(rows), tags=tags, partition_id="train")


def step(trainer, batch) -> dict:
    """The metrics of what verl does with a batch, but for the update."""
    metrics: dict = {}
    trainer._compute_old_log_prob(batch, metrics)
    trainer._compute_advantage(batch, metrics)
    trainer._compute_metrics(batch, metrics, {"step": 1.0, "gen": 1.0}, global_steps=1, epoch=0)
    return metrics


def advantages(trainer, batch) -> list[float]:
    """Of each answer's first token, rounded."""
    return [round(trainer.queue.rows[key]["advantages"][0].item(), 3) for key in batch.keys]
