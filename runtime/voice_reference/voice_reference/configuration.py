"""The configuration of a reference service besides its bundle: local addresses of callees, and simulated behaviour."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import from_json
from typing_extensions import override
from voice_policies import ClosedModel, Duration, Fault, InvalidInputError, PolicyBundle, Ratio, faults_of, one_of
from voice_runtime import Runtime

__all__ = ["Behaviour", "Configuration"]

logger = logging.getLogger("voice_reference")
DEFAULT = "default"
"""Key of the behaviour for all calls and operations that have no entry."""


def _host_and_port(text: str) -> str:
    found = re.fullmatch(r"[A-Za-z0-9.-]+:(\d{1,5})", text)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise ValueError("expected host:port, such as 127.0.0.1:9000")
    return text


class Behaviour(ClosedModel):
    """The behaviour of simulated work: log-normal latency, and a share of failures."""

    median: Duration = Duration("2ms")
    p95: Duration = Duration("4ms")
    error_ratio: Ratio = Ratio("0%")

    @override
    def conflicts(self) -> Iterator[str]:
        if self.p95 < self.median:
            yield f"p95 {self.p95} is below median {self.median}"


class Configuration(ClosedModel):
    """The configuration of one reference service. Each request reads addresses and behaviour again."""

    host: str = "0.0.0.0"  # noqa: S104  # callers connect to the pod's address
    grpc_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port for gRPC. `None`: the port of the service's settings. 0: any free port."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port for HTTP, with the same meaning of `None` and 0."""
    collector: str | None = None
    """The URL of the Collector. Replaces the bundle's `tracing.endpoint`."""
    addresses: dict[str, Annotated[str, AfterValidator(_host_and_port)]] = Field(default_factory=dict)
    """`host:port` by callee, for callees that have another address than in the bundle."""
    providers: dict[str, Annotated[str, AfterValidator(_host_and_port)]] = Field(default_factory=dict)
    """`host:port` by model provider, without TLS. A provider without an address here is simulated in the process."""
    behaviour: dict[str, Behaviour] = Field(default_factory=dict)
    """Name of a simulated call or an operation → its behaviour. `default` → the behaviour of all that have no entry."""

    def of(self, name: str) -> Behaviour:
        """The behaviour of a call or an operation."""
        return self.behaviour.get(name) or self.behaviour.get(DEFAULT) or Behaviour()


class ConfigurationFile:
    """A configuration file that may change while the service runs.

    Raises `InvalidInputError` for faults at the start.
    """

    def __init__(self, path: Path | None, runtime: Runtime) -> None:
        self._path = path
        self._runtime = runtime
        self._found: bytes | Fault | None = None
        self._configuration = Configuration() if path is None else self._read(path)

    def current(self) -> Configuration:
        """The configuration in the file. A faulty change is logged once, and the last good configuration stays."""
        if self._path is not None:
            try:
                self._configuration = self._read(self._path)
            except InvalidInputError as error:
                logger.error("the previous configuration stays in force: %s", error)  # noqa: TRY400  # the error lists all faults
        return self._configuration

    def _read(self, path: Path) -> Configuration:
        try:
            found: bytes | Fault = path.read_bytes()
        except OSError as error:
            found = Fault("", f"cannot be read ({error.strerror})", "expected a JSON file")
        if found == self._found:
            return self._configuration
        self._found = found
        if isinstance(found, Fault):
            raise InvalidInputError(str(path), [found])
        try:
            configuration, faults = Configuration.model_validate_json(found), []
        except ValidationError as error:
            configuration, faults = Configuration(), faults_of(error, Configuration)
        faults += _unknown_names(found, self._runtime.bundle)
        if faults:
            raise InvalidInputError(str(path), faults)
        return configuration


def _unknown_names(text: bytes, bundle: PolicyBundle) -> Iterator[Fault]:
    """A fault for each callee, provider, call and operation that the bundle does not have.

    `Configuration` validates everything else.
    """
    try:
        document = from_json(text)
    except ValueError:
        return
    calls = [call.name for call in bundle.outbound]
    known = {
        "addresses": {call.callee for call in bundle.outbound},
        "providers": set(bundle.models.providers) if bundle.models else set(),
        "behaviour": {DEFAULT, *calls, *(inbound.operation for inbound in bundle.inbound)},
    }
    for key, names in known.items():
        given = document.get(key) if isinstance(document, dict) else None
        for name in given if isinstance(given, dict) else ():
            if name not in names:
                yield Fault(f"{key}.{name}", "is not in the bundle", one_of(name, names))
