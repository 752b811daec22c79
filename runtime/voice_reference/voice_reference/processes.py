"""Runs reference services on one machine: one process for each bundle, on free ports of the loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voice_policies import FILE_NAME, Fault, InvalidInputError, PolicyBundle
from voice_runtime.bundle_source import BundleSource

from voice_reference.configuration import Behaviour, Configuration
from voice_reference.operations import is_on_the_wire

__all__ = ["Platform", "Process", "bundles_of", "running", "wait_until"]

LOOPBACK = "127.0.0.1"
START_SECONDS = 180.0
"""Seconds in which all processes must start. Two idle cores need a tenth of this time."""
PORT_TAKEN = "is not available"
"""Words in the last message of a process whose port is already in use."""
LAST_WORDS = 500
"""Number of characters at the end of a log that an error quotes."""


def bundles_of(directory: Path, entrances: Iterable[str]) -> dict[str, PolicyBundle]:
    """The bundles of the services named in `entrances`, and of all services that they call, directly or not.

    `directory` has a folder for each service. Raises `InvalidInputError`.
    """
    found: dict[str, PolicyBundle] = {}
    wanted = list(entrances)
    while wanted:
        name = wanted.pop()
        if name not in found:
            source = BundleSource(directory / name)
            found[name] = PolicyBundle.from_json(source.read(), str(source.path))
            wanted += [call.callee for call in found[name].outbound if is_on_the_wire(call)]
    return found


@dataclass
class Process:
    """One reference service."""

    bundle: PolicyBundle
    directory: Path
    process: subprocess.Popen[bytes]
    grpc_port: int = 0
    http_port: int = 0

    @property
    def log(self) -> Path:
        """The file with the output of the process."""
        return self.directory / "log"

    @property
    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-LAST_WORDS:].strip()

    @property
    def url(self) -> str:
        """The URL of the HTTP port."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def find_ports(self) -> bool:
        """Read the ports from the log. True if the log says that the process is ready.

        Raises `InvalidInputError` if the process has ended.
        """
        for line in self.log.read_text().splitlines():
            entry = _entry(line)
            if entry.get("message") == "ready":
                self.grpc_port, self.http_port = entry["grpc_port"], entry["http_port"]
                return True
        if self.process.poll() is not None:
            fault = Fault("", f"ended with exit code {self.process.returncode}", self.last_words)
            raise InvalidInputError(self.bundle.metadata.service, [fault])
        return False

    def mount(self, bundle: PolicyBundle) -> None:
        """Replace the bundle by one rename, as kubelet swaps a ConfigMap. The new bundle gets a new digest."""
        self.bundle = bundle.sealed()
        _replace(self.directory / "policy" / FILE_NAME, json.dumps(self.bundle.to_document()))

    def configure(self, configuration: Configuration) -> None:
        """Replace the file of the configuration."""
        _replace(self.directory / "configuration.json", configuration.model_dump_json())


class Platform:
    """Running reference services."""

    def __init__(self, processes: dict[str, Process], collector: str, providers: Mapping[str, str]) -> None:
        self.processes = processes
        self._collector = collector
        self._providers = providers
        self._behaviour: dict[str, dict[str, Behaviour]] = {}

    def behave(self, service: str, **behaviour: Behaviour) -> None:
        """Replace the behaviour of a service's simulated work.

        Calls and operations without a behaviour get the default.
        """
        self._behaviour[service] = behaviour
        self._configure(service)

    def restart(self, service: str) -> None:
        """Start a killed service again on its ports, and wait until it is ready.

        If another program has taken a port, for example for an outgoing connection, start the service again.
        """
        process = self.processes[service]
        process.configure(self._configuration(service, process.grpc_port, process.http_port))
        deadline = time.monotonic() + START_SECONDS
        while True:
            process.process = _run(process.directory)
            try:
                _wait_until_ready([process])
                break
            except InvalidInputError as error:
                if PORT_TAKEN not in str(error) or time.monotonic() > deadline:
                    raise
        self._configure(service)

    def connect(self) -> None:
        """Write the addresses of each service's callees into the configuration of the service."""
        for service in self.processes:
            self._configure(service)

    def _configure(self, service: str) -> None:
        self.processes[service].configure(self._configuration(service))

    def _configuration(self, service: str, grpc_port: int = 0, http_port: int = 0) -> Configuration:
        bundle = self.processes[service].bundle
        callees = {call.callee for call in bundle.outbound}
        known = bundle.models.providers.keys() if bundle.models else set()
        addresses = {name: f"{LOOPBACK}:{self.processes[name].grpc_port}" for name in callees & self.processes.keys()}
        return Configuration(
            host=LOOPBACK,
            grpc_port=grpc_port,
            http_port=http_port,
            collector=self._collector,
            addresses=addresses,
            providers={name: address for name, address in self._providers.items() if name in known},
            behaviour=self._behaviour.get(service, {}),
        )


