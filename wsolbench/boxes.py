"""One box of one image: cut from a map at one threshold, or a method's own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Row
from wsolbench.protocol import Geometry, Protocol
from wsolbench.truth import Size
from wsolbench.types import Box


class Cut(NamedTuple):
    """How maps become boxes.

    Attributes:
        protocol: with one percentile at most.
        threshold: in [0, 1).
    """

    protocol: Protocol
    threshold: float

    def described(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "protocol": self.protocol.name,
            "threshold": self.threshold,
            "percentile": self.protocol.map.only_percentile,
        }


def cut_box(row: Row, cut: Cut, input_size: int) -> tuple[F.Map | None, F.Floats | None]:
    """Return an image's map (S, S) in [0, 1] and its box (4,), both in the protocol's frame.

    Args:
        row: what the method says of the image.
        cut: how a map becomes a box; a method's own box is taken as it is.
        input_size: side of the method's input in pixels.

    Returns:
        None instead of a map from a method without maps, and of a box from one that gives neither.
    """
    score_map, own, _ = row
    protocol, threshold = cut
    if score_map is not None:
        score, levels = F.protocol_map(score_map, protocol)
        found = F.largest_boxes(levels, np.array([threshold]), protocol.box)[0]
        return score, found.astype(np.float64)
    if own is not None:
        return None, F.given_box(own, input_size, protocol.geometry.frame, protocol.box)[0]
    return None, None


def in_image(box: F.Floats, size: Size, geometry: Geometry) -> Box:
    """Bring a box (4,) from the frame to an image of ``size`` (width, height), and within it."""
    inside = np.clip(F.image_boxes(box, size, geometry), 0, [*size, *size])
    x0, y0, x1, y1 = inside.tolist()
    return x0, y0, x1, y1
