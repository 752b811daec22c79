"""Runs the files and commands of docs/first-service.md, on other ports, and compares the output with the document."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.examples import DOCUMENTS
from tests.loopback import free_port
from tests.runtime.grpc.rag_engine import RagEngine, serving

TEXT = (DOCUMENTS / "first-service.md").read_text()
NAMES = ("policy.json", "laptop.py", "service.py")
FILES = dict(zip(NAMES, re.findall(r"```(?:json|python)\n(.*?)```", TEXT, re.DOTALL), strict=True))
(BEFORE, AFTER) = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
LINES = re.findall(r"^WARNING:voice_runtime:.*$", TEXT, re.MULTILINE)
PATIENCE = 60.0
"""Seconds that a busy machine may take to start a process or to reload."""
PATIENT = FILES["policy.json"].replace('"500ms", "overall": "1s"', '"1m", "overall": "1m"').replace('"2s"', '"2m"')
"""The document's bundle with longer timeouts and a longer deadline, because a busy machine answers late."""


@dataclass
class Laptop:
    folder: Path
    ports: dict[str, int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        for written, meant in self.ports.items():
            text = re.sub(rf"(?<!\d){written}(?!\d)", str(meant), text)
        (self.folder / name).write_text(text)

    def start(self, *arguments: str) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, *arguments]
            self.processes.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))

    def python(self, *arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=self.folder, check=True)

    def printed(self, command: str) -> str:
        for written, meant in self.ports.items():
            command = command.replace(f":{written}", f":{meant}")
        environment = {**os.environ, "NO_PROXY": "*"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for(self, command: str, expected: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.printed(command) != expected:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)


def session(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.strip()


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    grpc_port, catalogue_port, own_port = (free_port() for _ in range(3))
    machine = Laptop(tmp_path, {"9001": grpc_port, "9002": catalogue_port, "8080": own_port})
    for name, text in {**FILES, "policy.json": PATIENT}.items():
        machine.write(name, text)
    (tmp_path / "books.json").write_text('["Walden", "Emma"]\n')
    try:
        machine.start("-m", "http.server", str(catalogue_port), "--bind", "127.0.0.1")
        machine.python("laptop.py")
        machine.start("service.py")
        machine.wait_for("curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8080/ready", "200")
        machine.wait_for("curl -s 127.0.0.1:9002/books.json", '["Walden", "Emma"]')
        yield machine
    finally:
        for process in machine.processes:
            process.terminate()
        for process in machine.processes:
            process.wait(PATIENCE)


def test_the_files_of_the_tutorial_have_together_at_most_sixty_lines() -> None:
    assert sum(len(text.splitlines()) for text in FILES.values()) <= 60


def test_the_tested_bundle_differs_from_the_documented_bundle_only_in_times() -> None:
    duration = re.compile(r"\d+m?[sm]")
    assert duration.sub("", PATIENT) == duration.sub("", FILES["policy.json"])
    assert set(duration.findall(PATIENT)) == {"1m", "2m", "1s"}, "the drain and the objective stay at 1 s"


def test_the_session_prints_what_the_document_shows(laptop: Laptop) -> None:
    for command, output in session(BEFORE):
        assert laptop.printed(command) == output, laptop.log
    assert len(LINES) == 2
    for line in LINES:
        assert line.split("; retry after")[0] in laptop.log
    laptop.write("policy.json", PATIENT.replace('"burst": 3', '"burst": 100'))
    before = laptop.log.count("is in force")
    laptop.python("laptop.py")
    deadline = time.monotonic() + PATIENCE
    while laptop.log.count("is in force") == before:
        assert time.monotonic() < deadline, laptop.log
        time.sleep(0.1)
    for command, output in session(AFTER):
        assert laptop.printed(command) == output, laptop.log


def test_the_grpc_call_gets_the_answer_of_a_callee(laptop: Laptop) -> None:
    async def ask() -> str:
        async with serving(RagEngine(), port=laptop.ports["9001"]):
            return await asyncio.to_thread(laptop.printed, "curl -s '127.0.0.1:8080/ask?tides'")

    assert asyncio.run(ask()) == "tides: tides, 2 books"
