"""A method at work: how images are brought to it, and the stream of its predictions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench.backbones import InputStatistics
from wsolbench.data.loader import EvalLoader
from wsolbench.data.transforms import eval_side, eval_view, normalize, to_planes
from wsolbench.dataset import Sample
from wsolbench.method import Method
from wsolbench.protocol import Geometry
from wsolbench.scoring import Stream
from wsolbench.types import Batch, Prediction

#: images of one evaluation batch; fixed, so that figures do not depend on the training's batch size
EVAL_BATCH = 32


@dataclass(frozen=True, eq=False)
class Localizer:
    """A method with all that it takes to show it images.

    Attributes:
        method: on ``device``; may still be trained.
        statistics: how it expects images.
        input_size: side of its input in pixels.
        device: where to compute.
        bf16: whether to compute under autocast.
    """

    method: Method
    statistics: InputStatistics
    input_size: int
    device: torch.device
    bf16: bool

    def loader(self, samples: Sequence[Sample], geometry: Geometry) -> EvalLoader:
        """Batches of samples as the method sees them."""
        mean, std = self.statistics.mean, self.statistics.std
        return EvalLoader(samples, geometry, self.input_size, EVAL_BATCH, mean, std, self.device)

    def stream(self, samples: Sequence[Sample], geometry: Geometry) -> Stream:
        """Predict samples of a dataset, each with the map of its class."""
        return live_predictions(self.method, self.loader(samples, geometry), self.bf16)

    def predict(
        self, images: Sequence[NDArray[np.uint8]], geometry: Geometry, label: int | None
    ) -> Prediction:
        """Predict images (H, W, 3) of any sizes, at least one, in one batch.

        ``label`` is the class whose maps are wanted, None for the predicted ones.
        """
        side = eval_side(geometry, self.input_size)
        views = np.stack([eval_view(pixels, side, self.input_size) for pixels in images])
        planes = to_planes(torch.from_numpy(views).to(self.device))
        batch = normalize(planes, self.statistics.mean, self.statistics.std)
        wanted = None if label is None else torch.full((len(images),), label, device=self.device)
        return predict(self.method, batch, wanted, self.bf16)


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
