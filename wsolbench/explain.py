"""What methods share that look into the trained method of another run: its layers and its scores.

A layer's output is cut out of the network's graph where it leaves the layer: gradients of a class
score reach it and stop there, whatever comes after it changes it in place, and nothing before it is
differentiated.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsolbench.errors import InputError, did_you_mean
from wsolbench.method import Method, Options, class_or_predicted
from wsolbench.precision import widened
from wsolbench.types import Batch, Prediction

#: side of the image on which layers are looked for, where the backbone takes any
_ANY_SIDE = 224


class PostHoc(Method):
    """A method that looks into the trained method of another run, and trains nothing.

    Args:
        backbone: the trained method, as a recipe with a ``source`` has it.
        num_classes: number of classes K.
        options: the method's own.

    Raises:
        InputError: when it is none.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, options: Any) -> None:
        super().__init__(backbone, num_classes, options)
        if not isinstance(backbone, Method):
            raise InputError(
                f"{self.info.title} looks into a trained network; name one in its recipe, as "
                "source: {method: NAME}"
            )
        self.source = backbone

    @abstractmethod
    def look(self, image: Tensor, label: Tensor | None) -> Prediction:
        """What :meth:`localize` returns."""

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """There is nothing to train."""
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """:meth:`look`, out of the way of torch.compile, whose graphs know no hooks of a moment."""
        prediction: Prediction = torch.compiler.disable(self.look)(image, label)
        return prediction


class LayerOptions(Options):
    """Options of methods that look at one layer.

    Attributes:
        layer: its name among the source's modules, such as ``trunk.layer3``; None for
            :func:`default_layer`.
    """

    layer: str | None = None


class LayerMethod(PostHoc):
    """A map from the activations of one layer of the source.

    Raises:
        InputError: when the source has no such layer, or no class scores.
    """

    Options = LayerOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: LayerOptions) -> None:
        super().__init__(backbone, num_classes, options)
        name = options.layer or default_layer(self.source)
        layers = dict(self.source.named_modules())
        if name not in layers:
            raise InputError(f"options.layer: no layer '{name}'{did_you_mean(name, layers)}")
        self.layer_name = name

    @property
    def layer(self) -> nn.Module:
        """The layer that is looked at."""
        return self.source.get_submodule(self.layer_name)

    def grid(self, output: Tensor, image: Tensor) -> Tensor:
        """The layer's output, or a gradient of its shape, as (B, K, h, w) in float32 or wider.

        Raises:
            InputError: when it has no places.
        """
        found = as_grid(output, timm_model(self.source), image)
        if found is None:
            raise InputError(
                f"options.layer: '{self.layer_name}' puts out {tuple(output.shape)}, no grid of "
                "places; name another layer"
            )
        return widened(found)


class GradientMethod(LayerMethod):
    """A map from the activations of a layer and the gradients of a class score by them."""

    @abstractmethod
    def class_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Map (B, h, w) from activations and gradients (B, K, h, w), before it is rectified."""

    def look(self, image: Tensor, label: Tensor | None) -> Prediction:
        """What speaks for the class: the rectified map, all zero where nothing does."""
        seen = differentiated(self.source, self.layer, image, label)
        grids = (self.grid(seen.activation, image), self.grid(seen.gradient, image))
        return Prediction(maps=self.class_map(*grids).relu(), logits=seen.logits)


@dataclass(frozen=True)
class Seen:
    """A layer's output for a batch, the gradient of its class scores, and all scores (B, K)."""

    activation: Tensor
    gradient: Tensor
    logits: Tensor


def class_scores(source: Method, image: Tensor, label: Tensor | None) -> Tensor:
    """Class scores (B, K) of images.

    Raises:
        InputError: when the method has none.
    """
    logits = source.localize(image, label).logits
    if logits is None:
        raise InputError(
            f"{source.info.title} has no class scores; take another method in its place"
        )
    return logits


def differentiated(source: Method, layer: nn.Module, image: Tensor, label: Tensor | None) -> Seen:
    """Differentiate each image's score of ``label``, or the predicted class, by a layer's output.

    One pass for the batch: the scores' sum has each image's own gradient, in evaluation mode. It
    works where gradients are switched off around it, and leaves none behind.
    """
    with torch.inference_mode(False), torch.enable_grad(), cut_at(layer) as outputs:
        # copies, because what inference mode made can be no part of a graph
        asked = None if label is None else label.clone()
        logits = class_scores(source, image.clone(), asked)
        own = class_or_predicted(logits, asked)
        score = logits.gather(1, own[:, None]).sum()
        activation = outputs[-1]
        (gradient,) = torch.autograd.grad(score, activation)
    return Seen(activation.detach(), gradient, logits.detach())


