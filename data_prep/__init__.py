"""Data preparation: `python -m data_prep NAME` writes `data/NAME/` (see `__main__`).

A source is one file `NAME.py` with `add_options(parser)` and `run(args)`; files that start with an
underscore are helpers. What a user can put right is raised as `preflight.mistakes.Mistake`.
"""
