"""What a saved run says of any image: its map, its box and the class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from wsolbench.backbones import InputStatistics
from wsolbench.boxes import Cut, cut_box, in_image
from wsolbench.building import build_method
from wsolbench.classified import Classified
from wsolbench.data.images import read_image
from wsolbench.device import allow_tf32, check_precision
from wsolbench.errors import InputError, did_you_mean
from wsolbench.method import Method
from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Row, image_rows
from wsolbench.predictions import EVAL_BATCH, Localizer
from wsolbench.protocol import Protocol, load_protocol
from wsolbench.recipe import Recipe
from wsolbench.saved_run import Card, load_weights, read_card
from wsolbench.types import Box

#: endings of files that are images
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"})


@dataclass(frozen=True, eq=False)
class Answer:
    """What the run says of one image.

    Attributes:
        pixels: (H, W, 3) the image as it is stored.
        native: (h, w) the method's own map, or None for a method without maps.
        score: (S, S) the map in [0, 1] in the protocol's frame, or None.
        region: the part of the image that the map is of, in its pixels.
        box: in pixels of the image.
        label: the class whose map and box it is; None where the method names none.
        probabilities: (K,) softmax of the logits; None for a method without a classifier.
        dead: the map is constant, NaN or infinite somewhere: the box says nothing.
    """

    pixels: NDArray[np.uint8]
    native: F.Map | None
    score: F.Map | None
    region: Box
    box: Box
    label: int | None
    probabilities: F.Floats | None
    dead: bool


class SavedRun:
    """A saved run at work.

    Args:
        folder: holds what :func:`wsolbench.saved_run.save_run` wrote.
        device: where to compute.

    Raises:
        InputError: when there is no such run, it is damaged, or its method is not installed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.card: Card = read_card(folder)
        recipe = self.card.recipe
        check_precision(device, recipe.precision)
        # The weights come from the run's own file, not from where the backbone's once came from.
        allow_tf32(recipe.precision == "tf32")
        bare = recipe.altered(pretrained=False)
        method, statistics = _built(bare, len(self.card.class_names))
        load_weights(folder, self.card, method)
        method.to(device).to(memory_format=torch.channels_last)
        bf16 = recipe.precision == "bf16"
        self.localizer = Localizer(method.eval(), statistics, recipe.image_size, device, bf16)

    def cut(self, protocol: str | None = None, threshold: float | None = None) -> Cut:
        """Return how boxes are made: as a protocol chose when it scored the run.

        Args:
            protocol: one that scored the run; None for the first with a threshold, in the order of
                the recipe.
            threshold: in [0, 1); None for the protocol's.

        Raises:
            InputError: when the protocol did not score the run, is of another version here, or has
                no threshold and none is given.
        """
        name = protocol or self._protocol()
        scored = self.card.scored.get(name)
        if scored is None:
            hint = did_you_mean(name, self.card.scored)
            known = ", ".join(self.card.scored)
            raise InputError(f"protocol '{name}' did not score this run{hint}; it has: {known}")
        found = load_protocol(name)
        if found.version != scored.version:
            raise InputError(
                f"protocol '{name}' is version {found.version} here and was {scored.version} when "
                "the run was scored; run it again"
            )
        chosen = scored.threshold if threshold is None else threshold
        if chosen is None:
            raise InputError(f"protocol '{name}' has no threshold; give one with --threshold T")
        return Cut(_with_percentile(found, scored.percentile), _on_grid(found, chosen))

    def label(self, name: str) -> int:
        """Return the class of that name or number.

        Raises:
            InputError: when there is none.
        """
        names = self.card.class_names
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(names):
            return int(name)
        raise InputError(
            f"the run knows no class '{name}'{did_you_mean(name, names)}; a number is from 0 to "
            f"{len(names) - 1}"
        )

    def answer(
        self, images: Sequence[NDArray[np.uint8]], cut: Cut, label: int | None
    ) -> list[Answer]:
        """Say of images (H, W, 3) where the object is, and which.

        Args:
            images: at least one, of any sizes.
            cut: how maps become boxes.
            label: class whose maps are wanted; None for the predicted one.
        """
        prediction = self.localizer.predict(images, cut.protocol.geometry, label)
        rows = image_rows(prediction, len(images))
        return [self._answer(p, row, cut, label) for p, row in zip(images, rows, strict=True)]

    def _answer(self, pixels: NDArray[np.uint8], row: Row, cut: Cut, label: int | None) -> Answer:
        native, _, logits = row
        score, found = cut_box(row, cut, self.card.recipe.image_size)
        if found is None:
            raise InputError(f"method '{self.card.recipe.method}' gives neither maps nor boxes")
        geometry, size = cut.protocol.geometry, (pixels.shape[1], pixels.shape[0])
        whole = np.array([0, 0, geometry.frame, geometry.frame], np.float64)
        predicted = None if logits is None else int(np.argmax(logits))
        return Answer(
            pixels=pixels,
            native=native,
            score=score,
            region=in_image(whole, size, geometry),
            box=in_image(found, size, geometry),
            label=predicted if label is None else label,
            probabilities=None if logits is None else _softmax(logits),
            dead=native is not None and F.is_dead(native),
        )

    def _protocol(self) -> str:
        order = [*self.card.recipe.protocol, *self.card.scored]
        named = [name for name in order if name in self.card.scored]
        with_threshold = (n for n in named if self.card.scored[n].threshold is not None)
        return next(with_threshold, named[0])


