"""The settings file: ports, log level, and connections to stores."""

from __future__ import annotations

from pathlib import Path

from voice_policies import SETTINGS_FILE_NAME, Fault, InvalidInputError, ServiceSettings

__all__ = ["load_settings"]


def load_settings(directory: str | Path) -> ServiceSettings:
    """Read the settings that are mounted at `directory`. Raises `InvalidInputError` with every fault of the file."""
    path = Path(directory) / SETTINGS_FILE_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        accepted = f"expected the settings that the platform mounts as {SETTINGS_FILE_NAME}"
        raise InvalidInputError(str(path), [Fault("", f"cannot be read ({error.strerror})", accepted)]) from None
    return ServiceSettings.from_json(text, str(path))
