"""The runtime's gRPC calls, compared with bare grpc.aio and other libraries: `python -m bench.wire`."""
