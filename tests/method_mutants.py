"""A sound method, and methods with one fault each, such as plugins have."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsolbench.method import Method, MethodInfo, Options, class_or_predicted
from wsolbench.precision import full_precision, widened
from wsolbench.processes import batch_mean
from wsolbench.types import Batch, Prediction


class SoundOptions(Options):
    temperature: float = Field(1.0, gt=0)


class Sound(Method):
    """A linear classifier on patch tokens and its class map."""

    info = MethodInfo(title="Sound", paper="none", year=2000)
    Options = SoundOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.vit: Any = backbone
        self.fc = nn.Linear(cast(int, backbone.embed_dim), num_classes)

    def tokens(self, image: Tensor) -> Tensor:
        found: Tensor = self.vit.forward_features(image)[:, self.vit.num_prefix_tokens :]
        return found

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.fc(self.tokens(batch.image).mean(1))
        return {"loss": F.cross_entropy(logits, batch.label)}

    def class_maps(self, tokens: Tensor) -> Tensor:
        """Maps (B, K, h, w) of all classes."""
        with full_precision(tokens):
            maps: Tensor = self.fc(widened(tokens)).transpose(1, 2)
        return torch.unflatten(maps, 2, self.vit.patch_embed.grid_size)

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        maps = self.class_maps(self.tokens(image))
        logits = maps.mean((2, 3))
        own = maps[torch.arange(len(maps)), class_or_predicted(logits, label)]
        return Prediction(maps=own, logits=logits)


class Parameterless(Method):
    """A box in the middle: nothing to train, no classes."""

    info = MethodInfo(
        title="Parameterless",
        paper="none",
        year=2000,
        supervision="none",
        trainable=False,
        class_agnostic=True,
    )
    Options = SoundOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        side = float(image.shape[-1])
        return Prediction(boxes=torch.tensor([[0, 0, side, side]]).repeat(len(image), 1))


class UnknownDeclaration(Sound):
    known_failures = {"no-such-check": "nobody knows"}  # noqa: RUF012


class EmptyReason(Sound):
    known_failures = {"pickling": " "}  # noqa: RUF012


class NoTitle(Sound):
    info = MethodInfo(title="", paper="none", year=2000)


class OldCoupling(Sound):
    info = MethodInfo(title="Old", paper="none", year=2000, batch_coupled=("none",))  # type: ignore[arg-type]


class NothingToTrain(Parameterless):
    info = MethodInfo(title="Nothing to train", paper="none", year=2000)


class OtherOptions(Sound):
    """The declared recipe asks for a temperature that is out of bounds here."""

    class Options(Options):
        temperature: float = Field(1.0, lt=2)


class LossPerImage(Sound):
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.fc(self.tokens(batch.image).mean(1))
        each = F.cross_entropy(logits, batch.label, reduction="none")
        return {"loss": each.mean(), "each": each}


class BlindToBoxes(Sound):
    """Declares boxes and trains on labels."""

    info = MethodInfo(title="Blind to boxes", paper="none", year=2000, supervision="boxes")


class NoLoss(Sound):
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"cls": super().training_step(batch, progress)["loss"]}


class UnusedParameter(Sound):
    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.unused = nn.Parameter(torch.zeros(3))


class DetachedBackbone(Sound):
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.fc(self.tokens(batch.image).detach().mean(1))
        return {"loss": F.cross_entropy(logits, batch.label)}


class LateNan(Sound):
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        return {"loss": losses["loss"] * (torch.nan if progress > 0.9 else 1)}


class NanGradient(Sound):
    """The square root of zero is finite and its slope is not."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        return {"loss": losses["loss"] + (self.fc.weight - self.fc.weight).square().sum().sqrt()}


class ForgottenBias(Sound):
    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.parameters() if p is not self.fc.bias], "lr": lr}]


class TwiceInGroups(Sound):
    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        groups = super().param_groups(lr, weight_decay)
        return [*groups, {"params": [self.fc.bias], "lr": 10 * lr}]


class EndlessRate(Sound):
    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": 3e38}]


class NoRate(Sound):
    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": 0.0}]


class Answer(Sound):
    """Changes what is said."""

    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        return self.answer(super().localize(image, label), label)


def maps_of(prediction: Prediction) -> Tensor:
    assert prediction.maps is not None
    return prediction.maps


def logits_of(prediction: Prediction) -> Tensor:
    assert prediction.logits is not None
    return prediction.logits


