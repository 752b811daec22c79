"""gRPC: the standard health service, asked about the whole server. Needs the extra `grpc`."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from voice_runtime.grpc.connections import Target
from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place

__all__ = ["NotServingError", "checker"]


class NotServingError(Exception):
    """The health service answers with a status other than SERVING."""


def checker(place: Place) -> Checker:
    """A checker that asks gRPC's health service.

    `NotServingError` means that the server is not ready, and `AioRpcError` that the RPC failed.
    If the connection uses TLS, the server's certificate must contain the host's name.
    """
    address = place.address
    origin = f"{address.host}:{address.port}"
    credentials = grpc.ssl_channel_credentials() if address.uses_tls else None
    target = Target(f"dns:///{address.via or origin}", credentials, address.host if address.via else None)

    async def look() -> None:
        async with target.open() as channel:
            stub: Any = HealthStub(channel)
            answer = await stub.Check(HealthCheckRequest())
        if answer.status != HealthCheckResponse.SERVING:
            raise NotServingError(f"{origin} answers {HealthCheckResponse.ServingStatus.Name(answer.status)}")

    return look
