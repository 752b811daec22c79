"""One reference service, from start to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from voice_policies import Address, HealthCheck, OutboundCall, ServiceSettings
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc
from voice_runtime.health import Checker, Health, HealthApp, Place
from voice_runtime.health.grpc import checker as grpc_checker
from voice_runtime.health.server import serving, terminated
from voice_runtime.http import Http

from voice_reference.configuration import ConfigurationFile
from voice_reference.models import ModelCalls
from voice_reference.operations import Operations, is_on_the_wire
from voice_reference.servers import GrpcOperations, HttpOperations
from voice_reference.simulation import work

logger = logging.getLogger("voice_reference")
DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT = 9000, 8080
"""Default ports, for a service without settings and configuration. Most services of the platform use these ports."""


class PortError(Exception):
    """The process cannot listen on a port."""


class Service:
    """Serves the operations of a bundle. Raises `InvalidInputError` if a health check of the bundle has no checker."""

    def __init__(
        self, runtime: Runtime, configuration: ConfigurationFile, settings: ServiceSettings | None = None
    ) -> None:
        self._runtime = runtime
        self._configuration = configuration
        self._settings = settings
        self._health = Health(runtime, checkers=dict(self._checkers()))
        self._wire = Grpc(runtime)
        self._models = ModelCalls(runtime, configuration)
        operations = Operations(runtime, configuration, self._wire, self._models)
        http = HttpOperations(runtime, operations, self._models)
        self._http = HealthApp(self._health, Http(runtime).middleware(http))
        self._grpc = GrpcOperations(operations)

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT.

        After the signal, `/ready` fails first. Then the service finishes the accepted requests. Raises `PortError`.
        """
        configuration = self._configuration.current()
        server = self._wire.server()
        server.add_generic_rpc_handlers((self._grpc,))
        async with AsyncExitStack() as open_ports:
            with _listening("gRPC", self._grpc_port()) as port:
                grpc_port = server.add_insecure_port(f"{configuration.host}:{port}")
            with _listening("HTTP", self._http_port()) as port:
                http_port = await open_ports.enter_async_context(serving(self._http, port, configuration.host))
            await server.start()
            logger.info("ready", extra={"grpc_port": grpc_port, "http_port": http_port})
            await terminated()
            logger.info("draining")
            await asyncio.gather(self._health.drain(), server.drain())
        await self._models.aclose()
        await self._wire.close()

    def _grpc_port(self) -> int:
        chosen = self._configuration.current().grpc_port
        return chosen if chosen is not None else self._settings.grpc_port if self._settings else DEFAULT_GRPC_PORT

    def _http_port(self) -> int:
        chosen = self._configuration.current().http_port
        return chosen if chosen is not None else self._settings.http_port if self._settings else DEFAULT_HTTP_PORT

    def _checkers(self) -> list[tuple[str, Checker]]:
        """A check of a simulated dependency fails as often as its calls. A check of a reference service uses gRPC."""
        calls = {call.name: call for call in self._runtime.bundle.outbound}
        return [
            (check.name, self._checker(check, calls[check.target]))
            for check in self._runtime.bundle.health.checks
            if check.target in calls
        ]

    def _checker(self, check: HealthCheck, call: OutboundCall) -> Checker:
        async def look() -> None:
            configuration = self._configuration.current()
            if not is_on_the_wire(call):
                await work(call.name, configuration.of(call.name), self._runtime.random)
                return
            host, _, port = configuration.addresses.get(call.callee, "").rpartition(":")
            address = Address(host=host, port=int(port)) if host else call.addresses[0]
            await grpc_checker(Place(check, address, self._runtime.bundle.metadata.service, None))()

        return look


@contextmanager
def _listening(protocol: str, port: int) -> Iterator[int]:
    """Convert a `RuntimeError` of gRPC and an `OSError` of a socket into a `PortError`."""
    try:
        yield port
    except (OSError, RuntimeError) as error:
        raise PortError(f"{protocol} port {port} is not available: {error}") from None
