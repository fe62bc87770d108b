"""Keys that there are not: what they are called now, and who has them."""

import pytest

from preflight import names, renamed, resolvers
from preflight.declared import verls_tree
from preflight.mistakes import Mistake

pytestmark = pytest.mark.usefixtures("own_hydra")


def told(*overrides: str) -> str:
    """The first line about a command line that doesn't compose."""
    resolvers.register()
    with pytest.raises(Mistake) as caught:
        names.composed(names.check_argv(list(overrides)))
    return str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.train_batch_sizee=3"], "unknown key 'data.train_batch_sizee'. Did you mean data.train_batch_size?"),
        (["algo=sft", "actor_rollout_ref.rollout.n=4"], "It is a key of RL (algo="),
        (["optim.lr=1"], "It is a key of SFT (algo=sft)"),
        (["lab.reward_model.path=x"], "It is a key of reward=model"),
        (["critic.model.fsdp_config.param_offload=true"], "It is critic.fsdp.param_offload now"),
        (["actor_rollout_ref.rollout.update_weights_bucket_megabytes=1"],
         "It is actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes now"),
        (["trainer.use_legacy_worker_impl=auto"], "It has no equivalent: there is one kind of worker"),
        (["actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2"], "this project trains with FSDP"),
        (["algo=sft", "ulysses_sequence_parallel_size=2"], "It is engine.ulysses_sequence_parallel_size now"),
        (["algo=sft", "model.partial_pretrain=x"], "It is model.path now"),
        (["algo=sft", "data.response_key=x"], "It has no equivalent: SFT reads conversations now"),
    ],
)  # fmt: skip
def test_what_an_unknown_key_may_be(overrides, said):
    assert said in told(*overrides)


def test_all_of_them_at_once_and_what_the_checks_say():
    overrides = [
        "data.train_batch_sizee=3",
        "ray_init.num_cpus=4",
        "algorithm.adv_estimator=grop",
        "zzz=1",
    ]
    with pytest.raises(Mistake) as caught:
        resolvers.register()
        names.composed(overrides)
    first, *more = str(caught.value).splitlines()
    assert first.startswith(
        "3 unknown keys: data.train_batch_sizee (Did you mean data.train_batch_size?); "
    )
    assert "ray_init.num_cpus (It is ray_kwargs.ray_init.num_cpus now); zzz." in first
    assert any("Did you mean grpo?" in line for line in more) and len(more) <= 2


@pytest.mark.parametrize("rl", [True, False])
def test_new_names_are_keys_of_verl(rl):
    """A key of the table that a new release of verl renames once more would mislead."""
    known = set(names.keys_of(verls_tree(True))) | set(names.keys_of(verls_tree(False)))
    kept = {
        "reward.reward_kwargs",
        "ray_kwargs.ray_init",
    }  # open dicts, and without a key of their own
    assert {new for new in renamed.RENAMED.values() if new not in known} <= kept


def test_a_name_alone_is_no_proof():
    known = ["a.b.mode", "a.b.param_offload", "c.d.param_offload", "e.long_name"]
    assert renamed.moved("x.mode", known) is None
    assert renamed.moved("a.x.param_offload", known) == "a.b.param_offload"
    assert renamed.moved("x.param_offload", known) is None  # two have it
    assert renamed.moved("x.long_name", known) == "e.long_name"
    assert renamed.moved("a.x.long_name", known) is None  # its root is there, without it


def test_a_key_inside_of_a_value(own_hydra):
    """Which no single override names."""
    with pytest.raises(
        Mistake, match=r"unknown key 'lab\.hw\.a': set keys that are there one by one"
    ):
        names.composed(["lab.hw={a: 1}"])
