"""What preflight says about names: of estimators, losses, options, keys and checks."""

from preflight_helpers import caught, each

from plugins import algos
from preflight.checks.algos import check_algo_files

LOSS = "actor_rollout_ref.actor"
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_estimator": [(["algorithm.adv_estimator=grop"], "Did you mean grpo? There is: ")],
    "check_options": [
        (["algo=grpo_weighted", "+algorithm.grpo_weighted.wight=1"], "weight? There is: weight."),
        (["algo=grpo_weighted", "algorithm.grpo_weighted.weight=all"], "the default is 0.5"),
        (["+algorithm.grpo_weighted.weight=1"], "does nothing: algorithm.adv_estimator is grpo"),
        (["algorithm.adv_estimator=grpo_token", "+algorithm.grpo_token.x=1"], "There is: none."),
        (
            ["algorithm.adv_estimator=grpo_weighted", "+algorithm.grpo_weighted=1"],
            "set its options one by one",
        ),
    ],
    "check_policy_loss": [([f"{LOSS}.policy_loss.loss_mode=gpso"], "Did you mean gspo?")],
    "check_ignored_keys": [
        (
            ["custom_reward_function.path=x.py", "reward_model.num_workers=5"],
            "ignores custom_reward_function.path (set reward.custom_reward_function.path),"
            " reward_model.num_workers (set reward.num_workers)",
        ),
        (["reward_model.strategy=fsdp"], "reward_model.strategy (vLLM serves the reward model)"),
    ],
    "check_unknown_keys": [
        (["+trainer.tst_freq=3"], "unknown key 'trainer.tst_freq'"),
        (["+algorithm.grpo_wieghted.weight=1"], "Did you mean grpo"),
        (["+tainer.test_freq=3"], "Did you mean trainer?"),
        (["algo=sft", "+data.max_lenght=3"], "Did you mean max_length?"),
    ],
    "check_skip": [
        (
            ["lab.preflight.skip=[gpuz]"],
            "unknown check 'gpuz' in lab.preflight.skip. Did you mean gpus?",
        ),
        (["lab.preflight.skip=check_ksip"], "Did you mean skip?"),
    ],
}


test_each_mistake_is_found = each(MISTAKES)


def test_files_that_would_break_every_run(configure, monkeypatch, tmp_path):
    monkeypatch.setattr(algos, "FOLDER", tmp_path)
    assert check_algo_files(configure()) is None
    (tmp_path / "gspo.py").write_text("def compute_policy_loss(log_prob, **_): ...\n")
    assert "verl has a function of this name" in caught("check_algo_files", configure())
    (tmp_path / "gspo.py").write_text("def compute_policy_loss(log_prob, **_)\n")
    assert "algos/gspo.py, line 1: expected ':'" in caught("check_algo_files", configure())


def test_an_old_key_with_the_value_of_its_new_one_is_no_mistake(said):
    """Of a pasted command line: nobody misses anything."""
    assert said("reward_model.enable=false") == []
