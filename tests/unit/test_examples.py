"""Example maps: the same images for all, small, without loss of what they keep, never another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from records import make_result

from wsolbench.errors import InputError
from wsolbench.examples import (
    COUNT,
    SIDE,
    Examples,
    chosen,
    collect,
    from_bytes,
    small_map,
    to_bytes,
)
from wsolbench.results import read_examples, read_result, save_result
from wsolbench.types import Prediction

NAMES = [f"class/{n} ø.jpg" for n in range(5 * COUNT)]


def examples(seed: int = 0) -> Examples:
    draw = np.random.default_rng(seed)
    return Examples({n: draw.integers(0, 256, (7, 9), dtype=np.uint8) for n in NAMES[:COUNT]})


@given(st.permutations(NAMES))
@settings(max_examples=10, deadline=None)
def test_the_choice_depends_on_names_alone(names: list[str]) -> None:
    assert chosen(names) == chosen(NAMES)
    assert len(set(chosen(names))) == COUNT
    assert chosen(NAMES[:3]) == sorted(NAMES[:3], key=chosen(NAMES[:3]).index)


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=90)))
@settings(deadline=None)
def test_any_map_becomes_a_small_one(native: NDArray[np.float64]) -> None:
    small = small_map(native)
    assert small.dtype == np.uint8
    assert max(small.shape) <= SIDE
    if small.any():
        assert (small.min(), small.max()) == (0, 255)
    if small.any() and max(native.shape) <= SIDE:
        assert small.shape == native.shape
        assert small.flat[native.argmax()] == 255
        assert small.flat[native.argmin()] == 0


def test_a_stream_is_collected_and_a_method_without_maps_keeps_none() -> None:
    maps = torch.arange(24.0).reshape(2, 3, 4)
    found = collect([(("a", "b"), Prediction(maps=maps)), (("c",), Prediction(maps=maps[:1]))])
    assert found is not None
    assert list(found.maps) == ["a", "b", "c"]
    np.testing.assert_array_equal(found.maps["a"], np.rint(np.arange(12).reshape(3, 4) * 255 / 11))
    assert collect([(("a",), Prediction(boxes=torch.zeros(1, 4)))]) is None


def test_examples_stay_with_their_record(tmp_path: Path) -> None:
    file = save_result(make_result(), tmp_path, examples=examples())
    first = read_result(file)
    save_result(make_result({"seed": 1}), tmp_path, examples=examples(1))
    again = read_examples(first, tmp_path)
    assert again.maps.keys() == examples().maps.keys()
    for name, small in examples().maps.items():
        np.testing.assert_array_equal(again.maps[name], small)
    save_result(make_result(), tmp_path, examples=examples(2))
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(first, tmp_path)
    assert len(list(file.parent.glob("*.npz"))) == 2
    with pytest.raises(InputError, match="run again: wsolbench run"):
        read_examples(make_result(), tmp_path)


def test_damage_is_an_error_of_one_line(tmp_path: Path) -> None:
    content = to_bytes(examples())
    assert content == to_bytes(Examples(dict(reversed(examples().maps.items()))))
    draw = np.random.default_rng(0)
    for _ in range(40):
        cut = bytearray(content[: draw.integers(len(content))])
        with pytest.raises(InputError, match="no file of example maps"):
            from_bytes(bytes(cut))
    result = read_result(save_result(make_result(), tmp_path, examples=examples()))
    (file,) = tmp_path.glob("measured/*.npz")
    file.write_bytes(content + b" ")
    with pytest.raises(InputError, match=r"npz: damaged, or the example maps of another run"):
        read_examples(result, tmp_path)
