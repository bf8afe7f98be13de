"""Reference arrays of the released models, and the comparisons that several parity tests share.

The released checkpoints name parameters flatly (``blocks.0...``, ``head.weight``); our methods keep
the backbone below ``vit`` or ``trunk``. A ``Rename`` maps the former to the latter.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsolbench.layers import read_sections, resolve
from wsolbench.recipe import Optim, Recipe, RecipeName
from wsolbench.registry import METHODS
from wsolbench.types import Batch
from wsolbench.vit import use_pointwise_layers

Rename = Callable[[str], str]

CLASSES = 20
HEADS = 3
WIDTH = 96

# Absolute tolerances, but for gradients: theirs is relative to each tensor's largest entry.
LOGITS, MAPS, TOKENS, LOSS, STATE = 2e-5, 2e-6, 2e-5, 5e-6, 1e-6
GRADIENT = 2e-5
#: Products of attention, as exact as MAPS, and class maps up to 11. In the reference arrays single
#: and double precision are already 1.6e-6 apart.
CAMS = 1e-5


@dataclass(frozen=True)
class Golden:
    """The arrays of one file; half-precision ones were stored exactly and come back as float32."""

    arrays: Mapping[str, NDArray[Any]]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> Tensor:
        """Return one array as a tensor."""
        array = self.arrays[name]
        return torch.tensor(array.astype(np.float32) if array.dtype == np.float16 else array)

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the arrays whose name starts with ``prefix``, which is cut off."""
        names = [name for name in self.arrays if name.startswith(prefix)]
        return {name[len(prefix) :]: self.tensor(name) for name in names}

    def names(self, name: str) -> list[str]:
        """Return an array of strings as a list."""
        return [str(entry) for entry in self.arrays[name]]

    def batch(self, first: int = 0, stop: int | None = None) -> Batch:
        """Return the reference images ``first:stop`` as a training batch."""
        image, label = self.tensor("images")[first:stop], self.tensor("labels")[first:stop]
        return Batch(image, label, tuple(f"{i}" for i in range(len(label))))


def load(shared: Path, name: str) -> Golden:
    """Read ``name.npz`` of the reference models."""
    with np.load(shared / "golden" / "models" / f"{name}.npz") as file:
        return Golden({key: file[key] for key in file.files})


def recipe(method: str, name: RecipeName) -> Recipe:
    """Return a method's recipe for CUB, so that what is compared is also what users run."""
    file = Path(inspect.getfile(METHODS.get(method))).with_suffix(".yaml")
    sections = read_sections(file.read_text("utf-8"), file.name)
    return resolve(sections, method, "cub", name, {})


def as_backbone(**shape: Any) -> VisionTransformer:
    """Return a vision transformer with the layers that backbones are given."""
    model = VisionTransformer(**shape)
    use_pointwise_layers(model)
    return model


def tiny_vit(drop_path_rate: float = 0.0) -> VisionTransformer:
    """Return a vision transformer of the reference arrays' size, as backbones are made."""
    return as_backbone(
        img_size=224,
        patch_size=16,
        embed_dim=WIDTH,
        depth=12,
        num_heads=HEADS,
        num_classes=0,
        drop_path_rate=drop_path_rate,
    )


class Given(nn.Module):
    """A trunk whose features are its input, whatever the stages that it says it has."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.first, self.second, self.third = nn.Identity(), nn.Identity(), nn.Identity()
        self.feature_info = [{"module": name} for name in ("first", "second", "third")]
        self.unused = nn.Parameter(torch.zeros(()))

    def forward_features(self, x: Tensor) -> Tensor:
        # asked for its width with a picture
        x = x if x.shape[1] == self.num_features else x.new_zeros(1, self.num_features, 1, 1)
        features: Tensor = self.third(self.second(self.first(x)))
        return features


def assert_drop_path_rates(vit: VisionTransformer, golden: Golden) -> None:
    """Compare both branches' rates; block 0 drops nothing and may have no layer for it."""
    rates = golden.tensor("drop_path_rates")
    for branch in ("drop_path1", "drop_path2"):
        own = [getattr(getattr(block, branch), "drop_prob", 0.0) for block in vit.blocks]
        assert_near(torch.tensor(own), rates, 1e-7)


def drop_all_but_block_0(vit: Any) -> None:
    """Let every branch of the later blocks drop every sample in training."""
    for block in list(vit.blocks)[1:]:
        block.drop_path1.drop_prob = block.drop_path2.drop_prob = 1.0


