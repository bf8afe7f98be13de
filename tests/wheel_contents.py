"""Compare a built wheel and sdist with the checkout: ``python tests/wheel_contents.py dist``.

Every source and data file of the core, of ``methods/`` and of ``datasets/`` must be in both, and
nothing else of the checkout in the wheel.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
#: folder of the checkout -> where its files are in the wheel
LAYOUT = {
    "wsolbench": "wsolbench",
    "methods": "wsolbench/methods",
    "datasets": "wsolbench/datasets",
    "results/reported": "wsolbench/reported",
}
SHIPPED = {".py", ".yaml", ".csv", ".html", ".css", ".js", ".typed", ".safetensors"}


def expected(root: Path) -> dict[str, str]:
    """Return file in the checkout -> file in the wheel, for all that must ship."""
    pairs = {}
    for folder, target in LAYOUT.items():
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in SHIPPED:
                inside = file.relative_to(root / folder).as_posix()
                pairs[f"{folder}/{inside}"] = f"{target}/{inside}"
    return pairs


def wheel_files(wheel: Path) -> set[str]:
    """Return the files of a wheel without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    return {n for n in names if not PurePosixPath(n).parts[0].endswith(".dist-info")}


def sdist_files(sdist: Path) -> set[str]:
    """Return the files of an sdist, relative to its only folder."""
    with tarfile.open(sdist) as archive:
        names = [member.name for member in archive if member.isfile()]
    return {PurePosixPath(*PurePosixPath(n).parts[1:]).as_posix() for n in names}


def complaints(root: Path, wheel: set[str], sdist: set[str]) -> list[str]:
    """Return one line for each file that is missing or too many."""
    pairs = expected(root)
    return [
        *(f"not in the wheel: {n}" for n in sorted(set(pairs.values()) - wheel)),
        *(f"not in the checkout: {n} of the wheel" for n in sorted(wheel - set(pairs.values()))),
        *(f"not in the sdist: {n}" for n in sorted(set(pairs) - sdist)),
    ]


def only(folder: Path, pattern: str) -> Path:
    """Return the one file that matches.

    Raises:
        SystemExit: when there is none, or more than one.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder}/{pattern}: expected one file, found {len(found)}")
    return found[0]


def main(dist: Path) -> int:
    """Check the archives in ``dist``; return the exit code."""
    wheel = wheel_files(only(dist, "*.whl"))
    lines = complaints(ROOT, wheel, sdist_files(only(dist, "*.tar.gz")))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if not lines:
        sys.stdout.write(f"wheel and sdist hold all {len(wheel)} files of the checkout\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
