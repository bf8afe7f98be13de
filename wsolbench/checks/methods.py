"""The checks of methods: on small networks with random weights, and on the CPU."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import timm
import torch
from timm.layers.drop import DropPath
from timm.layers.patch_dropout import PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from wsolbench import backbones, processes
from wsolbench.accumulation import over_batches
from wsolbench.building import build_method, method_options
from wsolbench.checks.joined import run_joined
from wsolbench.checks.outcome import (
    Check,
    FailedError,
    InapplicableError,
    Outcome,
    check_declared,
    check_texts,
    judge,
    name_of,
    require,
)
from wsolbench.compiled import compile_method
from wsolbench.engine.schedule import make_optimizer
from wsolbench.engine.trainer import seed_all
from wsolbench.errors import InputError, one_line
from wsolbench.layers import DatasetPart
from wsolbench.method import Coupling, Method, MethodInfo, Options
from wsolbench.predictions import predict
from wsolbench.protocol import load_protocol
from wsolbench.recipe import RECIPE_NAMES, Recipe, RecipeName
from wsolbench.registry import METHODS
from wsolbench.request import recipe_of, recipe_sections
from wsolbench.types import Batch, Prediction

#: the network that stands in for any backbone of timm that is no plain vision transformer
SMALL_CNN = "test_resnet"
#: what makes any plain vision transformer small; its depth stays, which options may refer to
SMALL_VIT: Mapping[str, Any] = {"embed_dim": 32, "num_heads": 2}
CLASSES = 5
BATCH = 4
#: side of the images in pixels, and the others that are tried
SIZE = 64
OTHER_SIZES = (48, 96)
#: sides of a patch; at least one of them is not the backbone's own
PATCHES = (8, 32)
#: shares of a training at which a step is tried: losses may set in late
PROGRESS = (0.0, 0.5, 0.99)
#: declared supervision of methods that get boxes in training
WITH_BOXES = ("boxes", "another run")
#: largest difference of two outputs that should be alike, as a share of the largest value
TOLERANCE = 1e-4
#: the same for losses of a batch that is computed on in parts
PARTS_TOLERANCE = 1e-6
#: layers whose draws are an image's own, and are switched off where losses are compared
NOISE = (_DropoutNd, DropPath, PatchDropout)
#: a dataset that no recipe knows, for what a recipe says of all of them
ANY = "any"

_Function = Callable[["Subject"], None]


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Args:
        name: as it is registered.
    """

    name: str

    @property
    def cls(self) -> type[Method]:
        """The class."""
        return METHODS.get(self.name)

    @cached_property
    def recipe(self) -> Recipe:
        """The default recipe for a small backbone in place of its own.

        Raises:
            InputError: when the method has no such recipe.
        """
        recipe = self.resolve(ANY, "default")
        name, args = small_backbone(recipe.backbone, recipe.backbone_args)
        small = {"backbone_args": args, "pretrained": False, "image_size": SIZE}
        return self.resolve(ANY, "default", backbone=name).altered(**small)

    def resolve(self, dataset: str, name: RecipeName, **chosen: Any) -> Recipe:
        """One of its recipes as its file has it, with the fields that a user chose.

        Raises:
            InputError: when it is missing or wrong.
        """
        return recipe_of(self.name, dataset, name, chosen, DatasetPart())

    def build(self, **fields: Any) -> Method:
        """The method as a run makes it, with other recipe fields where they are given."""
        recipe = self.recipe.altered(**fields)
        return fitted(build_method(recipe, CLASSES, None)[0], recipe.image_size)

    def trainable(self) -> Method:
        """As :meth:`build`.

        Raises:
            InapplicableError: when there is nothing to train.
        """
        method = self.build()
        if not _trained(method):
            raise InapplicableError("it has no trainable parameter")
        return method

    def lively(self) -> Method:
        """As :meth:`build`, away from initial values at which much is zero or nothing matters."""
        method = self.build()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        return fitted(method, SIZE)

    def train(self, method: Method, seed: int = 0) -> None:
        """Make two training steps as the recipe says."""
        optimizer = self.optimizer(method)
        seed_all(seed, "steps")
        method.train()
        for progress in PROGRESS[:2]:
            loss = method.training_step(batch_of(method, SIZE), progress)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def optimizer(self, method: Method) -> Optimizer:
        """The recipe's optimiser over the method's own groups."""
        optim = self.recipe.optim
        if optim is None:
            raise FailedError("there are trainable parameters and no optimiser in the recipe")
        return make_optimizer(optim, method.param_groups(optim.lr, optim.weight_decay))


