"""Protocols: every choice between a score map and a figure, as data.

The named protocols are the YAML files in ``wsolbench/protocols``. Figures carry the same names
everywhere and are percentages; a figure that a protocol does not define is absent, never computed.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from wsolbench.errors import InputError, did_you_mean

FIGURES = (
    "gt_known_loc",
    "top1_loc",
    "top5_loc",
    "max_box_acc",
    "max_box_acc_v2",
    "pxap",
    "part_coverage",
    "top1_cls",
    "top5_cls",
)
Figure = Literal[
    "gt_known_loc",
    "top1_loc",
    "top5_loc",
    "max_box_acc",
    "max_box_acc_v2",
    "pxap",
    "part_coverage",
    "top1_cls",
    "top5_cls",
]
#: the figures that are read at one threshold, which :class:`Selection` supplies
SINGLE_THRESHOLD: tuple[Figure, ...] = ("gt_known_loc", "top1_loc", "top5_loc", "part_coverage")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Geometry(_Data):
    """How the image is brought to the model.

    Attributes:
        mode: ``direct`` resizes to a square of the input size; ``crop`` resizes to ``resize``
            (both sides, in pixels of the frame) and takes the centre.
        frame: side of the square in which boxes are compared, pixels.
        resize: side before the centre crop, pixels of the frame (``crop`` only).
    """

    mode: Literal["direct", "crop"]
    frame: int = 224
    resize: int = 256


class TruthRule(_Data):
    """How true boxes get into the frame.

    Attributes:
        clip_frame: what is clipped to the frame after scaling: nothing; the right and bottom
            corner to frame-1 (TS-CAM); the left and top corner to 0 from below and the right and
            bottom one to frame-1 from above (SAT). Coordinates are truncated in the end.
        clip_sized: whether boxes that a dataset gives by width and height end at the last pixel of
            their image before all that, at min(x+w, W-1) and min(y+h, H-1), as in the lists of
            boxes of Choe et al. (CVPR 2020); else at x+w and y+h.
    """

    clip_frame: Literal["none", "far", "both"]
    clip_sized: bool = False


Normalization = Literal["min-max", "max", "percentile", "above-percentile"]
WITH_PERCENTILE: tuple[Normalization, ...] = ("percentile", "above-percentile")


class MapRule(_Data):
    """How a native score map becomes an image of levels.

    Attributes:
        order: ``resize-normalize`` or ``normalize-resize``.
        interpolation: OpenCV's ``cubic`` (float64) or ``linear`` (float32).
        epsilon: added to the range in the min-max normalisation.
        quantize: truncate 255 times the map to uint8.
        normalization: with m a map and m(q) its value at place int(q n) of n in ascending order:
            ``min-max`` is (m - min) / (max - min); ``max`` relu(m) / max; ``percentile`` the least
            of 1 and (m - min) / (m(q) - min); ``above-percentile`` relu(m - m(q)) / max of that.
        percentile: q, in (0, 1), of the last two; several are tried on held-out images, see
            :class:`Selection`.
    """

    order: Literal["resize-normalize", "normalize-resize"]
    interpolation: Literal["cubic", "linear"]
    epsilon: float = 0.0
    quantize: bool
    normalization: Normalization = "min-max"
    percentile: float | tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.percentile is not None) != (self.normalization in WITH_PERCENTILE):
            raise ValueError(f"a percentile belongs to {' and '.join(WITH_PERCENTILE)} only")
        if not all(0 < q < 1 for q in self.percentiles()) or self.percentile == ():
            raise ValueError("a percentile is between 0 and 1")
        return self

    def percentiles(self) -> tuple[float, ...]:
        """Percentiles to choose from, or the only one; none where none is needed."""
        if self.percentile is None:
            return ()
        return self.percentile if isinstance(self.percentile, tuple) else (self.percentile,)

    @property
    def only_percentile(self) -> float | None:
        """The percentile where there is one, None where none is needed.

        Raises:
            ValueError: where several are still to choose from.
        """
        if isinstance(self.percentile, tuple):
            raise ValueError("one percentile is still to be chosen")
        return self.percentile


class BoxRule(_Data):
    """How levels become boxes.

    Attributes:
        threshold: ``relative`` keeps q > trunc(t * max q); ``absolute`` keeps map > float32(t).
        region: contour of largest polygon area, or the 8-connected component of most pixels.
        clip: clip the far corner to frame-1.
        empty: box of a map without foreground: (0, 0, 0, 0), (0, 0, 1, 1) or the whole frame.
    """

    threshold: Literal["relative", "absolute"]
    region: Literal["largest-contour", "largest-component"]
    clip: bool
    empty: Literal["zero", "unit", "whole"]


class Selection(_Data):
    """Where the threshold of the single-threshold figures comes from.

    Attributes:
        kind: ``held-out`` maximises GT-known on ``val`` (middle of the longest run of maximisers)
            over all thresholds and percentiles together (of equals the percentile of the longer
            run, then the lower one; without boxes the one of highest PxAP);
            ``oracle`` maximises ``objective`` on the evaluated split (first maximiser); ``fixed``
            takes ``value``, or ``by_dataset`` where the dataset is named there; ``none`` defines no
            single-threshold figure.
        objective: what ``oracle`` maximises.
    """

    kind: Literal["held-out", "oracle", "fixed", "none"]
    objective: Literal["gt_known_loc", "gt_known_loc+top1_loc"] = "gt_known_loc"
    value: float | None = None
    by_dataset: dict[str, float] = {}


class Protocol(_Data):
    """One way from score maps to figures.

    Attributes:
        thresholds: an explicit list, or the step of ``numpy.arange(0, 1, step)``.
        iou: IoU at which gt_known_loc, top1_loc, top5_loc and max_box_acc count a hit (>=).
        strict_top: top1_loc and top5_loc need IoU strictly above ``iou``.
        figures: the figures defined here (``pxap`` counts only where masks exist,
            ``part_coverage`` where masks of parts do).
        oracle: the figures that were chosen on the evaluated split; tables label them so.
    """

    name: str
    title: str
    version: int = 1
    geometry: Geometry
    truth: TruthRule
    map: MapRule
    box: BoxRule
    thresholds: tuple[float, ...] | float
    selection: Selection
    iou: float = 0.5
    strict_top: bool = False
    figures: tuple[Figure, ...]
    oracle: tuple[Figure, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not set(self.oracle) <= set(self.figures):
            raise ValueError("oracle names a figure that the protocol does not define")
        if self.selection.kind == "none" and set(self.figures) & set(SINGLE_THRESHOLD):
            raise ValueError(f"{', '.join(SINGLE_THRESHOLD)} need a selection of the threshold")
        whole_range = not isinstance(self.thresholds, tuple)
        if "pxap" in self.figures and not (whole_range and self.geometry.mode == "direct"):
            raise ValueError("pxap needs a step of thresholds and direct geometry")
        if "part_coverage" in self.figures and self.geometry.mode != "direct":
            raise ValueError("part_coverage needs direct geometry")
        if isinstance(self.map.percentile, tuple) and self.selection.kind != "held-out":
            raise ValueError("only a held-out selection can choose among percentiles")
        return self

    def candidates(self) -> list[Protocol]:
        """The protocol with each percentile there is to choose from; itself where there is none."""
        if not isinstance(self.map.percentile, tuple):
            return [self]
        rules = [self.map.model_copy(update={"percentile": q}) for q in sorted(self.map.percentile)]
        return [self.model_copy(update={"map": rule}) for rule in rules]


def protocol_names() -> list[str]:
    """Names of all protocols, sorted."""
    folder = resources.files("wsolbench") / "protocols"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_protocol(name: str) -> Protocol:
    """Read a named protocol.

    Raises:
        InputError: when there is none of that name.
    """
    if name not in protocol_names():
        raise InputError(f"unknown protocol '{name}'{did_you_mean(name, protocol_names())}")
    return Protocol.model_validate({"name": name, **_fields(name)})


def _fields(name: str) -> dict[str, Any]:
    """Fields of a protocol's file, laid over those of the one that it names as its ``base``."""
    text = (resources.files("wsolbench") / "protocols" / f"{name}.yaml").read_text("utf-8")
    own = yaml.safe_load(text)
    base = _fields(own.pop("base")) if "base" in own else {}
    nested = {k: {**base[k], **v} for k, v in own.items() if k in base and isinstance(v, dict)}
    return {**base, **own, **nested}
