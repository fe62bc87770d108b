"""Reward functions: NAME.py each, callable by verl and by `python -m rewards NAME`.

_name.py are private helpers.
"""
