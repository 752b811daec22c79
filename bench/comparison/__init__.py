"""Run the examples of docs/comparison.md with the compared libraries: `python -m bench.comparison`."""
