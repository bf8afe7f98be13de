"""How much memory this process may still take."""

from __future__ import annotations

import os
import re
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int:
    """Return bytes that can be taken without swapping or being killed.

    On Linux what the kernel calls available, or what the tightest limit of a container or a
    cluster's job leaves if that is less (cgroup 2); elsewhere half of the machine's memory.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    available = int(match[1]) * 1024 if match else 0
    headroom = [_headroom(group, available) for group in _control_groups(root)]
    return max(0, min([available, *headroom]))


def _control_groups(root: Path) -> list[Path]:
    """Folders of this process's control group and of those around it; a limit binds all below."""
    top, own = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    match = re.search(r"^0::/(.*)$", own.read_text(), re.MULTILINE) if own.is_file() else None
    group = top / match[1] if match else top
    return [group, *(parent for parent in group.parents if parent.is_relative_to(top))]


def _headroom(cgroup: Path, unlimited: int) -> int:
    """Return what a group's limit leaves, counting file cache, which the kernel gives back."""
    limit = cgroup / "memory.max"
    if not limit.is_file() or limit.read_text().strip() == "max":
        return unlimited
    used = int((cgroup / "memory.current").read_text())
    match = re.search(r"^inactive_file (\d+)", (cgroup / "memory.stat").read_text(), re.MULTILINE)
    return int(limit.read_text()) - used + (int(match[1]) if match else 0)
