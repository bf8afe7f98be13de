"""Kernels compiled in another process while this one still imports, reads and draws."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import cache


@cache
def compile_ahead() -> subprocess.Popen[bytes]:
    """Begin to put what ``run`` will need into the cache of kernels; once a process.

    The compiler holds the interpreter's lock, so that a thread would gain nothing. Whoever waits
    with ``wait`` finds every kernel compiled; where the process failed or there is no place for a
    cache, they are compiled when they are first called, as ever.
    """
    # no process of multiprocessing's, which would first import what the command imports
    code = f"from {__name__} import compile_kernels; compile_kernels()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    atexit.register(child.terminate)  # a command that is refused at once leaves nothing running
    return child


def compile_kernels() -> None:
    """Measure one map under the suite's own protocol, which uses all but one of the kernels."""
    import logging

    import numpy as np

    from wsolbench.metrics import functional as F
    from wsolbench.protocol import load_protocol

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    protocol = load_protocol("standard")
    score, levels = F.protocol_map(np.eye(8, dtype=np.float32), protocol)
    thresholds = F.threshold_values(protocol.thresholds)
    F.best_iou(levels, thresholds, protocol.box, np.array([[0.0, 0.0, 8.0, 8.0]]), of_all=True)
    everywhere = np.ones(score.shape, np.bool_)
    F.pixel_counts(score, everywhere, everywhere, thresholds)
