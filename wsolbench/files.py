"""Files and folders: written whole or not at all, with errors that say what to do; digests."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO

from wsolbench.errors import InputError, WsolbenchError, one_line


def write_atomically(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, making its folder.

    Args:
        file: where it goes; an earlier one is replaced only when the new one is complete.
        write: writes the content to an open file.

    Raises:
        InputError: when the folder cannot be written to; the line says what to do.
        WsolbenchError: when the disk is full.
    """
    # Beside the target, because a file can be moved in one step only within a file system.
    temporary = temporary_beside(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_through(temporary, write)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        raise explained(error, file) from error


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8, see :func:`write_atomically`."""
    write_atomically(file, lambda stream: stream.write(text.encode("utf-8")))


def append_text(file: Path, text: str) -> None:
    """Write text as UTF-8 to the end of a file; a full disk may leave a part of it there.

    Raises:
        InputError: when the folder cannot be written to; the line says what to do.
        WsolbenchError: when the disk is full.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(text.encode("utf-8"))
    except OSError as error:
        raise explained(error, file) from error


def make_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder with all its files or not at all; one that another process made first stays.

    Args:
        folder: what to make.
        fill: writes the files into the folder that it is given.

    Raises:
        InputError: when the place cannot be written to; the line says what to do.
        WsolbenchError: when the disk is full.
    """
    temporary = temporary_beside(folder)
    try:
        temporary.mkdir(parents=True)
        try:
            fill(temporary)
            _move_unless_made(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise explained(error, folder) from error


def check_writable(folder: Path) -> None:
    """Make a folder and see that it can be written to, before hours of work.

    Raises:
        InputError: when it is a regular file or not writable; the line says what to do.
        WsolbenchError: when the disk is full.
    """
    probe = temporary_beside(folder / "probe")
    write_text(probe, "")
    probe.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name beside ``path`` that no other process has: in containers even their numbers agree."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _move_unless_made(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def sha256(file: Path) -> str:
    """Hash a file's content, once for as long as the process lives and the file stays as it is."""
    found = file.stat()
    return _sha256(file, found.st_size, found.st_mtime_ns)


@cache
def _sha256(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_through(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    with file.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def explained(error: Exception, file: Path) -> Exception:
    """Return the error to raise where writing failed: one line, if the system had a reason."""
    cause = _system_error(error)
    if cause is None:
        return error
    blocking = next((p for p in file.parents if p.exists() and not p.is_dir()), None)
    if blocking is not None:
        return InputError(f"'{blocking}' is a file, not a folder; move it or name another folder")
    line = cause.strerror or one_line(cause)
    if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WsolbenchError(f"cannot write '{file}': {line}; make room and run again")
    return InputError(f"cannot write '{file}': {line}; name another folder")


def _system_error(error: BaseException | None) -> OSError | None:
    # torch may follow a failed write by a RuntimeError about positions in the file
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
