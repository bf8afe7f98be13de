"""Scoring on threads beside the stream: one thread's figures, within bounds, errors included."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsolbench import scoring
from wsolbench.data.loader import EvalLoader
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.metrics.scorer import Scorer
from wsolbench.predictions import live_predictions
from wsolbench.protocol import Geometry, load_protocol
from wsolbench.scoring import score
from wsolbench.truth import read_truth
from wsolbench.types import Prediction, Truth

STANDARD = load_protocol("standard")
Batches = list[tuple[tuple[str, ...], Prediction]]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Photographs of noise, each with two instances, pixels that do not count and a box."""
    rng = np.random.default_rng(0)
    return [_sample(tmp_path, f"{i}", rng) for i in range(23)]


def _sample(folder: Path, name: str, rng: np.random.Generator) -> Sample:
    files = [folder / f"{name}_{part}.png" for part in ("image", "one", "two", "ignore")]
    for file in files:
        Image.fromarray((rng.random((40, 50)) < 0.3).astype(np.uint8) * 255).save(file)
    x, y = rng.uniform(0, 25, 2).tolist()
    box = (x, y, x + 20, y + 12)
    return Sample(name, files[0], int(name) % 4, (box,), tuple(files[1:3]), files[3])


def _batches(samples: list[Sample], size: int) -> Batches:
    """Random maps and logits, every fifth map dead."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(len(samples), 7, 7, generator=generator)
    maps[::5] = 0.5
    logits = torch.rand(len(samples), 4, generator=generator)
    return [
        (
            tuple(s.image_id for s in samples[i : i + size]),
            Prediction(maps=maps[i : i + size], logits=logits[i : i + size]),
        )
        for i in range(0, len(samples), size)
    ]


def _state(scorer: Scorer) -> list[Any]:
    rows = (torch.cat(state) for state in (scorer.iou, scorer.iou_of_all, scorer.facts))
    return [tensor.numpy() for tensor in (*rows, scorer.pixels)]


def test_threads_and_their_order_change_nothing(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Scorer(STANDARD)
    for ids, prediction in _batches(samples, 5):
        whole.update([read_truth(samples[int(i)]) for i in ids], prediction)

    def late(sample: Sample, *rest: Any) -> Truth:
        time.sleep(0.02 * (int(sample.image_id) % 3 == 0))
        return read_truth(sample, *rest)

    monkeypatch.setattr(scoring, "read_truth", late)
    for threads, size in ((1, 5), (6, 5), (6, 23)):
        (scorer,) = score(_batches(samples, size), samples, [STANDARD], threads=threads)
        for ours, expected in zip(_state(scorer), _state(whole), strict=True):
            np.testing.assert_array_equal(ours, expected)
        assert scorer.compute(0.25) == whole.compute(0.25)
    assert {"pxap", "top1_loc"} <= whole.compute(0.25).figures.keys()


def test_the_stream_goes_on_while_an_image_is_measured_but_not_too_far(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first image waits until the stream has been asked as far as it may be, and no further."""
    monkeypatch.setattr(scoring, "IMAGES_AHEAD", 8)
    asked, reached = [], threading.Event()

    def stream() -> Iterator[tuple[tuple[str, ...], Prediction]]:
        for batch in _batches(samples, 2):
            asked.append(batch)
            if len(asked) == 4:
                reached.set()
            yield batch

    def waits(sample: Sample, *rest: Any) -> Truth:
        if sample.image_id == "0":
            assert reached.wait(timeout=30)
            time.sleep(0.1)
            assert len(asked) == 4
        return read_truth(sample, *rest)

    monkeypatch.setattr(scoring, "read_truth", waits)
    assert score(stream(), samples, [STANDARD], threads=2)[0].compute(0.5).count == len(samples)


def test_what_fails_on_a_thread_is_the_error_it_was(samples: list[Sample]) -> None:
    batches = _batches(samples, 5)
    samples[7] = replace(samples[7], instance_masks=(samples[7].path.parent / "gone.png",))
    with pytest.raises(InputError, match=r"^image .*gone\.png does not exist; restore it from"):
        score(batches, samples, [STANDARD], threads=3)
    samples[7] = replace(samples[7], instance_masks=(), label=9)
    with pytest.raises(InputError, match="an image is of class 9, but the logits are of 4"):
        score(batches, samples, [STANDARD], threads=3)


def test_masks_that_no_figure_needs_are_not_read(samples: list[Sample]) -> None:
    gone = samples[0].path.parent / "gone.png"
    unread = [replace(s, instance_masks=(gone,), ignore_mask=gone) for s in samples]
    assert score(_batches(samples, 4), unread, [load_protocol("sat")])[0].compute().count == len(
        samples
    )


class _Mean(nn.Module):
    """Its map says which image it is of, and whether it was asked for the right class."""

    def localize(self, image: torch.Tensor, label: torch.Tensor) -> Prediction:
        maps = image.mean(1)[:, ::8, ::8] + label[:, None, None]
        return Prediction(maps=maps, logits=maps.flatten(1)[:, :4])


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_live_predictions_come_once_each_in_their_order(samples: list[Sample], name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device, method = torch.device(name), _Mean()
    loader = EvalLoader(samples, Geometry(mode="direct"), 32, 5, (0, 0, 0), (1, 1, 1), device)
    live = list(live_predictions(method, loader, bf16=False))  # type: ignore[arg-type]
    assert [ids for ids, _ in live] == [ids for ids, _, _ in loader]
    for (_, prediction), (_, image, label) in zip(live, loader, strict=True):
        direct = method.localize(image, label)
        for ours, theirs in ((prediction.maps, direct.maps), (prediction.logits, direct.logits)):
            assert ours is not None
            assert theirs is not None
            assert ours.device.type == "cpu"
            assert torch.equal(ours, theirs.cpu())
