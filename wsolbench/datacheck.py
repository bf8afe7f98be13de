"""Whether data are what they should be: a report that a person can act on."""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, get_args

from tqdm import tqdm

from wsolbench.data.images import decode_image, read_image
from wsolbench.dataset import Dataset, Facts, Sample, Split
from wsolbench.errors import InputError
from wsolbench.index import IndexedDataset
from wsolbench.parallel import prefetched, usable_cores

#: examples that a line names before it only counts
_NAMED = 3
_Size = tuple[int, int]


class Weight(StrEnum):
    """How much a finding weighs; a fault makes the exit code 1."""

    GOOD = "good"
    NOTE = "note"
    FAULT = "fault"


class Finding(NamedTuple):
    """One line of the report."""

    weight: Weight
    text: str


def check_data(cls: type[Dataset], root: Path) -> Iterator[Finding]:
    """Check a dataset on the user's disk, line by line; nothing is changed but the kept index.

    Args:
        cls: the dataset.
        root: the folder given as ``--data-root``.
    """
    facts = cls.facts
    if facts is not None and not facts.tried:
        yield Finding(Weight.NOTE, "layout not seen by the authors: tried on drawn files only")
    try:
        dataset = _read_anew(cls, root)
    except InputError as error:
        yield Finding(Weight.FAULT, str(error))
        return
    yield Finding(
        Weight.GOOD, f"all annotation files were read; fingerprint {dataset.fingerprint()}"
    )
    yield from (Finding(Weight.NOTE, note) for note in dataset.notes)
    yield from _counts(dataset, facts or Facts())
    found = _Images()
    found.read(dataset)
    whole = facts is not None and _is_whole(dataset, facts)
    yield from found.findings(facts or Facts(), whole)
    yield from _unread(dataset)


def _read_anew(cls: type[Dataset], root: Path) -> Dataset:
    if issubclass(cls, IndexedDataset):
        cls.forget(root)
    return cls(root)


# --------------------------------------------------------------------------------------- counts


def _counts(dataset: Dataset, facts: Facts) -> Iterator[Finding]:
    holdout, test = dataset.official_holdout(), dataset.official("test")
    found = {
        "classes": (dataset.num_classes, facts.classes),
        "training images": (len(dataset.official("train")), facts.train),
        "test images": (len(test), facts.test),
        "boxes of test images": (sum(len(s.boxes) for s in test), facts.test_boxes),
        "masks of test images": (sum(len(s.instance_masks) for s in test), facts.test_masks),
    }
    for what, (count, known) in found.items():
        if count or known:
            yield _compared(what, count, known)
    if dataset.holdout_title and holdout:
        yield _compared(
            f"images of the hold-out, {dataset.holdout_title}", len(holdout), facts.holdout
        )
    elif dataset.holdout_title:
        text = f"{dataset.holdout_title} is not there: hold-outs are taken from training images"
        yield Finding(Weight.NOTE, text)
    names = "\n".join(dataset.class_names).encode()
    if facts.class_digest is not None:
        right = hashlib.sha256(names).hexdigest().startswith(facts.class_digest)
        text = "label order is" + (" the one in use" if right else " not the one in use")
        yield Finding(Weight.GOOD if right else Weight.FAULT, text)


def _compared(what: str, count: int, known: int | None) -> Finding:
    if known is None:
        return Finding(Weight.GOOD, f"{count} {what}")
    if count == known:
        return Finding(Weight.GOOD, f"{count} {what}, as distributed")
    return Finding(Weight.FAULT, f"{count} {what}, the whole distribution has {known}")


def _is_whole(dataset: Dataset, facts: Facts) -> bool:
    counts = {"train": facts.train, "test": facts.test}
    return all(len(dataset.official(split)) == counts[split] for split in ("train", "test"))


# --------------------------------------------------------------------------------------- images


class _Seen(NamedTuple):
    """What a look at an image gave."""

    split: Split
    sample: Sample
    size: _Size | None
    digest: bytes
    problems: tuple[str, ...]


def _look(item: tuple[Split, Sample]) -> _Seen:
    """Decode an image and its masks to the end."""
    split, sample = item
    problems: list[str] = []
    size, digest = None, b""
    try:
        content = sample.path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        height, width = decode_image(sample.path, io.BytesIO(content)).shape[:2]
        size = width, height
    except OSError as error:
        problems.append(f"{sample.path}: {error.strerror}")
    except InputError as error:
        problems.append(str(error))
    for mask in dict.fromkeys([*sample.instance_masks, *filter(None, [sample.ignore_mask])]):
        try:
            read_image(mask)
        except InputError as error:
            problems.append(str(error))
    return _Seen(split, sample, size, digest, tuple(problems))


