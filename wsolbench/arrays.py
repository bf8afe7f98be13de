"""Arrays in one file: the same bytes for the same arrays, and what damage of it raises."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: what numpy raises, of all kinds, for a file that is damaged or none of arrays
UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as the content of a ``.npz`` file, in their order and compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # whose date is always the same
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array))
    return stream.getvalue()


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.npz`` file.

    Raises:
        Exception: one of :data:`UNREADABLE`, when it is none or damaged.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
