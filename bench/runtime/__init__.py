"""The runtime, compared with published libraries: `python -m bench.runtime`."""
