"""Boxes for another run to learn: cut at a frozen threshold, in the pixels of their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from wsolbench.boxes import Cut
from wsolbench.data.transforms import crop_flip_boxes
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.protocol import Geometry, TruthRule, load_protocol
from wsolbench.recipe import Recipe
from wsolbench.request import make_request
from wsolbench.results import read_result
from wsolbench.targets import check_threshold, find_boxes, freeze
from wsolbench.types import Prediction

ROOT = Path(__file__).resolve().parents[2]
GEOMETRIES = (Geometry(mode="direct"), Geometry(mode="crop"))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.mode)
def test_boxes_go_from_the_frame_to_the_image_as_true_ones_come(geometry: Geometry) -> None:
    rng = np.random.default_rng(0)
    for size in ((300, 200), (77, 500)):
        frame = rng.integers(0, 224, (50, 4)).astype(np.float64)
        image = F.image_boxes(frame + 0.5, size, geometry)
        back = F.true_boxes(image, size, geometry, TruthRule(clip_frame="none"))
        np.testing.assert_array_equal(back, frame)


def test_a_resized_and_cropped_box_is_the_references(shared: Path) -> None:
    """Theirs is cut on the near side at 0 and on the far side at 1, so it can turn inside out."""
    with np.load(shared / "golden" / "post_hoc" / "norm_psol.npz") as file:
        rows: NDArray[Any] = file["psol/val_geometry"]
    for width, height, *numbers in rows.tolist():
        box, wanted = torch.tensor(numbers, dtype=torch.float64).split(4)
        resized = box[None] * 256 / torch.tensor([width, height] * 2)
        moved = crop_flip_boxes(resized, torch.tensor([16, 16]), False, 224)[0] / 224
        near, far = moved[:2].clamp(min=0), moved[2:].clamp(max=1)
        torch.testing.assert_close(torch.cat([near, far]), wanted, rtol=0, atol=1e-7)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    for name in ("a", "b"):
        Image.new("RGB", (200, 100)).save(tmp_path / f"{name}.png")
    return [Sample(name, tmp_path / f"{name}.png", 0) for name in ("a", "b")]


def test_a_map_is_cut_at_the_threshold_and_one_without_an_object_is_all_of_it(
    samples: list[Sample],
) -> None:
    maps = torch.zeros(2, 56, 56)
    maps[0, 14:28, 7:42] = 0.5
    maps[0, 14:28, 14:28] = 1.0
    stream = [(("a", "b"), Prediction(maps=maps))]
    protocol = load_protocol("standard")
    for threshold, (x0, x1) in ((0.25, (25, 150)), (0.75, (50, 100))):
        found = find_boxes(stream, samples, Cut(protocol, threshold), 64)
        np.testing.assert_allclose(found["a"], (x0, 25, x1, 50), atol=2)
        assert found["b"] == (0, 0, 200, 100)


def test_nothing_found_is_the_whole_image_whatever_the_protocol_calls_it(
    samples: list[Sample],
) -> None:
    stream = [(("a", "b"), Prediction(maps=torch.zeros(2, 14, 14)))]
    found = find_boxes(stream, samples, Cut(load_protocol("ts-cam"), 0.1), 64)
    assert set(found.values()) == {(0, 0, 200, 100)}


def test_a_methods_own_box_is_taken_as_it_is(samples: list[Sample]) -> None:
    boxes = torch.tensor([[16.0, 8.0, 32.0, 32.0], [9.0, 9.0, 9.0, 30.0]])
    stream = [(("a", "b"), Prediction(boxes=boxes))]
    found = find_boxes(stream, samples, Cut(load_protocol("standard"), 0.5), 64)
    np.testing.assert_allclose(found["a"], (50, 12.5, 100, 50))
    assert found["b"] == (0, 0, 200, 100)


@pytest.mark.parametrize("name", ["wsoleval", "sat"])
def test_a_threshold_of_test_images_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no test image chose.*targets\.protocol"):
        check_threshold(load_protocol(name), "first")


def test_a_fixed_threshold_is_the_protocols_and_asks_for_no_image() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("an image was scored")

    protocol = load_protocol("ts-cam")
    check_threshold(protocol, "first")
    assert freeze(protocol, refuse, "cub") == Cut(protocol, 0.1)


# ------------------------------------------------------------------------------------- the recipe


def two_stage(*more: str, **fields: Any) -> Recipe:
    given = {"method": "psol", "dataset": "toybirds-small", "backbone": "test_resnet", **fields}
    (recipe,) = make_request({**given, "set": ["holdout=2", *more]}).recipes()
    return recipe


def test_the_first_run_shares_the_conditions_and_keeps_its_own_network() -> None:
    recipe = two_stage("targets.method=cam", "targets.optim.lr=0.5", epochs=2, seed=3)
    first = recipe.targets
    assert first is not None
    assert (first.method, first.epochs, first.seed, first.holdout) == ("cam", 2, 3, 2)
    assert first.backbone != recipe.backbone == "test_resnet"
    assert first.optim is not None
    assert recipe.optim is not None
    assert (first.optim.lr, recipe.optim.lr != 0.5) == (0.5, True)
    plain = {"method": "cam", "dataset": "toybirds-small", "epochs": 2, "seed": 3}
    (alone,) = make_request({**plain, "set": ["holdout=2", "optim.lr=0.5"]}).recipes()
    assert alone.run_name() == first.run_name()


def test_the_chain_is_part_of_the_key_with_what_cuts_its_maps() -> None:
    fields = ("targets.method=cam",)
    keys = [
        two_stage(*fields).key(),
        two_stage().key(),
        two_stage(*fields, "targets.optim.lr=0.5").key(),
        two_stage(*fields, "targets.protocol=[standard-max]").key(),
    ]
    assert len(set(keys)) == len(keys)
    assert two_stage(*fields, seed=1, protocol="wsoleval").key() == keys[0]


def test_a_recipe_without_a_chain_has_the_key_of_old() -> None:
    (record,) = sorted((ROOT / "results" / "measured").glob("center-box-toybirds-default-*.json"))
    old = read_result(record)
    assert old.recipe.targets is None
    assert old.recipe.key() == old.recipe_key