def method_checks(name: str) -> list[Check[[]]]:
    """Return the checks of a method, each to be called without arguments.

    Raises:
        InputError: for an unknown name or a file that cannot be loaded.
    """
    known = METHODS.get(name).known_failures
    subject = Subject(name)
    return [Check(name, name_of(c), partial(_run, c, subject, known)) for c in CHECKS]


def _run(check: _Function, subject: Subject, known: Mapping[str, str]) -> Outcome:
    return judge(partial(check, subject), known.get(name_of(check)))


# --------------------------------------------------------------------------------- what it declares


def declarations(subject: Subject) -> None:
    """Title and paper are texts, options are typed, ``trainable`` is true, known failures exist."""
    cls = subject.cls
    info: object = getattr(cls, "info", None)
    require(isinstance(info, MethodInfo), f"info is no MethodInfo: {info!r}")
    check_texts(info, ("title", "paper"))
    require(issubclass(cls.Options, Options), f"Options is no subclass of Options: {cls.Options}")
    for coupling in cls.info.batch_coupled:
        known = get_args(Coupling)
        require(coupling in known, f"batch_coupled has '{coupling}'; known: {', '.join(known)}")
    check_declared(cls.known_failures, [name_of(check) for check in CHECKS])
    count, said = len(_trained(subject.build())), cls.info.trainable
    require(bool(count) == said, f"info.trainable is {said}, trainable parameters: {count}")


def recipes(subject: Subject) -> None:
    """Every recipe resolves, for all datasets and backbones it singles out, to known options."""
    sections = recipe_sections(subject.name)
    unknown = sorted(sections.keys() - set(RECIPE_NAMES))
    require(not unknown, f"these are no regimes: {unknown}; known: {', '.join(RECIPE_NAMES)}")
    for name in (known for known in RECIPE_NAMES if known in sections):
        own = [{}, *({"backbone": b} for b in sections[name].get("backbones", {}))]
        for dataset, chosen in product((ANY, *sections[name].get("datasets", {})), own):
            recipe = subject.resolve(dataset, name, **chosen)
            method_options(recipe)
            for protocol in recipe.protocol:
                load_protocol(protocol)


# ------------------------------------------------------------------------------------- training


def training_output(subject: Subject) -> None:
    """A training step returns scalars, a ``loss`` among them."""
    method = subject.trainable().train()
    for progress in PROGRESS:
        losses: object = method.training_step(batch_of(method, SIZE), progress)
        if not (isinstance(losses, dict) and "loss" in losses):
            raise FailedError(f"training_step returns {_described(losses)}, not a dict with 'loss'")
        for name, value in losses.items():
            scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
            require(scalar, f"'{name}' of training_step is no scalar tensor: {_described(value)}")


def gradients(subject: Subject) -> None:
    """The loss is finite and every trainable parameter gets a finite gradient from it."""
    method = subject.trainable().train()
    _backward(method)
    for name, parameter in _trained(method):
        require(parameter.grad is not None, f"{name} gets no gradient from the loss")


def boxes_in_training(subject: Subject) -> None:
    """A method that declares boxes learns from them: with others the loss is another."""
    if subject.cls.info.supervision not in WITH_BOXES:
        raise InapplicableError("it declares no boxes")
    method = subject.trainable().train()
    batch = batch_of(method, SIZE)
    losses = []
    for given in (batch.boxes, tuple(box / 2 for box in boxes(SIZE))):
        seed_all(0, "steps")
        losses.append(method.training_step(replace(batch, boxes=given), 0.0)["loss"].item())
    require(losses[0] != losses[1], "the loss is the same with other boxes")


def parameter_groups(subject: Subject) -> None:
    """``param_groups`` holds every trainable parameter once."""
    method = subject.trainable()
    groups = subject.optimizer(method).param_groups
    times = Counter(id(p) for group in groups for p in group["params"])
    for name, parameter in _trained(method):
        require(times[id(parameter)] == 1, f"{name} is in no group of param_groups")


