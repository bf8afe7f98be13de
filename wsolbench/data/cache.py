"""Decoded images on a disk, for training sets that memory has no room for."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow
from PIL import features

from wsolbench.data.images import decode_image, read_image, resize_image
from wsolbench.files import check_writable, temporary_beside

log = logging.getLogger("wsolbench")

#: share of a disk that stays free
RESERVE = 0.1
#: bytes of the checksum at the end of a file
_CHECK = 4


class DecodedCache:
    """Images decoded and resized once, each in a file named by what it was made of.

    A name is the SHA-256 of the image file's bytes, of the side and of the decoder's versions. So
    every dataset, split, run and process may use one folder; an image that was changed is another
    one; and what two processes write at the same time is the same. A file that is not whole is
    made anew.

    Args:
        folder: is made.
        side: images are resized to (side, side).

    Raises:
        InputError: when the folder cannot be written to.
        WsolbenchError: when the disk is full.
    """

    def __init__(self, folder: Path, side: int) -> None:
        check_writable(folder)
        self._folder = folder
        self._side = side
        decoders = f"{side} {pillow} {features.version('jpg')} {features.version('zlib')}"
        self._start = hashlib.sha256(decoders.encode())
        self._keeping = True

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return an image file's pixels (side, side, 3); safe to call from several threads.

        Raises:
            InputError: when the file is missing or damaged.
        """
        try:
            content = path.read_bytes()
        except OSError:
            return self._resized(read_image(path))  # says what is wrong
        kept = self._place(content)
        pixels = self._kept(kept)
        if pixels is None:
            pixels = self._resized(decode_image(path, io.BytesIO(content)))
            self._keep(kept, pixels)
        return pixels

    def _resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_image(pixels, (self._side, self._side))

    def _place(self, content: bytes) -> Path:
        digest = self._start.copy()
        digest.update(content)
        name = digest.hexdigest()
        return self._folder / name[:2] / name[2:]

    def _kept(self, file: Path) -> NDArray[np.uint8] | None:
        """The pixels in a file, or None where it is missing or not whole."""
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        pixels, check = stored[:-_CHECK], stored[-_CHECK:]
        if len(pixels) != 3 * self._side**2 or _checksum(pixels) != check:
            return None
        return np.frombuffer(pixels, np.uint8).reshape(self._side, self._side, 3)

    def _keep(self, file: Path, pixels: NDArray[np.uint8]) -> None:
        if not self._keeping:
            return
        try:
            self._write(file, pixels.tobytes())
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _write(self, file: Path, pixels: bytes) -> None:
        disk = shutil.disk_usage(self._folder)
        if disk.free < RESERVE * disk.total:
            self._stop(f"only {disk.free / 2**30:.1f} GiB are free on its disk")
            return
        file.parent.mkdir(exist_ok=True)
        # Not flushed to the disk, for speed: a crash may leave a file that the checksum gives away.
        temporary = temporary_beside(file)
        try:
            temporary.write_bytes(pixels + _checksum(pixels))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def _stop(self, reason: str) -> None:
        """Keep no more, which costs time and nothing else."""
        if self._keeping:
            self._keeping = False
            log.warning("--cache %s: %s; other images are decoded anew", self._folder, reason)


def _checksum(pixels: bytes) -> bytes:
    return zlib.crc32(pixels).to_bytes(_CHECK)
