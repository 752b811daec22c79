"""A model call, compared with the bare SDK and a router of the field: `python -m bench.models`."""
