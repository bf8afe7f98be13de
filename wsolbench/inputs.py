"""What the runs of a command read, how long they train, and what protocols ask of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from weakref import WeakValueDictionary

from wsolbench.building import sees_boxes
from wsolbench.data.loader import DecodedImages, Length, batches_an_epoch
from wsolbench.dataset import (
    Dataset,
    Sample,
    Split,
    few_shots,
    shuffled_labels,
    splits_with_boxes,
)
from wsolbench.engine.checkpoint import KEPT
from wsolbench.errors import InputError
from wsolbench.protocol import Protocol
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS

log = logging.getLogger("wsolbench")


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        results: folder of records, checkpoints and the leaderboard.
        weights_dir: folder of backbone weights, or None for timm's download.
        maps: folder to save score maps in, or None.
        weights: file of trained weights, for recipes that name its digest; else None.
        kept: checkpoints of a training that stay.
    """

    results: Path
    weights_dir: Path | None = None
    maps: Path | None = None
    weights: Path | None = None
    kept: int = KEPT


class SharedData:
    """Datasets and decoded training images that the runs of one command share.

    Args:
        root: folder that contains the datasets' own folders.
        cache: folder for decoded training images that do not fit in memory, or None.
    """

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        self.root = root
        self._cache = cache
        self._datasets: dict[tuple[str, int], Dataset] = {}
        self._last: DecodedImages | None = None
        self._used: WeakValueDictionary[tuple[object, ...], DecodedImages] = WeakValueDictionary()

    def dataset(self, recipe: Recipe) -> Dataset:
        """Open the recipe's dataset.

        Raises:
            InputError: for an unknown name, or files that are missing or malformed.
        """
        key = (recipe.dataset, recipe.holdout)
        if key not in self._datasets:
            self._datasets[key] = DATASETS.get(recipe.dataset)(self.root, recipe.holdout)
        return self._datasets[key]

    def available(self, recipe: Recipe) -> dict[Split, Sequence[Sample]]:
        """Samples of each split as the recipe's method may see them.

        Raises:
            InputError: as :meth:`dataset`, or when no boxes are held out for a method of boxes.
        """
        dataset = self.dataset(recipe)
        whole: dict[Split, Sequence[Sample]] = {s: dataset.samples(s) for s in get_args(Split)}
        if not any(map(sees_boxes, recipe.chain())):
            return whole
        # What boxes trained, here or in an earlier run, must not choose a threshold.
        boxed = splits_with_boxes(dataset)
        return boxed if sees_boxes(recipe.training) else {**whole, "val": boxed["val"]}

    def splits(self, recipe: Recipe) -> dict[Split, Sequence[Sample]]:
        """Those of the available samples that the recipe uses, with the labels it gives them.

        Raises:
            InputError: as :meth:`available`, or when a class has fewer images than the recipe's
                shots.
        """
        training, used = recipe.training, self.available(recipe)
        if training.shots is not None:
            names = self.dataset(recipe).class_names
            used["train"] = few_shots(used["train"], training.shots, training.draw, names)
        if training.train_labels == "shuffled":
            used["train"] = shuffled_labels(used["train"], recipe.seed)
        return used

    def images(self, recipe: Recipe) -> DecodedImages:
        """The recipe's training images: those of another run that is still there, or the last's."""
        few = (recipe.shots, recipe.draw)
        key = (recipe.dataset, recipe.holdout, *few, recipe.resize, sees_boxes(recipe.training))
        found = self._used.get(key)
        if found is None:
            self._last = None  # sets that nobody uses any more must not stand in the way
            samples = self.splits(recipe)["train"]
            found = self._used[key] = DecodedImages(samples, recipe.resize, cache=self._cache)
            log.info("training data: %s", found.why)
        self._last = found
        return found


def training_length(recipe: Recipe, images: int) -> Length | None:
    """Return the length of a training that does not depend on how many images it uses.

    Args:
        recipe: what to do.
        images: training images that there are, used or not.

    Returns:
        None where the training is whole epochs over all of them.
    """
    if recipe.iterations is None and recipe.shots is None:
        return None
    whole = recipe.epochs * batches_an_epoch(images, recipe.batch_size, recipe.drop_last)
    return Length(recipe.iterations or whole, recipe.epochs)


def check_boxes(splits: Mapping[Split, Sequence[Sample]], protocols: Sequence[Protocol]) -> None:
    """Refuse a protocol that chooses by boxes of held-out images which have none.

    Raises:
        InputError: naming one.
    """
    if all(p.selection.kind != "held-out" for p in protocols) or not splits["test"][0].boxes:
        return
    for sample in splits["val"]:
        if not sample.boxes and sample.annotation is None:
            raise InputError(
                f"held-out image {sample.image_id} has no box, so that it cannot choose a "
                "threshold; take another --protocol, such as wsoleval"
            )


def judged_by(recipe: Recipe, protocols: Sequence[Protocol]) -> Protocol | None:
    """The protocol by which a training finds its best weights; None where the last ones count.

    Raises:
        InputError: when no protocol looks at held-out images.
    """
    if recipe.checkpoint == "last" or not recipe.trained:
        return None
    for protocol in protocols:
        if protocol.selection.kind == "held-out":
            return protocol
    raise InputError(
        "checkpoint=best is chosen on held-out images, at which no protocol of this run looks; "
        "add --protocol standard"
    )


def check_holdout(recipe: Recipe, protocols: list[Protocol]) -> None:
    """Refuse a protocol that needs held-out images under a recipe without any.

    Raises:
        InputError: naming both.
    """
    for protocol in protocols:
        if protocol.selection.kind == "held-out" and not recipe.holdout:
            raise InputError(
                f"protocol '{protocol.name}' chooses its threshold on held-out images and recipe "
                f"'{recipe.name}' has none; add --set holdout=5 or take another --protocol"
            )
