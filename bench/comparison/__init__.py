"""The examples of docs/comparison.md, run with the libraries that they compare: `python -m bench.comparison`."""
