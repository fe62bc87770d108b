"""The batched rollout against verl's own: real runs that sample the same answers."""

import pytest

pytestmark = pytest.mark.real


def test_the_same_seed_gives_the_same_run(run, warm, tmp_path):
    """To the last bit, also where verl's own loop asks for the answers one by one and in another order, and where
    vLLM reads prompts in parts: metrics and dumps of training and of a validation that samples."""
    one, other = (
        run(
            "algo=grpo",
            f"lab.model.path={warm.folder}",
            f"lab.batched_rollout={batched}",
            "lab.hw.max_num_batched_tokens=512",
            "actor_rollout_ref.rollout.calculate_log_probs=true",
            "actor_rollout_ref.rollout.val_kwargs.temperature=1",
            "actor_rollout_ref.rollout.val_kwargs.n=2",
            folder=tmp_path / batched,
        )
        for batched in ("true", "false")
    )
    assert "BatchedAgentLoopWorker" in one.log() and "BatchedAgentLoopWorker" not in other.log()
    assert one.metrics.keys() == other.metrics.keys() == {0, 1, 2}
    for step, metrics in one.metrics.items():
        assert metrics.keys() == other.metrics[step].keys()
        names = one.figures()[step]
        differ = {
            n: (metrics[n], other.at(step, n)) for n in names if metrics[n] != other.at(step, n)
        }
        assert not differ, (step, differ)
    for step in (1, 2):
        rows = one.samples(step)
        assert rows == other.samples(step)
        assert [row["uid"] for row in rows] == sorted(row["uid"] for row in rows)
        assert len({(row["input"], row["output"]) for row in rows}) > len(
            {row["input"] for row in rows}
        )
    assert one.samples(0, "validation") == other.samples(0, "validation")
    assert one.at(1, "critic/score/max") > 0  # something was scored


def test_other_agents_go_verls_way(run):
    """The tool agent (several turns) under the same workers."""
    result = run(
        "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
    )
    assert result.at(2, "training/rollout_probs_diff_max") < 1e-5
    assert len(result.samples(2)) == 32


def test_a_reward_that_raises_costs_its_answers(run, tmp_path):
    """The error is shown and counted, and the other answers train; where it raises too often, the run ends."""
    reward = tmp_path / "raises.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    if len(solution_str) % 2:\n"
        "        raise KeyError('this row is broken')\n"
        "    return float(len(solution_str) % 4)\n"
    )
    given = ["reward=none", f"reward.custom_reward_function.path={reward}", "trainer.val_before_train=false",
             "trainer.test_freq=-1", "lab.check_data=false", "lab.preflight.skip=[first_answers]"]  # fmt: skip
    ended = run(*given, folder=tmp_path / "ended", status=1)
    assert (
        "raised KeyError: 'this row is broken'" in ended.done.stdout
        and "failed_share=0.1" in ended.done.stdout
    )
    result = run(*given, "lab.reward_limits.failed_share=0.95")
    log = result.log()
    assert "KeyError: 'this row is broken'" in log  # the reward's own traceback, and its row
    assert f"the reward compute_score of {reward} raised KeyError: 'this row is broken'" in log
    assert "the row: data_source='sql_demo', index=" in log
    assert (
        "those answers were left out" in result.done.stdout
        and "line 3, in compute_score" in result.done.stdout
    )
    for step in (1, 2):
        failed = result.at(step, "reward/failed")
        assert 0 < failed < 1 and failed == result.at(step, "reward/masked")
    assert result.at(2, "actor/grad_norm") > 0