class OwnAverage(Sound):
    """Keeps an average of its images where nothing brings those of other processes."""

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.average = nn.Parameter(torch.zeros(()), requires_grad=False)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        self.average.data = (self.average.data + batch.image.mean()) / 2
        return super().training_step(batch, progress)


class LossOfThePart(Sound):
    """Has a loss over the batch that knows of no other part of it."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        return {**losses, "loss": losses["loss"] + self.tokens(batch.image).std(0).mean()}


class HiddenStatistics(Sound):
    """Normalises features by the batch and declares nothing."""

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.norm = nn.BatchNorm1d(cast(int, backbone.embed_dim))

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.fc(self.norm(self.tokens(batch.image).mean(1)))
        return {"loss": F.cross_entropy(logits, batch.label)}


class HiddenDraws(Sound):
    """Flips a coin for the batch, by a generator of numpy, and declares nothing."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        image = batch.image.flip(3) if np.random.rand() < 0.5 else batch.image
        return super().training_step(replace(batch, image=image), progress)


class HiddenArea(Sound):
    """Has a loss over the batch, the same in one process and in several, and declares nothing."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        area = batch_mean(self.tokens(batch.image).sigmoid().mean((1, 2)), batch)
        return {**losses, "loss": losses["loss"] + (area - 0.25).abs()}


class HiddenLateLoss(Sound):
    """Compares the images of a batch towards the end, and declares nothing."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        apart = 0.01 * self.tokens(batch.image).std(0).mean()
        return {**losses, "loss": losses["loss"] + (apart if progress > 0.9 else 0)}


class DrawsNothing(Sound):
    """Would not be compared."""

    info = MethodInfo(title="Draws nothing", paper="none", year=2000, batch_coupled=("rng",))


class ChannelLeft(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=maps_of(prediction)[:, None])


class ByteMaps(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=(255 * maps_of(prediction).sigmoid()).byte())


class NanMaps(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=maps_of(prediction) / 0)


class BackgroundClass(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, logits=F.pad(logits_of(prediction), (0, 1)))


class NothingSaid(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=None)


class BatchStatistic(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        maps = maps_of(prediction)
        return replace(prediction, maps=(maps - maps.min()) / (maps.max() - maps.min()))


class FirstOfBatch(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        maps = maps_of(prediction)
        return replace(prediction, maps=maps - maps[0])


class ToldLogits(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        logits = logits_of(prediction)
        told = 0 if label is None else F.one_hot(label, logits.shape[1])
        return replace(prediction, logits=logits + told)


class NotAgnostic(Sound):
    info = MethodInfo(title="Not agnostic", paper="none", year=2000, class_agnostic=True)


class FirstClass(Sound):
    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        zeros = torch.zeros(len(image), dtype=torch.int64)
        return super().localize(image, zeros if label is None else label)


class OwnSeed(Sound):
    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.fc.weight, generator=generator)


class OwnNoise(Sound):
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        return {"loss": losses["loss"] * random.SystemRandom().random()}


class DropoutInEvaluation(Answer):
    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=F.dropout(maps_of(prediction)))


class Unpicklable(Sound):
    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.activation = lambda x: x


class Forgetful(Answer):
    """An attribute that a pickle leaves behind."""

    gain = 1.0

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        self.gain = 2.0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "gain"}

    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=maps_of(prediction) * self.gain)


class StateBesideTheState(Answer):
    """A statistic of training in a plain attribute."""

    level = 0.0

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        self.level += losses["loss"].item()
        return losses

    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        return replace(prediction, maps=maps_of(prediction) - self.level)


class WidthWrittenOut(Answer):
    """A target of float32, which takes no bf16."""

    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        logits = logits_of(prediction)
        logits = F.linear(logits, torch.eye(logits.shape[1]))
        order = logits.argsort(1).argsort(1)
        placed = torch.zeros(logits.shape).scatter_(1, order, logits)
        return replace(prediction, logits=placed.gather(1, order))


class CoarseMaps(Sound):
    """Its maps are a product of half precision under autocast."""

    def class_maps(self, tokens: Tensor) -> Tensor:
        maps: Tensor = self.fc(tokens).transpose(1, 2)
        return torch.unflatten(maps, 2, self.vit.patch_embed.grid_size).float()


class OtherWhenCompiled(Answer):
    """A short cut for the compiler that is no short cut."""

    def answer(self, prediction: Prediction, label: Tensor | None) -> Prediction:
        maps = maps_of(prediction)
        return replace(prediction, maps=-maps if torch.compiler.is_compiling() else maps)


