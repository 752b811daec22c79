"""A model call, compared with the bare SDK and with litellm's router: `python -m bench.models`."""
