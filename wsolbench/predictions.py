"""A method at work: the stream of its predictions on evaluation batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wsolbench.data.loader import EvalLoader
from wsolbench.method import Method
from wsolbench.types import Prediction


def live_predictions(
    method: Method, loader: EvalLoader, device: torch.device, bf16: bool
) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """Yield (image ids, prediction on the CPU) of each batch, with the true class's maps.

    One map an image is enough: a Top-k figure asks whether the true class is within the top k and
    whether its own map's box hits.
    """
    method.eval()
    for ids, image, label in loader:
        # not around the yield: who consumes the stream must not run in this mode
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = _on_cpu(method.localize(image, label))
        yield ids, prediction


def _on_cpu(prediction: Prediction) -> Prediction:
    maps, boxes, logits = (
        None if t is None else t.float().cpu()
        for t in (prediction.maps, prediction.boxes, prediction.logits)
    )
    return Prediction(maps=maps, boxes=boxes, logits=logits)
