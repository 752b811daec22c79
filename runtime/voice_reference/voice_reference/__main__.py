"""Runs one reference service: `python -m voice_reference`.

| variable | value |
|---|---|
| `VOICE_POLICY_PATH` | the directory of the bundle; default `/etc/voice/policy` |
| `VOICE_SETTINGS_PATH` | the directory of the settings (ports, log level), optional; default `/etc/voice/settings` |
| `VOICE_REFERENCE_PATH` | the file with ports, local addresses and the behaviour of simulated work; optional |
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from voice_policies import SETTINGS_FILE_NAME, InvalidInputError
from voice_runtime import Runtime
from voice_runtime.settings import load_settings
from voice_runtime.tracing import SpanEvents, Telemetry, log_as_json

from voice_reference.configuration import ConfigurationFile
from voice_reference.service import PortError, Service

POLICY_PATH = "/etc/voice/policy"
SETTINGS_PATH = "/etc/voice/settings"


def main() -> int:
    """Run the service. For bad input or an unavailable port the exit code is 2, and standard error names the faults."""
    try:
        run()
    except (InvalidInputError, PortError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # the message is for a terminal and not for the log
        return 2
    return 0


def run() -> None:
    """Serve until SIGTERM. Raises `InvalidInputError` and `PortError`."""
    runtime = Runtime.load(os.environ.get("VOICE_POLICY_PATH", POLICY_PATH), listeners=[SpanEvents()])
    directory = Path(os.environ.get("VOICE_SETTINGS_PATH", SETTINGS_PATH))
    settings = load_settings(directory) if (directory / SETTINGS_FILE_NAME).exists() else None
    path = os.environ.get("VOICE_REFERENCE_PATH")
    configuration = ConfigurationFile(Path(path) if path else None, runtime)
    log_as_json(runtime, settings.log_level if settings else "info")
    service = Service(runtime, configuration, settings)
    with runtime, Telemetry(runtime, endpoint=configuration.current().collector):
        asyncio.run(service.serve())


if __name__ == "__main__":
    sys.exit(main())
