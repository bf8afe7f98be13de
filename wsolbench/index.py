"""Datasets whose annotation files and folders are read once and then kept as columns.

What was read lies in ``<data root>/.wsolbench/<name>.parquet`` with a key of what it was read from:
sizes and times of change of the annotation files, times of change of the listed folders, and the
code of the reader. When the key differs it is made anew. A million samples stay columns: a
:class:`Sample` is made when somebody asks for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, get_args, overload

import numpy as np
from numpy.typing import NDArray

from wsolbench.dataset import (
    Dataset,
    OfficialSplit,
    Sample,
    Split,
    ValueRange,
    holdout_order,
)
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.files import write_atomically
from wsolbench.types import Box

log = logging.getLogger("wsolbench")

FOLDER = ".wsolbench"
_META = b"wsolbench"
#: rank of a training image that cannot be held out, because nothing is known of it
_NEVER = np.iinfo(np.int32).max
_BATCH = 4096
#: modules of the core that read
_READERS = ("index", "annotations", "matlab", "truth", "data/images")


class Row(NamedTuple):
    """A sample as a reader gives it; files are relative to the data root.

    ``annotation`` is a file that tells of the image and was not read.
    """

    image_id: str
    path: str
    label: int
    boxes: Sequence[Box] = ()
    masks: Sequence[str] = ()
    ignore: str | None = None
    annotation: str | None = None


@dataclass(frozen=True)
class Sources:
    """What a dataset is read from.

    Attributes:
        files: annotation files.
        listings: folders of which names count only, as those of images.
        contents: folders whose files were read, too.
    """

    files: Sequence[Path] = ()
    listings: Sequence[Path] = ()
    contents: Sequence[Path] = ()

    def key(self, root: Path) -> str:
        """SHA-256 over names, sizes and times of change.

        Args:
            root: what names are relative to, so that it may be spelled in several ways.

        Raises:
            InputError: when one of them is gone.
        """
        digest = hashlib.sha256()
        try:
            for path in (*self.files, *self.listings):
                found = path.stat()
                name = os.path.relpath(path, root)
                digest.update(f"{name}|{found.st_size}|{found.st_mtime_ns}\n".encode())
            for folder in self.contents:
                within = os.path.relpath(folder, root)
                for name, size, changed in sorted(_entries(folder)):
                    digest.update(f"{within}|{name}|{size}|{changed}\n".encode())
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
        return digest.hexdigest()


@dataclass(frozen=True)
class Contents:
    """What a reader found.

    Attributes:
        class_names: in label order.
        splits: rows in the official order; ``val`` is the field's own hold-out, where there is one.
        notes: what ``check-data`` should say of the files, each in one line.
    """

    class_names: Sequence[str]
    splits: Mapping[Split, Iterable[Row]]
    notes: Sequence[str] = field(default=())


class IndexedDataset(Dataset):
    """A dataset that is read once, see the module.

    A plugin says what it reads (:meth:`sources`) and reads it (:meth:`read`).

    Raises:
        InputError: as :class:`Dataset`; also for a hold-out where nothing is known of the training
            images and the field's own hold-out is not there.
    """

    #: least and greatest 8-bit value of masks that is object, and that does not count
    object_values: ClassVar[ValueRange] = (1, 255)
    ignore_values: ClassVar[ValueRange] = (1, 255)

    def __init__(self, root: Path, holdout: int = 0) -> None:
        super().__init__(root, holdout)
        self._index = _opened(self)
        if holdout and not self.official_holdout():
            self._check_holdout()

    @abstractmethod
    def sources(self) -> Sources:
        """What the dataset is read from.

        Raises:
            InputError: when something is missing; the line names it.
        """

    @abstractmethod
    def read(self) -> Contents:
        """Read the files.

        Raises:
            InputError: when a file is missing or malformed; the line names it.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self._index.class_names

    @property
    def notes(self) -> tuple[str, ...]:
        return self._index.notes

    def official(self, split: OfficialSplit) -> SampleTable:
        """Samples of a split in the official order, with what is known of them."""
        return self._index.splits[split]

    def official_holdout(self) -> SampleTable:
        """Samples of the field's own hold-out; none where its files are not."""
        return self._index.splits["val"]

    @classmethod
    def forget(cls, root: Path) -> None:
        """Remove what is kept, so that the next opening reads the files."""
        index_file(root, cls.name).unlink(missing_ok=True)

    def _train(self) -> SampleTable:
        train = self.official("train")
        return (train if self.official_holdout() else train.chosen(~self._held)).without_truth()

    def _val(self) -> Sequence[Sample]:
        if not self.holdout or self.official_holdout():
            return self.official_holdout() if self.holdout else []
        return [self.annotated(sample) for sample in self.official("train").chosen(self._held)]

    @cached_property
    def _held(self) -> NDArray[np.bool_]:
        return self.official("train").ranks < self.holdout

    def _digest(self, *splits: Split) -> str:
        return self._index.digests["official" if len(splits) > 1 else "val"]

    def _check_holdout(self) -> None:
        train = self.official("train")
        held = np.bincount(train.labels[self._held], minlength=self.num_classes)
        total = np.bincount(train.labels, minlength=self.num_classes)
        for label, name in enumerate(self.class_names):
            if held[label] == total[label]:
                raise InputError(
                    f"{self.root}: class {label} has {total[label]} training images, a hold-out of "
                    f"{self.holdout} a class leaves none to train on; use a smaller --set holdout=N"
                )
            if held[label] < self.holdout:
                raise InputError(
                    f"{self.root}: {held[label]} training images of class {name} have boxes or "
                    f"masks, a hold-out of {self.holdout} needs as many; {self.without_holdout()}"
                )

    def without_holdout(self) -> str:
        """What to do where no hold-out can be made."""
        return "add them, or leave the hold-out away by --set holdout=0 --protocol wsoleval"


