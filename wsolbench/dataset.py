"""The dataset interface: official annotations in, samples out. Knows nothing of tensors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.types import Box

Split = Literal["train", "val", "test"]
OfficialSplit = Literal["train", "test"]
ValueRange = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        image_id: name of the image as the dataset gives it; unique, also the map's file name.
        path: the image file.
        label: class index, 0-based.
        boxes: true boxes in original pixels; always empty in the samples of ``train``.
        sized: whether the dataset gives ``boxes`` by width and height, so that their far corner is
            what a protocol makes of them; no part of the data's identity, which the boxes are.
        instance_masks: files of one mask per instance.
        ignore_mask: file of the pixels that do not count, or None.
        object_values: least and greatest 8-bit value that is object in ``instance_masks``.
        ignore_values: the same of what does not count in ``ignore_mask``.
        annotation: file of the boxes where these are read only when asked for, see
            :meth:`Dataset.annotated`; else None.
        parts: image file whose 8-bit pixel values are parts: 1 for the first of the dataset's
            ``part_names``, 0 for none; or None.
    """

    image_id: str
    path: Path
    label: int
    boxes: tuple[Box, ...] = ()
    sized: bool = field(default=False, repr=False, kw_only=True)
    instance_masks: tuple[Path, ...] = ()
    ignore_mask: Path | None = None
    parts: Path | None = None
    object_values: ValueRange = (1, 255)
    ignore_values: ValueRange = (1, 255)
    annotation: Path | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of the whole distribution; None where it is not.

    Attributes:
        classes, train, test, holdout: how many there are; the hold-out is the field's own.
        test_boxes, test_masks: how many the test images have.
        past_edge: boxes of official train and test that reach past their image.
        class_digest: first 12 hex digits of the SHA-256 of the class names, one a line.
        tried: whether the reader was ever tried on real files of this layout.
    """

    classes: int | None = None
    train: int | None = None
    test: int | None = None
    holdout: int | None = None
    test_boxes: int | None = None
    test_masks: int | None = None
    past_edge: int | None = None
    class_digest: str | None = None
    tried: bool = True


class Dataset(ABC):
    """A dataset on the user's disk.

    A plugin sets the class variables and implements :meth:`official`; the hold-out, the removal of
    boxes from training samples and the identity are the same for all.

    Args:
        root: the folder given as ``--data-root`` (it contains the dataset's own folder).
        holdout: images a class moved from ``train`` to ``val``; 0 for no hold-out. Where the
            field has a hold-out of its own and its files are there, ``val`` is that, whole, and
            ``train`` keeps all.

    Raises:
        InputError: when the expected files are missing or malformed; the line names them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    task: Literal["box", "mask"] = "box"
    #: names of the parts in the samples' ``parts``, from value 1 up; none where there are no such
    part_names: ClassVar[tuple[str, ...]] = ()
    #: the files that a user must have below the data root, as one line for error messages
    layout: ClassVar[str]
    #: what the field's own hold-out is called; "" where there is none
    holdout_title: ClassVar[str] = ""
    #: the whole distribution; None for data that have none
    facts: ClassVar[Facts | None] = None
    #: what ``download`` fetches
    archives: ClassVar[tuple[Archive, ...]] = ()
    #: what a user must do before or instead, line by line
    steps: ClassVar[tuple[str, ...]] = ()
    #: whether its pictures may be handed on, as part of a page or a figure
    free: ClassVar[bool] = False
    #: check of :mod:`wsolbench.checks` -> why it fails, where that is known and accepted
    known_failures: ClassVar[Mapping[str, str]] = {}

    def __init__(self, root: Path, holdout: int = 0) -> None:
        self.root = root
        self.holdout = holdout

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""

    @abstractmethod
    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        """All samples of an official split, with their boxes, in the official order."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    def official_holdout(self) -> Sequence[Sample]:
        """Samples of the field's own hold-out, with their boxes; none where its files are not."""
        return ()

    def in_imagenet(self) -> frozenset[str]:
        """Test images that are known to be in ImageNet's training set; none where no list says."""
        return frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """What ``check-data`` should say of the files, each in one line."""
        return ()

    def annotated(self, sample: Sample) -> Sample:
        """Return a sample with what its ``annotation`` says.

        Raises:
            InputError: naming the file, and the line where there is one.
        """
        return sample

    def samples(self, split: Split) -> Sequence[Sample]:
        """Samples of ``split`` in a stable order; of ``train`` nothing is known but labels."""
        if split == "test":
            return self.official("test")
        if split == "val":
            return self._val()
        return self._train()

    def holdout_name(self) -> str:
        """What ``val`` is, in words."""
        if not self.holdout:
            return "none"
        if self.official_holdout():
            return self.holdout_title
        return f"{self.holdout} training images a class"

    def _val(self) -> Sequence[Sample]:
        if not self.holdout:
            return []
        if self.official_holdout():
            return self.official_holdout()
        held_out = self._held_out
        return [self.annotated(s) for s in self.official("train") if s.image_id in held_out]

    def _train(self) -> Sequence[Sample]:
        held_out = frozenset() if self.official_holdout() else self._held_out
        return [without_truth(s) for s in self.official("train") if s.image_id not in held_out]

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return holdout_ids(self.official("train"), self.holdout)

    def fingerprint(self) -> str:
        """First 12 hex digits of a SHA-256 over ids, labels and boxes of both official splits.

        The field's own hold-out belongs to it where it is in use: it decides thresholds.
        """
        digest = self._digest("train", "test")
        if self.holdout and self.official_holdout():
            return _hash(f"{digest}|{self._digest('val')}")[:12]
        return digest[:12]

    def _digest(self, *splits: Split) -> str:
        return digest_of({s: self._whole(s) for s in splits})

    def _whole(self, split: Split) -> Sequence[Sample]:
        return self.official_holdout() if split == "val" else self.official(split)


def digest_of(splits: Mapping[Split, Iterable[Sample]]) -> str:
    """SHA-256 over ids, labels and boxes of splits."""
    digest = hashlib.sha256()
    for split, samples in splits.items():
        for s in samples:
            digest.update(f"{split}|{s.image_id}|{s.label}|{s.boxes}\n".encode())
    return digest.hexdigest()


def splits_with_boxes(dataset: Dataset) -> dict[Split, Sequence[Sample]]:
    """Split a dataset for a method that declares boxes: it trains on the hold-out, and on no more.

    Of the hold-out's images of each class a fifth, rounded up, stays ``val`` to choose thresholds:
    the first in the order of :func:`holdout_order`. The others are ``train``, with their boxes.

    Raises:
        InputError: when the hold-out leaves no box to train on, or one of its images has none.
    """
    held_out = dataset.samples("val")
    # of each class's images, which may be more than the recipe's `holdout` a class
    choosing = _first(_ids_by_class(held_out).values(), lambda images: -(-images // 5))
    if not {s.image_id for s in held_out} - choosing:
        raise InputError(
            f"a hold-out of {dataset.holdout} images a class leaves no boxes to train on beside "
            "those that choose the threshold; use --set holdout=5"
        )
    for sample in held_out:
        if not sample.boxes:
            raise InputError(f"image {sample.image_id} of the hold-out has no box to train on")
    return {
        "train": [_with_boxes_alone(s) for s in held_out if s.image_id not in choosing],
        "val": [s for s in held_out if s.image_id in choosing],
        "test": dataset.samples("test"),
    }


def samples_digest(dataset: Dataset) -> str:
    """SHA-256 over all that the samples of all splits say, in their order."""
    splits: tuple[Split, ...] = get_args(Split)
    lines = (repr(sample) for split in splits for sample in dataset.samples(split))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def without_truth(sample: Sample) -> Sample:
    """Return the sample as training may see it: image and label."""
    blind = replace(sample, boxes=(), instance_masks=(), ignore_mask=None)
    return replace(blind, parts=None, annotation=None)


def _with_boxes_alone(sample: Sample) -> Sample:
    return replace(without_truth(sample), boxes=sample.boxes)


def holdout_ids(train: Iterable[Sample], per_class: int) -> frozenset[str]:
    """Choose ``per_class`` images of each class: those whose ids have the smallest SHA-256.

    The choice depends on nothing but the ids, so it is the same on every machine, for every
    method and every seed, and a smaller hold-out is contained in a larger one.

    Raises:
        InputError: when a class would keep no training image.
    """
    classes = _ids_by_class(train)
    for label, ids in classes.items():
        if per_class and len(ids) <= per_class:
            raise InputError(
                f"class {label} has {len(ids)} training images, a hold-out of {per_class} a class "
                "leaves none to train on; use a smaller --set holdout=N"
            )
    return _first(classes.values(), lambda _: per_class)


def _first(classes: Iterable[Sequence[str]], count: Callable[[int], int]) -> frozenset[str]:
    """The first ids of each class in the order of the hold-out, as many as its size allows."""
    return frozenset(
        image_id
        for ids in classes
        for image_id in sorted(ids, key=holdout_order)[: count(len(ids))]
    )


def few_shots(
    train: Sequence[Sample], shots: int, draw: int, class_names: Sequence[str]
) -> list[Sample]:
    """Choose ``shots`` images of each class: those first in an order that the draw decides.

    The order is that of the SHA-256 of draw and image id: the same on every machine and for every
    method and seed; what one draw chooses is contained in what it chooses for more shots.

    Args:
        train: training samples without the hold-out; those chosen keep their order.
        shots: images a class.
        draw: draws are independent of each other.
        class_names: by label, for errors.

    Raises:
        InputError: when a class has fewer images; the line names it.
    """
    by_class = _ids_by_class(train)
    chosen: set[str] = set()
    for label, name in enumerate(class_names):
        ids = by_class[label]
        if len(ids) < shots:
            raise InputError(
                f"class '{name}' has {len(ids)} training images beside the hold-out, "
                f"fewer than --shots {shots}"
            )
        order = sorted(ids, key=lambda i: _hash(f"wsolbench-shots:{draw}:{i}"))
        chosen.update(order[:shots])
    return [s for s in train if s.image_id in chosen]


def shuffled_labels(train: Sequence[Sample], seed: int) -> list[Sample]:
    """Deal the labels of training samples out anew: a control whose labels say nothing.

    A permutation, so that every class keeps its number of images. It depends on nothing but the
    seed and the ids: it is the same on every machine and in every epoch.
    """
    named = sorted(train, key=lambda s: s.image_id)
    mixed = sorted(train, key=lambda s: _hash(f"wsolbench-shuffle:{seed}:{s.image_id}"))
    dealt = {s.image_id: other.label for s, other in zip(named, mixed, strict=True)}
    return [replace(s, label=dealt[s.image_id]) for s in train]


def _ids_by_class(samples: Iterable[Sample]) -> defaultdict[int, list[str]]:
    by_class: defaultdict[int, list[str]] = defaultdict(list)
    for sample in samples:
        by_class[sample.label].append(sample.image_id)
    return by_class


def holdout_order(image_id: str) -> str:
    """What the images of a class are sorted by, to hold the first of them out."""
    return _hash(f"wsolbench-holdout:{image_id}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
