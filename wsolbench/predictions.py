"""A method at work: the stream of its predictions on evaluation batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wsolbench.data.loader import EvalLoader
from wsolbench.method import Method
from wsolbench.types import Batch, Prediction


def live_predictions(
    method: Method, loader: EvalLoader, bf16: bool
) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """Yield (image ids, prediction on the CPU) of each batch, with the true class's maps.

    One map an image is enough: a Top-k figure asks whether the true class is within the top k and
    whether its own map's box hits. A GPU has the next batch queued before the last one is waited
    for, so that it has work while the prediction is consumed.
    """
    method.eval()
    leaving: deque[tuple[tuple[str, ...], Callable[[], Prediction]]] = deque()
    for ids, image, label in loader:
        leaving.append((ids, _leave(predict(method, image, label, bf16), image.device)))
        if len(leaving) > (1 if image.device.type == "cuda" else 0):
            yield _arrived(*leaving.popleft())
    for ids, arrive in leaving:
        yield _arrived(ids, arrive)


def fit(method: Method, loader: EvalLoader, device: torch.device, bf16: bool) -> None:
    """Show a method the images that it asks to see, see :meth:`Method.fit`."""
    method.eval()
    batches = (Batch(image, label, ids) for ids, image, label in loader)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        method.fit(batches)


def predict(method: Method, image: Tensor, label: Tensor | None, bf16: bool = False) -> Prediction:
    """What a method in evaluation mode says of one batch, see :meth:`Method.localize`."""
    # not around a yield: who consumes a stream must not run in this mode
    with torch.inference_mode(), torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        return method.localize(image, label)


def _arrived(
    ids: tuple[str, ...], arrive: Callable[[], Prediction]
) -> tuple[tuple[str, ...], Prediction]:
    return ids, arrive()


def _leave(prediction: Prediction, device: torch.device) -> Callable[[], Prediction]:
    """Start the copy of a prediction to the CPU, and return what waits for its end."""
    copy = Prediction(*map(_copy, (prediction.maps, prediction.boxes, prediction.logits)))
    if device.type != "cuda":
        return lambda: copy
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))

    def arrive() -> Prediction:
        copied.synchronize()
        return copy

    return arrive


def _copy(tensor: Tensor | None) -> Tensor | None:
    # to pinned memory, which this allocates by itself: else the copy would wait for the device
    return None if tensor is None else tensor.float().to("cpu", non_blocking=True)
