"""Makes the weights that come with the package: ``python -m wsolbench.cutting``.

It takes published networks apart. No dataset, picture, mask or box is in its reach.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import timm
from safetensors.torch import save
from torch import Tensor, nn

from wsolbench import backbones
from wsolbench.files import write_atomically
from wsolbench.packing import pack
from wsolbench.small import PACKAGED, SIDE, WHOLE


def cut(name: str, whole: nn.Module) -> dict[str, Tensor]:
    """State of the small backbone ``name``: what it has in common with ``whole``."""
    own = timm.create_model(name).state_dict()
    others = whole.state_dict()
    return {key: others[key] for key in own}


def main(argv: Sequence[str] | None = None) -> int:
    """Cut both backbones and write their weights, packed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    text = "folder with the whole networks' <timm name>.safetensors (else timm downloads)"
    parser.add_argument("--weights-dir", type=Path, help=text)
    parser.add_argument("--out", type=Path, default=PACKAGED, help="where the halves go")
    arguments = parser.parse_args(argv)
    for name, source in WHOLE.items():
        whole = backbones.create(
            source, pretrained=True, image_size=SIDE, weights_dir=arguments.weights_dir
        )
        _write(save(pack(cut(name, whole))), arguments.out / f"{name}.safetensors")
    return 0


def _write(data: bytes, file: Path) -> None:
    write_atomically(file, lambda stream: stream.write(data))


if __name__ == "__main__":
    sys.exit(main())
