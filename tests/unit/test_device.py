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
torch.ones(1 << 25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 25)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc's malloc")
def test_kept_memory_is_not_made_of_fresh_pages_again() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", _TWICE, how], text=True))
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 10
