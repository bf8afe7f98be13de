"""One run from a recipe to its records: train, or take up a finished training, and score."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import ValidationError

from wsolbench import backbones, environment
from wsolbench.cost import count_macs, count_parameters
from wsolbench.data.loader import (
    DecodedImages,
    EvalLoader,
    Length,
    TrainLoader,
    batches_an_epoch,
)
from wsolbench.dataset import Dataset, Sample, Split, few_shots, shuffled_labels
from wsolbench.device import check_precision
from wsolbench.engine.checkpoint import Progress
from wsolbench.engine.trainer import Trainer, seed_all
from wsolbench.engine.weights import load_weights
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.files import check_writable, sha256
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.metrics.derived import figures_without
from wsolbench.metrics.scorer import Scorer
from wsolbench.predictions import live_predictions
from wsolbench.protocol import Protocol, load_protocol
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS, METHODS
from wsolbench.results import (
    MEASURED,
    Clean,
    Cost,
    DatasetStamp,
    ProtocolStamp,
    Result,
    Weights,
    save_result,
)
from wsolbench.scoring import Outcome, save_predictions, score, scores_of
from wsolbench.validation import validation_line

log = logging.getLogger("wsolbench")

#: images of one evaluation batch; fixed, so that figures do not depend on the training's batch size
EVAL_BATCH = 32


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        results: folder of records, checkpoints and the leaderboard.
        weights_dir: folder of backbone weights, or None for timm's download.
        maps: folder to save score maps in, or None.
        weights: file of trained weights, for recipes that name its digest; else None.
    """

    results: Path
    weights_dir: Path | None = None
    maps: Path | None = None
    weights: Path | None = None


class SharedData:
    """Datasets and decoded training images that the runs of one command share.

    Args:
        root: folder that contains the datasets' own folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._datasets: dict[tuple[str, int], Dataset] = {}
        self._images: tuple[tuple[object, ...], DecodedImages] | None = None

    def dataset(self, recipe: Recipe) -> Dataset:
        """Open the recipe's dataset.

        Raises:
            InputError: for an unknown name, or files that are missing or malformed.
        """
        key = (recipe.dataset, recipe.holdout)
        if key not in self._datasets:
            self._datasets[key] = DATASETS.get(recipe.dataset)(self.root, recipe.holdout)
        return self._datasets[key]

    def samples(self, recipe: Recipe) -> Sequence[Sample]:
        """The images that the recipe trains on, with their official labels.

        Raises:
            InputError: when a class has fewer images than the recipe's shots.
        """
        dataset = self.dataset(recipe)
        samples = dataset.samples("train")
        if recipe.shots is None:
            return samples
        return few_shots(samples, recipe.shots, recipe.draw, dataset.class_names)

    def images(self, recipe: Recipe) -> DecodedImages:
        """The recipe's training images; one set at a time, they may fill the memory."""
        key = (recipe.dataset, recipe.holdout, recipe.shots, recipe.draw, recipe.resize)
        if self._images is None or self._images[0] != key:
            self._images = None
            self._images = key, DecodedImages(self.samples(recipe), recipe.resize)
            log.info("training data: %s", self._images[1].why)
        return self._images[1]


