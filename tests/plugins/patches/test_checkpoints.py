"""A run that was cut and goes on is the run without a cut: each patch of checkpoints.py is needed, and does it.

What verl answers without and with the patches is asked by questions_checkpoints.py.
"""


def test_verls_sft_skips_an_epoch_after_a_checkpoint_at_an_epochs_end(without, patched):
    assert without["sft_cut"] == [True, True, False, True, True, True]
    assert patched["sft_cut"] == [True] * 6
    *found, whole = without["sft_with_more_epochs"]
    assert found == [whole[:3]] * 2
    *found, whole = patched["sft_with_more_epochs"]
    assert found == [whole] * 2 and len(whole) == 6


def test_verls_sft_counts_the_tokens_of_a_start(without, patched):
    """Two rows of two tokens a step; verl's metrics.jsonl has its last start alone."""
    so_far = [4e-9, 8e-9, 12e-9]
    assert without["sft_tokens"] == [[4e-9], so_far]
    assert patched["sft_tokens"] == [so_far, so_far]


def test_verl_forgets_the_checkpoints_of_earlier_starts(without, patched):
    steps = [f"global_step_{n}" for n in range(1, 7)]
    assert without["sft_kept"] == [steps, steps[1::2]]
    assert patched["sft_kept"] == [steps[-2:], steps[-1:]]
    assert len({path.split("/")[0] for path in without["rl_kept"]}) == 7
    kept = [f"global_step_{n}/{x}" for n in (6, 7) for x in ("actor", "data.pt", "metrics.json")]
    assert patched["rl_kept"] == kept


def test_with_a_limit_of_1_verl_removes_the_last_checkpoint_before_the_new_one_is_whole(
    without, patched
):
    assert without["spared"] == ["global_step_2"]
    assert patched["spared"] == ["global_step_1", "global_step_2"]


def test_verl_takes_settings_from_a_checkpoint(without, patched):
    """Rate, weight decay, rate of the schedule, rate after a step; a run with the same config is the same."""
    assert without["settings_of_a_start"]["same"] == patched["settings_of_a_start"]["same"]
    assert without["settings_of_a_start"]["other"] == [0.75, 0.5, 0.75, 0.75, 1]
    assert patched["settings_of_a_start"]["other"] == [
        2.0 * 7 / 8,
        0.25,
        2.0 * 7 / 8,
        2.0 * 6 / 8,
        1,
    ]


def test_verl_saves_a_step_before_it_logs_it(without, patched):
    assert without["saved_not_logged"] == [2, 1]
    assert "3 validate: metrics" in without["rl_cut"]
    assert patched["rl_cut"] == []


def test_verls_adaptive_kl_coefficient_begins_anew(without, patched):
    assert without["kl_coefficient"] == 0.001
    assert patched["kl_coefficient"] == 0.7


def test_tensorboard_shows_steps_that_were_made_again_twice(without, patched):
    assert without["events"] == {"x": [0, 1, 2, 3, 2, 3, 4], "val": [0, 1, 2, 3]}
    assert patched["events"] == {"x": [0, 1, 2, 3, 4], "val": [0, 1, 2]}


def test_a_half_written_line_takes_no_other_with_it(without, patched):
    assert without["half_a_line"] == [2]  # it begins its file anew
    assert patched["half_a_line"] == [1, 2]
