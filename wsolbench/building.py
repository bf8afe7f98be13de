"""Methods from recipes."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from wsolbench import backbones
from wsolbench.engine.trainer import seed_all
from wsolbench.errors import InputError
from wsolbench.method import Method, Options
from wsolbench.recipe import Recipe
from wsolbench.registry import METHODS
from wsolbench.validation import validation_line


def build_method(
    recipe: Recipe, num_classes: int, weights_dir: Path | None
) -> tuple[Method, backbones.InputStatistics]:
    """Build a recipe's method with the seed's initialisation, and say what its backbone expects.

    A source is built too, as it is before its training, and frozen.

    Raises:
        InputError: for an unknown method, option or backbone, or weights that do not fit.
    """
    if recipe.source is not None:
        source, statistics = build_method(recipe.source, num_classes, weights_dir)
        return build_upon(source.requires_grad_(False), recipe, num_classes), statistics
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


def build_upon(source: Method, recipe: Recipe, num_classes: int) -> Method:
    """Build a recipe's method on the method of its source.

    Raises:
        InputError: for an unknown method or option, or a source that it can do nothing with.
    """
    options = method_options(recipe)
    return METHODS.get(recipe.method)(source, num_classes, options)


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


def sees_boxes(recipe: Recipe) -> bool:
    """Whether the recipe's method declares that it trains on boxes."""
    return METHODS.get(recipe.method).info.supervision == "boxes"
