"""Where a run computes."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_TWICE = """
import resource, sys, torch
from wsolbench.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(4)  # until freed blocks lie where the next ones fit
print(faults(10))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc's malloc")
def test_kept_memory_is_not_made_of_fresh_pages_again() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", _TWICE, how], text=True))
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 10
