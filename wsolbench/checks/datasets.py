"""The checks of datasets: on the user's own files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import get_args

from wsolbench.checks.outcome import (
    Check,
    InapplicableError,
    Outcome,
    check_declared,
    check_texts,
    judge,
    name_of,
    require,
)
from wsolbench.data.loader import MAX_THREADS, decoding_threads
from wsolbench.dataset import Dataset, Sample, Split, samples_digest, without_truth
from wsolbench.errors import InputError
from wsolbench.parallel import prefetched
from wsolbench.registry import DATASETS
from wsolbench.truth import read_truth

SPLITS: tuple[Split, ...] = get_args(Split)
#: largest hold-out that is looked at, where the smallest class allows it
MAX_HOLDOUT = 3

_Function = Callable[["Subject"], None]

# Run by a fresh interpreter that hashes otherwise: the order of sets depends on it.
_ELSEWHERE = """
import pickle, sys
digest, cls, root, holdout = pickle.load(sys.stdin.buffer)
sys.stdout.write("\\n" + digest(cls(root, holdout)))
"""


@dataclass(frozen=True)
class Subject:
    """A dataset under test.

    Args:
        name: as it is registered.
        root: the folder given as ``--data-root``.
    """

    name: str
    root: Path

    @property
    def cls(self) -> type[Dataset]:
        """The class."""
        return DATASETS.get(self.name)

    def open(self, holdout: int) -> Dataset:
        """Open it as a run does."""
        return self.cls(self.root, holdout)

    @cached_property
    def plain(self) -> Dataset:
        """It without a hold-out."""
        return self.open(0)

    @cached_property
    def held(self) -> Dataset:
        """It with one image a class held out, if every class can spare one that tells enough."""
        try:
            return self.open(min(1, self.spare))
        except InputError:  # no such image has a box, which only matters to whom wants a hold-out
            return self.plain

    @cached_property
    def spare(self) -> int:
        """How many training images every class can spare."""
        counts = Counter(sample.label for sample in self.plain.samples("train"))
        return min(counts.values(), default=1) - 1


def dataset_checks(name: str) -> list[Check[[Path]]]:
    """Return the checks of a dataset, each to be called with the data root.

    Raises:
        InputError: for an unknown name or a file that cannot be loaded.
    """
    known = DATASETS.get(name).known_failures
    opened = lru_cache(maxsize=1)(partial(Subject, name))  # reading annotations may take minutes
    return [Check(name, name_of(c), partial(_run, c, opened, known)) for c in CHECKS]


def _run(
    check: _Function, opened: Callable[[Path], Subject], known: Mapping[str, str], root: Path
) -> Outcome:
    return judge(lambda: check(opened(root)), known.get(name_of(check)))


# ---------------------------------------------------------------------------------------- checks


def declarations(subject: Subject) -> None:
    """Title and layout are texts, class names are unique, declared failures name checks."""
    check_texts(subject.cls, ("name", "title", "layout"))
    task = subject.plain.task
    require(task in ("box", "mask"), f"task is '{task}', not box or mask")
    names = subject.plain.class_names
    require(bool(names), "there are no class names")
    _require_unique(names, "classes")
    check_declared(subject.cls.known_failures, [name_of(check) for check in CHECKS])


def unique_ids(subject: Subject) -> None:
    """No id occurs twice in a split, and ids can be paths below a folder."""
    for split in SPLITS:
        ids = [sample.image_id for sample in subject.held.samples(split)]
        _require_unique(ids, f"images of {split}")
        for name in ids:
            path = PurePosixPath(name)
            plain = str(path) == name and not path.is_absolute() and ".." not in path.parts
            # an id names files of ours too, which must not land outside their folder
            require(plain and name != ".", f"image id '{name}' of {split} is no plain path")


def stable_order(subject: Subject) -> None:
    """Two openings give the same samples in the same order, in another process too."""
    holdout = subject.held.holdout
    first = samples_digest(subject.held)
    require(first == samples_digest(subject.open(holdout)), "two openings differ in their samples")
    there = _digest_elsewhere(subject, holdout)
    require(first == there, "another process gives other samples, or in another order")


def disjoint_splits(subject: Subject) -> None:
    """No id and no file is in two splits."""
    for what in ("image_id", "path"):
        seen: dict[object, Split] = {}
        for split in SPLITS:
            for sample in subject.held.samples(split):
                value = getattr(sample, what)
                other = seen.setdefault(value, split)
                require(other == split, f"{what} {value} is in {other} and in {split}")


def training_without_truth(subject: Subject) -> None:
    """Training samples carry no box and no mask, with a hold-out or without."""
    for opened in (subject.plain, subject.held):
        for sample in opened.samples("train"):
            blind = sample == without_truth(sample)
            require(blind, f"training image {sample.image_id} carries more than its label")


def labels(subject: Subject) -> None:
    """Every label is a class, and every class has a training image."""
    count = subject.plain.num_classes
    for split in SPLITS:
        for sample in subject.held.samples(split):
            inside = 0 <= sample.label < count
            require(inside, f"{split} image {sample.image_id} has label {sample.label} of {count}")
    trained = {sample.label for sample in subject.plain.samples("train")}
    require(len(trained) == count, f"{count - len(trained)} classes have no training image")


def files(subject: Subject) -> None:
    """Every image and mask exists and is an image whose size can be read."""
    every = {file: None for sample in _all_samples(subject.held) for file in _files_of(sample)}
    require(bool(every), "there is no image")
    bare = (Sample(image_id=file.name, path=file, label=0) for file in every)
    _read_all(bare)


def boxes(subject: Subject) -> None:
    """Every box has an area and touches its image; it may reach over the edge."""
    official = (subject.plain.official("train"), subject.plain.official("test"))
    boxed = [replace(without_truth(s), boxes=s.boxes) for split in official for s in split]
    found = [sample for sample in boxed if sample.boxes]
    if subject.plain.task == "mask" and not found:
        raise InapplicableError("it has masks and no boxes")
    require(bool(found), "a dataset of boxes has none")
    _read_all(found)


def truth(subject: Subject) -> None:
    """Every test image and every held-out one has a box, or a mask in a dataset of masks."""
    boxed = subject.plain.task == "box"
    for split in ("val", "test"):
        for sample in subject.held.samples(split):
            what = sample.boxes or sample.annotation if boxed else sample.instance_masks
            kind = "box" if boxed else "mask"
            require(
                bool(what), f"{split} image {sample.image_id} has no {kind}, it cannot be scored"
            )


def holdout(subject: Subject) -> None:
    """``val`` has n training images a class, and those of n are among those of n+1.

    Where the field has a hold-out of its own, ``val`` is that, and training keeps its images.
    """
    if subject.plain.official_holdout():
        _check_official_holdout(subject)
        return
    if subject.spare < 1:
        raise InapplicableError("a class has a single training image, which cannot be held out")
    if not subject.held.holdout:
        raise InapplicableError("too few training images tell where the object is")
    train = [sample.image_id for sample in subject.plain.samples("train")]
    before: set[str] = set()
    for count in range(min(MAX_HOLDOUT, subject.spare) + 1):
        opened = subject.open(count)
        held = {sample.image_id for sample in opened.samples("val")}
        wanted = dict.fromkeys(range(opened.num_classes), count) if count else {}
        per_class = dict(Counter(sample.label for sample in opened.samples("val")))
        require(per_class == wanted, f"a hold-out of {count} has {per_class} images a class")
        require(before <= held, f"a hold-out of {count} does not contain that of {count - 1}")
        rest = [name for name in train if name not in held]
        kept = [sample.image_id for sample in opened.samples("train")]
        require(kept == rest, f"train and a hold-out of {count} do not add up to all of train")
        before = held


CHECKS: tuple[_Function, ...] = (
    declarations,
    unique_ids,
    stable_order,
    disjoint_splits,
    training_without_truth,
    labels,
    files,
    boxes,
    truth,
    holdout,
)


# --------------------------------------------------------------------------------------- helpers


def _all_samples(dataset: Dataset) -> list[Sample]:
    return [sample for split in SPLITS for sample in dataset.samples(split)]


def _digest_elsewhere(subject: Subject, holdout: int) -> str:
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    found = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=pickle.dumps((samples_digest, subject.cls, subject.root, holdout)),
        env={**os.environ, **found},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace").strip().splitlines()
    require(done.returncode == 0, f"another process cannot open it: {''.join(said[-1:])}")
    return done.stdout.decode().splitlines()[-1]


def _files_of(sample: Sample) -> Iterator[Path]:
    for field in fields(sample):
        value = getattr(sample, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Path):
                yield item


def _read_all(samples: Iterator[Sample] | Sequence[Sample]) -> None:
    """Read the sizes of many images ahead of each other: most of the time goes into waiting."""
    for _ in prefetched(read_truth, samples, MAX_THREADS, decoding_threads()):
        pass


def _check_official_holdout(subject: Subject) -> None:
    require(bool(subject.cls.holdout_title), "its own hold-out has no holdout_title")
    own = [sample.image_id for sample in subject.plain.official_holdout()]
    opened = subject.open(1)
    held = [sample.image_id for sample in opened.samples("val")]
    require(held == own, "val is not the field's own hold-out")
    kept = [sample.image_id for sample in opened.samples("train")]
    whole = [sample.image_id for sample in subject.plain.official("train")]
    require(kept == whole, "training lacks images beside the field's own hold-out")


def _require_unique(values: Sequence[str], what: str) -> None:
    for value, count in Counter(values).items():
        require(count == 1, f"{count} {what} are named '{value}'")
