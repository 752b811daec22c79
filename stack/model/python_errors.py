"""Python errors in a tenant's code, as faults with file and line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from voice_policies import Fault, InvalidInputError, faults_of

from components.declaration import ROOT, Location

if TYPE_CHECKING:
    from stack.model.tenant import Tenant

__all__ = ["load_tenant"]


def load_tenant(module: str) -> Tenant:
    """The `TENANT` of a module or package of this repository.

    Raises `InvalidInputError` with file and line for an error in its code.
    """
    place = Path(ROOT, *module.split("."))
    with refused_with_line(place if place.is_dir() else place.with_suffix(".py")):
        tenant: Tenant = import_module(module).TENANT
    return tenant


@contextmanager
def refused_with_line(folder: Path) -> Iterator[None]:
    """Convert an error of code in or below `folder`, or of a function that this code calls, into `InvalidInputError`.

    Other errors and interruptions pass through. `sys.exit` is converted, too: otherwise its status would look like the
    status of the command.
    """
    try:
        yield
    except (InvalidInputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        location = _location(error, folder)
        if location is None:
            raise
        raise InvalidInputError(str(location), _faults(error)) from None


def _location(error: BaseException, folder: Path) -> Location | None:
    """The innermost line below the folder. For a syntax error no frame of the file runs, so its own line counts."""
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        lines.append((error.filename or "", error.lineno))
    found = [Location(file.removeprefix(ROOT), line or 0) for file, line in lines if Path(file).is_relative_to(folder)]
    return found[-1] if found else None


def _faults(error: BaseException) -> list[Fault]:
    match error:
        case ValidationError():
            return faults_of(error, prefix=error.title)
        case SyntaxError():
            said = f"{type(error).__name__}: {error.msg}"
        case _:
            said = ": ".join(filter(None, (type(error).__name__, _text(error))))
    return [Fault("", said, f"{_hint(error)}correct this line")]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - the tenant's class may raise any error
        return f"str() of this error raises {type(fault).__name__}"


def _hint(error: BaseException) -> str:
    """The nearest name in the module for an undefined name. The text of a `NameError` suggests none."""
    if not isinstance(error, NameError):
        return ""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    nearest = get_close_matches(error.name or "", frame.f_globals, n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""
