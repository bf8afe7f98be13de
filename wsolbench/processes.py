"""The processes that train one model together, as ``torchrun`` starts them; else there is one.

What a process computes on is its part of a batch. Losses and gradients of the parts are put
together by the share that each part has in the whole, so that several processes do what one would.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsolbench.errors import InputError
from wsolbench.types import Batch

T = TypeVar("T")

log = logging.getLogger("wsolbench")

#: what ``torchrun`` says of the processes in numbers
_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def number() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return number() == 0


def on_this_machine() -> int:
    """How many of the processes share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join(device: torch.device) -> torch.device:
    """Work together with the other processes that ``torchrun`` started, if any, until the end.

    All but the first fall silent.

    Returns:
        The device of this process: of several accelerators of a machine each takes another.

    Raises:
        InputError: when the machine has fewer accelerators than processes, or another launcher
            does not say of the processes what ``torchrun`` does.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return device
    _check_launcher()
    if device.type != "cpu":
        module = torch.get_device_module(device)
        device = torch.device(device.type, _own_accelerator(module.device_count()))
        module.set_device(device)
    # numbers on the CPU go through gloo in any case: they must not wait for the accelerator
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)
    if not is_first():
        log.setLevel(logging.WARNING)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return device


def _check_launcher() -> None:
    """Refuse an environment that names several processes and not which of them this one is."""
    for name in _NUMBERS:
        value = os.environ.get(name)
        if value is None:
            raise InputError(f"WORLD_SIZE is set and {name} is not; start processes by torchrun")
        if not value.isdecimal():
            raise InputError(f"{name}={value} is no number; start processes by torchrun")


def _own_accelerator(available: int) -> int:
    """Which of a machine's accelerators is this process's."""
    local = int(os.environ["LOCAL_RANK"])
    if local >= available:
        raise InputError(
            f"{on_this_machine()} processes are too many for this machine's GPUs ({available}); "
            f"use torchrun --nproc-per-node {available}"
        )
    return local


def lost_one(error: RuntimeError) -> bool:
    """Whether an error says that another of several processes is gone."""
    of_group = isinstance(error, dist.DistError) or "gloo" in str(error)
    return dist.is_initialized() and of_group


def launcher() -> str:
    """What starts so many processes, on one of as many machines."""
    if count() == 1:
        return "python"
    machines = count() // on_this_machine()
    nodes = f"--nnodes {machines} " if machines > 1 else ""
    return f"torchrun {nodes}--nproc-per-node {on_this_machine()}"


def of_first(make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process, in all of them."""
    if count() == 1:
        return make()
    box: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(box)
    return box[0]  # type: ignore[no-any-return]


def from_all(value: T) -> list[T]:
    """The value of each process, in all of them."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def greatest(number: int) -> int:
    """The greatest of a number that each process has."""
    if count() == 1:
        return number
    number_of_all = torch.tensor(number)
    dist.all_reduce(number_of_all, dist.ReduceOp.MAX)
    return int(number_of_all)


def own_part(images: Sequence[T]) -> tuple[list[T], bool]:
    """This process's part of a batch; where there are too few images, one that counts nothing.

    Every process must compute on something, else the others would wait for it.
    """
    part = list(images[number() :: count()])
    return (part, False) if part else (list(images[:1]), True)


def join_gradients(model: nn.Module, share: float) -> None:
    """Give each process the gradients of the whole batch, and the buffers of the first process.

    Args:
        model: the same in all processes, with gradients of its own part of the batch.
        share: see :attr:`wsolbench.types.Batch.share`.
    """
    if count() == 1:
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    has = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)
    dist.all_reduce(has, dist.ReduceOp.MAX)
    for parameter, somewhere in zip(trained, has.tolist(), strict=True):
        if somewhere and parameter.grad is None:  # a part of the loss that needs other images
            parameter.grad = torch.zeros_like(parameter)
    add_up([p.grad for p in trained if p.grad is not None], share)
    follow_first(model.buffers())  # running statistics, as torch's own wrapper has them


def add_up(tensors: Iterable[Tensor], share: float) -> None:
    """Replace tensors in place by their sum over processes, each times the share of its own."""
    every = list(tensors)
    for kind in dict.fromkeys(tensor.dtype for tensor in every):
        alike = [tensor for tensor in every if tensor.dtype == kind]
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in alike]).mul_(share)
        dist.all_reduce(flat)
        for tensor, sums in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
            tensor.detach().copy_(sums.view_as(tensor))


def follow_first(tensors: Iterable[Tensor]) -> None:
    """Replace tensors in place by those of the first process."""
    if count() == 1:
        return
    for tensor in tensors:
        value = tensor.detach().contiguous()
        dist.broadcast(value, 0)
        tensor.detach().copy_(value)


def total(value: Tensor) -> Tensor:
    """Sum of a tensor over processes, without gradient."""
    summed = value.detach().clone()
    if count() > 1:
        dist.all_reduce(summed)
    return summed


def batch_ratio(own_sum: Tensor, own_count: Tensor, batch: Batch) -> Tensor:
    """A sum over a whole batch divided by a count over it, for means over what counts in a batch.

    Its gradient is that of this process's part, and it is the ratio of this part alone where the
    recipe says so, see :func:`batch_mean`. Zero where nothing counts.

    Args:
        own_sum: scalar, over this part; with gradient.
        own_count: scalar, over this part.
        batch: the part of a batch that this process computes on.
    """
    if batch.whole is None or not batch.joint:
        return own_sum / own_count.clamp_min(1)
    counts = 0.0 if batch.borrowed else 1.0
    whole = total(own_count * counts).clamp_min(1)
    # divided by the share, because gradients of parts are added up times their shares
    own = own_sum * (counts / whole / max(batch.share, 1 / batch.whole))
    return own + (total(own_sum * counts) / whole - own.detach())


def batch_mean(values: Tensor, batch: Batch) -> Tensor:
    """Mean of ``values`` over a whole batch, for losses that are not means over single images.

    Its gradient is that of this process's part; those of the others join it where the gradients of
    the parts are added up. It is the mean over this part alone where the recipe says so.

    Args:
        values: (b, ...), as many numbers for each image of ``batch``.
        batch: the part of a batch that this process computes on.
    """
    own = values.mean()
    if batch.whole is None or not batch.joint:
        return own
    return own + (total(own * batch.share) - own.detach())