@contextmanager
def running(
    bundles: dict[str, PolicyBundle], collector: str, providers: Mapping[str, str] | None = None
) -> Iterator[Platform]:
    """Start a process for each bundle. The end of the block ends all processes.

    `collector` is the URL of the Collector. `providers` maps model providers to `host:port`. A
    provider without an entry is a fake.

    Raises:
        InvalidInputError: a process ended instead of starting.
        TimeoutError: a process is not ready after `START_SECONDS`.

    """
    root = Path(tempfile.mkdtemp(prefix="voice-reference-"))
    processes: dict[str, Process] = {}
    try:
        for name, bundle in bundles.items():
            processes[name] = _start(root / name, bundle, collector)
        _wait_until_ready(processes.values())
        platform = Platform(processes, collector, providers or {})
        platform.connect()
        yield platform
    finally:
        for process in processes.values():
            process.process.kill()
            process.process.wait()
        shutil.rmtree(root)


def wait_until(holds: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until `holds()` is true. `what` describes the condition in the error. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {timeout:.0f} s: {what}")
        time.sleep(0.05)


def _wait_until_ready(processes: Iterable[Process]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while late := [process for process in processes if not process.find_ports()]:
        if time.monotonic() > deadline:
            said = "; ".join(f"{each.bundle.metadata.service} (end of its log: {each.last_words!r})" for each in late)
            raise TimeoutError(f"not ready within {START_SECONDS:.0f} s: {said}")
        time.sleep(0.05)


def _start(directory: Path, bundle: PolicyBundle, collector: str) -> Process:
    (directory / "policy").mkdir(parents=True)
    bundle = _with_own_keys(bundle, directory)
    configuration = Configuration(host=LOOPBACK, grpc_port=0, http_port=0, collector=collector)
    _replace(directory / "policy" / FILE_NAME, json.dumps(bundle.to_document()))
    _replace(directory / "configuration.json", configuration.model_dump_json())
    return Process(bundle, directory, _run(directory))


def _with_own_keys(bundle: PolicyBundle, directory: Path) -> PolicyBundle:
    """The same bundle with a made-up API key for each credential, because the secrets exist only in the cluster."""
    if bundle.models is None:
        return bundle
    deployments = {}
    for name, deployment in bundle.models.deployments.items():
        key = directory / f"key-{Path(deployment.credential).name}"
        key.write_text("made-up")
        deployments[name] = deployment.model_copy(update={"credential": str(key)})
    models = bundle.models.model_copy(update={"deployments": deployments})
    return bundle.model_copy(update={"models": models}).sealed()


def _run(directory: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "VOICE_POLICY_PATH": str(directory / "policy"),
        "VOICE_SETTINGS_PATH": str(directory),
        "VOICE_REFERENCE_PATH": str(directory / "configuration.json"),
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # in milliseconds: short, because a user waits for the spans
    }
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-m", "voice_reference"]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603  # our own program


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
