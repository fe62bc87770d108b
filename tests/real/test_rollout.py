"""The batched rollout against verl's own: real runs that sample the same answers."""

import json

import pytest

pytestmark = pytest.mark.real


def samples(run, step: int) -> list[dict]:
    """What a step's dump says of each sample, in an order that does not depend on uids."""
    lines = (run.folder / f"rollouts/{step}.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "uid"} for line in lines]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def test_it_changes_nothing_but_the_time(run, warm, tmp_path):
    """Rewards, log-probabilities, metrics and dumps; top_k=1 makes both sample the same."""
    one, other = (
        run(
            "algo=grpo",
            f"lab.model.path={warm.folder}",
            f"lab.batched_rollout={batched}",
            "actor_rollout_ref.rollout.top_k=1",
            "actor_rollout_ref.rollout.calculate_log_probs=true",
            folder=tmp_path / batched,
        )
        for batched in ("true", "false")
    )
    assert "BatchedAgentLoopWorker" in one.log() and "BatchedAgentLoopWorker" not in other.log()
    assert one.metrics.keys() == other.metrics.keys() == {0, 1, 2}
    for step, metrics in one.metrics.items():
        assert metrics.keys() == other.metrics[step].keys()
        for name, value in metrics.items():
            if not any(part in name for part in ("timing", "perf/", "exec_ms", "cache_hit")):
                expected = other.at(step, name)  # None: no sample had that part
                close = value is expected or value == pytest.approx(expected, rel=1e-4, abs=1e-6)
                assert close, name
    for step in (1, 2):
        assert samples(one, step) == samples(other, step)
    assert one.at(1, "critic/score/max") > 0  # something was scored


def test_other_agents_go_verls_way(run):
    """The tool agent (several turns) under the same workers."""
    result = run(
        "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
    )
    assert result.at(2, "training/rollout_probs_diff_max") < 1e-5
    assert len(samples(result, 2)) == 32


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
