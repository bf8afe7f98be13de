"""One run from a recipe to its records: train, or take up a finished training, and score."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wsolbench import backbones, environment, processes
from wsolbench.accumulation import check_accumulation
from wsolbench.building import build_method, build_upon
from wsolbench.classified import Classified
from wsolbench.compiled import check_compiler, compile_method
from wsolbench.cost import count_macs, gives_maps, localization_cost
from wsolbench.data.loader import TrainLoader
from wsolbench.dataset import Sample, Split
from wsolbench.device import allow_tf32, check_precision
from wsolbench.engine.checkpoint import Progress, checkpoints
from wsolbench.engine.trainer import Trainer
from wsolbench.engine.weights import load_weights
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.examples import Examples, chosen, collect
from wsolbench.files import check_writable
from wsolbench.inputs import (
    Places,
    SharedData,
    check_boxes,
    check_holdout,
    judged_by,
    training_length,
)
from wsolbench.method import Method
from wsolbench.metrics.scorer import Scorer
from wsolbench.predictions import EVAL_BATCH, Localizer, fit
from wsolbench.protocol import Geometry, Protocol, load_protocol
from wsolbench.provenance import trained_weights, weights_stamp
from wsolbench.recipe import Recipe
from wsolbench.recording import input_stamp, make_cost, make_record
from wsolbench.results import MEASURED, Inference, InputStamp, Result, save_result
from wsolbench.saved_run import save_run
from wsolbench.scoring import (
    Outcome,
    choose,
    save_predictions,
    score,
    scores_of,
    threads_beside,
)
from wsolbench.targets import check_threshold, find_boxes, freeze

log = logging.getLogger("wsolbench")

#: how methods see images that no protocol scores
WHOLE = Geometry(mode="direct")


class Run:
    """One recipe with one seed on one dataset.

    Everything that can be refused is refused at construction, before any work.

    Args:
        recipe: what to do.
        data: where images come from.
        places: where to read and write everything else.
        device: where to compute.
        command: the command that makes the records again.
        compiled: compute through :mod:`wsolbench.compiled`.

    Raises:
        InputError: for unknown names, options or protocols, a missing dataset or weights that do
            not fit, a held-out protocol without hold-out, training images that are too few or too
            small, or a folder that cannot be written to. Training images are looked at only where
            there is something to train.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: SharedData,
        places: Places,
        device: torch.device,
        command: str,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.places, self.device, self.command = recipe, places, device, command
        self.compiled = compiled
        check_precision(device, recipe.precision)
        if compiled:
            check_compiler(device)
        self.protocols = [load_protocol(name) for name in recipe.protocol]
        check_holdout(recipe, self.protocols)
        self.judging = judged_by(recipe, self.protocols)
        self.dataset, self.splits = data.dataset(recipe), data.splits(recipe)
        check_boxes(self.splits, self.protocols)
        self.available = len(data.available(recipe)["train"])
        self.fingerprint = self.dataset.fingerprint()
        self.source = self._below(recipe.source, data, places)
        self.targets = self._first_run(data, places)
        self.inputs: tuple[InputStamp, ...] = ()
        self.method, self.statistics = self._built()
        check_accumulation(recipe, self.method)
        if self.judging is not None and self.method.info.fits:
            raise InputError(
                f"{recipe.method} can be scored only once trained; take checkpoint=last"
            )
        self.classifier, self.answering = self._classified(data)
        size, bf16 = recipe.image_size, recipe.precision == "bf16"
        self.localizer = Localizer(self.answering, self.statistics, size, device, bf16)
        if recipe.weights is not None:
            load_weights(self.method, recipe.method, trained_weights(recipe, places))
        self.macs = count_macs(self.answering, recipe.image_size)
        self.images = data.images(recipe) if recipe.trained else None
        self.loader = None if self.images is None else self._train_loader(self.splits["train"])
        # Last, so that a run that is refused leaves no trace.
        if processes.is_first():
            check_writable(places.results / MEASURED)
        if places.maps is not None:
            if processes.count() > 1:
                raise InputError("--save-maps is for one process; run without torchrun")
            if not gives_maps(self.answering, recipe.image_size):
                raise InputError(f"{recipe.method} gives no maps; leave out --save-maps")
            check_writable(places.maps)

    @property
    def folder(self) -> Path:
        """Folder of this training's checkpoint."""
        name = f"{self.recipe.run_name()}-{self.fingerprint}-{self.device.type}"
        return self.places.results / "runs" / name

    @property
    def checkpoint(self) -> Path:
        """Newest checkpoint of this training; earlier ones lie beside it."""
        return self.folder / "checkpoint.pt"

    def chain(self) -> Iterator[Run]:
        """This run and all that it builds on."""
        yield self
        for run in (self.source, self.targets, self.classifier):
            if run is not None:
                yield from run.chain()

    def forget(self) -> None:
        """Remove the checkpoints, so that the training begins anew."""
        for file in checkpoints(self.checkpoint) if processes.is_first() else ():
            file.unlink()

    def execute(self) -> list[Result]:
        """Train unless that is done, score under each protocol, write and return the records.

        Raises:
            WsolbenchError: when the training diverges, memory runs out or nothing can be written.
        """
        try:
            return self._execute()
        except torch.OutOfMemoryError as error:
            raise WsolbenchError(
                "the GPU's memory is too small for this run; use a smaller --batch-size, "
                "or compute on a batch in turns with --set micro_batch=N"
            ) from error

    def _execute(self) -> list[Result]:
        gc.collect()  # compiled methods are in cycles; an earlier run's would still take memory
        # Convolutions are faster so, on processors and on accelerators; other layers do not care.
        self.answering.to(self.device).to(memory_format=torch.channels_last)
        allow_tf32(self.recipe.precision == "tf32")
        progress = self.train()
        inference = self._inference()
        results = []
        for protocol in self.protocols:
            started = time.perf_counter()
            outcome = self.score(protocol)
            seconds = time.perf_counter() - started
            cost = make_cost(self, progress, seconds, inference)
            result = make_record(self, protocol, outcome, progress, cost)
            if processes.is_first():
                beside = outcome.table, self.examples(protocol)
                log.info("wrote %s", save_result(result, self.places.results, *beside))
            results.append(result)
        if processes.is_first():
            save_run(self.folder, self.answering, results, self.dataset.class_names)
        return results

    def _built(self) -> tuple[Method, backbones.InputStatistics]:
        recipe, classes = self.recipe, self.dataset.num_classes
        if self.source is None:
            return build_method(recipe, classes, self.places.weights_dir)
        return build_upon(self.source.method, recipe, classes), self.source.statistics

    def _first_run(self, data: SharedData, places: Places) -> Run | None:
        """The run whose boxes this one learns; its maps and weights are no affair of the user's."""
        recipe = self.recipe.targets
        if recipe is not None:
            check_threshold(load_protocol(recipe.protocol[0]), recipe.method)
        return self._below(recipe, data, replace(places, maps=None, weights=None))

    def _below(self, recipe: Recipe | None, data: SharedData, places: Places) -> Run | None:
        """A run that this one builds on, computed as this one is."""
        if recipe is None:
            return None
        return Run(recipe, data, places, self.device, "", self.compiled)

    def train(self) -> Progress:
        """Make the method ready: its weights, and what it must see of the training images."""
        progress = self._trained()
        if self.method.info.fits:
            started = time.perf_counter()
            self._fit()
            progress.seconds += time.perf_counter() - started
        return progress

    def _trained(self) -> Progress:
        """Train to the end, from the last checkpoint if there is one; or leave all as it is.

        The runs that this one builds on are trained likewise, which puts their weights into place.
        """
        if self.classifier is not None:
            self._take("classifier", self.classifier)
        if self.source is not None:
            return Progress(origin=self._take("source", self.source).origin)
        if self.targets is not None:
            self._take_targets(self.targets)
        if self.compiled:
            compile_method(self.method)
        weights = weights_stamp(self.recipe, self.places)
        origin = {
            "environment": environment.collect(self.device, self.compiled).model_dump(mode="json"),
            "weights": weights.model_dump(mode="json") if weights else None,
            "inputs": [stamp.model_dump(mode="json") for stamp in self.inputs],
        }
        if self.loader is None:
            return Progress(origin=origin)
        trainer = Trainer(
            self.recipe,
            self.method,
            self.loader,
            self.checkpoint,
            self.device,
            origin,
            self.places.kept,
            None if self.judging is None else self._judge,
        )
        length = f"{self.recipe.epochs} epochs, {self.iterations} iterations"
        log.info("training %s, %s", self.folder.name, length)
        return trainer.run()

    def _judge(self) -> float:
        """How good the method is on the hold-out, in percent."""
        if self.judging is None:
            raise ValueError("the last weights count")
        return choose(self.judging, self._measured).quality

    def _fit(self) -> None:
        log.info("fitting %s to %d training images", self.recipe.method, len(self.splits["train"]))
        samples = sorted(self.splits["train"], key=lambda sample: sample.label)
        loader = self.localizer.loader(samples, WHOLE)
        fit(self.method, loader, self.device, self.localizer.bf16)

    def _take_targets(self, first: Run) -> None:
        """Make the first run where it is missing, and put its boxes into this one's batches."""
        first.method.to(self.device).to(memory_format=torch.channels_last)
        progress = first.train()
        cut = freeze(first.protocols[0], first._scorers, self.recipe.dataset)
        stamp = input_stamp(first, "targets", self.recipe, progress)
        self.inputs += (stamp.model_copy(update=cut.described()), *first.inputs)
        samples = self.splits["train"]
        log.info("boxes of %s in %d training images", first.recipe.method, len(samples))
        stream = first.localizer.stream(samples, cut.protocol.geometry)
        boxes = find_boxes(stream, samples, cut, first.recipe.image_size)
        first.method.cpu()
        boxed = [replace(sample, boxes=(boxes[sample.image_id],)) for sample in samples]
        self.loader = self._train_loader(boxed)

    def _classified(self, data: SharedData) -> tuple[Run | None, Method]:
        """The run whose class scores stand in, and what answers for this run."""
        run = self._below(self.recipe.classifier, data, self.places)
        if run is None:
            return None, self.method
        recipe = run.recipe
        if recipe.image_size != self.recipe.image_size:
            raise InputError(
                f"the classifier looks at images of {recipe.image_size} pixels, the method at "
                f"{self.recipe.image_size}; add --set image_size=N for both"
            )
        return run, Classified(self.method, self.statistics, run.method, run.statistics)

    def _take(self, role: str, run: Run) -> Progress:
        progress = run.train()
        run.method.requires_grad_(False)
        self.inputs += (input_stamp(run, role, self.recipe, progress), *run.inputs)
        return progress

    def score(self, protocol: Protocol) -> Outcome:
        """Score the trained method on ``test``, with a threshold from ``val`` where it belongs."""
        return scores_of(protocol, self._scorers)

    @property
    def iterations(self) -> int | None:
        """Steps of the optimiser in the whole training; None where there is none."""
        if self.loader is None:
            return None
        return sum(self.loader.batches(epoch + 1) for epoch in range(self.recipe.epochs))

    def examples(self, protocol: Protocol) -> Examples | None:
        """Maps of a few images of ``test``, for pictures; None from a method without maps."""
        names = set(chosen(sample.image_id for sample in self.splits["test"]))
        samples = [sample for sample in self.splits["test"] if sample.image_id in names]
        return collect(self.localizer.stream(samples, protocol.geometry))

    def _train_loader(self, samples: Sequence[Sample]) -> TrainLoader:
        recipe, images = self.recipe, self.images
        if images is None:
            raise ValueError("this recipe trains nothing")
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
            training_length(recipe, self.available),
        )

    def _scorers(self, protocols: Sequence[Protocol], split: Split) -> list[Scorer]:
        """Score this process's part of a split, and save its maps where these are wanted."""
        if self.places.maps is None:
            return self._measured(protocols, split)
        folder = self.places.maps / self.folder.name / protocols[0].name / split
        log.info("saving maps in %s", folder)
        return self._measured(protocols, split, folder)

    def _measured(
        self, protocols: Sequence[Protocol], split: Split, folder: Path | None = None
    ) -> list[Scorer]:
        """Score this process's part of a split, in ways that differ in normalising maps only."""
        protocol = protocols[0]
        samples = self.splits[split][processes.number() :: processes.count()]
        stream = self.localizer.stream(samples, protocol.geometry)
        if folder is not None:
            stream = save_predictions(stream, folder)
        label = f"{self.recipe.method} {protocol.name} {split}"
        size, parts = self.recipe.image_size, self.dataset.part_names
        threads = threads_beside(self.device)
        return score(stream, samples, protocols, self.recipe.dataset, label, size, parts, threads)

    def _inference(self) -> Inference:
        """Time localization on the first images of ``test``."""
        samples = self.dataset.samples("test")[:EVAL_BATCH]
        ((_, image, label),) = self.localizer.loader(samples, self.protocols[0].geometry)
        method, bf16 = self.answering.eval(), self.localizer.bf16
        rate, memory = localization_cost(method, image, label, bf16)
        here = environment.collect(self.device, self.compiled)
        return Inference(
            images_per_second=rate,
            peak_memory_bytes=memory,
            batch_size=len(samples),
            device_type=here.device_type,
            device=here.device,
            threads=here.threads,
            compiled=here.compiled,
        )
