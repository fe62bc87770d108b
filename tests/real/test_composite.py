"""`reward=composite` in a real run: what training maximises is the weighted sum of the parts that are logged."""

import pytest

pytestmark = pytest.mark.real
KWARGS = "reward.custom_reward_function.reward_kwargs."


def test_the_sum_of_parts_is_trained_on(run, warm):
    result = run("algo=grpo", "reward=composite", f"lab.model.path={warm.folder}",
                 KWARGS + "parts={sql: 0.9, length: 0.1}",
                 KWARGS + "options={length: {max_length: 60, cache: 40}}", "trainer.val_before_train=false",
                 "trainer.test_freq=-1")  # fmt: skip
    for step in (1, 2):
        sql, length = (result.at(step, f"reward/{name}/score") for name in ("sql", "length"))
        assert -1 <= length < 0 and result.at(step, "reward/length/length") > 20
        assert sql == pytest.approx(
            result.at(step, "reward/sql/acc")
            + 0.1 * result.at(step, "reward/sql/outcome/mismatch"),
            abs=1e-5,
        )
        whole = 0.9 * sql + 0.1 * length
        assert result.at(step, "critic/score/mean") == pytest.approx(whole, abs=1e-5)
        assert result.at(step, "reward/acc") == result.at(step, "reward/sql/acc")
        assert result.at(step, "reward/masked") == 0
