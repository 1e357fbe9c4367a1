"""The fault suite: how often the diagnosis names what is wrong, beside the rules of other tools.

`python -m benchmarks.diagnosis run` trains everything and stores what was measured, `score` applies
the rules to it, `table` writes the results.
"""
