"""Writes a directory of generated files. It replaces the files of the earlier run, and changes no other file.

The index of a tree lists the files that `voice render` wrote. Every other file in the directory belongs to somebody
else, and stays. A run first writes all files into a staging directory, then moves each file into its place. A failed
run puts the earlier files back. After a killed run the next run completes the tree and removes the staging directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from voice_policies import Fault, InvalidInputError

from components.files import file_text

__all__ = ["INDEX"]

INDEX = "index.json"
LEDGER = "ledger.json"
"""The numbers of the platform that `voice diff` compares."""
STAGING = ".voice-render"
NAMED = 5
"""An error names at most this many files that belong to somebody else."""


def write_tree(out: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Write `files`, including the index. Delete the files of the earlier run that are not in `files`.

    Returns the files and directories of somebody else. They stay. Raises `InvalidInputError` if `out` belongs to
    somebody else, or if a file of somebody else is in the place of one of `files`. After such an error nothing has
    changed.
    """
    if out.exists() and not out.is_dir():
        raise _refusal(out, "is a file", "expected a directory")
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(out):
            earlier = _earlier_files(out)
            _refuse_occupied(out, files, earlier)
            _replace(out, files, earlier - files.keys())
            directories = {str(parent) for path in files for parent in PurePosixPath(path).parents}
            return tuple(_others(out, PurePosixPath(), {*files, STAGING}, directories))
    except BaseException:
        if is_new:
            with suppress(OSError):  # if the directory is not empty, the next run completes the tree
                out.rmdir()
        raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, so that two runs never overlap. The kernel releases the lock of a killed run."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class WrittenIndex(NamedTuple):
    """The content of the index file of a tree."""

    files: set[str]
    """The files that it lists, and the index itself."""
    is_complete: bool
    """False if the run of `voice render` did not end. Only the index of a run that ended lists resources."""


def read_index(index: Path) -> WrittenIndex:
    """The index in a file. Raises `ValueError` if the file is not an index of `voice render`."""
    try:
        document = json.loads(index.read_text(encoding="utf-8"))
        paths = [entry["file"] for entry in document["resources"]] + document.get("files", [])
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):  # too deep nesting: RecursionError
        raise ValueError("is not an index of `voice render`") from None
    if not document.get("environment") or not all(isinstance(path, str) and _is_inside(path) for path in paths):
        raise ValueError("is not an index of `voice render`")
    return WrittenIndex({*paths, INDEX}, bool(document["resources"]))


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def _earlier_files(out: Path) -> set[str]:
    """The files of the earlier run. A directory without an index must be empty."""
    index = out / INDEX
    if index.is_file():  # reading a pipe would block
        with suppress(ValueError):
            return read_index(index).files
    if found := sorted(entry.name for entry in out.iterdir() if entry.name != STAGING):
        names = ", ".join(found[:NAMED]) + (", …" if len(found) > NAMED else "")
        raise _refusal(
            out, f"contains files that `voice render` did not write: {names}", "name a new or empty directory"
        )
    return set()


def _refuse_occupied(out: Path, files: Mapping[str, str], earlier: set[str]) -> None:
    """Raise if a file of somebody else, with another content, is in the place of one of `files`."""
    faults = [
        Fault(str(out / path), "was not written by `voice render`, which needs this path", "move the file away")
        for path, text in files.items()
        if (path not in earlier and _differs(out / path, text)) or _is_obstructed(out, path)
    ]
    if faults:
        raise InvalidInputError("-o DIR", faults)


def _differs(place: Path, text: str) -> bool:
    if not os.path.lexists(place):
        return False
    return place.is_symlink() or not place.is_file() or place.read_bytes() != text.encode()


def _is_obstructed(out: Path, path: str) -> bool:
    """True if a directory of `path` is a link, which can lead out of the tree, or is a file."""
    parents = [out / parent for parent in PurePosixPath(path).parents[:-1]]
    return any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents)


def _replace(out: Path, files: Mapping[str, str], obsolete: set[str]) -> None:
    """Stage all files, then move each into its place."""
    staging = out / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for path, text in files.items():
            _write(staging / "new" / path, text)
        # If the run is killed from here on, this index tells the next run which files `voice render` wrote.
        union = {"environment": "unfinished", "resources": [], "files": sorted({*files, *obsolete})}
        _write(staging / "new" / "unfinished.json", file_text(union))
        _move(out, staging, list(files), sorted(obsolete))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def _move(out: Path, staging: Path, files: list[str], obsolete: list[str]) -> None:
    """Move each old file away and each new file into its place. If a move fails, put the old files back."""
    moved: list[str] = []
    made: list[str] = []
    steps = [(INDEX, "unfinished.json"), *((path, path) for path in files if path != INDEX)]
    try:
        for path, new in [*steps, *((path, None) for path in obsolete), (INDEX, INDEX)]:
            place, saved = out / path, staging / "old" / path
            if place.exists() and path not in made:
                saved.parent.mkdir(parents=True, exist_ok=True)
                place.replace(saved)
                moved.append(path)
            if new:
                place.parent.mkdir(parents=True, exist_ok=True)
                (staging / "new" / new).replace(place)
                made.append(path)
    except BaseException:
        for path in made:
            (out / path).unlink(missing_ok=True)
        for path in moved:
            (staging / "old" / path).replace(out / path)
        raise
    finally:
        _remove_empty_directories(out, [*files, *obsolete])


def _remove_empty_directories(out: Path, paths: list[str]) -> None:
    directories = {parent for path in paths for parent in PurePosixPath(path).parents[:-1]}
    for directory in sorted(directories, key=lambda each: len(each.parts), reverse=True):
        with suppress(OSError):  # the directory is not empty
            (out / directory).rmdir()


def _others(out: Path, below: PurePosixPath, ours: set[str], directories: set[str]) -> Iterator[str]:
    """The files that `voice render` did not write. A directory that has only such files is listed instead of them.

    `directories` are the directories of `ours`.
    """
    for entry in sorted((out / below).iterdir()):
        path = str(below / entry.name)
        if path in ours:
            continue
        if entry.is_dir() and not entry.is_symlink():
            if path in directories:
                yield from _others(out, PurePosixPath(path), ours, directories)
            else:
                yield f"{path}/"
        else:
            yield path


def _refusal(out: Path, value: str, accepted: str) -> InvalidInputError:
    return InvalidInputError("-o DIR", [Fault(str(out), value, accepted)])
