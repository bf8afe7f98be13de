"""What tables say of a record beside its figures: what it builds on, what its weights had seen."""

from __future__ import annotations

from collections.abc import Mapping

from wsolbench.metrics.resampling import Interval
from wsolbench.pretraining import pretraining_kind
from wsolbench.protocol import Figure
from wsolbench.ranking import DECIMALS
from wsolbench.recipe import NO_BACKBONE, Recipe
from wsolbench.results import DatasetStamp, Environment, Result

FIGURE_TITLES: dict[Figure, str] = {
    "gt_known_loc": "GT-known Loc",
    "top1_loc": "Top-1 Loc",
    "top5_loc": "Top-5 Loc",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
    "part_coverage": "Part coverage",
    "top1_cls": "Top-1 Cls",
    "top5_cls": "Top-5 Cls",
}
#: name of a method to the title it has in tables
Titles = Mapping[str, str]
#: figures that depend on a classifier
CLASSIFIED: frozenset[Figure] = frozenset({"top1_loc", "top5_loc", "top1_cls", "top5_cls"})
#: what is added to their titles where the classifier is another run's
EXTERNAL = ", external classifier"


def method_text(recipe: Recipe, titles: Titles) -> str:
    """The method's title, and that of the one that it looks into or whose boxes it learns."""
    title = titles.get(recipe.method, recipe.method)
    if recipe.source is not None:
        title += f" on {method_text(recipe.source, titles)}"
    if recipe.targets is not None:
        title += f" with boxes of {method_text(recipe.targets, titles)}"
    return title


def result_text(result: Result, titles: Titles) -> str:
    """The title of a record's method, marked where boxes trained it: no page may leave that out."""
    title = method_text(result.recipe, titles)
    return f"{title} (trained on boxes)" if result.saw_boxes else title


def control_text(result: Result, titles: Titles) -> str:
    """:func:`result_text`, with the labels where they are not the official ones."""
    title, labels = result_text(result, titles), result.recipe.train_labels
    return title if labels == "official" else f"{title}, {labels} labels"


def external_classifier(recipe: Recipe) -> bool:
    """Whether the class scores are another run's."""
    return recipe.classifier is not None


def pretraining_text(result: Result, undefined: str) -> str:
    """What the weights had seen, with the tag that says so; ``undefined`` without a backbone."""
    tag = result.pretraining
    if result.recipe.backbone == NO_BACKBONE:
        return undefined
    if tag is None or result.recipe.training.weights is not None:
        return tag or pretraining_kind(tag)
    return f"{pretraining_kind(tag)} ({tag})"


def title_of(figure: Figure, oracle: bool) -> str:
    """A figure's title, which says where it was chosen on the evaluated images."""
    return FIGURE_TITLES[figure] + (" (oracle)" if oracle else "")


def precision_text(precision: str) -> str:
    """A precision by its usual name."""
    return {"32": "fp32"}.get(precision, precision)


def device_of(result: Result) -> str:
    """Precision and kind of device of a run."""
    return f"{precision_text(result.recipe.precision)}, {result.environment.device_type}"


def commit_of(environment: Environment) -> str:
    """The commit that ran there, and whether there were changes to it."""
    commit = environment.commit
    changed = " with changes" if environment.dirty else ""
    return f"{commit[:10]}{changed}" if commit else "unknown"


def size_of(data: DatasetStamp) -> str:
    """How large a dataset is, in words."""
    return f"{data.classes} classes, {data.test} test images"


def interval_text(interval: Interval) -> str:
    """Return an interval as tables print it."""
    return f"[{interval.low:.{DECIMALS}f}, {interval.high:.{DECIMALS}f}]"
