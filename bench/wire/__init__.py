"""A gRPC call, compared with bare grpc.aio and other libraries: `python -m bench.wire`."""
