from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from voice_policies import InvalidInputError, PolicyBundle
from voice_reference import processes
from voice_reference.processes import Process, running

from tests.bundles import bundle, operation

HANGS = "print('loading', flush=True); import time; time.sleep(600)"
ENDS = "import sys; print('no module named grpc'); sys.exit(3)"


def pretending(patch: pytest.MonkeyPatch, programs: dict[str, str]) -> dict[str, PolicyBundle]:
    """The process of each service runs the given program instead of a reference service."""

    def start(directory: Path, service: PolicyBundle, *_: str) -> Process:
        directory.mkdir(parents=True)
        program = programs[service.metadata.service]
        with (directory / "log").open("wb") as log:
            return Process(service, directory, subprocess.Popen([sys.executable, "-c", program], stdout=log))

    patch.setattr(processes, "_start", start)
    return {name: bundle(inbound=(operation("run"),), service=name) for name in programs}


def test_a_process_that_ends_is_reported_while_another_process_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = pretending(monkeypatch, {"agent-engine": HANGS, "rag-engine": ENDS})
    with pytest.raises(InvalidInputError) as caught, running(bundles, "127.0.0.1:1"):
        pass
    assert "rag-engine" in str(caught.value)
    assert "ended with exit code 3" in str(caught.value)
    assert "no module named grpc" in str(caught.value)


def test_the_error_names_a_late_process_and_quotes_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = pretending(monkeypatch, {"agent-engine": HANGS})
    monkeypatch.setattr(processes, "START_SECONDS", 2.0)
    with pytest.raises(TimeoutError, match=r"not ready within 2 s: agent-engine \(end of its log: '(loading)?'\)"):
        running(bundles, "127.0.0.1:1").__enter__()


def test_a_restart_waits_until_another_program_frees_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[subprocess.Popen[bytes]] = []
    run = processes._run  # noqa: SLF001 - the test observes each start

    def start(directory: Path) -> subprocess.Popen[bytes]:
        if starts:
            starts[-1].wait()
            taken.close()
        starts.append(run(directory))
        return starts[-1]

    with running({"a": bundle(inbound=(operation("run"),), service="a")}, "127.0.0.1:1") as platform:
        process = platform.processes["a"]
        process.process.kill()
        process.process.wait()
        taken = socket.create_server(("127.0.0.1", process.http_port))
        monkeypatch.setattr(processes, "_run", start)
        platform.restart("a")
    assert [each.wait() for each in starts[:-1]] == [2]
