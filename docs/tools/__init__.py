"""Generators of the pages and of the stub; each has `--check` for drift."""