def optimiser_step(subject: Subject) -> None:
    """Steps of the recipe's optimiser change the parameters and leave them finite."""
    method = subject.trainable()
    before = [p.detach().clone() for p in method.parameters()]
    subject.train(method)
    for name, parameter in method.named_parameters():
        require(_finite(parameter), f"{name} is not finite after an optimiser step")
    same = all(torch.equal(old, p) for old, p in zip(before, method.parameters(), strict=True))
    require(not same, "no parameter changes in an optimiser step")


def batch_coupling(subject: Subject) -> None:
    """What couples the images of a batch in training is declared, and no draws that are none."""
    method = subject.trainable()
    declared, found = method.info.batch_coupled, _couplings(method)
    for coupling, evidence in found.items():
        said = f"{evidence}, and batch_coupled={declared} does not have '{coupling}'"
        require(coupling in declared, said)
    idle = "rng" in declared and "rng" not in found
    require(not idle, "batch_coupled has 'rng', and training_step draws no random numbers")


def _couplings(method: Method) -> dict[Coupling, str]:
    """What couples the images of a batch, each with what shows it."""
    found: dict[Coupling, str] = {}
    noiseless(method.train())
    taking = over_batches(method)
    if taking:
        found["bn"] = f"{taking[0]} takes statistics over the batch"
        method.eval()  # so that what else couples images can be seen
    before = _generators()
    whole = _losses(method, batch_of(method, SIZE))
    if before != _generators():
        found["rng"] = "training_step draws random numbers"
    elif not _is_mean_of_parts(method, whole):
        found["loss"] = "the loss of a batch is no mean of its images' losses"
    return found


def _is_mean_of_parts(method: Method, whole: Tensor) -> bool:
    """Whether halves of the batch have, on average, its losses, and no loss asks how many count."""
    batch = batch_of(method, SIZE)
    first, second = (batch.part(slice(i, None, 2)) for i in range(2))
    halves = (_losses(method, first) + _losses(method, second)) / 2
    # processes.batch_mean and batch_ratio are zero where no image counts
    counting_none = _losses(method, replace(batch, whole=BATCH, borrowed=True))
    near = (abs(halves - whole) <= PARTS_TOLERANCE * abs(whole)).all()
    return bool(near) and torch.equal(counting_none, whole)


def _losses(method: Method, batch: Batch) -> Tensor:
    """Loss early and late in training (3,)."""
    with torch.no_grad():
        return torch.stack([method.training_step(batch, p)["loss"] for p in PROGRESS])


def _generators() -> tuple[bytes, ...]:
    """States of the generators that code draws from: torch's, numpy's and Python's."""
    states = torch.get_rng_state().numpy().tobytes(), np.random.get_state(), random.getstate()
    return tuple(pickle.dumps(state) for state in states)


def several_processes(subject: Subject) -> None:
    """Two processes find the loss of one, and train on different images to the same weights.

    The loss is compared without BatchNorm's statistics and dropout, and not for a method whose
    steps draw random numbers.
    """
    subject.trainable()
    with TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        codes = run_joined(_step_together, 2, subject.name, subject.cls, said)
        problem = said.read_text("utf-8") if said.is_file() else f"they end with {codes}"
    require(not problem, f"of two processes: {problem}")


def _step_together(name: str, cls: type[Method], said: Path) -> int:
    """Train in one of several processes, and write what is wrong, if anything."""
    if name not in METHODS.names():
        METHODS.register(name, cls)
    try:
        processes.join(torch.device("cpu"))
        subject = Subject(name)
        method = subject.trainable()
        problem = _apart(method.eval())
        method.train()
        optimizer = subject.optimizer(method)
        seed_all(processes.number(), "steps")
        for progress in PROGRESS[:2]:
            image = torch.randn(BATCH, 3, SIZE, SIZE)
            batch = replace(batch_of(method, SIZE), image=image, whole=BATCH * processes.count())
            optimizer.zero_grad(set_to_none=True)
            method.training_step(batch, progress)["loss"].backward()
            processes.join_gradients(method, batch.share)
            optimizer.step()
        problem = problem or _difference(method)
    except Exception as error:
        problem = one_line(f"{type(error).__name__}: {error}", 200)
    if problem or processes.is_first():
        said.write_text(problem, "utf-8")
    return 0