# -------------------------------------------------------------------------------------- columns


class SampleTable(Sequence[Sample]):
    """Samples in columns, which makes a :class:`Sample` when it is asked for one.

    Args:
        root: the data root.
        table: pyarrow table with the columns of :class:`Row` and the rank in the hold-out.
        values: of the masks' objects and of what is ignored.
        blind: whether only image and label are known.
    """

    def __init__(
        self, root: Path, table: Any, values: tuple[ValueRange, ValueRange], blind: bool = False
    ) -> None:
        self._root, self._values, self._blind = root, values, blind
        self._table = table.combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Sample | Self:
        if isinstance(index, slice):
            return self._with(self._table.take(np.arange(len(self))[index]), self._blind)
        number = range(len(self))[index]
        return next(self._made(self._table.slice(number, 1)))

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), _BATCH):
            yield from self._made(self._table.slice(start, _BATCH))

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class indices."""
        return np.asarray(self._table["label"]).astype(np.int64)

    @property
    def ranks(self) -> NDArray[np.int32]:
        """(N,) place in the hold-out of the image's class, from 0."""
        return np.asarray(self._table["rank"])

    def chosen(self, which: NDArray[np.bool_]) -> Self:
        """The samples where ``which`` (N,) is true."""
        return self._with(self._table.take(np.flatnonzero(which)), self._blind)

    def without_truth(self) -> Self:
        """The samples as training may see them: image and label."""
        return self._with(self._table, True)

    def _with(self, table: Any, blind: bool) -> Self:
        return type(self)(self._root, table, self._values, blind)

    def _made(self, table: Any) -> Iterator[Sample]:
        names = ("image_id", "path", "label")
        known = names if self._blind else Row._fields
        columns = [table[name].to_pylist() for name in known]
        for values in zip(*columns, strict=True):
            yield self._sample(*values)

    def _sample(
        self,
        image_id: str,
        path: str,
        label: int,
        boxes: Sequence[float] = (),
        masks: Sequence[str] = (),
        ignore: str | None = None,
        annotation: str | None = None,
    ) -> Sample:
        return Sample(
            image_id=image_id,
            path=self._root / path,
            label=label,
            boxes=_boxes(boxes),
            instance_masks=tuple(self._root / mask for mask in masks),
            ignore_mask=None if ignore is None else self._root / ignore,
            object_values=self._values[0],
            ignore_values=self._values[1],
            annotation=None if annotation is None else self._root / annotation,
        )


def _boxes(values: Sequence[float]) -> tuple[Box, ...]:
    starts = range(0, len(values), 4)
    return tuple((values[i], values[i + 1], values[i + 2], values[i + 3]) for i in starts)


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(N,) class indices, without making samples that lie in columns."""
    if isinstance(samples, SampleTable):
        return samples.labels
    return np.array([sample.label for sample in samples], dtype=np.int64)


# ------------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class _Index:
    class_names: tuple[str, ...]
    splits: Mapping[Split, SampleTable]
    digests: Mapping[str, str]
    notes: tuple[str, ...]


def index_file(root: Path, name: str) -> Path:
    """Where what was read of a dataset is kept."""
    return root / FOLDER / f"{name}.parquet"


def _opened(dataset: IndexedDataset) -> _Index:
    # before reading: what changes meanwhile makes the next key differ
    key = f"{dataset.sources().key(dataset.root)}|{_code(type(dataset))}"
    file = index_file(dataset.root, dataset.name)
    table = _kept(file, key)
    if table is None:
        log.info("reading the files of %s, once", dataset.name)
        table = _table(dataset.read(), key)
        _keep(table, file)
    return _index(dataset, table)


def _code(cls: type[Dataset]) -> str:
    """Digest of the code that reads: what older code read is never taken."""
    own = Path(sys.modules[cls.__module__].__file__ or "")
    files = (own, *(Path(__file__).parent / f"{name}.py" for name in _READERS))
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(code).hexdigest()


def _kept(file: Path, key: str) -> Any | None:
    """The table of an index file; None where there is none, or it is another's or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        if json.loads((schema.metadata or {})[_META])["key"] != key:
            return None
        return pq.read_table(file, use_threads=True)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def _keep(table: Any, file: Path) -> None:
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", use_dictionary=False)
    try:
        write_atomically(file, lambda stream: stream.write(content.getbuffer()))
    except WsolbenchError as error:
        log.warning("what was read is not kept, every start will read it again: %s", error)


