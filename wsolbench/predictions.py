"""A method at work: the stream of its predictions on evaluation batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wsolbench.data.loader import EvalLoader
from wsolbench.method import Method
from wsolbench.types import Prediction


def live_predictions(
    method: Method, loader: EvalLoader, bf16: bool
) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """Yield (image ids, prediction on the CPU) of each batch, with the true class's maps.

    One map an image is enough: a Top-k figure asks whether the true class is within the top k and
    whether its own map's box hits.
    """
    method.eval()
    for ids, image, label in loader:
        yield ids, _on_cpu(predict(method, image, label, bf16))


def predict(method: Method, image: Tensor, label: Tensor | None, bf16: bool = False) -> Prediction:
    """What a method in evaluation mode says of one batch, see :meth:`Method.localize`."""
    # not around a yield: who consumes a stream must not run in this mode
    with torch.inference_mode(), torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        return method.localize(image, label)


def _on_cpu(prediction: Prediction) -> Prediction:
    maps, boxes, logits = (
        None if t is None else t.float().cpu()
        for t in (prediction.maps, prediction.boxes, prediction.logits)
    )
    return Prediction(maps=maps, boxes=boxes, logits=logits)