class Run:
    """One recipe with one seed on one dataset.

    Everything that can be refused is refused at construction, before any work.

    Args:
        recipe: what to do.
        data: where images come from.
        places: where to read and write everything else.
        device: where to compute.
        command: the command that makes the records again.

    Raises:
        InputError: for unknown names, options or protocols, a missing dataset or weights that do
            not fit, a held-out protocol without hold-out, training images that are too few or too
            small, or a folder that cannot be written to. Training images are looked at only where
            there is something to train.
    """

    def __init__(
        self, recipe: Recipe, data: SharedData, places: Places, device: torch.device, command: str
    ) -> None:
        self.recipe, self.places, self.device, self.command = recipe, places, device, command
        check_precision(device, recipe.precision)
        self.protocols = [load_protocol(name) for name in recipe.protocol]
        check_holdout(recipe, self.protocols)
        self.dataset = data.dataset(recipe)
        self.fingerprint = self.dataset.fingerprint()
        classes = self.dataset.num_classes
        self.method, self.statistics = build_method(recipe, classes, places.weights_dir)
        if recipe.weights is not None:
            load_weights(self.method, recipe.method, trained_weights(recipe, places))
        self.macs = count_macs(self.method, recipe.image_size)
        self.training = data.samples(recipe)
        self.loader = self._train_loader(data.images(recipe)) if recipe.trained else None
        # Last, so that a run that is refused leaves no trace.
        check_writable(places.results / MEASURED)
        if places.maps is not None:
            check_writable(places.maps)

    @property
    def folder(self) -> Path:
        """Folder of this training's checkpoint."""
        name = f"{self.recipe.run_name()}-{self.fingerprint}-{self.device.type}"
        return self.places.results / "runs" / name

    def execute(self) -> list[Result]:
        """Train unless that is done, score under each protocol, write and return the records.

        Raises:
            WsolbenchError: when the training diverges, memory runs out or nothing can be written.
        """
        try:
            return self._execute()
        except torch.OutOfMemoryError as error:
            raise WsolbenchError(
                "the GPU's memory is too small for this run; use a smaller --batch-size"
            ) from error

    def _execute(self) -> list[Result]:
        # Convolutions are faster so, on processors and on accelerators; other layers do not care.
        self.method.to(self.device).to(memory_format=torch.channels_last)
        progress = self.train()
        results = []
        for protocol in self.protocols:
            started = time.perf_counter()
            outcome = self.score(protocol)
            seconds = time.perf_counter() - started
            result = self._record(protocol, outcome, progress, self._cost(progress, seconds))
            log.info("wrote %s", save_result(result, self.places.results, outcome.table))
            results.append(result)
        return results

    def train(self) -> Progress:
        """Train to the end, from the last checkpoint if there is one; or leave all as it is."""
        weights = weights_stamp(self.recipe, self.places)
        origin = {
            "environment": environment.collect(self.device).model_dump(mode="json"),
            "weights": weights.model_dump(mode="json") if weights else None,
        }
        if self.loader is None:
            return Progress(origin=origin)
        checkpoint = self.folder / "checkpoint.pt"
        trainer = Trainer(self.recipe, self.method, self.loader, checkpoint, self.device, origin)
        length = f"{self.recipe.epochs} epochs, {self.iterations} iterations"
        log.info("training %s, %s", self.folder.name, length)
        return trainer.run()

    def score(self, protocol: Protocol) -> Outcome:
        """Score the trained method on ``test``, with a threshold from ``val`` where it belongs."""
        return scores_of(protocol, self._scorers)

    @property
    def iterations(self) -> int | None:
        """Steps of the optimiser in the whole training; None where there is none."""
        if self.loader is None:
            return None
        return sum(self.loader.batches(epoch + 1) for epoch in range(self.recipe.epochs))

    def _train_loader(self, images: DecodedImages) -> TrainLoader:
        recipe, samples = self.recipe, self.training
        if recipe.train_labels == "shuffled":
            samples = shuffled_labels(samples, recipe.seed)
        return TrainLoader(
            samples,
            images,
            recipe.batch_size,
            recipe.image_size,
            recipe.flip,
            self.statistics.mean,
            self.statistics.std,
            recipe.seed,
            recipe.drop_last,
            self.device,
            training_length(recipe, len(self.dataset.samples("train"))),
        )

    def _scorers(self, protocols: Sequence[Protocol], split: Split) -> list[Scorer]:
        """Score a split under protocols that differ in the normalisation of maps only."""
        protocol, samples = protocols[0], self.dataset.samples(split)
        bf16 = self.recipe.precision == "bf16"
        stream = live_predictions(self.method, self._eval(protocol, samples), bf16)
        if self.places.maps is not None:
            folder = self.places.maps / self.folder.name / protocol.name / split
            log.info("saving maps in %s", folder)
            stream = save_predictions(stream, folder)
        label = f"{self.recipe.method} {protocol.name} {split}"
        size, parts = self.recipe.image_size, self.dataset.part_names
        return score(stream, samples, protocols, self.recipe.dataset, label, size, parts)

    def _eval(self, protocol: Protocol, samples: Sequence[Sample]) -> EvalLoader:
        return EvalLoader(
            samples,
            protocol.geometry,
            self.recipe.image_size,
            EVAL_BATCH,
            self.statistics.mean,
            self.statistics.std,
            self.device,
        )

    def _cost(self, progress: Progress, score_seconds: float) -> Cost:
        parameters, trainable = count_parameters(self.method)
        rate = progress.images / progress.seconds if progress.seconds else 0.0
        return Cost(
            parameters=parameters,
            trainable_parameters=trainable,
            macs=self.macs,
            train_seconds=progress.seconds,
            score_seconds=score_seconds,
            train_images_per_second=rate,
            peak_memory_bytes=progress.peak_memory,
        )

    def _record(
        self, protocol: Protocol, outcome: Outcome, progress: Progress, cost: Cost
    ) -> Result:
        scores = outcome.scores
        curves = {name: tuple(values) for name, values in scores.curves.items()}
        return Result(
            recipe=self.recipe,
            recipe_key=self.recipe.key(),
            protocol=ProtocolStamp(
                name=protocol.name, version=protocol.version, title=protocol.title
            ),
            figures=scores.figures,
            oracle=tuple(name for name in protocol.oracle if name in scores.figures),
            clean=self._clean(protocol, outcome),
            threshold=scores.threshold,
            threshold_source="none" if scores.threshold is None else protocol.selection.kind,
            percentile=outcome.percentile,
            curves=curves,
            dead_maps=scores.dead_maps,
            dataset=self._dataset_stamp(),
            cost=cost,
            environment=progress.origin["environment"],
            scoring_commit=environment.code_state()[0],
            iterations=self.iterations,
            history=tuple(progress.history),
            weights=progress.origin["weights"],
            pretraining=pretraining(self.recipe, self.places),
            supervision=supervision(self.recipe, self.method.info),
            command=self.command,
            created=datetime.now(UTC),
        )

    def _clean(self, protocol: Protocol, outcome: Outcome) -> Clean | None:
        seen = self.dataset.in_imagenet() if saw_imagenet(self.recipe) else frozenset()
        if outcome.table is None or not seen:
            return None
        scores = outcome.scores
        asked = [figure for figure in protocol.figures if figure in scores.figures]
        figures = figures_without(outcome.table, asked, scores.threshold, seen)
        return Clean(left_out=len(seen), figures=figures)

    def _dataset_stamp(self) -> DatasetStamp:
        return DatasetStamp(
            name=self.recipe.dataset,
            title=self.dataset.title,
            classes=self.dataset.num_classes,
            train=len(self.training),
            val=len(self.dataset.samples("val")),
            test=len(self.dataset.samples("test")),
            fingerprint=self.fingerprint,
            holdout=self.dataset.holdout_name(),
        )


