"""Checkpoints as the authors' code writes them, read as ``run --weights`` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import golden as ref
from torch import Tensor

from wsolbench.engine.weights import load_weights
from wsolbench.errors import InputError
from wsolbench.registry import METHODS

State = dict[str, Tensor]
FILES = {"sat": ("sat_tiny", "map", ref.MAPS), "ts-cam": ("tscam_tiny", "cams", ref.CAMS)}


def sat_file(state: State) -> Any:
    """As the SAT authors' training script saves: of a model on several GPUs."""
    return {"model": {f"module.{n}": v for n, v in state.items()}, "best_thr": 0.4, "epoch": 30}


def ts_cam_file(state: State) -> Any:
    """As the TS-CAM authors' training script saves: of a model on several GPUs."""
    parallel = {f"module.{n}": v for n, v in state.items()}
    return {"epoch": 60, "state_dict": parallel, "best_map": 87.7}


def build(method: str, side: int = 224, classes: int = ref.CLASSES) -> Any:
    cls: Any = METHODS.get(method)
    vit = ref.tiny_vit()
    if side != 224:
        vit.set_input_size(img_size=(side, side))
    return cls(vit, classes, cls.Options()).eval()


def written(folder: Path, shared: Path, method: str, layout: Any) -> Path:
    state = ref.load(shared, FILES[method][0]).below("state/")
    torch.save(layout(state), folder / "best.pth.tar", _use_new_zipfile_serialization=False)
    return folder / "best.pth.tar"


@pytest.mark.parametrize("method", FILES)
@pytest.mark.parametrize("layout", [sat_file, ts_cam_file, dict])
def test_an_official_file_gives_the_official_outputs(
    shared: Path, tmp_path: Path, method: str, layout: Any
) -> None:
    name, output, tolerance = FILES[method]
    golden, model = ref.load(shared, name), build(method)
    load_weights(model, method, written(tmp_path, shared, method, layout))
    images, labels = golden.tensor("images"), golden.tensor("labels")
    with torch.no_grad():
        found = model.localize(images, labels)
    expected = golden.tensor(f"eval/{output}")
    if expected.ndim == 4:  # a map for every class: that of the label
        expected = expected[torch.arange(len(labels)), labels]
    ref.assert_near(found.maps, expected, tolerance)
    ref.assert_near(found.logits, golden.tensor("eval/logits"), ref.LOGITS)


@pytest.mark.parametrize("method", FILES)
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"side": 128}, r"vit.pos_embed is \(1, 197, 96\), expected \(1, 65, 96\); they are of an"),
        ({"classes": 30}, r"head\.\w+ is \(20,.*\), expected \(30,"),
    ],
)
def test_an_official_file_of_another_size_or_dataset_is_one_line(
    shared: Path, tmp_path: Path, method: str, other: dict[str, int], says: str
) -> None:
    file = written(tmp_path, shared, method, sat_file)
    with pytest.raises(InputError, match=f"holds no weights of method '{method}': {says}"):
        load_weights(build(method, **other), method, file)


def test_the_file_of_another_method_is_one_line(shared: Path, tmp_path: Path) -> None:
    file = written(tmp_path, shared, "ts-cam", ts_cam_file)
    with pytest.raises(InputError, match=r"2 of \d+ tensors are missing \(loc_embed, \.\.\.\)$"):
        load_weights(build("sat"), "sat", file)
