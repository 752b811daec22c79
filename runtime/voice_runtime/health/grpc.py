"""gRPC: the standard health service, `grpc.health.v1.Health/Check`, of the whole server. Needs the extra `grpc`."""

from __future__ import annotations

import grpc.aio

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""`HealthCheckResponse { status: SERVING }`. The request for the whole server is empty: two messages need no stubs."""


class NotServingError(Exception):
    """The server answers that it does not serve."""


def checker(place: Place) -> Checker:
    """Raises `NotServingError` for a server that is not ready, `grpc.aio.AioRpcError` for one that does not answer."""
    address = place.address
    options = [("grpc.http_proxy", f"http://{address.via}")] if address.via else [("grpc.enable_http_proxy", 0)]

    async def look() -> None:
        async with grpc.aio.insecure_channel(f"{address.host}:{address.port}", options) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
            answer = await call(b"")
        if answer != SERVING:
            raise NotServingError(f"{address.host}:{address.port} answers {answer!r}")

    return look