def build_method(
    recipe: Recipe, num_classes: int, weights_dir: Path | None
) -> tuple[Method, backbones.InputStatistics]:
    """Build a recipe's method with the seed's initialisation, and say what its backbone expects.

    Raises:
        InputError: for an unknown method, option or backbone, or weights that do not fit.
    """
    options = method_options(recipe)
    seed_all(recipe.seed, "initialisation")
    backbone = backbones.create(
        recipe.backbone,
        pretrained=recipe.pretrained,
        image_size=recipe.image_size,
        weights_dir=weights_dir,
        args=recipe.backbone_args,
    )
    method = METHODS.get(recipe.method)(backbone, num_classes, options)
    return method, backbones.input_statistics(backbone)


def training_length(recipe: Recipe, images: int) -> Length | None:
    """Return the length of a training that does not depend on how many images it uses.

    Args:
        recipe: what to do.
        images: training images that there are, used or not.

    Returns:
        None where the training is whole epochs over all of them.
    """
    if recipe.iterations is None and recipe.shots is None:
        return None
    whole = recipe.epochs * batches_an_epoch(images, recipe.batch_size, recipe.drop_last)
    return Length(recipe.iterations or whole, recipe.epochs)


def method_options(recipe: Recipe) -> Options:
    """Return the recipe's options as its method's own type.

    Raises:
        InputError: for an unknown option or one of the wrong type.
    """
    cls = METHODS.get(recipe.method)
    try:
        return cls.Options.model_validate(recipe.options)
    except ValidationError as error:
        line = validation_line(error, list(cls.Options.model_fields), "option of the method")
        raise InputError(f"{recipe.method}: {line}") from error


def check_holdout(recipe: Recipe, protocols: list[Protocol]) -> None:
    """Refuse a protocol that needs held-out images under a recipe without any.

    Raises:
        InputError: naming both.
    """
    for protocol in protocols:
        if protocol.selection.kind == "held-out" and not recipe.holdout:
            raise InputError(
                f"protocol '{protocol.name}' chooses its threshold on held-out images and recipe "
                f"'{recipe.name}' has none; add --set holdout=5 or take another --protocol"
            )


def trained_weights(recipe: Recipe, places: Places) -> Path:
    """Return the file of the weights that a recipe names by their digest.

    Raises:
        InputError: when it is missing or not that file any more.
    """
    file = places.weights
    if file is None or not file.is_file() or not sha256(file).startswith(recipe.weights or "-"):
        raise InputError(f"'{file}' is not the file whose SHA-256 begins with {recipe.weights}")
    return file


def weights_stamp(recipe: Recipe, places: Places) -> Weights | None:
    """Name the weights that the run started from, with the SHA-256 of a local file."""
    if recipe.weights is not None:
        trained = trained_weights(recipe, places)
        return Weights(name=trained.name, sha256=sha256(trained))
    if not recipe.pretrained:
        return None
    file = backbones.weights_file(recipe.backbone, places.weights_dir)
    return Weights(name=recipe.backbone, sha256=None if file is None else sha256(file))


def pretraining(recipe: Recipe, places: Places) -> str | None:
    """What the weights had seen, as the tag of the backbone's timm name says, or their file."""
    if recipe.weights is not None:
        return f"file {trained_weights(recipe, places).name}, SHA-256 {recipe.weights}"
    return recipe.backbone.partition(".")[2] or None if recipe.pretrained else None


def saw_imagenet(recipe: Recipe) -> bool:
    """Whether the backbone's published weights, or what was trained on them, had seen ImageNet.

    timm's tags name the data last: ``in1k``, ``in12k``, ``in21k`` or ``in22k``; those of
    self-supervised training that was done there name it alone.
    """
    tag = recipe.backbone.partition(".")[2]
    known = re.search(r"in(1|12|21|22)k|dino|mae", tag) is not None
    return known and (recipe.pretrained or recipe.weights is not None)


def supervision(recipe: Recipe, info: MethodInfo) -> str:
    """What the method saw beside the images."""
    if recipe.train_labels == "official":
        return info.supervision
    more = "" if info.supervision == "labels" else f"{info.supervision}, "
    return f"{more}shuffled labels"
