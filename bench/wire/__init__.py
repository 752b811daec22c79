"""A gRPC call, compared with the alternatives of a user: `python -m bench.wire`."""