def _apart(method: Method) -> str:
    """Say where the loss of a batch's parts is not that of the whole batch."""
    if "rng" in method.info.batch_coupled:
        return ""
    whole = batch_of(method, SIZE)
    mine = slice(processes.number(), None, processes.count())
    part = replace(whole.part(mine), whole=BATCH)
    alone, own = (method.training_step(batch, 0.0)["loss"].detach() for batch in (whole, part))
    gap = (processes.total(own * part.share) - alone).abs().item()
    if gap <= PARTS_TOLERANCE * alone.abs().item():
        return ""
    return (
        f"the loss of parts of a batch differs by {gap:.1e} from that of the whole; see batch_mean "
        "and batch_ratio, or batch_coupled where training_step draws random numbers"
    )


def _difference(method: Method) -> str:
    """Name the first tensor that is not the same in all processes."""
    state = {name: tensor.numpy().tobytes() for name, tensor in method.state_dict().items()}
    first, *others = processes.from_all(state)
    differing = [name for name in first if any(first[name] != other[name] for other in others)]
    return f"{differing[0]} differs after a step" if differing else ""


# ------------------------------------------------------------------------------------ evaluation


def localization_output(subject: Subject) -> None:
    """``localize`` returns finite maps or boxes, and logits if any, of the documented shapes."""
    method = subject.lively().eval()
    for label in (labels(), None):
        _check_prediction(predict(method, images(SIZE), label))


def batch_invariance(subject: Subject) -> None:
    """What is said of an image does not depend on the images beside it."""
    method = subject.lively().eval()
    image, label = images(SIZE), labels()
    whole = predict(method, image, label)
    for part in (slice(0, 1), slice(1, 3), slice(3, BATCH)):
        alone = predict(method, image[part], label[part])
        _alike(_rows(whole, part), alone, "in other batches")


def order_independence(subject: Subject) -> None:
    """Images in another order give the same rows in that order."""
    method = subject.lively().eval()
    image, label = images(SIZE), labels()
    order = torch.tensor([2, 0, 3, 1])
    turned = predict(method, image[order], label[order])
    _alike(_rows(predict(method, image, label), order), turned, "in another order")


def label_blindness(subject: Subject) -> None:
    """The label changes no logits, and no map or box that is declared class-agnostic."""
    method = subject.lively().eval()
    image = images(SIZE)
    first = predict(method, image, None)
    free = ("maps", "boxes", "logits") if subject.cls.info.class_agnostic else ("logits",)
    if all(getattr(first, field) is None for field in free):
        raise InapplicableError("it has no logits and declares no class-agnostic map")
    for label in range(CLASSES):
        told = predict(method, image, torch.full((BATCH,), label))
        _alike(first, told, "with another label", free)


def predicted_class(subject: Subject) -> None:
    """Without a label the map is that of the class with the highest logit."""
    method = subject.lively().eval()
    image = images(SIZE)
    untold = predict(method, image, None)
    if untold.logits is None:
        raise InapplicableError("it has no logits")
    told = predict(method, image, untold.logits.argmax(1))
    _alike(untold, told, "without a label and with the predicted one")


# ---------------------------------------------------------------------------------- reproduction


def determinism(subject: Subject) -> None:
    """One seed gives one initialisation and one training; evaluation repeats itself."""
    first, second = (subject.build() for _ in range(2))
    _same_state(first, second, "the initial")
    if _trained(first):
        for method in (first, second):
            subject.train(method)
        _same_state(first, second, "the trained")
    image = images(SIZE)
    once, again = (predict(first.eval(), image, labels()) for _ in range(2))
    _alike(once, again, "when asked twice")


def pickling(subject: Subject) -> None:
    """A pickled method says the same."""
    method = subject.lively().eval()
    copy = pickle.loads(pickle.dumps(method))
    image, label = images(SIZE), labels()
    _alike(predict(method, image, label), predict(copy, image, label), "after pickling")


