"""Loaders: pixels as torchvision has them, and draws that depend on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms as tvt
from torchvision.transforms import functional as tv

from wsolbench.data import loader, memory
from wsolbench.data.images import read_image
from wsolbench.data.loader import DecodedImages, EvalLoader, TrainLoader
from wsolbench.data.transforms import crop_flip, draw_epoch, normalize, to_planes
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.protocol import Geometry
from wsolbench.registry import DATASETS
from wsolbench.types import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE, CROP = 40, 32


@pytest.fixture
def samples(tiny_cub: Path) -> list[Sample]:
    return list(DATASETS.get("cub")(tiny_cub).samples("train"))


def _loader(
    samples: list[Sample],
    images: DecodedImages | None = None,
    batch_size: int = 5,
    flip: float = 0.5,
    seed: int = 3,
    drop_last: bool = False,
    crop: int = CROP,
) -> TrainLoader:
    pixels = images or DecodedImages(samples, RESIZE)
    return TrainLoader(samples, pixels, batch_size, crop, flip, MEAN, STD, seed, drop_last, "cpu")


def _joined(batches: Iterator[Batch]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    all_of = list(batches)
    image = torch.cat([batch.image for batch in all_of])
    label = torch.cat([batch.label for batch in all_of])
    return image, label, tuple(i for batch in all_of for i in batch.image_id)


def _assert_same(mine: Iterator[Batch], theirs: Iterator[Batch]) -> None:
    one, other = _joined(mine), _joined(theirs)
    assert one[2] == other[2]
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0], other[0])


# --- training -------------------------------------------------------------------------------------


def test_training_pixels_are_torchvisions(samples: list[Sample]) -> None:
    image, _, ids = _joined(_loader(samples).epoch(2))
    draws = draw_epoch(3, 2, len(samples), RESIZE - CROP, 0.5)
    by_id = {sample.image_id: (i, sample) for i, sample in enumerate(samples)}
    flips = set()
    for pixels, image_id in zip(image, ids, strict=True):
        index, sample = by_id[image_id]
        top, left = draws.corner[index].tolist()
        flips.add(bool(draws.flip[index]))
        with Image.open(sample.path) as opened:
            expected = tv.resize(opened.convert("RGB"), [RESIZE, RESIZE])
        expected = tv.crop(expected, top, left, CROP, CROP)
        if draws.flip[index]:
            expected = tv.hflip(expected)
        expected = tv.normalize(tv.to_tensor(expected), list(MEAN), list(STD))
        assert torch.equal(pixels, expected)
    assert flips == {True, False}


def test_batches_have_the_documented_types(samples: list[Sample]) -> None:
    batch = next(_loader(samples).epoch(0))
    assert isinstance(batch, Batch)
    assert (batch.image.shape, batch.image.dtype) == ((5, 3, CROP, CROP), torch.float32)
    assert batch.image.is_contiguous()
    assert (batch.label.shape, batch.label.dtype) == ((5,), torch.int64)
    assert len(batch.image_id) == 5


def test_labels_belong_to_their_images(samples: list[Sample]) -> None:
    truth = {sample.image_id: sample.label for sample in samples}
    _, label, ids = _joined(_loader(samples).epoch(0))
    assert [truth[i] for i in ids] == label.tolist()


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [7, 7, 7, 3]), (True, [7, 7, 7])])
def test_the_last_batch(samples: list[Sample], drop_last: bool, sizes: list[int]) -> None:
    batches = _loader(samples, batch_size=7, drop_last=drop_last)
    assert len(batches) == len(sizes)
    assert [len(batch.label) for batch in batches.epoch(0)] == sizes


def test_every_image_comes_once_an_epoch(samples: list[Sample]) -> None:
    ids = _joined(_loader(samples).epoch(0))[2]
    assert sorted(ids) == sorted(sample.image_id for sample in samples)


def test_epochs_and_seeds_differ_and_repeat(samples: list[Sample]) -> None:
    batches = _loader(samples)
    _assert_same(batches.epoch(4), batches.epoch(4))
    _assert_same(batches.epoch(4), _loader(samples).epoch(4))
    assert _joined(batches.epoch(4))[2] != _joined(batches.epoch(5))[2]
    assert _joined(batches.epoch(4))[2] != _joined(_loader(samples, seed=4).epoch(4))[2]


def test_seed_and_epoch_are_not_interchangeable() -> None:
    assert not torch.equal(draw_epoch(0, 1, 50, 8, 0.5).order, draw_epoch(1, 0, 50, 8, 0.5).order)


def test_draws_are_the_same_on_every_machine() -> None:
    draws = draw_epoch(0, 0, 6, 32, 0.5)
    assert draws.order.tolist() == [1, 5, 4, 0, 3, 2]
    assert draws.corner.tolist() == [[18, 30], [9, 10], [9, 9], [7, 20], [1, 4], [6, 2]]
    assert draws.flip.tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("batch_size", [1, 4, 24, 100])
def test_batch_borders_change_nothing(samples: list[Sample], batch_size: int) -> None:
    _assert_same(_loader(samples).epoch(1), _loader(samples, batch_size=batch_size).epoch(1))


def test_memory_changes_nothing(samples: list[Sample]) -> None:
    kept = _loader(samples, DecodedImages(samples, RESIZE, budget=2**30))
    decoded = _loader(samples, DecodedImages(samples, RESIZE, budget=0))
    for epoch in (0, 1, 2):
        _assert_same(kept.epoch(epoch), decoded.epoch(epoch))


def test_threads_and_the_global_generator_change_nothing(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(_loader(samples).epoch(1))
    monkeypatch.setattr(loader, "decoding_threads", lambda: 7)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    _assert_same(iter(before), _loader(samples).epoch(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_reach_all_of_their_range() -> None:
    draws = draw_epoch(0, 0, 4000, 3, 0.25)
    assert torch.equal(draws.order.sort().values, torch.arange(4000))
    for axis in (0, 1):
        share = torch.bincount(draws.corner[:, axis], minlength=4) / 4000
        assert (share - 0.25).abs().max() < 0.03
    assert abs(draws.flip.float().mean().item() - 0.25) < 0.03


@pytest.mark.parametrize(("flip", "expected"), [(0.0, False), (1.0, True)])
def test_flip_never_and_always(flip: float, expected: bool) -> None:
    assert set(draw_epoch(0, 0, 500, 1, flip).flip.tolist()) == {expected}


def test_no_slack_needs_no_crop(samples: list[Sample]) -> None:
    image, _, ids = _joined(_loader(samples, flip=0.0, crop=RESIZE).epoch(0))
    by_id = {sample.image_id: i for i, sample in enumerate(samples)}
    images = DecodedImages(samples, RESIZE)
    expected = np.stack([images[by_id[i]] for i in ids])
    assert torch.equal(image, normalize(to_planes(torch.from_numpy(expected)), MEAN, STD))


@given(
    count=st.integers(1, 4),
    side=st.integers(1, 12),
    cut=st.integers(0, 11),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_crop_flip_is_slicing(count: int, side: int, cut: int, seed: int) -> None:
    size = max(1, side - cut)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    corner = torch.randint(0, side - size + 1, (count, 2), generator=generator)
    flip = torch.rand(count, generator=generator) < 0.5
    result = crop_flip(images, corner, flip, size)
    for i in range(count):
        top, left = corner[i].tolist()
        expected = images[i, :, top : top + size, left : left + size]
        assert torch.equal(result[i], expected.flip(2) if flip[i] else expected)


def test_a_crop_larger_than_the_image_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(InputError) as caught:
        _loader(samples, crop=41)
    assert str(caught.value) == (
        "a crop of 41 does not fit in images resized to 40; set resize to at least image_size"
    )


@pytest.mark.parametrize(
    ("count", "drop_last", "line"),
    [
        (0, False, "0 training images make no batch of 5; "),
        (4, True, "4 training images make no batch of 5 with drop_last; "),
    ],
)
def test_an_epoch_without_batches_is_refused(
    samples: list[Sample], count: int, drop_last: bool, line: str
) -> None:
    with pytest.raises(InputError) as caught:
        _loader(samples[:count], drop_last=drop_last)
    assert str(caught.value) == f"{line}use a smaller batch_size or more images"


# --- decoding -------------------------------------------------------------------------------------


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths: list[Path] = []

    def read(path: Path) -> NDArray[np.uint8]:
        paths.append(path)
        return read_image(path)

    monkeypatch.setattr(loader, "read_image", read)
    return paths


@pytest.mark.parametrize(
    ("budget", "reads"), [(24 * RESIZE**2 * 3, 24), (24 * RESIZE**2 * 3 - 1, 72)]
)
def test_images_are_decoded_once_where_they_fit(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, budget: int, reads: int
) -> None:
    paths = _count_reads(monkeypatch)
    images = DecodedImages(samples, RESIZE, budget)
    assert images.in_memory == (reads == 24)
    batches = _loader(samples, images)
    for epoch in range(3):
        list(batches.epoch(epoch))
    assert len(paths) == reads


def test_the_choice_is_explained(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "available_memory", lambda: 2**31)
    assert DecodedImages(samples, RESIZE).why == (
        "24 images of 40x40 take 0.00 GiB, 1.00 GiB of memory allowed: kept in memory"
    )
    large = DecodedImages(samples * 1000, 256)
    assert not large.in_memory
    assert large.why == (
        "24000 images of 256x256 take 4.39 GiB, 1.00 GiB of memory allowed: "
        "decoded in every epoch (see --cache)"
    )


def test_an_epoch_that_stops_early_is_finished_by_the_next(samples: list[Sample]) -> None:
    images = DecodedImages(samples, RESIZE)
    batches = _loader(samples, images)
    next(batches.epoch(0))
    _assert_same(batches.epoch(1), _loader(samples, DecodedImages(samples, RESIZE, 0)).epoch(1))


def test_batches_do_not_share_memory_with_what_is_kept(samples: list[Sample]) -> None:
    images = DecodedImages(samples, RESIZE)
    for _ in range(2):
        before = images[0].copy()
        for raw in images.batches([[0, 1]]):
            raw[:] = 0
        np.testing.assert_array_equal(images[0], before)


def test_a_damaged_image_stops_the_epoch_by_name(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"")
    spoiled = [*samples, Sample("broken", path, 0)]
    with pytest.raises(InputError, match=r"broken\.jpg cannot be decoded"):
        list(_loader(spoiled).epoch(0))
    with pytest.raises(InputError, match=r"broken\.jpg cannot be decoded"):
        list(_evaluated(spoiled, Geometry(mode="direct"), 32))


# --- evaluation -----------------------------------------------------------------------------------


def _evaluated(
    samples: list[Sample], geometry: Geometry, size: int, batch_size: int = 5
) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor]]:
    return iter(EvalLoader(samples, geometry, size, batch_size, MEAN, STD, "cpu"))


@pytest.mark.parametrize(
    ("geometry", "size", "side"),
    [
        (Geometry(mode="direct"), 32, 32),
        (Geometry(mode="crop"), 224, 256),
        (Geometry(mode="crop"), 32, 37),  # 36.57, and 2.5 pixels are cut on a side
        (Geometry(mode="crop", frame=224, resize=240), 21, 22),  # 22.5 rounds to even
        (Geometry(mode="crop", frame=224, resize=224), 32, 32),
    ],
)
def test_evaluation_pixels_are_torchvisions(
    samples: list[Sample], geometry: Geometry, size: int, side: int
) -> None:
    expected = tvt.Compose(
        [
            tvt.Resize((side, side)),
            tvt.CenterCrop(size),
            tvt.ToTensor(),
            tvt.Normalize(MEAN, STD),
        ]
    )
    image = torch.cat([image for _, image, _ in _evaluated(samples[:6], geometry, size)])
    for pixels, sample in zip(image, samples[:6], strict=True):
        with Image.open(sample.path) as opened:
            assert torch.equal(pixels, expected(opened.convert("RGB")))


def test_evaluation_keeps_order_labels_and_the_last_batch(samples: list[Sample]) -> None:
    geometry = Geometry(mode="crop")
    batches = list(_evaluated(samples, geometry, 28, batch_size=7))
    assert [len(ids) for ids, _, _ in batches] == [7, 7, 7, 3]
    assert len(EvalLoader(samples, geometry, 28, 7, MEAN, STD, "cpu")) == 4
    assert [i for ids, _, _ in batches for i in ids] == [s.image_id for s in samples]
    labels = torch.cat([labels for _, _, labels in batches])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [s.label for s in samples]
    assert batches[0][1].shape == (7, 3, 28, 28)
    assert batches[0][1].is_contiguous()


@pytest.mark.parametrize("batch_size", [1, 24, 100])
def test_evaluation_batch_borders_change_nothing(samples: list[Sample], batch_size: int) -> None:
    geometry = Geometry(mode="crop")
    one = torch.cat([image for _, image, _ in _evaluated(samples, geometry, 32)])
    other = torch.cat([image for _, image, _ in _evaluated(samples, geometry, 32, batch_size)])
    assert torch.equal(one, other)


def test_an_evaluation_can_be_repeated(samples: list[Sample]) -> None:
    batches = EvalLoader(samples, Geometry(mode="direct"), 32, 5, MEAN, STD, "cpu")
    assert [ids for ids, _, _ in batches] == [ids for ids, _, _ in batches]


def test_no_samples_give_no_batches() -> None:
    assert list(_evaluated([], Geometry(mode="direct"), 32)) == []


def test_a_centre_larger_than_the_image_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(InputError) as caught:
        _evaluated(samples, Geometry(mode="crop", frame=224, resize=200), 224)
    assert str(caught.value) == (
        "geometry resizes to 200 and crops 224; resize must be at least the frame"
    )


def test_photographs_by_both_transforms(shared: Path) -> None:
    """On real photographs too, decoded by threads: bit for bit what torchvision gives."""
    samples = list(DATASETS.get("cub")(shared / "data/cub30").samples("test"))[:801:100]
    expected = tvt.Compose(
        [tvt.Resize((256, 256)), tvt.CenterCrop(224), tvt.ToTensor(), tvt.Normalize(MEAN, STD)]
    )
    for ids, image, _ in _evaluated(samples, Geometry(mode="crop"), 224, batch_size=4):
        by_id = {sample.image_id: sample.path for sample in samples}
        for image_id, pixels in zip(ids, image, strict=True):
            with Image.open(by_id[image_id]) as opened:
                assert torch.equal(pixels, expected(opened.convert("RGB")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_changes_nothing(samples: list[Sample]) -> None:
    images = DecodedImages(samples, RESIZE)
    arguments = (samples, images, 5, CROP, 0.5, MEAN, STD, 3, False)
    cuda = _joined(TrainLoader(*arguments, "cuda").epoch(0))
    assert cuda[0].is_cuda
    assert cuda[1].is_cuda
    cpu = _joined(TrainLoader(*arguments, "cpu").epoch(0))
    assert cuda[2] == cpu[2]
    torch.testing.assert_close(cuda[0].cpu(), cpu[0], rtol=0, atol=1e-6)


# --- memory ---------------------------------------------------------------------------------------


def _machine(root: Path, available_kb: int, limit: str | None = None, group: str = "") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::/{group}\n")
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available_kb} kB\n")
    if limit is not None:
        cgroup = root / "sys/fs/cgroup" / group
        cgroup.mkdir(parents=True)
        (cgroup / "memory.max").write_text(f"{limit}\n")
        (cgroup / "memory.current").write_text("700000\n")
        (cgroup / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    return root


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, 1024_000),
        ("max", 1024_000),
        ("1000000", 500_000),
        ("400000", 0),
        (str(2**60), 1024_000),
    ],
)
def test_available_memory(tmp_path: Path, limit: str | None, expected: int) -> None:
    assert memory.available_memory(_machine(tmp_path, 1000, limit)) == expected


def test_the_limit_of_a_job_binds_though_its_step_has_none(tmp_path: Path) -> None:
    root = _machine(tmp_path, 1000, "1000000", "job_7")
    (root / "sys/fs/cgroup/job_7/step_0").mkdir()
    (root / "proc/self/cgroup").write_text("0::/job_7/step_0\n")
    assert memory.available_memory(root) == 500_000


def test_available_memory_without_proc(tmp_path: Path) -> None:
    assert memory.available_memory(tmp_path) > 2**28


def test_available_memory_here() -> None:
    assert 0 < memory.available_memory() < 2**46
