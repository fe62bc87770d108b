"""Figures of what fails without an error, from verl's own training step on a small model, broken on purpose."""

import pytest
import torch
from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

from plugins.patches.sentinels import changed_share, same_answer, same_score, sampled_weights


@pytest.fixture(scope="module")
def engine_class():
    """verl's BaseEngine with the patch, and the two methods that an engine must have."""
    from verl.workers.engine import base

    class Engine(base.BaseEngine):
        def __init__(self, module, lr):
            self.module = module
            trained = [p for p in module.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)

        def optimizer_zero_grad(self):
            self.optimizer.zero_grad()

        def forward_backward_batch(self, data, loss_function, forward_only=False):
            loss = loss_function(self.module(data))
            loss.backward()
            return {"metrics": {"loss": loss.item()}}

        def optimizer_step(self):
            norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            return norm.item()

        def is_mp_src_rank_with_outputs(self):
            return True

    Engine.__abstractmethods__ = frozenset()
    return Engine


class Adapted(torch.nn.Linear):
    """A linear layer with a LoRA beside its frozen weight."""

    def __init__(self):
        super().__init__(64, 64)
        self.requires_grad_(False)
        self.a = torch.nn.Parameter(torch.randn(4, 64) * 0.1)
        self.b = torch.nn.Parameter(torch.zeros(64, 4))

    def forward(self, x):
        return super().forward(x) + x @ self.a.T @ self.b.T


def step(engine) -> tuple[float, float]:
    """Share of the weights that changed, gradient norm."""
    from tensordict import TensorDict

    torch.manual_seed(0)
    engine.batch = torch.randn(8, 64)
    forward = engine.forward_backward_batch
    engine.forward_backward_batch = lambda data, loss, forward_only: forward(engine.batch, loss)
    outputs = engine.train_batch(TensorDict({}, batch_size=8), lambda y: (y**2).mean())
    return engine.weights_changed, outputs["metrics"]["grad_norm"]


def test_a_step_that_learns(engine_class):
    changed, norm = step(engine_class(torch.nn.Linear(64, 64), lr=1e-3))
    assert changed > 0.9 and norm > 0


def test_an_adapter_that_learns_from_0(engine_class):
    """LoRA's A has no gradient in the first step, as B is 0: B alone changes."""
    changed, _ = step(engine_class(Adapted(), lr=1e-3))
    assert 0.4 < changed < 0.6


class Half(torch.nn.Linear):
    """Weights of 1 in bf16, whose neighbours are 0.004 away."""

    def __init__(self):
        super().__init__(64, 64, dtype=torch.bfloat16)
        self.requires_grad_(True)
        for parameter in self.parameters():
            torch.nn.init.ones_(parameter)

    def forward(self, x):
        return super().forward(x.bfloat16()).float()


@pytest.mark.parametrize(
    ("module", "lr", "optimized"),
    [
        (torch.nn.Linear(64, 64), 0.0, None),
        (Half(), 1e-5, None),  # such a step is rounded away
        (torch.nn.Linear(64, 64), 1e-3, torch.nn.Linear(64, 64)),  # another module's weights
    ],
    ids=["learning rate", "dtype", "optimizer"],
)
def test_a_step_that_changes_nothing(engine_class, module, lr, optimized):
    engine = engine_class(optimized or module, lr)
    engine.module = module
    changed, norm = step(engine)
    assert changed == 0 and norm > 1e-4


def test_a_tensor_that_is_exchanged_ends_nothing():
    before = sampled_weights(torch.nn.Linear(4, 4))
    assert changed_share(before, sampled_weights(torch.nn.Linear(8, 4))) == 1  # the bias is left
    assert changed_share(before, []) == 0


def test_tensors_that_are_spread_over_workers(tmp_path):
    """FSDP2's are DTensors: the part that lies here is looked at."""
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = torch.nn.Linear(64, 64)
        mesh = init_device_mesh("cpu", (1,))
        module.weight = torch.nn.Parameter(distribute_tensor(module.weight, mesh, [Replicate()]))
        before = sampled_weights(module)
        assert all(type(values) is torch.Tensor for values in before)
        with torch.no_grad():
            module.weight.to_local().add_(1.0)
        assert changed_share(before, sampled_weights([module])) == pytest.approx(256 / (256 + 64))
    finally:
        dist.destroy_process_group()


def test_nothing_is_trainable():
    module = torch.nn.Linear(2, 2).requires_grad_(False)
    assert changed_share(sampled_weights(module), sampled_weights(module)) == 0


def test_groups_whose_answers_have_one_score():
    keys = ["a_0_0", "a_1_0", "b_0_0", "b_1_0", "c_0_0"]
    assert same_score(keys, list("aabbc"), [1.0, 1.0, 0.0, 1.0, 0.3]) == 0.5
    # of several turns the last counts: a's scores are 1 and 1
    assert same_score(["a_0_0", "a_0_1", "a_1_0"], list("aaa"), [0.0, 1.0, 1.0]) == 1.0
    # one answer a prompt: all are one group
    assert same_score(["a_0_0", "b_0_0"], list("ab"), [1.0, 1.0]) == 1.0
    assert same_score(["a_0_0", "b_0_0"], list("ab"), [1.0, 0.0]) == 0.0


def test_validation_answers_that_are_alike():
    assert same_answer(list("abcd"), ["x", "x", "x", "y"]) == 0.75
    assert same_answer(list("aaaa"), ["x"] * 4) is None  # one prompt: nothing to compare


@pytest.mark.parametrize(
    ("scores", "share"), [((1.0, 0.0, 1.0, 1.0), 0.5), ((1.0, 1.0, 0.0, 0.0), 1.0)]
)
def test_a_step_of_verls_trainer_logs_it(patched_trainer, scores, share):
    trainer, verl_trainer = patched_trainer
    keys = ("a_0_0", "a_1_0", "b_0_0", "b_1_0", "m_0_0", "m_1_0")
    infos = {k: {"score": s} for k, s in zip(keys, (*scores, 1.0, 0.0), strict=True)}
    infos["m_1_0"]["masked"] = 1.0  # of two, one was not graded: no group
    batch = verl_trainer.answers(trainer, infos, padding=2)
    assert verl_trainer.step(trainer, batch)["groups/same_score"] == share


@pytest.fixture
def patched_trainer(monkeypatch):
    import verl_trainer
    from verl.trainer.ppo.v1 import trainer_base

    monkeypatch.setattr(trainer_base, "tq", trainer_base.tq)  # make() puts its own there
    return verl_trainer.make(trainer_base, "grpo"), verl_trainer
