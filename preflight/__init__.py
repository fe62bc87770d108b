"""Before a run starts: what verl would find out only after minutes, or never. No torch, no verl at import.

names.py reads the command line, checks/ looks for mistakes, memory/ plans what fits and forecasts the time of a step.
"""
