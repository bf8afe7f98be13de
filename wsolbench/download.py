"""Fetching a dataset where its terms allow it: resumed, checked, unpacked whole or not at all."""

from __future__ import annotations

import gzip
import logging
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from wsolbench.errors import InputError, WsolbenchError, one_line
from wsolbench.files import make_folder

log = logging.getLogger("wsolbench")

#: below the data root: archives that are being fetched, until they are unpacked
DOWNLOADS = ".downloads"
_CHUNK = 1 << 16
_TIMEOUT = 60
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,  # a password is needed
)


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        url: where it lies; its last part is the file's name.
        digest: ``sha256:...`` or ``md5:...`` as others verified it; None where none is known.
        into: folder below the data root that it is unpacked or put in; "" for the data root.
        gives: what is there, below the data root, when it was unpacked.
    """

    url: str
    digest: str | None
    gives: str
    into: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2].partition("?")[0]


def fetch(archives: Sequence[Archive], root: Path) -> Iterator[str]:
    """Fetch archives and unpack them below ``root``; what is there already stays as it is.

    One that cannot be had does not stand in the way of the others.

    Yields:
        One line for each archive that is there now: what was done.

    Raises:
        InputError: when a download is not the known file, or an archive holds a path that leads
            outside; nothing of it is unpacked.
        WsolbenchError: when the network or the disk fails; the same command goes on where it was.
    """
    failed: list[WsolbenchError] = []
    for archive in archives:
        try:
            yield _fetched(archive, root)
        except WsolbenchError as error:
            failed.append(error)
    for other in failed[1:]:
        log.warning("%s", other)
    if failed:
        raise failed[0]


def _fetched(archive: Archive, root: Path) -> str:
    target = root / archive.gives
    if target.exists():
        return f"{target} is there already"
    file = _downloaded(archive, root / DOWNLOADS)
    unpack(file, root / archive.into)
    if not target.exists():
        raise InputError(f"{archive.url} was unpacked and there is no {target}; tell its authors")
    file.unlink()
    return f"{target} unpacked from {archive.name}"


# ------------------------------------------------------------------------------------- fetching


def _downloaded(archive: Archive, folder: Path) -> Path:
    import pooch

    if archive.digest is None:
        log.warning("%s: no checksum is known, it is not checked", archive.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = pooch.retrieve(
            archive.url,
            archive.digest,
            fname=archive.name,
            path=folder,
            downloader=_Resuming(folder / f"{archive.name}.part"),
        )
    except ValueError as error:
        raise InputError(
            f"{archive.url} is not the file of checksum {archive.digest}; run again, "
            "and if it stays so, the file was exchanged"
        ) from error
    except OSError as error:  # requests' own are, too
        raise WsolbenchError(
            f"{archive.url}: {one_line(error)}; the same command goes on"
        ) from error
    return Path(found)


class _Resuming:
    """A downloader of pooch's that keeps what came and asks for the rest.

    Args:
        part: where it is kept.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output: str, _: Any) -> None:
        """Fetch ``url``; ``output`` is where pooch wants it."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        # A server that compressed the file would count other bytes than those that are kept.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            complete = answer.status_code == requests.codes.requested_range_not_satisfiable
            if complete:
                self._check_size(answer, have)
            else:
                answer.raise_for_status()
                resumed = answer.status_code == requests.codes.partial
                self._take(answer, have if resumed else 0)
        # pooch checks it next; a wrong one must not be resumed for ever
        shutil.move(self.part, output)

    def _check_size(self, answer: Any, have: int) -> None:
        """What is there must be all there is, where the server says how much that is."""
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if whole.isdecimal() and int(whole) != have:
            self.part.unlink()
            raise OSError(f"{have} bytes were kept of {whole}; they are removed")

    def _take(self, answer: Any, have: int) -> None:
        from tqdm import tqdm

        rest = int(answer.headers.get("Content-Length", 0))
        bar = tqdm(
            desc=self.part.stem,
            total=have + rest if rest else None,
            initial=have,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with bar, self.part.open("ab" if have else "wb") as stream:
            for chunk in answer.iter_content(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
        if rest and self.part.stat().st_size < have + rest:
            raise OSError("the connection ended too early")


# ------------------------------------------------------------------------------------ unpacking


def unpack(file: Path, folder: Path) -> None:
    """Unpack a tar or zip below ``folder``, on the same file system, or put any other file there.

    Everything is written beside the file first and moved when it is complete; what is there already
    stays as it is.

    Raises:
        InputError: when a path in the archive leads outside of the folder, or the archive is
            damaged; nothing is unpacked then.
        WsolbenchError: when the disk is full.
    """
    # Not below the folder, which would be there, as if it were unpacked, when nothing is.
    staged = file.with_name(f".{file.name}.unpacked")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        make_folder(staged, lambda inside: _extract(file, inside))
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(staged.iterdir()):
            _move(entry, folder / entry.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _move(entry: Path, target: Path) -> None:
    if not target.exists():
        entry.rename(target)
    elif entry.is_dir() and target.is_dir():
        for child in sorted(entry.iterdir()):
            _move(child, target / child.name)


def _extract(file: Path, folder: Path) -> None:
    try:
        if tarfile.is_tarfile(file):
            _extract_tar(file, folder)
        elif zipfile.is_zipfile(file):
            _extract_zip(file, folder)
        else:
            shutil.copy(file, folder / file.name)
    except tarfile.FilterError as error:
        raise InputError(f"{file} leads outside of its folder: {error}; do not trust it") from error
    except _DAMAGE as error:
        raise InputError(f"{file} is damaged ({error}); delete it and run again") from error


def _extract_tar(file: Path, folder: Path) -> None:
    from tqdm import tqdm

    with tarfile.open(file) as archive:
        members = tqdm(_checked_members(archive, file), f"unpacking {file.name}", disable=None)
        for member in members:
            archive.extract(member, folder, filter="data")


def _checked_members(archive: tarfile.TarFile, file: Path) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        # the filter would cut a leading / off and go on
        _check_name(member.name, file)
        yield member


def _extract_zip(file: Path, folder: Path) -> None:
    from tqdm import tqdm

    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            _check_name(member.filename, file)
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise InputError(f"{file} holds a link, {member.filename}; do not trust it")
        for member in tqdm(archive.infolist(), f"unpacking {file.name}", disable=None):
            with archive.open(member) as source:
                _write(source, folder / member.filename, member.is_dir())


def _write(source: IO[bytes], target: Path, is_folder: bool) -> None:
    (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        with target.open("wb") as stream:
            shutil.copyfileobj(source, stream)


def _check_name(name: str, file: Path) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise InputError(f"{file} leads outside of its folder: {name}; do not trust it")
