"""Measures a model call with voice_models, the bare SDK and litellm's router. Run `python -m bench.models`."""