def _index(dataset: IndexedDataset, table: Any) -> _Index:
    meta = json.loads(table.schema.metadata[_META])
    values = (dataset.object_values, dataset.ignore_values)
    splits: dict[Split, SampleTable] = {}
    start = 0
    for split in get_args(Split):
        count = meta["counts"][split]
        splits[split] = SampleTable(dataset.root, table.slice(start, count), values)
        start += count
    return _Index(tuple(meta["class_names"]), splits, meta["digests"], tuple(meta["notes"]))


def _table(contents: Contents, key: str) -> Any:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in Row._fields}
    counts, digests = {}, {"official": hashlib.sha256(), "val": hashlib.sha256()}
    for split in get_args(Split):
        before = len(columns["label"])
        digest = digests["val" if split == "val" else "official"]
        for row in contents.splits.get(split, ()):
            digest.update(_line(split, row).encode())
            for name, value in zip(Row._fields, row, strict=True):
                columns[name].append(value)
        counts[split] = len(columns["label"]) - before
    _check_ids(columns["image_id"])
    meta = {
        "key": key,
        "class_names": list(contents.class_names),
        "counts": counts,
        "digests": {name: digest.hexdigest() for name, digest in digests.items()},
        "notes": list(contents.notes),
    }
    columns["boxes"] = [[value for box in boxes for value in box] for boxes in columns["boxes"]]
    ranks = _ranks(columns, counts["train"])
    schema = pa.schema(
        [
            ("image_id", pa.string()),
            ("path", pa.string()),
            ("label", pa.int32()),
            ("boxes", pa.list_(pa.float64())),
            ("masks", pa.list_(pa.string())),
            ("ignore", pa.string()),
            ("annotation", pa.string()),
            ("rank", pa.int32()),
        ],
        metadata={_META: json.dumps(meta).encode()},
    )
    return pa.table({**columns, "rank": ranks}, schema=schema)


def _line(split: Split, row: Row) -> str:
    """What the fingerprint knows of a sample: as for other datasets, and the names of masks."""
    masks = f"|{tuple(row.masks)}|{row.ignore}" if row.masks else ""
    return f"{split}|{row.image_id}|{row.label}|{tuple(row.boxes)}{masks}\n"


def _check_ids(ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            raise InputError(f"image '{image_id}' occurs twice; remove one of them")
        seen.add(image_id)


def _ranks(columns: Mapping[str, Sequence[Any]], train: int) -> NDArray[np.int32]:
    """Place of each training image among those of its class that may be held out.

    Where test images have boxes, one without is of no use there, whatever masks it has.
    """
    boxed = any(columns["boxes"][train:])
    telling = ("boxes", "annotation") if boxed else ("boxes", "masks", "annotation")
    ranks = np.full(len(columns["label"]), _NEVER, dtype=np.int32)
    told = zip(*(columns[name] for name in telling), strict=True)
    known = [i for i, truth in enumerate(told) if i < train and any(truth)]
    label = np.array([columns["label"][i] for i in known], dtype=np.int64)
    order = np.array([holdout_order(columns["image_id"][i])[:16] for i in known], dtype="U16")
    first = np.lexsort((order, label))
    sorted_labels = label[first]
    starts = np.searchsorted(sorted_labels, sorted_labels)
    ranks[np.array(known, dtype=np.int64)[first]] = np.arange(len(known)) - starts
    return ranks


# --------------------------------------------------------------------------------------- folders

_IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def _entries(folder: Path) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_file():
                known = entry.stat()
                yield entry.name, known.st_size, known.st_mtime_ns


def names_in(folder: Path, suffixes: Sequence[str] = _IMAGES) -> list[str]:
    """Names of the files of a folder that end so, sorted; those that begin with a dot are not.

    Raises:
        InputError: when the folder cannot be read.
    """
    with _listed(folder) as found:
        # the type comes with the listing, so a million images cost no stat each
        return sorted(e.name for e in found if _is_wanted(e.name, suffixes) and e.is_file())


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; those that begin with a dot are not.

    Raises:
        InputError: when the folder cannot be read.
    """
    with _listed(folder) as found:
        return sorted(e.name for e in found if not e.name.startswith(".") and e.is_dir())


def _listed(folder: Path) -> Any:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _is_wanted(name: str, suffixes: Sequence[str]) -> bool:
    return not name.startswith(".") and name.lower().endswith(tuple(suffixes))


def first_of(root: Path, names: Sequence[str]) -> Path | None:
    """The first of several places below a folder that exists."""
    return next((root / name for name in names if (root / name).exists()), None)


def required(root: Path, names: Sequence[str], layout: str) -> Path:
    """The first of several places below the data root that exists.

    Raises:
        InputError: naming the first when none does, with the layout that is expected.
    """
    found = first_of(root, names)
    if found is None:
        raise InputError(
            f"{root / names[0]} does not exist; "
            f"--data-root must be the folder that contains {layout}"
        )
    return found
