"""Toybirds: drawn birds of which every pixel is known, after FunnyBirds (Hesse et al., ICCV 2023).

There is nothing to download: the pictures are drawn below the data root when they are first asked
for, with a mask of each bird and a map of the parts: the same bits on every platform, see
``wsolbench/synthetic``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from wsolbench.dataset import Dataset, OfficialSplit, Sample
from wsolbench.errors import InputError
from wsolbench.files import make_folder
from wsolbench.registry import register_dataset
from wsolbench.synthetic import birds, paint, scene, shapes, truth
from wsolbench.synthetic.birds import PART_NAMES, SPECIES, Species
from wsolbench.synthetic.scene import Knobs, Scene, draw_scene
from wsolbench.types import Box

log = logging.getLogger("wsolbench")

_INDEX = "index.json"
_SOURCES = tuple(Path(module.__file__ or "") for module in (birds, paint, scene, shapes, truth))
_PATTERNS = ("belly", "stripes", "spots", "checks")
_TAILS = ("forked", "fan")
_CRESTS = ("no", "spiky", "round")
_WINGS = ("round", "pointed")


@register_dataset("toybirds")
class Toybirds(Dataset):
    """12 species in pictures of 128x128 pixels, one bird a picture.

    A species is a pattern of the body and a kind of tail, crest and wing, each with its colour; any
    two differ in two of these or more. Boxes hold what is seen of a bird, x, y, x+w, y+h. The
    variants turn one knob each; picture n of each of them is drawn from the same seed.
    """

    title = "Toybirds"
    layout = "no files, it is drawn"
    part_names = PART_NAMES
    free = True
    knobs: ClassVar[Knobs] = Knobs()
    #: pictures of each species
    per_class: ClassVar[Mapping[OfficialSplit, int]] = {"train": 50, "test": 25}

    def __init__(self, root: Path, holdout: int = 0) -> None:
        super().__init__(root, holdout)
        folder = root / self.name / self._version()
        if not folder.is_dir():
            log.info("drawing %s in %s, once", self.name, folder)
            make_folder(folder, self._draw)
        self._pixels, self._splits = _read(folder)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names such as ``stripes, forked tail, no crest, pointed wing``."""
        return tuple(_class_name(species) for species in SPECIES)

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        """Samples of a split with boxes, masks and parts; the species take turns."""
        return self._splits[split]

    def fingerprint(self) -> str:
        """First 12 hex digits of a SHA-256 over ids, labels, boxes and all pixels."""
        known = f"{super().fingerprint()}|{self._pixels}"
        return hashlib.sha256(known.encode()).hexdigest()[:12]

    def _version(self) -> str:
        """Digest of all that decides what is drawn: pictures of older code are never taken."""
        choices = f"{self.knobs}|{dict(self.per_class)}".encode()
        code = b"".join(file.read_bytes() for file in (Path(__file__), *_SOURCES))
        return hashlib.sha256(choices + code).hexdigest()[:12]

    def _draw(self, folder: Path) -> None:
        index: dict[str, Any] = {split: [] for split in self.per_class}
        pixels = hashlib.sha256()
        plan = list(self._plan())
        for split, name, label, drawn in tqdm(plan, f"drawing {self.name}", disable=None):
            (folder / split).mkdir(exist_ok=True)
            picture, *masks = _render(drawn)
            for array in (picture, *masks):
                pixels.update(array.tobytes())
            boxes = _save(folder / split / name, picture, *masks)
            index[split].append({"id": f"{split}/{name}", "label": label, "boxes": boxes})
        text = json.dumps({"pixels": pixels.hexdigest(), **index})
        (folder / _INDEX).write_text(text + "\n", "utf-8")

    def _plan(self) -> Iterator[tuple[OfficialSplit, str, int, Scene]]:
        """Split, name and label of each picture, and what it shows."""
        for split, count in self.per_class.items():
            for number in range(count * len(SPECIES)):
                label = number % len(SPECIES)
                seed = f"toybirds {split} {number}"
                drawn = draw_scene(seed, SPECIES[label], self.knobs, label)
                yield split, f"{number:04d}", label, drawn


