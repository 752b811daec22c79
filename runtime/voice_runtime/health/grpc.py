"""gRPC: the standard health service, asked about the whole server. Needs the extra `grpc`."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


class NotServingError(Exception):
    """The server answers that it does not serve."""


def checker(place: Place) -> Checker:
    """Raises `NotServingError` for a server that is not ready, `grpc.aio.AioRpcError` for one that does not answer."""
    address = place.address
    options = [("grpc.http_proxy", f"http://{address.via}")] if address.via else [("grpc.enable_http_proxy", 0)]

    async def look() -> None:
        async with grpc.aio.insecure_channel(f"{address.host}:{address.port}", options) as channel:
            stub: Any = HealthStub(channel)
            answer = await stub.Check(HealthCheckRequest())
        if answer.status != HealthCheckResponse.SERVING:
            raise NotServingError(f"{address.host}:{address.port} answers {answer}")

    return look
