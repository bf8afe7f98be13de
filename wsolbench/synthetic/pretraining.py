"""Makes the weights of the small backbones: ``python -m wsolbench.synthetic.pretraining``.

A network that learns from a few thousand generated pictures alone sees patterns, not objects, and
then no method finds whole birds. So the small backbones learn, on pictures of species that the
benchmark does not have, to give the patch tokens of a ViT-Tiny that has seen ImageNet, and to tell
the species. They see pictures and image-level labels: nothing here can reach a mask or a box.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from wsolbench import backbones
from wsolbench.device import choose_device, make_deterministic
from wsolbench.files import write_atomically
from wsolbench.synthetic.birds import PRETRAINING_SPECIES
from wsolbench.synthetic.paint import paint
from wsolbench.synthetic.scene import SIDE, Knobs, draw_scene

log = logging.getLogger("wsolbench")

T = TypeVar("T")

TEACHER = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
STUDENTS = ("birds_vit.distilled", "birds_cnn.distilled")
#: side at which the teacher looks: two of its patches are one of the students'
TEACHER_SIDE = 2 * SIDE
#: the label of pictures without birds
NO_BIRD = len(PRETRAINING_SPECIES)
_KINDS = (
    Knobs(),
    Knobs(telling=0.6),
    Knobs(birds=(2, 3)),
    Knobs(cover=2),
)


@dataclass(frozen=True)
class Lessons:
    """What the students learn from.

    Attributes:
        pictures: (N, 3, SIDE, SIDE) uint8.
        labels: (N,) species, or :data:`NO_BIRD`.
        tokens: (N, 1 + h * w, D) float16, the teacher's class token and pooled patch tokens, each
            normalised.
    """

    pictures: Tensor
    labels: Tensor
    tokens: Tensor


def picture(number: int) -> tuple[NDArray[np.uint8], int]:
    """Picture ``number`` of the pretraining set, and its label."""
    label = number % (NO_BIRD + 1)
    species = None if label == NO_BIRD else PRETRAINING_SPECIES[label]
    knobs = _KINDS[number // (NO_BIRD + 1) % len(_KINDS)]
    return paint(draw_scene(f"pretraining {number}", species, knobs, label)), label


def lessons(count: int, teacher: nn.Module, device: torch.device) -> Lessons:
    """Paint ``count`` pictures and let the teacher look at them."""
    with ProcessPoolExecutor() as pool:
        painted = list(_bar(pool.map(picture, range(count), chunksize=64), "painting", count))
    pictures = torch.from_numpy(np.stack([p for p, _ in painted])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for _, label in painted])
    batches = _bar(pictures.split(32), "teacher", -(-count // 32))
    tokens = torch.cat([_taught(teacher, batch.to(device)).half().cpu() for batch in batches])
    return Lessons(pictures, labels, tokens)


@torch.no_grad()
def _taught(teacher: nn.Module, pictures: Tensor) -> Tensor:
    """Class token and patch tokens (B, 1 + h * w, D), pooled to the students' grid, normalised."""
    size = (TEACHER_SIDE, TEACHER_SIDE)
    image = F.interpolate(_normalized(pictures), size=size, mode="bicubic", align_corners=False)
    tokens: Tensor = teacher.forward_features(image)  # type: ignore[operator]
    side = TEACHER_SIDE // 16
    grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    patches = F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
    both = torch.cat([tokens[:, :1], patches], dim=1)
    return F.layer_norm(both, both.shape[-1:])


class Student(nn.Module):
    """A small backbone with what it needs to be taught, which is thrown away afterwards."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.trunk = backbones.create(name, pretrained=False, image_size=SIDE)
        features: int = self.trunk.num_features  # type: ignore[assignment]
        self.imitate = nn.Linear(features, width)
        self.classify = nn.Linear(features, NO_BIRD + 1)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (B, 1 + h * w, C), the first one of the whole picture."""
        features: Tensor = self.trunk.forward_features(image)  # type: ignore[operator]
        if features.ndim == 3:
            return features
        patches = features.flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)

    def loss(self, image: Tensor, label: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Distance from the teacher's tokens, and cross entropy of the species."""
        own = self(image)
        pooled = own[:, 1:].mean(1)
        return F.smooth_l1_loss(self.imitate(own), tokens), F.cross_entropy(
            self.classify(pooled), label
        )


def teach(
    student: Student, material: Lessons, epochs: int, rate: float, device: torch.device
) -> None:
    """Train a student on all lessons, half of them mirrored in each epoch."""
    batch = 64
    optimizer = torch.optim.AdamW(student.parameters(), rate, weight_decay=0.02)
    total = epochs * (len(material.labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=0.1)
    student.train()
    for epoch in range(epochs):
        sums = np.zeros(2)
        order = torch.randperm(len(material.labels))
        groups = order[: len(order) // batch * batch].split(batch)
        for group in _bar(groups, f"epoch {epoch + 1}/{epochs}", len(groups)):
            image, tokens = _mirrored(material.pictures[group], material.tokens[group])
            label = material.labels[group].to(device)
            near, told = student.loss(
                _normalized(image.to(device)), label, tokens.to(device).float()
            )
            optimizer.zero_grad(set_to_none=True)
            (near + 0.1 * told).backward()
            optimizer.step()
            schedule.step()
            sums += (float(near.detach()), float(told.detach()))
        log.info("epoch %d/%d: tokens %.4f, species %.4f", epoch + 1, epochs, *sums / len(groups))


def _mirrored(pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror a random half of the pictures and the grids of their tokens."""
    side = int((tokens.shape[1] - 1) ** 0.5)
    grid = tokens[:, 1:].unflatten(1, (side, side))
    flip = torch.rand(len(pictures)) < 0.5
    pictures = torch.where(flip[:, None, None, None], pictures.flip(3), pictures)
    grid = torch.where(flip[:, None, None, None], grid.flip(2), grid)
    return pictures, torch.cat([tokens[:, :1], grid.flatten(1, 2)], dim=1)


def _normalized(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def save_weights(trunk: nn.Module, file: Path) -> None:
    """Write weights as half-precision safetensors."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trunk.state_dict().items()}
    data = save({key: value.contiguous() for key, value in state.items()})
    write_atomically(file, lambda stream: stream.write(data))


def main(argv: Sequence[str] | None = None) -> int:
    """Make both files of weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--weights-dir", type=Path, help=f"folder with {TEACHER}.safetensors (else a download)")
    add("--out", type=Path, default=backbones.PACKAGED, help="where the weights go")
    add("--pictures", type=int, default=12000)
    add("--epochs", type=int, default=20)
    add("--device", default="auto")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    make_deterministic()
    device = choose_device(arguments.device)
    teacher = backbones.create(
        TEACHER, pretrained=True, image_size=TEACHER_SIDE, weights_dir=arguments.weights_dir
    )
    material = lessons(arguments.pictures, teacher.to(device).eval(), device)
    for name in STUDENTS:
        torch.manual_seed(0)
        student = Student(name, material.tokens.shape[-1]).to(device)
        teach(student, material, arguments.epochs, 1e-3, device)
        save_weights(student.trunk, arguments.out / f"{name}.safetensors")
    return 0


def _bar(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    return iter(tqdm(items, label, total, leave=False, disable=not sys.stderr.isatty()))


if __name__ == "__main__":
    sys.exit(main())
