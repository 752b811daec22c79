"""Refusals: the faults of all parts of a platform, each with the setting that decides it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce

from pydantic import ValidationError
from voice_policies import Fault, InvalidInputError, faults_of

from stack.model.settings import Settings, file_of, path_of

DECIDED_BY = {
    "metrics": "metrics.retention",
    "outage": "trace_sample_ratio",
    "retention": "trace_sample_ratio",
    "voice-traces": "trace_sample_ratio",
}
"""Subject of a component's fault → the setting that decides it. Other faults belong to the catalogue."""


class Refusals:
    """Every fault so far, and the file that each is in. What two parts refuse alike is told once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: dict[tuple[str, Fault], None] = {}

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Ends the block at its first refusal, which is kept, and goes on behind it."""
        try:
            yield
        except ValidationError as error:
            self._found |= {
                self._told("stack/voiceassistant/catalog", fault): None
                for fault in faults_of(error, prefix=error.title)
            }
        except InvalidInputError as error:
            self._found |= {self._told(error.source, fault): None for fault in error.faults}

    def tell(self) -> None:
        """Raises `InvalidInputError` with all of them, where there are any."""
        sources = list(dict.fromkeys(source for source, _ in self._found))
        if len(sources) == 1:
            raise InvalidInputError(sources[0], [fault for _, fault in self._found])
        if sources:
            faults = [replace(fault, path=f"{source}: {fault.path}") for source, fault in self._found]
            raise InvalidInputError(" and ".join(sources), faults)

    def _told(self, source: str, fault: Fault) -> tuple[str, Fault]:
        setting = DECIDED_BY.get(fault.accepted.partition(":")[0])
        if setting is None:
            return source, fault
        value = reduce(getattr, setting.split("."), self._settings)
        told = Fault(path_of(setting), f"is '{value}'", f"{fault.path}: {fault.accepted}")
        return file_of(self._settings.environment), told
