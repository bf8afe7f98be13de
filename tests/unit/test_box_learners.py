"""Methods that get boxes learn them: what goes in as a box comes out as one."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsolbench import backbones
from wsolbench.engine.trainer import seed_all
from wsolbench.metrics.functional import box_iou
from wsolbench.registry import METHODS
from wsolbench.types import Batch

SIDE, IMAGES, STEPS = 64, 8, 60


def pictures() -> Batch:
    """Noise with a bright rectangle in each picture, which is its box."""
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(0, 32, (IMAGES, 2), generator=generator)
    far = near + torch.randint(16, 32, (IMAGES, 2), generator=generator)
    image = torch.randn(IMAGES, 3, SIDE, SIDE, generator=generator) / 4
    for picture, (x0, y0), (x1, y1) in zip(image, near.tolist(), far.tolist(), strict=True):
        picture[:, y0:y1, x0:x1] += 2
    boxes = torch.cat([near, far], dim=1).float().split(1)
    return Batch(image, torch.zeros(IMAGES, dtype=torch.int64), ("",) * IMAGES, boxes)


def trained(name: str, batch: Batch, **options: Any) -> Any:
    """A small network that has seen one batch many times."""
    cls: Any = METHODS.get(name)
    seed_all(0, "test")
    backbone = backbones.create("test_resnet", pretrained=False, image_size=SIDE)
    method = cls(backbone, 1, cls.Options(**options))
    optimizer = torch.optim.AdamW(method.param_groups(2e-3, 0.0))
    for _ in range(STEPS):
        optimizer.zero_grad()
        method.training_step(batch, 0.0)["loss"].backward()
        optimizer.step()
    return method.eval()


def test_regressed_boxes_are_those_that_were_learnt() -> None:
    batch = pictures()
    assert batch.boxes is not None
    method = trained("psol", batch)
    with torch.no_grad():
        found = method.localize(batch.image, None).boxes
        turned = method.localize(batch.image.flip(0), None).boxes
    iou = box_iou(found.numpy(), torch.cat(batch.boxes).numpy())
    assert iou.diagonal().mean() > 0.6
    assert iou.diagonal().mean() > iou.mean() + 0.2
    torch.testing.assert_close(turned, found.flip(0), rtol=0, atol=1e-3)


def test_foreground_is_what_lies_in_the_boxes() -> None:
    batch = pictures()
    method = trained("fsl", batch, output_stride=8)
    coverage = sys.modules[type(method).__module__].coverage
    with torch.no_grad():
        maps: Tensor = method.localize(batch.image, None).maps
    covered = F.adaptive_avg_pool2d(coverage(batch.boxes, (SIDE, SIDE)), (8, 8))
    assert maps.shape == covered.shape
    assert ((maps > 0.5) == (covered > 0.5)).float().mean() > 0.9


def test_an_image_whose_crop_misses_its_box_teaches_nothing() -> None:
    """Wherever the box of one image lies beyond the crop, the loss is that of the others."""
    shares = sys.modules[METHODS.get("psol").__module__].shares
    boxes = torch.tensor([[-30, 3, -2, 40], [70, 70, 90, 95], [-8, 16, 32, 80], [8, 8, 40, 24.0]])
    target, seen = shares(boxes, SIDE)
    assert seen.tolist() == [0, 0, 1, 1]
    assert target[2:].tolist() == [[0, 0.25, 0.5, 0.75], [0.125, 0.125, 0.5, 0.25]]
