"""Runs the examples of docs/comparison.md. Started by `python -m bench.comparison`."""

from __future__ import annotations

from tests.examples import run_examples

if __name__ == "__main__":
    print(f"{run_examples('comparison.md', {})} examples of docs/comparison.md pass")
