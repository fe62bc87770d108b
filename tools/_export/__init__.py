"""Behind tools/export.py: from a run's checkpoint to a folder that others can load, with proof."""
