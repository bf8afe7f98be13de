"""Trained weights from a file: the authors' checkpoint, or one of ours."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsolbench.backbones import misfit
from wsolbench.engine.checkpoint import check_sums
from wsolbench.errors import InputError, one_line
from wsolbench.method import Method

#: where checkpoints keep the weights among other things: ours, and those of released code
_BELOW = ("model", "state_dict")
#: what torch's DataParallel puts before every name
_WRAPPER = "module."


def load_weights(method: Method, name: str, file: Path) -> None:
    """Load a file's weights into a method; nothing may be missing, left over or of another shape.

    Names that are not the method's own are taken for the authors'; the method translates them.

    Args:
        method: what :meth:`~wsolbench.method.Method.official_state` and the shapes are of.
        name: the method's, for errors.
        file: written by ``torch.save``: a state dict, perhaps below ``model`` or ``state_dict``
            and with names that begin with ``module.``.

    Raises:
        InputError: when the file cannot be read as weights, or they are not the method's.
    """
    own, state = method.state_dict(), read_state(file)
    if state.keys() != own.keys():
        state = method.official_state(state)
    difference = misfit(own, state)
    if difference:
        hint = _position_hint(own, state)
        raise InputError(f"{file} holds no weights of method '{name}': {difference}{hint}")
    method.load_state_dict(state)


def state_digest(module: nn.Module) -> str:
    """SHA-256 of a module's state: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, in float32 and without a leading ``module.``.

    Nothing but data is unpickled.

    Raises:
        InputError: when there is no such file, or it is damaged or holds no tensors by name.
    """
    content = _read(file)
    held = content if isinstance(content, Mapping) else {}
    state = next((held[key] for key in _BELOW if isinstance(held.get(key), Mapping)), held)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file} holds no weights: expected tensors by name, as torch.save writes")
    return {
        str(key).removeprefix(_WRAPPER): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _read(file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"no weights file '{file}'; check --weights")
    try:
        if zipfile.is_zipfile(file):
            check_sums(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage makes the unpickler raise nearly anything
        line = one_line(f"{type(error).__name__}: {error}", 160)
        raise InputError(f"{file} cannot be read as weights ({line})") from error


def _position_hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Say what position embeddings of another length mean; they are not resampled."""
    for key in own:
        if key.endswith("pos_embed") and own[key].shape[1:2] != state.get(key, own[key]).shape[1:2]:
            return "; they are of another image size, which --set image_size=N resize=M can take"
    return ""
