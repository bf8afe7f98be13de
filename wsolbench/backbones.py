"""timm models as backbones: where weights come from, input statistics, token layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from wsolbench.errors import InputError, did_you_mean, one_line
from wsolbench.packing import unpack
from wsolbench.recipe import NO_BACKBONE
from wsolbench.small import PACKAGED
from wsolbench.vit import use_pointwise_layers


@dataclass(frozen=True)
class InputStatistics:
    """Mean and standard deviation a channel that the backbone expects of images in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class NoBackbone(nn.Module):
    """What a method gets whose recipe has ``backbone: none``: no parameters, nothing to call."""


def create(
    name: str,
    *,
    pretrained: bool,
    image_size: int,
    weights_dir: Path | None = None,
    args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model for RGB images without its classifier.

    The linear layers of a vision transformer are :class:`wsolbench.vit.PointwiseLinear`.

    Args:
        name: timm name, with its weights tag; ``none`` for :class:`NoBackbone`.
        pretrained: load ``<weights_dir>/<name>.safetensors`` or the package's if there, else
            timm's download.
        image_size: side of the input in pixels; position embeddings are resampled to it.
        weights_dir: folder of weights, or None.
        args: further arguments of timm's constructor.

    Raises:
        InputError: for an unknown name, an argument or an image size that the model does not take,
            weights that do not fit, or weights that are neither on disk nor reachable.
    """
    if name == NO_BACKBONE:
        return NoBackbone()
    _check_name(name)
    file = weights_file(name, weights_dir) if pretrained else None
    download = pretrained and file is None
    if args and "in_chans" in args:
        raise InputError("images have three channels; leave in_chans out of backbone_args")
    model = _construct(name, download, dict(args or {}))
    if file is not None:
        _load(model, name, file)
    _set_input_size(model, image_size)
    use_pointwise_layers(model)
    return model


def weights_file(name: str, weights_dir: Path | None) -> Path | None:
    """Return the weights of ``name`` in the user's folder, else in the package, else None.

    Raises:
        InputError: when the folder itself does not exist.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise InputError(f"weights folder {weights_dir} does not exist; check --weights-dir")
    folders = (weights_dir, PACKAGED) if weights_dir is not None else (PACKAGED,)
    files = (folder / f"{name}.safetensors" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def input_statistics(model: nn.Module) -> InputStatistics:
    """Return the mean and standard deviation of the model's own configuration.

    Without a backbone they are 0 and 1: images stay in [0, 1].
    """
    if isinstance(model, NoBackbone):
        return InputStatistics(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    config = resolve_model_data_config(model)
    return InputStatistics(mean=tuple(config["mean"]), std=tuple(config["std"]))


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        raise InputError(f"unknown backbone '{name}'{did_you_mean(name, timm.list_models())}")
    architecture, _, tag = name.partition(".")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise InputError(f"unknown weights of backbone '{name}'{did_you_mean(name, known)}")


def _construct(name: str, download: bool, args: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=download, num_classes=0, **args)
    except Exception as error:  # each model and each download library raises its own kinds
        line = one_line(error, 200)
        if args and (isinstance(error, TypeError) or not download):
            raise InputError(f"backbone '{name}' does not take {args}: {line}") from error
        if not download:
            raise
        raise InputError(
            f"cannot fetch the weights of '{name}' ({type(error).__name__}: {line}); offline? put "
            f"{name}.safetensors into a folder and name it with --weights-dir"
        ) from error


def _load(model: nn.Module, name: str, file: Path) -> None:
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not readable as safetensors ({error}); copy it again") from error
    classifier = cast(dict[str, Any], model.pretrained_cfg).get("classifier")
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    wanted = unpack(state)
    for head in heads:
        wanted.pop(f"{head}.weight", None)
        wanted.pop(f"{head}.bias", None)
    difference = misfit(model.state_dict(), wanted)
    if difference:
        raise InputError(f"{file} holds no weights of '{name}': {difference}")
    model.load_state_dict(wanted)


def misfit(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> str:
    """Say in half a line how a file differs from a model; empty when it does not."""
    missing = sorted(model.keys() - file.keys())
    if missing:
        return f"{len(missing)} of {len(model)} tensors are missing ({missing[0]}, ...)"
    foreign = sorted(file.keys() - model.keys())
    if foreign:
        return f"{len(foreign)} tensors are foreign ({foreign[0]}, ...)"
    for key, tensor in model.items():
        if tensor.shape != file[key].shape:
            return f"{key} is {tuple(file[key].shape)}, expected {tuple(tensor.shape)}"
    return ""


def _set_input_size(model: nn.Module, image_size: int) -> None:
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    if size is None or tuple(size) == (image_size, image_size):
        return
    try:
        with torch.no_grad():
            model.set_input_size(img_size=(image_size, image_size))  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError) as error:
        kind, line = type(model).__name__, one_line(error, 200)
        raise InputError(f"{kind} takes no images of {image_size} pixels: {line}") from error


def set_output_stride(model: nn.Module, stride: int) -> None:
    """Make a CNN's last map finer by taking the strides out of its last layers.

    Nothing is dilated in exchange, as in the evaluators' networks (Choe et al. 2020): pretrained
    filters see a picture that is twice as large. A pooling whose window is its stride disappears.

    Args:
        model: timm CNN.
        stride: input pixels a cell of the last map.

    Raises:
        InputError: when the strides that remain do not multiply to ``stride``.
    """
    side = 7 * max(32, stride)
    for layer, reduction in _strided_layers(model, side):
        if reduction >= stride:
            _remove_stride(layer)
    kind = type(model).__name__
    try:
        # Of two sides, because a border that is not padded takes a cell from both.
        small, large = (feature_map(model, s).shape[-1] for s in (side, side + max(32, stride)))
    except RuntimeError as error:  # branches that no longer end in maps of one size
        raise InputError(f"{kind} cannot be given an output stride of {stride}") from error
    got = max(32, stride) / (large - small)
    if got != stride:
        raise InputError(f"{kind} has an output stride of {got:g} and cannot be given {stride}")


def feature_map(model: nn.Module, side: int) -> Tensor:
    """The last map (1, D, h, w) that a CNN of timm makes of an empty image.

    Args:
        model: timm CNN.
        side: of the image in pixels.

    Raises:
        InputError: when its features are no such map.
    """
    parameter = next(model.parameters())
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.forward_features(parameter.new_zeros(1, 3, side, side))  # type: ignore[operator]
    except AssertionError:  # of a model that takes images of one size alone
        features = None
    model.train(training)
    fits = isinstance(features, Tensor) and features.ndim == 4
    if not fits or features.shape[1] != model.num_features:
        kind = type(model).__name__
        raise InputError(f"{kind} offers no map of features (B, D, h, w); try a CNN of timm")
    return cast(Tensor, features)


_Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def _strided_layers(model: nn.Module, side: int) -> list[tuple[_Strided, int]]:
    """Layers with a stride, and the reduction of what goes into each."""
    found: list[tuple[_Strided, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((cast(_Strided, layer), side // inputs[0].shape[-1]))

    layers = [m for m in model.modules() if isinstance(m, _Strided) and _side(m.stride) > 1]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        feature_map(model, side)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else int(size[-1])


def _remove_stride(layer: _Strided) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)
        return
    if _side(layer.kernel_size) == _side(layer.stride):
        layer.kernel_size = 1
    layer.stride = 1