class _Images:
    """What all images gave together."""

    def __init__(self) -> None:
        self.count = 0
        self.damaged: list[str] = []
        self.past: list[str] = []
        self.outside: list[str] = []
        self.places: defaultdict[bytes, list[tuple[Split, str, int]]] = defaultdict(list)
        self.sizes: Counter[_Size] = Counter()

    def read(self, dataset: Dataset) -> None:
        """Decode everything, as many at a time as there are cores."""
        whole: dict[Split, Sequence[Sample]] = {
            "train": dataset.official("train"),
            "val": dataset.official_holdout(),
            "test": dataset.official("test"),
        }
        items = ((split, sample) for split in get_args(Split) for sample in whole[split])
        threads = usable_cores()
        looked = prefetched(_look, items, 4 * threads, threads)
        total = sum(map(len, whole.values()))
        for seen in tqdm(looked, "decoding", total=total, unit="image", disable=None):
            self._take(seen)

    def _take(self, seen: _Seen) -> None:
        sample = seen.sample
        self.count += 1
        self.damaged.extend(seen.problems)
        self.places[seen.digest].append((seen.split, sample.image_id, sample.label))
        if seen.size is None:
            return
        self.sizes[seen.size] += 1
        width, height = seen.size
        for x0, y0, x1, y1 in sample.boxes:
            inside = x1 > 0 and y1 > 0 and x0 < width and y0 < height
            if not (x0 < x1 and y0 < y1 and inside):
                self.outside.append(f"{sample.image_id} {(x0, y0, x1, y1)}")
            elif (x0 < 0 or y0 < 0 or x1 > width or y1 > height) and seen.split != "val":
                self.past.append(sample.image_id)

    def findings(self, facts: Facts, whole: bool) -> Iterator[Finding]:
        """What to say; ``whole`` data are as distributed, and so are their duplicates."""
        least, most = _extremes(self.sizes)
        yield _faults(self.damaged, f"files that do not decode, of {self.count} images")
        yield Finding(
            Weight.GOOD, f"images are {least[0]}x{least[1]} to {most[0]}x{most[1]} pixels"
        )
        yield _faults(self.outside, "boxes without area or outside of their image")
        yield self._past_edge(facts if whole else Facts())
        duplicates = list(self._duplicates())
        weight = Weight.NOTE if whole else Weight.FAULT
        text = f"images that are in two splits, byte by byte: {_listed(duplicates)}"
        yield Finding(weight if duplicates else Weight.GOOD, text)
        clashes = list(self._clashes())
        if clashes:
            yield Finding(weight, f"images of one split under two classes: {_listed(clashes)}")

    def _past_edge(self, facts: Facts) -> Finding:
        text = f"boxes that reach past their image: {_listed(self.past)}"
        known = facts.past_edge
        if known is None:
            return Finding(Weight.NOTE if self.past else Weight.GOOD, text)
        if known == len(self.past):
            return Finding(Weight.GOOD, f"{text}, as distributed")
        return Finding(Weight.FAULT, f"{text}; the distribution has {known}")

    def _duplicates(self) -> Iterator[str]:
        for digest, places in self.places.items():
            if digest and len({split for split, _, _ in places}) > 1:
                yield " = ".join(f"{split}: {name}" for split, name, _ in places)

    def _clashes(self) -> Iterator[str]:
        for digest, places in self.places.items():
            splits, labels = {place[0] for place in places}, {place[2] for place in places}
            if digest and len(splits) == 1 and len(labels) > 1:
                yield " = ".join(name for _, name, _ in places)


def _extremes(sizes: Counter[_Size]) -> tuple[_Size, _Size]:
    widths, heights = zip(*sizes or [(0, 0)], strict=True)
    return (min(widths), min(heights)), (max(widths), max(heights))


def _faults(found: Sequence[str], what: str) -> Finding:
    return Finding(Weight.FAULT if found else Weight.GOOD, f"{what}: {_listed(found)}")


def _listed(found: Sequence[str]) -> str:
    if not found:
        return "none"
    more = "; ..." if len(found) > _NAMED else ""
    return f"{len(found)} ({'; '.join(islice(found, _NAMED))}{more})"


# ------------------------------------------------------------------------------------ the rest


def _unread(dataset: Dataset) -> Iterator[Finding]:
    """Annotation files that runs read only for what is held out."""
    told = [sample for sample in dataset.official("train") if sample.annotation is not None]
    if not told:
        return
    read: Callable[[Sample], str | None] = partial(_problem, dataset)
    threads = usable_cores()
    found = prefetched(read, told, 4 * threads, threads)
    bar = tqdm(found, "boxes of training images", total=len(told), unit="file", disable=None)
    problems = [problem for problem in bar if problem is not None]
    yield _faults(problems, f"wrong files among {len(told)} with boxes of training images")


def _problem(dataset: Dataset, sample: Sample) -> str | None:
    try:
        dataset.annotated(sample)
    except InputError as error:
        return str(error)
    return None
