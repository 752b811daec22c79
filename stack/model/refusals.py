"""Collects the refusals of all parts of a platform into one error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce

from pydantic import ValidationError
from typing_extensions import override
from voice_policies import Fault, InvalidInputError, faults_of

from stack.model.settings import Settings, file_of, path_of

__all__ = ["Refusals"]


class Refusals:
    """Collects refusals, to raise all of them in one error."""

    def __init__(self, source: str) -> None:
        """`source` is the file or command that the error names for a `ValidationError`."""
        self._source = source
        self._errors: list[InvalidInputError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Store the first refusal of the block instead of raising it. The rest of the block does not run."""
        try:
            yield
        except ValidationError as error:
            self._errors += map(self._refusal, faults_of(error, prefix=error.title))
        except InvalidInputError as error:
            self._errors.append(error)

    def raise_collected(self) -> None:
        """Raise one `InvalidInputError` with all collected refusals. Does nothing if there are none."""
        if self._errors:
            raise InvalidInputError.joined(self._errors)

    def _refusal(self, fault: Fault) -> InvalidInputError:
        return InvalidInputError(self._source, [fault])


class ComponentRefusals(Refusals):
    """Refusals of components. If a setting determines the value of a refused field, the fault names the setting."""

    def __init__(self, source: str, settings: Settings, decided_by: Mapping[str, str]) -> None:
        """`decided_by` maps the path of a field, such as `Prometheus.retention`, to the setting."""
        super().__init__(source)
        self._settings = settings
        self._decided_by = decided_by

    @override
    def _refusal(self, fault: Fault) -> InvalidInputError:
        setting = self._decided_by.get(fault.path)
        if setting is None:
            return super()._refusal(fault)
        value = reduce(getattr, setting.split("."), self._settings)
        decided = Fault(path_of(setting), f"is '{value}'", f"{fault.path}: {fault.accepted}")
        return InvalidInputError(file_of(self._settings.environment), [decided])