def without_blocks(state: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Return a state that is cut after its first ``keep`` blocks."""
    return {
        name: value
        for name, value in state.items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) < keep
    }


def load_released(model: nn.Module, state: Mapping[str, Tensor], rename: Rename) -> None:
    """Load a released state; no tensor of the model may stay behind or be left over."""
    model.load_state_dict({rename(name): value for name, value in state.items()}, strict=True)


def assert_near(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Compare in double precision: shapes must agree, and no entry may be off by ``atol``."""
    torch.testing.assert_close(
        actual.detach().double().cpu(), expected.double(), rtol=0, atol=atol, check_stride=False
    )


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradient of every trainable parameter, from a clean start."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for name, p in trainable.items() if p.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    return {name: p.grad.clone() for name, p in trainable.items() if p.grad is not None}


def assert_gradients(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], rename: Rename
) -> None:
    """Compare gradients, each relative to its tensor's largest entry."""
    assert expected
    errors = {
        name: float((actual[rename(name)] - value).abs().max() / value.abs().max())
        for name, value in expected.items()
    }
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= GRADIENT, f"gradient of {worst} is off by {errors[worst]:.1e}"


def assert_gradient_norms(actual: Mapping[str, Tensor], golden: Golden, rename: Rename) -> None:
    """Compare the gradient norm of every trainable parameter, which are also all there are."""
    names = golden.names("gradnorm_names")
    assert {rename(name) for name in names} == set(actual)
    norms = torch.stack([actual[rename(name)].double().norm() for name in names])
    torch.testing.assert_close(norms, golden.tensor("gradnorm64"), rtol=GRADIENT, atol=0)


def assert_optimiser(
    model: nn.Module, optimiser: torch.optim.AdamW, golden: Golden, prefix: str, rename: Rename
) -> None:
    """Compare the groups with the released ones: members, decay, rate, betas and epsilon."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own = [
        (
            sorted(names[id(p)] for p in group["params"]),
            (group["lr"], group["weight_decay"], *group["betas"], group["eps"]),
        )
        for group in optimiser.param_groups
    ]
    released = [
        (
            sorted(rename(name) for name in golden.names(f"{prefix}/group{i}_names")),
            tuple(
                float(value)
                for key in ("lr", "wd", "betas_eps")
                for value in golden.tensor(f"{prefix}/group{i}_{key}").flatten()
            ),
        )
        for i in (0, 1)
    ]
    assert sorted(own) == sorted(released)


def optim(recipe: Recipe) -> Optim:
    """Return the optimiser of a recipe that trains."""
    assert recipe.optim is not None
    return recipe.optim


def adamw(model: Any, optim: Optim) -> torch.optim.AdamW:
    """Return the recipe's optimiser on the model's groups."""
    groups = model.param_groups(optim.lr, optim.weight_decay)
    return torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps)


def first_step_reach(gradient: Tensor, lr: float, eps: float = 1e-8) -> Tensor:
    """Return how far AdamW's first step may differ, per entry, given the gradient's tolerance.

    The step is ``lr * g / (|g| + eps)``, which rises with g: it moves with certainty where g is
    well away from zero and is arbitrary up to ``2 * lr`` where the true gradient vanishes. The
    latter holds for whole slices: softmax does not see the key bias.
    """
    slack = GRADIENT * gradient.abs().max()

    def step(g: Tensor) -> Tensor:
        return g / (g.abs() + eps)

    here = step(gradient)
    return lr * torch.maximum(step(gradient + slack) - here, here - step(gradient - slack))


def assert_first_step(
    model: nn.Module,
    first: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    rename: Rename,
    lr: float,
) -> None:
    """Compare parameters after one AdamW step with ``after``; ``first`` is that step's gradient."""
    assert after
    parameters = dict(model.named_parameters())
    for name, expected in after.items():
        error = (parameters[rename(name)].detach() - expected).abs()
        excess = error - STATE - first_step_reach(first[rename(name)], lr)
        assert float(excess.max()) <= 0, f"{name} is off by {float(error.max()):.1e}"


def assert_parameters(model: nn.Module, after: Mapping[str, Tensor], rename: Rename) -> None:
    """Compare parameters with ``after``, entry by entry."""
    parameters = dict(model.named_parameters())
    for name, expected in after.items():
        assert_near(parameters[rename(name)], expected, STATE)


def scramble(model: nn.Module, std: float = 0.5) -> None:
    """Draw all parameters large, so that no mask, no softmax and no norm is near a constant."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, std)


def assert_initialised(
    model: nn.Module, shared: Path, name: str, rename: Rename, skip: Iterable[str] = ()
) -> None:
    """Compare fresh tensors with the released construction, up to the two samples' error.

    Mean and spread may differ by five standard errors; constants must agree, and uniform tensors
    must stay inside their bound.
    """
    text = (shared / "golden" / "models" / f"{name}_official_init_stats.json").read_text("utf-8")
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stats: dict[str, Any] = json.loads(text)
    assert set(own) == {rename(key) for key in stats}
    for key in stats.keys() - set(skip):
        mean, std, low, high, shape, trainable = stats[key]
        value = own[rename(key)].detach()
        assert (list(value.shape), own[rename(key)].requires_grad) == (shape, trainable), key
        error = 5 * std / math.sqrt(value.numel() / 2)
        assert abs(float(value.mean()) - mean) <= error + 1e-7, key
        assert abs(float(value.std()) - std) <= error + 1e-7, key
        if std == 0:
            assert (float(value.min()), float(value.max())) == (low, high), key