class Found(NamedTuple):
    """An image file to predict; ``name`` is its path below the folder that was given."""

    file: Path
    name: Path


def image_files(paths: Iterable[Path], out: Path) -> list[Found]:
    """Return the images that paths name: files as they are, of folders all below them.

    Args:
        paths: files and folders.
        out: folder of results; what lies below it is no image to predict.

    Raises:
        InputError: when a path does not exist, a folder holds no image, or two images have one
            name, so that one's results would replace the other's.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        for image in _below(path, out.resolve()):
            other = found.setdefault(image.name, image)
            if other.file != image.file:
                raise InputError(
                    f"{other.file} and {image.file} are both called '{image.name}'; "
                    "predict them into different folders"
                )
    return list(found.values())


def batches(
    files: Sequence[Found], size: int = EVAL_BATCH
) -> Iterator[tuple[list[tuple[Found, NDArray[np.uint8]]], list[str]]]:
    """Read images, ``size`` at a time, beside one line for each that cannot be read."""
    for start in range(0, len(files), size):
        read: list[tuple[Found, NDArray[np.uint8]]] = []
        problems: list[str] = []
        for found in files[start : start + size]:
            try:
                read.append((found, read_image(found.file)))
            except InputError as error:
                problems.append(str(error))
        yield read, problems


def _below(path: Path, out: Path) -> list[Found]:
    if path.is_file():
        return [Found(path, Path(path.name))]
    if not path.is_dir():
        raise InputError(f"no image or folder '{path}'")
    files = (f for f in sorted(path.rglob("*")) if f.suffix.lower() in SUFFIXES and f.is_file())
    images = [Found(f, f.relative_to(path)) for f in files if out not in f.resolve().parents]
    if not images:
        raise InputError(f"folder '{path}' holds no images ({', '.join(sorted(SUFFIXES))})")
    return images


def _with_percentile(protocol: Protocol, percentile: float | None) -> Protocol:
    of_it = (p for p in protocol.candidates() if p.map.only_percentile == percentile)
    return next(of_it, protocol)


def _on_grid(protocol: Protocol, threshold: float) -> float:
    """The protocol's own value next to a rounded one: the digits that a card leaves out count."""
    if not 0 <= threshold < 1:
        raise InputError(f"a threshold is in [0, 1), not {threshold:g}")
    values = F.threshold_values(protocol.thresholds)
    nearest = float(values[np.argmin(np.abs(values - threshold))])
    return nearest if abs(nearest - threshold) < 1e-6 else threshold


def _softmax(logits: F.Map) -> F.Floats:
    shifted = np.exp(np.asarray(logits, np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum())


def _built(recipe: Recipe, classes: int) -> tuple[Method, InputStatistics]:
    """What answers for a run: its method, with the class scores of another one where it says so."""
    method, statistics = build_method(recipe, classes, None)
    if recipe.classifier is None:
        return method, statistics
    classifier, expected = build_method(recipe.classifier, classes, None)
    return Classified(method, statistics, classifier, expected), statistics
