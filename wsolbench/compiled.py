"""torch.compile as an option of a run: the same arithmetic in fewer passes over memory.

Nothing of a method changes but how its two calls are computed. Random numbers are drawn as without
it, so that a seed means the same; results differ by rounding, as between two processors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from wsolbench.errors import InputError, WsolbenchError, one_line
from wsolbench.method import Method
from wsolbench.types import Batch

P = ParamSpec("P")
R = TypeVar("R")


@cache
def check_compiler(device: torch.device) -> None:
    """Compile a sum on the device, so that a missing compiler shows before any work.

    Raises:
        InputError: when that fails.
    """
    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except Exception as error:  # each version and each device raises its own kinds
        raise InputError(
            f"torch.compile does not work here ({_said(error)}); it needs a C++ compiler, on a "
            "GPU triton too; leave out --compile"
        ) from error


def compile_method(method: Method, backend: str = "inductor") -> None:
    """Put compiled forms of ``training_step`` and ``localize`` in their place.

    Each shape of batch gets a graph of its own. Graphs of methods that were compiled before are
    dropped: a long suite would run into the limit of how many there may be.

    Args:
        method: on its device; calls of it raise WsolbenchError where they cannot be compiled.
        backend: of torch.compile; ``eager`` follows the code without making machine code.
    """
    torch.compiler.reset()
    # the compiler looks for gradients of all that is alive where code leaves torch
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    train = _compiled(method.training_step, method, backend)
    localize = _compiled(method.localize, method, backend)
    method.training_step = train  # type: ignore[method-assign]
    method.localize = localize  # type: ignore[method-assign]


def _compiled(function: Callable[P, R], method: Method, backend: str) -> Callable[P, R]:
    # the compiler's own generator would give a seed another meaning
    options: dict[str, Any] | None = {"fallback_random": True} if backend == "inductor" else None
    graph = torch.compile(function, backend=backend, options=options)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        from torch._dynamo.exc import TorchDynamoException  # slow to import

        _fix_shapes(args)
        try:
            return graph(*args, **kwargs)
        except TorchDynamoException as error:
            what = f"{function.__name__} of {type(method).__name__}"
            raise WsolbenchError(
                f"torch.compile cannot take {what} ({_said(error)}); leave out --compile"
            ) from error

    return call


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 200)}"


def _fix_shapes(args: tuple[object, ...]) -> None:
    """Keep a second size of batch, such as an epoch's last, from making all sizes symbols."""
    for argument in args:
        for value in vars(argument).values() if isinstance(argument, Batch) else (argument,):
            if isinstance(value, Tensor):
                torch._dynamo.mark_static(value)