def save_and_load(subject: Subject) -> None:
    """The state in a checkpoint is all that another instance needs to say the same."""
    method = subject.lively()
    if _trained(method):
        subject.train(method)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    loaded = subject.build(seed=1)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    image, label = images(SIZE), labels()
    saved = predict(method.eval(), image, label)
    _alike(saved, predict(loaded.eval(), image, label), "after saving and loading")


# ---------------------------------------------------------------------------------- other numbers


def bf16(subject: Subject) -> None:
    """Under autocast to bf16 all is finite, of the same shapes, and maps keep their fine levels."""
    method = subject.build()
    _check_use(method, SIZE, bf16=True)
    wide = predict(method, images(SIZE), labels())
    narrow = predict(method, images(SIZE), labels(), bf16=True)
    for field in ("maps", "boxes", "logits"):
        shapes = [getattr(getattr(p, field), "shape", None) for p in (wide, narrow)]
        require(shapes[0] == shapes[1], f"{field} have another shape in bf16: {shapes}")
    for field in ("maps", "boxes"):
        fine, coarse = (not _is_bf16(getattr(p, field)) for p in (wide, narrow))
        if fine and not coarse:
            raise FailedError(f"{field} are rounded to bf16; see wsolbench.precision")


def _is_bf16(values: Tensor | None) -> bool:
    """Whether values have no more digits than bf16 has, or there are none."""
    return values is None or torch.equal(values.bfloat16().to(values.dtype), values)


def compilation(subject: Subject) -> None:
    """Through torch.compile it trains and localizes as without it; its graphs are only followed."""
    plain = subject.lively()
    compiled = copy.deepcopy(plain)
    compile_method(compiled, backend="eager")
    image, label = images(SIZE), labels()
    known, found = (predict(method.eval(), image, label) for method in (plain, compiled))
    _alike(known, found, "when compiled")
    if _trained(plain):
        wanted, loss = (_seeded_loss(method) for method in (plain, compiled))
        gap = abs(wanted - loss)
        require(gap <= TOLERANCE * abs(wanted), f"the loss differs by {gap:.2g} when compiled")


def image_sizes(subject: Subject) -> None:
    """It trains and localizes at other image sizes."""
    for size in OTHER_SIZES:
        _check_use(subject.build(image_size=size), size)


def patch_sizes(subject: Subject) -> None:
    """On a vision transformer it trains and localizes at other patch sizes."""
    recipe = subject.recipe
    if not _is_plain_vit(recipe.backbone):
        raise InapplicableError("its default backbone is no plain vision transformer")
    for patch in PATCHES:
        args = {**recipe.backbone_args, "patch_size": patch}
        _check_use(subject.build(backbone_args=args), SIZE)


CHECKS: tuple[_Function, ...] = (
    declarations,
    recipes,
    training_output,
    gradients,
    boxes_in_training,
    parameter_groups,
    optimiser_step,
    batch_coupling,
    several_processes,
    localization_output,
    batch_invariance,
    order_independence,
    label_blindness,
    predicted_class,
    determinism,
    pickling,
    save_and_load,
    bf16,
    compilation,
    image_sizes,
    patch_sizes,
)


# --------------------------------------------------------------------------------------- helpers


def images(size: int) -> Tensor:
    """Normalised images (B, 3, size, size): the same noise whenever they are asked for."""
    return torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(size))


def labels() -> Tensor:
    """Labels (B,), all different."""
    return torch.arange(BATCH) % CLASSES


def batch_of(method: Method, size: int) -> Batch:
    """A training batch of :func:`images`, with boxes where the method declares them."""
    names = tuple(f"image {i}" for i in range(BATCH))
    given = boxes(size) if method.info.supervision in WITH_BOXES else None
    return Batch(images(size), labels(), names, given)


def noiseless(method: Method) -> None:
    """Switch off layers of :data:`NOISE`."""
    for module in method.modules():
        if isinstance(module, NOISE):
            module.eval()


def fitted(method: Method, size: int) -> Method:
    """The method after it saw two batches, if it asks to see some: of all classes but the last."""
    if method.info.fits:
        batch = batch_of(method, size)
        with torch.no_grad():
            method.eval().fit([batch, replace(batch, image=batch.image.flip(3))])
    return method


