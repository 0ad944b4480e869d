"""Whole-command benches: `python -m benches.run` makes its inputs and prints one table."""
