"""Weights from a file: loaded whole and exactly, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsolbench.engine.weights import load_weights, read_state
from wsolbench.errors import InputError
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.types import Batch, Prediction

State = dict[str, Tensor]


class Toy(Method):
    """A layer with a buffer; the authors call the layer ``classifier``."""

    info = MethodInfo(title="Toy", paper="none", year=2000)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 2, Options())
        self.fc = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 2))

    def training_step(self, batch: Batch, progress: float) -> State:
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        raise NotImplementedError

    def official_state(self, state: State) -> State:
        return {name.replace("classifier.", "fc."): value for name, value in state.items()}


def saved(folder: Path, content: Any, **options: Any) -> Path:
    file = folder / "weights.pth"
    torch.save(content, file, **options)
    return file


def official(state: State) -> State:
    return {name.replace("fc.", "classifier."): value for name, value in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "ours": lambda state: {"model": state, "optimizer": {}, "progress": {"epoch": 3}},
    "sat": lambda state: {"model": wrapped(state), "best_thr": 0.35, "epoch": 30},
    "ts-cam": lambda state: {"epoch": 60, "state_dict": wrapped(state), "best_map": 87.7},
}


def wrapped(state: State) -> State:
    """As torch's DataParallel names parameters."""
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("rename", [dict, official])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_way_of_saving_is_read(
    tmp_path: Path, wrapping: str, rename: Callable[[State], State], zipped: bool
) -> None:
    there, here = Toy(), Toy()
    content = WRAPPINGS[wrapping](rename(there.state_dict()))
    file = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    load_weights(here, "toy", file)
    assert here.state_dict().keys() == there.state_dict().keys()
    for name, value in there.state_dict().items():
        assert torch.equal(here.state_dict()[name], value)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = read_state(saved(tmp_path, {k: v.half() for k, v in Toy().state_dict().items()}))
    assert {value.dtype for value in state.values()} == {torch.float32}


def without(name: str) -> Callable[[State], Any]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("fc.bias"), "1 of 8 tensors are missing (fc.bias, ...)"),
        (lambda s: {**s, "extra": s["fc.bias"]}, "1 tensors are foreign (extra, ...)"),
        (lambda s: {**s, "fc.bias": torch.zeros(7)}, "fc.bias is (7,), expected (2,)"),
        (
            lambda s: {**s, "pos_embed": torch.zeros(1, 9, 2)},
            "pos_embed is (1, 9, 2), expected (1, 5, 2); they are of another image size",
        ),
        (lambda s: {}, "expected tensors by name"),
        (lambda s: {"epoch": 3}, "expected tensors by name"),
        (lambda s: [1, 2], "expected tensors by name"),
        (lambda s: s["fc.bias"], "expected tensors by name"),
        (lambda s: {**s, "note": "text"}, "expected tensors by name"),
        (lambda s: {"model": s, "by": Path("x")}, "cannot be read as weights (UnpicklingError: "),
    ],
)
def test_weights_that_do_not_fit_are_one_line_and_change_nothing(
    tmp_path: Path, change: Callable[[State], Any], says: str
) -> None:
    toy = Toy()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    file = saved(tmp_path, change(Toy().state_dict()))
    with pytest.raises(InputError) as raised:
        load_weights(toy, "toy", file)
    line = str(raised.value)
    assert line.startswith(str(file))
    assert says in line
    assert "\n" not in line
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_one_line(tmp_path: Path, zipped: bool) -> None:
    whole = saved(tmp_path, Toy().state_dict(), _use_new_zipfile_serialization=zipped).read_bytes()
    file = tmp_path / "damaged.pth"
    for content in (b"", b"text\n", whole[: len(whole) // 2], whole[:-30]):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged\.pth cannot be read as weights") as raised:
            read_state(file)
        assert "\n" not in str(raised.value)


def test_a_flipped_byte_is_no_other_weight(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(1000)})
    content = bytearray(file.read_bytes())
    middle = bytes(content).find(bytes(2000)) + 1000
    content[middle] = 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_state(file)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no weights file '.*absent'; check --weights$"):
        read_state(tmp_path / "absent")
