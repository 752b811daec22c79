"""A gRPC server that enforces the inbound policies, reports its health, and stops without losing a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from voice_runtime.grpc.connections import CONNECTION_AGE, Settings
from voice_runtime.grpc.interceptor import InboundInterceptor
from voice_runtime.runtime import Runtime

REFUSING = 0.5
"""Seconds for which a draining server refuses requests before it stops. Meanwhile callers choose other replicas."""
SERVING = health_pb2.HealthCheckResponse.SERVING


class Server(grpc.aio.Server):
    """A `grpc.aio` server with the standard health service and reflection. Made by `Grpc.server`.

    Each handler runs under the policies of the operation that its method names. In a handler,
    `current_request().feature(name)` tells if a feature is on.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: Iterable[tuple[str, Any]],
        interceptors: Iterable[grpc.aio.ServerInterceptor],
    ) -> None:
        self._runtime = runtime
        self._services: list[str] = []
        self._inbound = InboundInterceptor(runtime)
        ours: list[tuple[str, Any]] = [
            # gRPC's C core varies the age of each connection by up to 10 % at random.
            ("grpc.max_connection_age_ms", round(CONNECTION_AGE * 1000)),
            ("grpc.max_connection_age_grace_ms", round(self._longest() * 1000)),
            ("grpc.so_reuseport", 0),  # otherwise a second process could listen on the same port
        ]
        settings = Settings.beside(ours, options, interceptors)
        self._server = grpc.aio.server(
            interceptors=[self._inbound, *settings.interceptors], options=[*ours, *settings.options]
        )
        self.health = health.aio.HealthServicer()
        """`grpc.health.v1.Health`. `await server.health.set(service, status)` sets the health of one service."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add handlers. The generated `add_…_to_server` functions call this method."""
        handlers = tuple(generic_rpc_handlers)
        self._services += [str(name()) for handler in handlers if (name := getattr(handler, "service_name", None))]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Add handlers. The generated `add_…_to_server` functions call this method."""
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS. Returns the port."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen with `grpc.ssl_server_credentials`. Returns the port."""
        return self._server.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Start the server, and report it as serving."""
        names = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        await self._server.start()
        for name in ("", *self._services):
            await self.health.set(name, SERVING)

    async def drain(self) -> None:
        """Stop gracefully.

        The server reports that it does not serve. It waits for `health.drain_duration`, so that callers read the
        report. Then it answers new requests with UNAVAILABLE for `REFUSING` seconds: gRPC's own stop would cancel them
        before they reach a handler. Requests in flight get time to end: the longest deadline of all operations.
        """
        await self.health.enter_graceful_shutdown()
        await asyncio.sleep(self._runtime.bundle.health.drain_duration.seconds)
        self._inbound.refusing = True
        await asyncio.sleep(REFUSING)
        await self.stop(max(self._longest() - REFUSING, 0.0))

    async def stop(self, grace: float | None) -> None:
        """Refuse new requests. Requests in flight get `grace` seconds to end."""
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # the signature of grpc.aio
        """Wait until the server has stopped. False if `timeout` expires first."""
        return await self._server.wait_for_termination(timeout)

    def _longest(self) -> float:
        return max((operation.deadline.seconds for operation in self._runtime.bundle.inbound), default=0.0)
