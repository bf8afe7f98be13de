"""Boxes in training: only for who declares them, those of the hold-out, moved with the image."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import make_result
from trees import COLOURS

from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.data.transforms import crop_flip_boxes
from wsolbench.dataset import Sample, splits_with_boxes
from wsolbench.errors import InputError
from wsolbench.ranking import groups
from wsolbench.registry import DATASETS, METHODS
from wsolbench.tables import markdown, terminal


def cub(root: Path, holdout: int) -> Any:
    return DATASETS.get("cub")(root, holdout)


def ids(samples: Sequence[Sample]) -> set[str]:
    return {sample.image_id for sample in samples}


# -------------------------------------------------------------------------------------- the split


@pytest.mark.parametrize(("holdout", "kept"), [(2, 1), (5, 1), (6, 2)])
def test_a_fifth_of_the_holdout_chooses_and_the_rest_trains(
    tiny_cub: Path, holdout: int, kept: int
) -> None:
    splits = splits_with_boxes(cub(tiny_cub, holdout))
    assert ids(splits["val"]) == ids(cub(tiny_cub, kept).samples("val"))
    held_out = cub(tiny_cub, holdout).samples("val")
    assert ids(splits["train"]) == ids(held_out) - ids(splits["val"])
    assert {s.image_id: s.boxes for s in splits["train"]}.items() <= {
        s.image_id: s.boxes for s in held_out
    }.items()
    assert splits["test"] == cub(tiny_cub, holdout).samples("test")


def test_of_a_holdout_of_the_fields_own_a_fifth_chooses(tiny_cub: Path) -> None:
    """It may have more images a class than the recipe's number, which it does not follow."""
    dataset = cub(tiny_cub, 5)
    official = cub(tiny_cub, 7).samples("val")
    dataset.samples = lambda split: official if split == "val" else ()
    splits = splits_with_boxes(dataset)
    counts = Counter(s.label for s in official)
    assert Counter(s.label for s in splits["val"]) == {c: -(-n // 5) for c, n in counts.items()}


def test_masks_and_parts_do_not_come_along(tiny_toybirds: Path) -> None:
    dataset: Any = DATASETS.get("toybirds")(tiny_toybirds, 2)
    train = splits_with_boxes(dataset)["train"]
    assert all(s.boxes and not s.instance_masks and s.parts is None for s in train)
    assert all(s.instance_masks for s in dataset.samples("val"))


@pytest.mark.parametrize("holdout", [0, 1])
def test_a_holdout_without_a_box_to_spare_is_refused(tiny_cub: Path, holdout: int) -> None:
    with pytest.raises(InputError, match=f"hold-out of {holdout} .* --set holdout=5"):
        splits_with_boxes(cub(tiny_cub, holdout))


# ------------------------------------------------------------------------------------- the batches


def loader(samples: Sequence[Sample], side: int, crop: int) -> TrainLoader:
    mean, std = (0.0,) * 3, (1.0,) * 3
    images = DecodedImages(samples, side)
    return TrainLoader(samples, images, 4, crop, 0.5, mean, std, 0, False, "cpu")


def test_boxes_stay_on_their_object(tiny_cub: Path) -> None:
    """Each image has one rectangle in its class's colour, whose edges are its box."""
    samples = splits_with_boxes(cub(tiny_cub, 6))["train"]
    side, crop, seen = 96, 72, 0
    for batch in loader(samples, side, crop).epoch(1):
        assert batch.boxes is not None
        for image, label, boxes in zip(batch.image, batch.label, batch.boxes, strict=True):
            assert boxes.shape == (1, 4)
            x0, y0, x1, y1 = boxes[0].clamp(0, crop).round().int().tolist()
            distance = np.abs(255 * image.permute(1, 2, 0).numpy() - COLOURS[label]).mean(2)
            inner = distance[y0 + 2 : max(y1 - 2, 0), x0 + 2 : max(x1 - 2, 0)]
            seen += inner.size > 0
            assert (inner < 30).all()
            distance[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = 255
            assert (distance > 30).mean() > 0.99
    assert seen >= 10


def test_images_alone_come_without_boxes(tiny_cub: Path) -> None:
    samples = cub(tiny_cub, 5).samples("train")
    assert all(batch.boxes is None for batch in loader(samples, 40, 32).epoch(1))


def test_a_mirrored_box_is_the_references(shared: Path) -> None:
    with np.load(shared / "golden" / "post_hoc" / "norm_psol.npz") as file:
        mirrored = torch.from_numpy(file["psol/hflip"])
    box, corner = torch.tensor([[0.1, 0.2, 0.5, 0.9]], dtype=torch.float64), torch.zeros(2)
    torch.testing.assert_close(crop_flip_boxes(box, corner, True, 1)[0], mirrored)


# -------------------------------------------------------------------------------- the few-shot bar


def test_a_cells_target_is_the_share_that_boxes_cover() -> None:
    union: Any = sys.modules[METHODS.get("fsl").__module__].coverage
    boxes = (
        torch.tensor([[-3.0, 1.0, 2.0, 3.0], [1.0, 2.0, 4.0, 9.0]]),
        torch.tensor([[1.4, 0.0, 2.6, 1.0]]),
    )
    covered = union(boxes, torch.Size((4, 4)))
    assert covered[0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert covered[1].tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]


# -------------------------------------------------------------------------------------- the tables


def test_what_was_trained_on_boxes_is_shown_everywhere_and_ranked_nowhere() -> None:
    of_boxes = make_result(
        {"method": "few", "epochs": 60}, supervision="boxes", figures={"gt_known_loc": 99.0}
    )
    through = make_result(
        {"method": "second"}, supervision="boxes, labels", figures={"gt_known_loc": 98.0}
    )
    others = [
        make_result({"method": "alpha"}, figures={"gt_known_loc": 50.0}),
        make_result({"method": "beta", "epochs": 5}, figures={"gt_known_loc": 40.0}),
    ]
    shown = [
        [(row.first.recipe.method, row.rank) for row in group.rows]
        for group in groups([of_boxes, through, *others])
    ]
    bars = [("few", None), ("second", None)]
    assert sorted(shown) == [[("alpha", 1), *bars], [("beta", 1), *bars]]
    page = markdown([of_boxes, *others[:1]], {"few": "Few"})
    assert "Here: 15 epochs" in page
    assert "is not weakly supervised and has no rank" in page
    for text in (page, terminal([of_boxes], {"few": "Few"})):
        assert "Few (trained on boxes)" in text
    assert "trained on boxes" not in markdown(others, {})