class CompiledNoise(Sound):
    """Random numbers that only the compiled form draws."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().training_step(batch, progress)
        noise = torch.rand(()) if torch.compiler.is_compiling() else torch.zeros(())
        return {"loss": losses["loss"] + noise}


class GridWrittenOut(Sound):
    def class_maps(self, tokens: Tensor) -> Tensor:
        maps: Tensor = self.fc(tokens).transpose(1, 2)
        return torch.unflatten(maps, 2, (4, 4))


class PatchWrittenOut(Sound):
    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        prediction = super().localize(image, label)
        side = image.shape[-1] // 16
        return replace(prediction, maps=maps_of(prediction).reshape(len(image), side, side))


#: fault -> the check that must find it, and what it must say
FAULTS: dict[type[Method], tuple[str, str]] = {
    UnknownDeclaration: ("declarations", "known_failures names no check: 'no-such-check'"),
    EmptyReason: ("declarations", "known_failures gives no reason for 'pickling'"),
    NoTitle: ("declarations", "title is no text: ''"),
    NothingToTrain: ("declarations", "info.trainable is True, trainable parameters: 0"),
    OtherOptions: ("recipes", "'temperature': Input should be less than 2"),
    LossPerImage: ("training-output", "'each' of training_step is no scalar tensor: a tensor (4,)"),
    NoLoss: ("training-output", "not a dict with 'loss'"),
    OldCoupling: ("declarations", "batch_coupled has 'none'; known: bn, rng, loss"),
    BlindToBoxes: ("boxes-in-training", "the loss is the same with other boxes"),
    UnusedParameter: ("gradients", "unused gets no gradient"),
    DetachedBackbone: ("gradients", "vit.cls_token gets no gradient"),
    LateNan: ("gradients", "the loss is nan at progress 0.99"),
    NanGradient: ("gradients", "fc.weight gets a gradient that is not finite"),
    ForgottenBias: ("parameter-groups", "fc.bias is in no group"),
    TwiceInGroups: ("parameter-groups", "more than one parameter group"),
    EndlessRate: ("optimiser-step", "is not finite after an optimiser step"),
    NoRate: ("optimiser-step", "no parameter changes"),
    HiddenStatistics: ("batch-coupling", "norm takes statistics over the batch"),
    HiddenDraws: (
        "batch-coupling",
        "draws random numbers, and batch_coupled=() does not have 'rng'",
    ),
    HiddenArea: ("batch-coupling", "the loss of a batch is no mean of its images' losses"),
    HiddenLateLoss: ("batch-coupling", "batch_coupled=() does not have 'loss'"),
    DrawsNothing: ("batch-coupling", "has 'rng', and training_step draws no random numbers"),
    OwnAverage: ("several-processes", "of two processes: average differs after a step"),
    LossOfThePart: ("several-processes", "the loss of parts of a batch differs by"),
    ChannelLeft: ("localization-output", "maps of localize are a tensor (4, 1, 4, 4) of float32"),
    ByteMaps: ("localization-output", "of uint8, not a tensor of floating-point numbers"),
    NanMaps: ("localization-output", "maps of localize are not finite"),
    BackgroundClass: ("localization-output", "(4, 6) of float32, expected (4, 5)"),
    NothingSaid: ("localization-output", "neither maps nor boxes"),
    BatchStatistic: ("batch-invariance", "in other batches"),
    FirstOfBatch: ("order-independence", "in another order"),
    ToldLogits: ("label-blindness", "logits differ by"),
    NotAgnostic: ("label-blindness", "maps differ by"),
    FirstClass: ("predicted-class", "without a label and with the predicted one"),
    OwnSeed: ("determinism", "the initial fc.weight differs with the same seed"),
    OwnNoise: ("determinism", "the trained vit.cls_token differs with the same seed"),
    DropoutInEvaluation: ("determinism", "when asked twice"),
    Unpicklable: ("pickling", "lambda"),
    Forgetful: ("pickling", "after pickling"),
    StateBesideTheState: ("save-and-load", "after saving and loading"),
    WidthWrittenOut: ("bf16", "RuntimeError: scatter"),
    CoarseMaps: ("bf16", "maps are rounded to bf16"),
    OtherWhenCompiled: ("compilation", "maps differ by"),
    CompiledNoise: ("compilation", "the loss differs by"),
    GridWrittenOut: ("image-sizes", "RuntimeError: "),
    PatchWrittenOut: ("patch-sizes", "RuntimeError: "),
}
