"""Benchmarks: `python -m benchmarks` compares CPU and GPU, the other modules one thing each."""
