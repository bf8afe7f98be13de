"""The method interface: what a localization method must offer, and nothing about how it is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from wsolbench.types import Batch, Prediction

#: how images of a batch can see each other in training, see :class:`MethodInfo`
Coupling = Literal["bn", "rng", "loss"]


class Options(BaseModel):
    """Typed hyper-parameters of a method; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class MethodInfo:
    """What a table says about a method.

    Attributes:
        title: name in tables.
        paper: title of the paper, or a short reference.
        year: year of publication.
        supervision: what beside the images the method may see in training.
        batch_coupled: what couples the images of a batch in training, on some backbone at least:
            ``bn`` the statistics of BatchNorm, ``rng`` random numbers that ``training_step`` draws
            beside dropout and drop path, ``loss`` a loss that is no mean over images. From all
            without ``rng`` the kit expects the loss of one process of several, BatchNorm and
            dropout aside.
        trainable: whether there is anything to train; else ``training_step`` is never called.
        class_agnostic: what ``localize`` says of where the object is does not depend on ``label``.
        fits: whether ``fit`` must see the training images before anything is localized.
    """

    title: str
    paper: str
    year: int
    supervision: Literal["none", "labels", "boxes", "another run"] = "labels"
    batch_coupled: tuple[Coupling, ...] = ()
    trainable: bool = True
    class_agnostic: bool = False
    fits: bool = False


class Method(nn.Module, ABC):
    """A localization method on a backbone.

    Args:
        backbone: a timm model as :func:`wsolbench.backbones.create` makes it, without classifier;
            an empty module where the recipe has ``backbone: none``; the trained method of another
            run where the recipe names a ``source``.
        num_classes: number of classes K.
        options: the method's own hyper-parameters, an instance of ``self.Options``.
    """

    info: ClassVar[MethodInfo]
    Options: ClassVar[type[Options]] = Options
    #: check of :mod:`wsolbench.checks` -> why it fails, where that is known and accepted
    known_failures: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__()

    @abstractmethod
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return scalars to log for one batch; ``"loss"`` is minimised.

        Args:
            batch: images (B, 3, H, W) and labels (B,).
            progress: share of the training that is done, in [0, 1).
        """

    @abstractmethod
    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """Return maps and logits of images (B, 3, H, W), in evaluation mode.

        Args:
            image: normalised images.
            label: (B,) class whose map is wanted; None for the predicted class.
        """

    def fit(self, batches: Iterable[Batch]) -> None:
        """Look at the training images, after any training; by default nothing is looked at.

        Called where ``info.fits`` says so, in evaluation mode and without gradients. What is found
        belongs in buffers.

        Args:
            batches: every training image once and whole, as images are evaluated, those of one
                class after those of the one before.
        """

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups; by default weights decay, one-dimensional tensors do not."""
        return decay_groups(self, lr, weight_decay)

    def official_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the authors' state dict under this module's names; by default they are the same.

        Args:
            state: every tensor of their checkpoint by its name, without a leading ``module.``.
        """
        return state


def decay_groups(
    module: nn.Module, lr: float, weight_decay: float, exempt: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Split trainable parameters into decayed and not decayed ones.

    Not decayed: tensors of at most one dimension, names that end in ``.bias`` and those whose last
    component is in ``exempt``.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        leaf = name.rsplit(".", 1)[-1]
        skip = parameter.ndim <= 1 or leaf == "bias" or leaf in exempt
        (kept if skip else decayed).append(parameter)
    return [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": kept, "lr": lr, "weight_decay": 0.0},
    ]


def class_or_predicted(logits: Tensor, label: Tensor | None) -> Tensor:
    """Return ``label`` (B,) or, where it is None, the arg-max of ``logits`` (B, K)."""
    return torch.argmax(logits, dim=1) if label is None else label
