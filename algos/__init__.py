"""Advantage functions and losses of our own, chosen by file name (see plugins/algos.py)."""
