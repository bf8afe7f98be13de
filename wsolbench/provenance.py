"""Where a run comes from: what its weights and its methods had seen."""

from __future__ import annotations

from pathlib import Path

from wsolbench import backbones
from wsolbench.errors import InputError
from wsolbench.files import sha256
from wsolbench.inputs import Places
from wsolbench.pretraining import holds_imagenet
from wsolbench.recipe import Recipe
from wsolbench.registry import METHODS
from wsolbench.results import Weights


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
    """Name the weights that the training started from, with the SHA-256 of a local file."""
    if recipe.weights is not None:
        trained = trained_weights(recipe, places)
        return Weights(name=trained.name, sha256=sha256(trained))
    if not recipe.pretrained:
        return None
    file = backbones.weights_file(recipe.backbone, places.weights_dir)
    return Weights(name=recipe.backbone, sha256=None if file is None else sha256(file))


def pretraining(recipe: Recipe, places: Places) -> str | None:
    """What the weights had seen, as the tag of the backbone's timm name says, or their file."""
    recipe = recipe.training
    if recipe.weights is not None:
        return f"file {trained_weights(recipe, places).name}, SHA-256 {recipe.weights}"
    return recipe.backbone.partition(".")[2] or None if recipe.pretrained else None


def saw_imagenet(recipe: Recipe) -> bool:
    """Whether the backbone's published weights, or what was trained on them, had seen ImageNet."""
    known = holds_imagenet(recipe.backbone.partition(".")[2])
    return known and (recipe.pretrained or recipe.weights is not None)


def supervision(recipe: Recipe) -> str:
    """What the methods of a run and of all that it builds on saw beside the images."""
    chain = recipe.chain()
    kinds = {METHODS.get(r.method).info.supervision for r in chain}
    seen: list[str] = [kind for kind in ("labels", "boxes") if kind in kinds]
    if recipe.train_labels == "shuffled":
        seen = [*(kind for kind in seen if kind != "labels"), "shuffled labels"]
    others = ", ".join(r.method for r in chain[1:])
    if others or "another run" in kinds:  # weights from a file do not say which
        seen.append(f"another run ({others})" if others else "another run")
    return ", ".join(seen) or "none"
