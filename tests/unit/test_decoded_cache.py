"""The cache of decoded images: the pixels of a decoding, whatever happened to its files."""

from __future__ import annotations

import logging
import multiprocessing
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from records import RECIPE

from wsolbench.data import cache, loader
from wsolbench.data.cache import DecodedCache
from wsolbench.data.images import decode_image, read_image, resize_image
from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.inputs import SharedData
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS

SIDE = 20


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def half_empty(_: Path) -> Disk:
    return Disk(2**40, 2**39, 2**39)


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk have room, whatever the machine's has."""
    monkeypatch.setattr(shutil, "disk_usage", half_empty)


@pytest.fixture
def samples(tiny_cub: Path) -> list[Sample]:
    return list(DATASETS.get("cub")(tiny_cub).samples("train"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the images that were decoded, in their order."""
    paths: list[Path] = []

    def decode(path: Path, content: Any) -> NDArray[np.uint8]:
        paths.append(path)
        return decode_image(path, content)

    monkeypatch.setattr(cache, "decode_image", decode)
    return paths


def fresh(path: Path, side: int = SIDE) -> NDArray[np.uint8]:
    return resize_image(read_image(path), (side, side))


def all_right(store: DecodedCache, paths: Sequence[Path]) -> None:
    for path in paths:
        np.testing.assert_array_equal(store.read(path), fresh(path))


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def draw(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_second_run_decodes_nothing(
    samples: list[Sample], tmp_path: Path, decoded: list[Path]
) -> None:
    for _ in range(2):
        images = DecodedImages(samples, SIDE, budget=0, cache=tmp_path / "kept")
        loaded = TrainLoader(samples, images, 5, 16, 0.5, (0.5,) * 3, (0.5,) * 3, 0, False, "cpu")
        plain = DecodedImages(samples, SIDE)
        other = TrainLoader(samples, plain, 5, 16, 0.5, (0.5,) * 3, (0.5,) * 3, 0, False, "cpu")
        for epoch in (1, 2):
            for mine, theirs in zip(loaded.epoch(epoch), other.epoch(epoch), strict=True):
                assert mine.image_id == theirs.image_id
                assert mine.image.equal(theirs.image)
    assert sorted(decoded) == sorted(s.path for s in samples)


def test_a_run_with_room_in_memory_leaves_the_disk_alone(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cub: Path
) -> None:
    folder, recipe = (
        tmp_path / "kept",
        Recipe(**{**RECIPE, "method": "sat", "dataset": "cub", "holdout": 1, "options": {}}),
    )
    images = SharedData(tiny_cub, folder).images(recipe)
    assert "kept in memory" in images.why
    assert not folder.exists()
    monkeypatch.setattr(loader, "available_memory", lambda: 0)
    images = SharedData(tiny_cub, folder).images(recipe)
    assert images.why.endswith(f"kept in {folder}")
    np.testing.assert_array_equal(images[0], images[0])
    assert len(files_of(folder)) == 1


@given(data=st.data())
@settings(deadline=None)
def test_a_damaged_file_is_made_anew(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    path, store = draw(folder / "image.png", 0), DecodedCache(folder / "kept", SIDE)
    all_right(store, [path])
    (file,) = files_of(folder / "kept")
    whole = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1), "place")
    if data.draw(st.booleans(), "cut"):
        del whole[place:]
    else:
        whole[place] ^= data.draw(st.integers(1, 255), "change")
    file.write_bytes(whole)
    all_right(store, [path])
    again = file.stat().st_mtime_ns, file.read_bytes()
    all_right(DecodedCache(folder / "kept", SIDE), [path])
    assert (file.stat().st_mtime_ns, file.read_bytes()) == again


def test_what_an_image_is_decides_not_where_it_lies(tmp_path: Path, decoded: list[Path]) -> None:
    store = DecodedCache(tmp_path / "kept", SIDE)
    path, copy = (draw(tmp_path / name, 0) for name in ("one.png", "two.png"))
    all_right(store, [path, copy, copy])
    assert decoded == [path]
    draw(path, 1)
    all_right(store, [path, copy])
    larger = DecodedCache(tmp_path / "kept", SIDE + 1)
    np.testing.assert_array_equal(larger.read(path), fresh(path, SIDE + 1))
    assert decoded == [path] * 3


def test_bad_images_are_named_and_not_kept(tmp_path: Path) -> None:
    store = DecodedCache(tmp_path / "kept", SIDE)
    whole = draw(tmp_path / "whole.png", 0).read_bytes()
    for name, content in {"cut.png": whole[:-300], "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be decoded"):
            store.read(tmp_path / name)
    with pytest.raises(InputError, match=r"gone.png does not exist"):
        store.read(tmp_path / "gone.png")
    assert not files_of(tmp_path / "kept")


def test_the_last_tenth_of_a_disk_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [draw(tmp_path / f"{n}.png", n) for n in range(4)]
    store = DecodedCache(tmp_path / "kept", SIDE)
    all_right(store, paths[:1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 2**40 - 2**33, 2**33))
    with caplog.at_level(logging.WARNING, "wsolbench"):
        all_right(store, paths)
    assert [record.getMessage() for record in caplog.records] == [
        f"--cache {tmp_path / 'kept'}: only 8.0 GiB are free on its disk; other images are "
        "decoded anew"
    ]
    assert len(files_of(tmp_path / "kept")) == 1


def test_a_disk_that_fills_up_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(content[:100])
        raise OSError(28, "No space left on device")

    paths = [draw(tmp_path / f"{n}.png", n) for n in range(3)]
    store = DecodedCache(tmp_path / "kept", SIDE)
    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING, "wsolbench"):
        all_right(store, paths)
    assert "No space left on device" in caplog.text
    assert len(caplog.records) == 1
    assert not files_of(tmp_path / "kept")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        DecodedCache(tmp_path / "kept", SIDE)


def read_for_ever(folder: Path, paths: Sequence[Path]) -> None:
    """Fill the cache again and again, in a process that somebody kills."""
    shutil.disk_usage = half_empty  # type: ignore[assignment]  # of this process alone
    while True:
        store = DecodedCache(folder, SIDE)
        for path in paths:
            store.read(path)
        for file in files_of(folder):
            file.unlink(missing_ok=True)


def test_processes_that_share_it_and_are_killed_do_no_harm(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{n}.png", n) for n in range(30)]
    folder, rng = tmp_path / "kept", random.Random(0)
    context = multiprocessing.get_context("forkserver")
    for _ in range(3):
        others = [context.Process(target=read_for_ever, args=(folder, paths)) for _ in range(2)]
        for other in others:
            other.start()
        until = time.monotonic() + rng.uniform(0.5, 1)
        store = DecodedCache(folder, SIDE)
        while time.monotonic() < until:
            all_right(store, paths)
        for other in others:
            other.kill()
            other.join()
        all_right(store, paths)
