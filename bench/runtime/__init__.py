"""The runtime beside published libraries: `python -m bench.runtime`."""
