"""Targets: the boxes that one run finds in training images, for another run to learn.

They are cut from maps as figures are: by a protocol, at one threshold, which is fixed or was chosen
on held-out images before the other run starts. No test image has a say in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsolbench.boxes import Cut, cut_box, in_image
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Row, image_rows
from wsolbench.protocol import Protocol
from wsolbench.scoring import Scorers, Stream, choose
from wsolbench.truth import Size, image_size
from wsolbench.types import Box


def check_threshold(protocol: Protocol, run: str) -> None:
    """Refuse a protocol whose threshold is not known before test images are seen.

    Raises:
        InputError: naming it and the run.
    """
    kind = protocol.selection.kind
    if kind not in ("held-out", "fixed"):
        raise InputError(
            f"the boxes of '{run}' need a threshold that no test image chose, and protocol "
            f"'{protocol.name}' has none; take another, as --set targets.protocol=[standard]"
        )


def freeze(protocol: Protocol, scorers: Scorers, dataset: str) -> Cut:
    """Choose the threshold on ``val``, or take the protocol's own.

    Args:
        protocol: one that :func:`check_threshold` lets pass.
        scorers: see :func:`wsolbench.scoring.scores_of`.
        dataset: name by which a protocol finds a threshold of its own.

    Raises:
        InputError: when no held-out image has a box.
    """
    selection = protocol.selection
    if selection.kind == "fixed":
        threshold = selection.by_dataset.get(dataset, selection.value)
    else:
        protocol, threshold, _ = choose(protocol, scorers)
    if threshold is None:
        raise InputError(f"no threshold for boxes: no held-out image of '{dataset}' has a box")
    return Cut(protocol, threshold)


def find_boxes(
    stream: Stream, samples: Sequence[Sample], cut: Cut, input_size: int
) -> dict[str, Box]:
    """Return the box of each image, in its own pixels, by image id.

    Where a map has nothing above the threshold the whole image is the box.

    Args:
        stream: (image ids, prediction) of each batch.
        samples: the images that come.
        cut: how their maps become boxes; a method's own boxes are taken as they are.
        input_size: side of the method's input in pixels.
    """
    paths = {sample.image_id: sample.path for sample in samples}
    return {
        name: _box(row, cut, input_size, image_size(paths[name]))
        for names, prediction in stream
        for name, row in zip(names, image_rows(prediction, len(names)), strict=True)
    }


def _box(row: Row, cut: Cut, input_size: int, size: Size) -> Box:
    _, found = cut_box(row, cut, input_size)
    if found is None:
        raise InputError("a method without maps or boxes has nothing that another run can learn")
    protocol = cut.protocol
    x0, y0, x1, y1 = in_image(found, size, protocol.geometry)
    nothing = np.array_equal(found, F.empty_box(protocol.geometry.frame, protocol.box))
    if nothing or x0 >= x1 or y0 >= y1:
        return 0.0, 0.0, float(size[0]), float(size[1])
    return x0, y0, x1, y1
