"""A stream of predictions against the samples of a split, live or from saved files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from wsolbench.arrays import UNREADABLE
from wsolbench.dataset import Sample, Split
from wsolbench.errors import InputError
from wsolbench.files import write_atomically
from wsolbench.metrics.image_table import ImageTable
from wsolbench.metrics.measure import Measured
from wsolbench.metrics.scorer import Row, Scorer, Scores, image_rows, to_array
from wsolbench.parallel import prefetched, usable_cores
from wsolbench.protocol import Protocol
from wsolbench.truth import read_truth
from wsolbench.types import Prediction

#: names of the images of a batch, and what a method says of them
Stream = Iterable[tuple[tuple[str, ...], Prediction]]

LOGITS = "logits.npz"
#: numpy parses headers as Python code, which two threads must not do at once in Python 3.11
_PARSING = Lock()

#: images that may wait to be measured, or for their turn. Two evaluation batches: what must be
#: taken to let in a batch was there before the last one, and is measured by now, where measuring
#: is faster than predicting
IMAGES_AHEAD = 64


def score(
    stream: Stream,
    samples: Sequence[Sample],
    protocols: Sequence[Protocol],
    dataset_name: str = "",
    label: str = "scoring",
    input_size: int | None = None,
    part_names: Sequence[str] = (),
    threads: int | None = None,
) -> list[Scorer]:
    """Score a stream of predictions of ``samples``, in any order and batches of any size.

    Truths are read and images measured by threads while the stream goes on, not further behind it
    than :data:`IMAGES_AHEAD` or two images a thread. The scorers take them in the order of the
    stream, so that the number of threads changes nothing.

    Args:
        stream: (image ids, prediction) of each batch.
        samples: the images that must come, each once.
        protocols: ways in which maps become figures, a scorer for each.
        dataset_name: see :class:`Scorer`.
        label: what the progress bar says; there is none where stderr is no terminal.
        input_size: see :class:`Scorer`.
        part_names: those of the dataset.
        threads: how many measure images; None for one for each core this process may use.

    Raises:
        InputError: naming the first image that is unknown, comes twice or does not come; also what
            :func:`wsolbench.truth.read_truth` and :meth:`Scorer.update` raise.
    """
    scorers = [Scorer(p, dataset_name, input_size, part_names) for p in protocols]
    waiting = {s.image_id: s for s in samples}
    threads = threads or usable_cores()
    images, ahead = _images(stream, waiting), max(IMAGES_AHEAD, 2 * threads)
    measured = prefetched(partial(_measured, scorers), images, ahead, threads)
    with closing(measured), tqdm(total=len(samples), desc=label, unit="image", disable=None) as bar:
        for image in measured:
            for scorer, of_one in zip(scorers, image, strict=True):
                scorer.add([of_one])
            bar.update()
    if waiting:
        raise InputError(f"no prediction for image '{next(iter(waiting))}'{_in_all(len(waiting))}")
    return scorers


def threads_beside(device: torch.device) -> int:
    """How many threads measure images while a model computes on ``device``.

    On the processor the model uses all cores, and each layer waits for the one that does something
    else as well.
    """
    cores = usable_cores()
    return max(1, cores // 4) if device.type == "cpu" else cores


def _images(stream: Stream, waiting: dict[str, Sample]) -> Iterator[tuple[Sample, Row]]:
    """Image by image what a stream says of the samples, which it takes out of ``waiting``."""
    known = frozenset(waiting)
    for ids, prediction in stream:
        batch = [_taken(image_id, waiting, known) for image_id in ids]
        yield from zip(batch, image_rows(prediction, len(batch)), strict=True)


def _measured(scorers: Sequence[Scorer], image: tuple[Sample, Row]) -> list[Measured]:
    sample, row = image
    figures = [figure for scorer in scorers for figure in scorer.protocol.figures]
    truth = read_truth(sample, len(scorers[0].part_names), figures)
    return [scorer.measure(truth, row) for scorer in scorers]


class Outcome(NamedTuple):
    """What scoring ``test`` gave.

    Attributes:
        scores: figures.
        table: the images that they are of; None without boxes.
        percentile: that of the maps' normalisation; None where it has none.
    """

    scores: Scores
    table: ImageTable | None
    percentile: float | None


#: scores a split in each of some ways
Scorers = Callable[[Sequence[Protocol], Split], Sequence[Scorer]]


def scores_of(protocol: Protocol, scorers: Scorers) -> Outcome:
    """Return the figures of ``test``, with what is chosen on ``val`` where the protocol says so.

    Args:
        protocol: how maps become figures.
        scorers: scores a split in each of some ways; ``val`` is asked for only where it is needed.
    """
    threshold = None
    if protocol.selection.kind == "held-out":
        protocol, threshold, _ = choose(protocol, scorers)
    (test,) = scorers([protocol], "test")
    return Outcome(test.compute(threshold), test.image_table(), protocol.map.only_percentile)


class Chosen(NamedTuple):
    """What ``val`` chose.

    Attributes:
        protocol: with one percentile at most.
        threshold: None where no held-out image has boxes.
        quality: what the choice maximised, in percent of ``val``.
    """

    protocol: Protocol
    threshold: float | None
    quality: float


def choose(protocol: Protocol, scorers: Scorers) -> Chosen:
    """Choose percentile and threshold on ``val``."""
    candidates = protocol.candidates()
    tried = [(s.choice(), p) for s, p in zip(scorers(candidates, "val"), candidates, strict=True)]
    # Of equals `max` takes the first, which is the lowest percentile.
    choice, chosen = max(tried, key=lambda pair: pair[0][:2])
    return Chosen(chosen, choice.threshold, choice.quality)


def _taken(image_id: str, waiting: dict[str, Sample], known: frozenset[str]) -> Sample:
    if image_id in waiting:
        return waiting.pop(image_id)
    fault = "came twice" if image_id in known else "is not in the split that is scored"
    raise InputError(f"the prediction for image '{image_id}' {fault}")


def _in_all(missing: int) -> str:
    return f" ({missing} missing in all)" if missing > 1 else ""


# ------------------------------------------------------------------------------- saved maps


def save_predictions(stream: Stream, folder: Path) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """Pass a stream on and write it, for :func:`saved_predictions` to read.

    Each map goes to ``<folder>/<image id>.npy`` as the method gave it: native resolution, never
    normalised, float32 (float64 where the method computes in it), so that scoring the files gives
    the very figures of the live run. Logits go to ``logits.npz`` when the stream has ended. Files
    appear whole or not at all.

    Raises:
        InputError: when a prediction has no maps.
        WsolbenchError: when a file cannot be written.
    """
    (folder / LOGITS).unlink(missing_ok=True)  # a former run's would be taken for this one's
    names: list[str] = []
    logits: list[NDArray[Any]] = []
    for ids, prediction in stream:
        if prediction.maps is None:
            raise InputError("this method gives no maps, there is nothing to save")
        for image_id, score_map in zip(ids, to_array(prediction.maps), strict=True):
            write_atomically(_map_file(folder, image_id), _saver(score_map))
        if prediction.logits is not None:
            names.extend(ids)
            logits.extend(to_array(prediction.logits))
        yield ids, prediction
    if names:
        images, rows = np.array(names), np.stack(logits)
        write_atomically(folder / LOGITS, lambda f: np.savez(f, image_id=images, logits=rows))


def saved_predictions(
    folder: Path, samples: Sequence[Sample]
) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """Read the maps of ``samples``, whoever made them, some ahead of the one that is asked for.

    Args:
        folder: holds ``<image id>.npy`` (h, w) of any floating type, resolution and range, and
            perhaps ``logits.npz`` with ``image_id`` (N,) and ``logits`` (N, K). Further files and
            rows are left alone.
        samples: the images to read.

    Raises:
        InputError: naming the first file that is missing, unreadable or of the wrong shape or type,
            or the first image without logits. Missing files are found before anything is read.
    """
    missing = [f for s in samples if not (f := _map_file(folder, s.image_id)).is_file()]
    if missing:
        raise InputError(f"no map {missing[0]}{_in_all(len(missing))}")
    logits = _read_logits(folder / LOGITS)
    lacking = [s.image_id for s in samples if logits is not None and s.image_id not in logits]
    if lacking:
        raise InputError(f"{folder / LOGITS} lacks image '{lacking[0]}'{_in_all(len(lacking))}")
    return _read_all(folder, samples, logits)


def _read_all(
    folder: Path, samples: Sequence[Sample], logits: Mapping[str, NDArray[Any]] | None
) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    def read(sample: Sample) -> tuple[tuple[str, ...], Prediction]:
        score_map = torch.from_numpy(_read_map(_map_file(folder, sample.image_id)))[None]
        row = None if logits is None else torch.from_numpy(logits[sample.image_id])[None]
        return (sample.image_id,), Prediction(maps=score_map, logits=row)

    threads = usable_cores()
    return prefetched(read, samples, ahead=2 * threads, threads=threads)


def _map_file(folder: Path, image_id: str) -> Path:
    return folder / f"{image_id}.npy"


def _read_map(file: Path) -> NDArray[Any]:
    loaded = _load(file)
    if not isinstance(loaded, np.ndarray) or loaded.ndim != 2 or not loaded.size:
        raise InputError(f"{file} must hold one map (h, w), not {_shape(loaded)}")
    return _floating(loaded, file)


def _read_logits(file: Path) -> Mapping[str, NDArray[Any]] | None:
    if not file.is_file():
        return None
    loaded = _load(file)
    if isinstance(loaded, np.ndarray) or not {"image_id", "logits"} <= loaded.keys():
        raise InputError(f"{file} must hold the arrays image_id (N,) and logits (N, K)")
    names, logits = loaded["image_id"], loaded["logits"]
    if names.ndim != 1 or logits.ndim != 2 or len(names) != len(logits):
        raise InputError(
            f"{file} must hold image_id (N,) and logits (N, K), "
            f"not {_shape(names)} and {_shape(logits)}"
        )
    return dict(zip(names.astype(str).tolist(), _floating(logits, file), strict=True))


def _load(file: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        content = io.BytesIO(file.read_bytes())
        with _PARSING:
            loaded = np.load(content, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except UNREADABLE as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _shape(loaded: NDArray[Any] | dict[str, NDArray[Any]]) -> str:
    return str(loaded.shape) if isinstance(loaded, np.ndarray) else "several arrays"


def _floating(array: NDArray[Any], file: Path) -> NDArray[Any]:
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{file} must hold floating-point numbers, not {array.dtype}")
    return array.astype(np.float64 if array.dtype.itemsize >= 8 else np.float32)


def _saver(array: NDArray[Any]) -> Callable[[IO[bytes]], None]:
    return lambda file: np.save(file, array)
