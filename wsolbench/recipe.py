"""Recipes: everything that determines a run, as typed data; :mod:`wsolbench.layers` makes them."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

RecipeName = Literal["default", "released", "declared"]
RECIPE_NAMES: tuple[RecipeName, ...] = ("default", "released", "declared")
#: float32; float32 whose matrix products a GPU rounds to TensorFloat-32; autocast to bfloat16
Precision = Literal["32", "tf32", "bf16"]

#: fields that do not change what is trained, or that identify a record on their own
_NOT_IN_KEY = frozenset({"seed", "draw", "precision", "protocol"})
#: fields that name another run, which is made first
INPUTS = ("source", "classifier", "targets")
#: the backbone of a method that has none
NO_BACKBONE = "none"


_Decay = Annotated[float, Field(ge=0, lt=1)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optim(_Data):
    """The optimiser: ``betas``, ``eps`` are for adamw, ``momentum``, ``nesterov`` for sgd."""

    name: Literal["adamw", "sgd"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    eps: float = Field(1e-8, ge=0)
    momentum: float = Field(0.9, ge=0)
    nesterov: bool = True

    @model_validator(mode="after")
    def _has_momentum(self) -> Optim:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum; add optim.nesterov=false")
        return self


class Schedule(_Data):
    """Learning rate over the training.

    Attributes:
        name: ``constant``; ``cosine`` per iteration from the optimiser's rate to ``min_lr``;
            ``step`` multiplies by ``gamma`` at the start of each epoch (counted from 1) that is a
            multiple of any entry of ``every``.
            ``milestones`` does so once for each epoch in ``at``.
    """

    name: Literal["constant", "cosine", "step", "milestones"] = "constant"
    min_lr: float = Field(0.0, ge=0)
    every: tuple[Annotated[int, Field(ge=1)], ...] = ()
    at: tuple[int, ...] = ()
    gamma: float = 0.1

    @model_validator(mode="after")
    def _complete(self) -> Schedule:
        for name, epochs in (("step", self.every), ("milestones", self.at)):
            if self.name == name and not epochs:
                field = "every" if name == "step" else "at"
                raise ValueError(f"'{name}' needs epochs, such as schedule.{field}=[30]")
        return self


class Recipe(_Data):
    """Everything that determines a run.

    Attributes:
        name: the regime: the suite's ``default``, the authors' code as ``released``, or as its
            flags ``declared``.
        backbone: timm name, or ``none`` for a method without one; ``backbone_args`` go to timm's
            constructor (``drop_path_rate``).
        pretrained: start from the backbone's published weights.
        weights: first ten hex digits of the SHA-256 of the trained weights that are scored as they
            are; None where the run trains its own.
        holdout: training images a class set aside to choose thresholds.
        shots: training images a class that are used, of those the hold-out leaves; None for all.
        draw: which images these are, see :func:`wsolbench.dataset.few_shots`.
        epochs: 0 where nothing is trained.
        iterations: steps of the optimiser, each over a whole batch; the training is then cut into
            ``epochs`` equal parts, which take the place of epochs. None for whole epochs; with
            ``shots`` the number of steps is then that of the same recipe with all images.
        optim: None only where nothing is trained.
        micro_batch: images that are computed on at once; the gradients of a batch are added up.
            None for the whole batch, or the part of it that a process has.
        batch_loss: losses over a batch are over the whole of it (``global``), over the part of each
            process (``rank``), or over each micro-batch (``micro``), as is then all else that
            couples images.
        checkpoint: which weights count: the ``last``, or those after the epoch that is ``best`` on
            the hold-out, the later of equals, by what the first protocol that chooses its threshold
            there maximises.
        train_labels: ``shuffled`` deals the labels of ``train`` out anew, as a control.
        image_size: side of the model's input in pixels; ``resize`` the side before the crop.
        flip: probability of a horizontal flip in training.
        drop_last: drop the last partial batch of an epoch.
        options: the method's own options, checked by its ``Options``.
        source: the run whose trained method this one looks into, training nothing itself.
        classifier: the run whose class scores stand in for this one's.
        targets: the run whose boxes in the training images this one learns, cut at a threshold of
            the first of its protocols.
    """

    method: str
    dataset: str
    name: RecipeName
    backbone: str
    backbone_args: dict[str, float | int | bool | str] = {}
    pretrained: bool = True
    weights: str | None = None
    seed: int = Field(0, ge=0)
    holdout: int = Field(0, ge=0)
    shots: int | None = Field(None, ge=1)
    draw: int = Field(0, ge=0)
    epochs: int = Field(ge=0)
    iterations: int | None = Field(None, ge=1)
    batch_size: int = Field(ge=1)
    drop_last: bool = False
    image_size: int = Field(224, ge=1)
    resize: int = Field(256, ge=1)
    flip: float = Field(0.5, ge=0, le=1)
    optim: Optim | None = Field(None, validate_default=True)
    schedule: Schedule = Schedule()
    micro_batch: int | None = Field(None, ge=1)
    batch_loss: Literal["global", "rank", "micro"] = "global"
    checkpoint: Literal["last", "best"] = "last"
    train_labels: Literal["official", "shuffled"] = "official"
    precision: Annotated[Precision, BeforeValidator(str)] = "32"  # YAML reads a number
    protocol: tuple[str, ...] = Field(min_length=1)
    options: dict[str, Any] = {}
    source: Recipe | None = None
    classifier: Recipe | None = None
    targets: Recipe | None = None

    @field_validator("backbone_args")
    @classmethod
    def _probabilities(cls, value: dict[str, Any]) -> dict[str, Any]:
        # timm takes any number and fails at the first step
        for name, rate in value.items():
            if name.endswith("_rate") and not 0 <= float(rate) < 1:
                raise ValueError(f"{name} is a probability, in [0, 1), not {rate}")
        return value

    @field_validator("draw")
    @classmethod
    def _of_shots(cls, value: int, others: ValidationInfo) -> int:
        if value and others.data.get("shots") is None:
            raise ValueError("only a training on some images a class has draws; set shots too")
        return value

    @field_validator("iterations")
    @classmethod
    def _in_parts(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and value < others.data.get("epochs", 0):
            epochs = others.data["epochs"]
            raise ValueError(f"{value} cannot be cut into {epochs} parts; take fewer epochs")
        return value

    @field_validator("optim")
    @classmethod
    def _needed_to_train(cls, value: Optim | None, others: ValidationInfo) -> Optim | None:
        if value is None and others.data.get("epochs"):
            raise ValueError("training needs one, such as {name: sgd, lr: 0.01}")
        return value

    @model_validator(mode="after")
    def _within_a_batch(self) -> Recipe:
        if self.micro_batch is None and self.batch_loss == "micro":
            raise ValueError("batch_loss=micro needs the images of a micro-batch; set micro_batch")
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch exceeds the batch size of {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _one_training(self) -> Recipe:
        if self.source is not None and (self.trained or self.source.source is not None):
            raise ValueError("a run with a source trains nothing, and its source has none itself")
        return self

    @property
    def trained(self) -> bool:
        """Whether the run trains: not a method without parameters, nor weights from a file."""
        return self.epochs > 0

    @property
    def training(self) -> Recipe:
        """The recipe that made the weights: the source's where there is one, else this one."""
        return self if self.source is None else self.source

    def inputs(self) -> dict[str, Recipe]:
        """The runs that must be made before this one, by the field that names them."""
        named = {role: getattr(self, role) for role in INPUTS}
        return {role: recipe for role, recipe in named.items() if recipe is not None}

    def altered(self, **fields: Any) -> Recipe:
        """The recipe with other values in some fields, also of the runs that it builds on."""
        inputs = {role: recipe.altered(**fields) for role, recipe in self.inputs().items()}
        return self.model_copy(update={**fields, **inputs})

    def chain(self) -> list[Recipe]:
        """This recipe, and those of all runs that it builds on."""
        return [self, *(r for other in self.inputs().values() for r in other.chain())]

    def key(self) -> str:
        """Ten hex digits that name the training, whatever its seed, precision and scoring."""
        # Without defaults, so that a field added later leaves the keys of older records alone.
        left_out = _NOT_IN_KEY | frozenset(INPUTS)
        fields = self.model_dump(mode="json", exclude=set(left_out), exclude_defaults=True)
        fields |= {role: recipe.key() for role, recipe in self.inputs().items()}
        if self.targets is not None:  # whose boxes depend on how its maps are cut
            fields["targets_protocol"] = self.targets.protocol[0]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]

    def run_name(self) -> str:
        """Folder and file name of this training: readable, and unique by the key."""
        draw = "" if self.shots is None else f"-shots{self.shots}-draw{self.draw}"
        precision = "" if self.precision == "32" else f"-{self.precision}"
        last = f"seed{self.seed}{draw}{precision}"
        parts = (self.method, self.dataset, self.name, self.key(), last)
        return "-".join(parts)
