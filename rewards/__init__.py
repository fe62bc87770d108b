"""Reward functions: NAME.py each, callable by verl and by `python -m rewards NAME`.

    compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict

sync or async; of the dict, `score` is the reward, and the rest is logged: numbers as mean and standard
deviation of a batch, texts as shares. A score of NaN says that the answer could not be graded. A function
runs in a process with limits (_limits/calls.py), unless it is async and its module says LIMITS_ITSELF = True.
A module may say more:

    Options                                its options, types, ranges and defaults (_options.py); without this
                                           class they are the keyword arguments of compute_score
    check_options(**options)               ValueError for what this machine lacks, before a run (a key, a file)
    bars(**options)                        {"range": (low, high), "reference": what a reference answer scores at least,
                                           "empty": an empty or random one at most, "free": attacks of the
                                           reward laboratory that may pay}
    reference_answer(ground_truth, extra_info)  the answer that deserves the highest score, or None
    row_faults(rows, **options)            faults of the data, [{"index", "outcome", "message"}]

_name.py are private helpers.
"""