@contextmanager
def cut_at(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect a layer's outputs while this lasts, each cut out of the graph.

    Yields:
        The outputs so far, in the order of the layer's calls.
    """
    outputs: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_(torch.is_grad_enabled()))
        return outputs[-1].clone()  # what follows may change it in place

    with _hooked([layer], cut):
        yield outputs


@contextmanager
def _hooked(layers: Sequence[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


# ------------------------------------------------------------------------------------- the layer


def default_layer(source: Method) -> str:
    """Name the last layer whose output is a grid of the backbone's features and decides the scores.

    In a CNN that is its last feature map before the pooling; in a transformer whose patches are
    pooled, its last norm; in one whose class token is read, the first norm of the last block: of
    later layers the class token alone is read, and patches have no gradient at all.

    It is found by trying, on noise and with noise added to a copy of the weights (some networks
    start from zeros, which would hide what depends on what), so that no architecture is named.

    Raises:
        InputError: when there is none, or the source has no class scores or no backbone.
    """
    ghost = _noisy(source)
    model = timm_model(ghost)
    image = torch.randn(1, 3, *_input_size(model), generator=torch.Generator().manual_seed(0))
    names = {module: name for name, module in ghost.named_modules() if name}
    outputs: list[tuple[str, Tensor]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((names[module], output))

    with torch.enable_grad(), _hooked(list(names), note):
        scores = class_scores(ghost, image.requires_grad_(), torch.zeros(1, dtype=torch.int64))
    gradients = torch.autograd.grad(scores[0, 0], [o for _, o in outputs], allow_unused=True)
    features = _channels(model, image)
    for (name, output), gradient in zip(reversed(outputs), reversed(gradients), strict=True):
        slope = None if gradient is None else as_grid(gradient, model, image)
        if slope is not None and slope.any() and _is_map(output, slope, features, scores.shape[1]):
            return name
    raise InputError(
        f"no layer of {source.info.title} on {type(model).__name__} has places that decide its "
        "class scores; name one with --set options.layer=..."
    )


def _noisy(source: Method) -> Method:
    """A copy on the CPU, in evaluation mode, with noise added to its weights."""
    ghost = copy.deepcopy(source).cpu().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in ghost.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return ghost


def _channels(model: Any, image: Tensor) -> int:
    """Channels of the backbone's own features; 0 where they have no places."""
    with torch.no_grad():
        grid = as_grid(model.forward_features(image), model, image)
    return 0 if grid is None else grid.shape[1]


def _is_map(output: Tensor, grid: Tensor, features: int, classes: int) -> bool:
    """Whether an output has several places, with features and not heads or classes as channels.

    A method may widen a CNN's features by convolutions of its own.
    """
    channels = grid.shape[1]
    widened_map = output.ndim == 4 and channels > features and channels != classes
    return grid[0, 0].numel() > 1 and (channels == features or widened_map)


def timm_model(source: nn.Module) -> nn.Module:
    """The backbone within a method.

    Raises:
        InputError: when there is none.
    """
    for module in source.modules():
        if hasattr(module, "forward_features"):
            return module
    raise InputError(f"{type(source).__name__} has no backbone to look into; take another source")


def _input_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of an image that the model takes."""
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if fixed is not None:
        return int(fixed[0]), int(fixed[1])
    config: Any = getattr(model, "pretrained_cfg", {})
    _, height, width = config.get("input_size", (3, _ANY_SIDE, _ANY_SIDE))
    return height, width


# -------------------------------------------------------------------------------------- the grid


def as_grid(output: Tensor, model: nn.Module, image: Tensor) -> Tensor | None:
    """A layer's output as (B, K, h, w), or None where it has no places.

    Args:
        output: a map (B, K, h, w), or (B, h, w, K) in a model that says so (``output_fmt``), or
            tokens (B, N, K), of patches row by row with others before and after them.
        model: the timm model that the layer belongs to.
        image: (B, 3, H, W), whose shape tells that of the grid where the model does not.
    """
    if output.ndim == 4:
        last = str(getattr(model, "output_fmt", "NCHW")) == "NHWC"
        return output.movedim(-1, 1) if last else output
    found = _patches(output.shape[1], model, image) if output.ndim == 3 else None
    if found is None:
        return None
    first, (height, width) = found
    tokens = output[:, first : first + height * width]
    return torch.unflatten(tokens.transpose(1, 2), 2, (height, width))


def _patches(count: int, model: Any, image: Tensor) -> tuple[int, tuple[int, int]] | None:
    """Index of the first patch among the tokens, and the grid; None where there is no fit."""
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    known = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if known is not None and prefix + known[0] * known[1] <= count:
        return prefix, (known[0], known[1])
    # fewer than at the start: a hierarchy, or the class token joins later
    grids = ((first, _like(image, count - first)) for first in (prefix, 0))
    return next(((first, grid) for first, grid in grids if grid is not None), None)


def _like(image: Tensor, count: int) -> tuple[int, int] | None:
    """The grid of ``count`` places with the image's proportions."""
    height, width = image.shape[-2:]
    rows = round((max(count, 0) * height / width) ** 0.5)
    columns = count // max(rows, 1)
    fits = rows > 0 and rows * columns == count and rows * width == columns * height
    return (rows, columns) if fits else None