@register_dataset("toybirds-small")
class ToybirdsSmall(Toybirds):
    """Tail, crest and wing of half the size."""

    title = "Toybirds (small features)"
    knobs = Knobs(telling=0.5)


@register_dataset("toybirds-context")
class ToybirdsContext(Toybirds):
    """Every picture has the background of its species."""

    title = "Toybirds (telling backgrounds)"
    knobs = Knobs(context=1.0)


@register_dataset("toybirds-flock")
class ToybirdsFlock(Toybirds):
    """Two to four birds of one species in a picture, each with its box and mask."""

    title = "Toybirds (flocks)"
    knobs = Knobs(birds=(2, 4))


@register_dataset("toybirds-covered")
class ToybirdsCovered(Toybirds):
    """Four things lie before the bird."""

    title = "Toybirds (covered)"
    knobs = Knobs(cover=4)


def _class_name(species: Species) -> str:
    pattern, tail = _PATTERNS[species.pattern], _TAILS[species.tail]
    crest, wing = _CRESTS[species.crest], _WINGS[species.wing]
    return f"{pattern}, {tail} tail, {crest} crest, {wing} wing"


# ------------------------------------------------------------------------------------- drawing


def _render(drawn: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture, and the number of bird and part at each pixel."""
    return paint.paint(drawn), *truth.part_map(drawn)


def _save(
    stem: Path,
    picture: NDArray[np.uint8],
    numbers: NDArray[np.uint8],
    parts: NDArray[np.uint8],
) -> list[Box]:
    """Write the files of one picture and return the boxes of the birds that are seen."""
    _write(_file(stem, ""), picture)
    _write(_file(stem, "parts"), parts)
    masks = [numbers == number for number in range(1, int(numbers.max()) + 1)]
    seen = [mask for mask in masks if mask.any()]
    for number, mask in enumerate(seen):
        _write(_file(stem, f"bird{number}"), mask)
    return [_box(mask) for mask in seen]


def _write(file: Path, pixels: NDArray[Any]) -> None:
    # Noise hardly compresses, and the default level takes three times as long.
    Image.fromarray(pixels).save(file, compress_level=1)


def _box(mask: NDArray[np.bool_]) -> Box:
    (y0, y1), (x0, x1) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0))
    return float(x0), float(y0), float(x1 + 1), float(y1 + 1)


# ------------------------------------------------------------------------------------- reading


def _read(folder: Path) -> tuple[str, dict[str, list[Sample]]]:
    """Digest of all pixels, and the samples of each split.

    Raises:
        InputError: when the index is damaged or a file is missing.
    """
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        pixels = str(index["pixels"])
        splits = {
            s: [_sample(folder, entry) for entry in index[s]] for s in get_args(OfficialSplit)
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / _INDEX} is damaged; {_again(folder)}") from error
    wanted = {file for samples in splits.values() for s in samples for file in _files(s)}
    missing = wanted - set(folder.glob("*/*"))
    if missing:
        raise InputError(f"{len(missing)} files such as {min(missing)} are gone; {_again(folder)}")
    return pixels, splits


def _sample(folder: Path, entry: Mapping[str, Any]) -> Sample:
    stem = folder / entry["id"]
    boxes = tuple((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in entry["boxes"])
    return Sample(
        image_id=entry["id"],
        path=_file(stem, ""),
        label=int(entry["label"]),
        boxes=boxes,
        instance_masks=tuple(_file(stem, f"bird{number}") for number in range(len(boxes))),
        parts=_file(stem, "parts"),
    )


def _file(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}-{kind}.png" if kind else f"{stem.name}.png")


def _files(sample: Sample) -> Iterator[Path]:
    yield from (sample.path, *sample.instance_masks)
    if sample.parts is not None:
        yield sample.parts


def _again(folder: Path) -> str:
    return f"delete {folder}, it is drawn again"