def boxes(size: int) -> tuple[Tensor, ...]:
    """Boxes (n, 4) of each image of :func:`images`: one or more, some past its edges."""
    share = torch.tensor([[-0.2, 0.1, 0.6, 0.7], [0.3, 0.4, 1.1, 0.9], [0.5, 0.0, 0.8, 0.5]])
    return tuple(share[: max(i, 1)] * size for i in range(BATCH))


def small_backbone(name: str, args: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return timm name and arguments of the small network in place of a recipe's backbone."""
    if not timm.is_model(name):  # none, or not of timm: as it is
        return name, dict(args)
    if _is_plain_vit(name):
        return name, {**args, **SMALL_VIT}
    return SMALL_CNN, {}  # another architecture, which does not take the arguments of this one


@lru_cache
def _is_plain_vit(name: str) -> bool:
    if not timm.is_model(name):
        return False
    try:
        model = backbones.create(name, pretrained=False, image_size=SIZE, args=SMALL_VIT)
    except InputError:  # others do not take these arguments
        return False
    return isinstance(model, VisionTransformer)


def _check_use(method: Method, size: int, bf16: bool = False) -> None:
    if _trained(method):
        _backward(method.train(), size, bf16)
    for label in (labels(), None):
        _check_prediction(predict(method.eval(), images(size), label, bf16))


def _backward(method: Method, size: int = SIZE, bf16: bool = False) -> None:
    """Add up the gradients of losses early and late in training, and see that all are finite."""
    for progress in PROGRESS:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = method.training_step(batch_of(method, size), progress)["loss"]
        require(_finite(loss), f"the loss is {loss.item()} at progress {progress}")
        loss.backward()
    for name, parameter in _trained(method):
        gradient = parameter.grad
        require(gradient is None or _finite(gradient), f"{name} gets a gradient that is not finite")


def _seeded_loss(method: Method) -> float:
    seed_all(0, "loss")
    return method.train().training_step(batch_of(method, SIZE), PROGRESS[-1])["loss"].item()


def _check_prediction(prediction: Prediction) -> None:
    require(isinstance(prediction, Prediction), f"localize returns {_described(prediction)}")
    answered = prediction.maps is not None or prediction.boxes is not None
    require(answered, "localize returns neither maps nor boxes")
    for field, shape in (
        ("maps", (BATCH, 0, 0)),
        ("boxes", (BATCH, 4)),
        ("logits", (BATCH, CLASSES)),
    ):
        value = getattr(prediction, field)
        if value is not None:
            _check_tensor(field, value, shape)


def _check_tensor(field: str, value: object, shape: tuple[int, ...]) -> None:
    """Require a finite floating tensor of a shape, in which 0 stands for any length from 1 up."""
    described = f"{field} of localize are {_described(value)}"
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        raise FailedError(f"{described}, not a tensor of floating-point numbers")
    fits = len(shape) == value.ndim and all(
        have == want or (want == 0 and have > 0)
        for have, want in zip(value.shape, shape, strict=True)
    )
    wanted = ", ".join(str(length) if length else "*" for length in shape)
    require(fits, f"{described}, expected ({wanted}) for {BATCH} images of {CLASSES} classes")
    require(_finite(value), f"{field} of localize are not finite")


def _alike(
    a: Prediction, b: Prediction, when: str, fields: tuple[str, ...] = ("maps", "boxes", "logits")
) -> None:
    """Require that two predictions are alike."""
    for field in fields:
        one, other = getattr(a, field), getattr(b, field)
        require((one is None) == (other is None), f"{field} are missing {when}")
        if one is None:
            continue
        require(one.shape == other.shape, f"{field} have another shape {when}")
        gap, scale = (one - other).abs().max().item(), one.abs().max().item()
        require(gap <= TOLERANCE * scale, f"{field} differ by {gap:.2g} of {scale:.2g} {when}")


def _rows(prediction: Prediction, rows: slice | Tensor) -> Prediction:
    return Prediction(
        **{
            field: None if value is None else value[rows]
            for field, value in vars(prediction).items()
        }
    )


def _same_state(a: Method, b: Method, what: str) -> None:
    other = b.state_dict()
    for name, tensor in a.state_dict().items():
        require(torch.equal(tensor, other[name]), f"{what} {name} differs with the same seed")


def _trained(method: Method) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in method.named_parameters() if p.requires_grad]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"
