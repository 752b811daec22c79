"""A call on the wire beside what one would pick instead: `python -m bench.wire`."""
