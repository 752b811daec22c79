"""Replaces Pulumi's Python language host, because no package registry has that program.

The engine starts this program as `pulumi-language-python`, reads the port that the program prints, and asks it over
gRPC to run the project. The gRPC service is a class of Pulumi's Automation API.
"""

import os
import runpy
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2_grpc


class LanguageHost(LanguageServer):
    def __init__(self) -> None:
        super().__init__(self._run_program)
        self._folder = ""

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self._folder = request.info.program_directory
        return super().Run(request, context)  # type: ignore[no-untyped-call]

    def _run_program(self) -> None:
        runpy.run_path(self._folder, run_name="__main__")


def main() -> None:
    """Serves until the engine, which is the parent process, ends or interrupts this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    engine = os.getppid()
    server = grpc.server(ThreadPoolExecutor(), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while os.getppid() == engine:
        time.sleep(0.2)


if __name__ == "__main__":
    main()
