"""The packaged backbones against the networks that they are cut from."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from wsolbench import backbones, cutting
from wsolbench.small import PACKAGED, SIDE, WHOLE


def test_one_command_makes_the_packaged_weights_again(shared: Path, tmp_path: Path) -> None:
    assert cutting.main(["--weights-dir", str(shared / "weights"), "--out", str(tmp_path)]) == 0
    for name in WHOLE:
        again = (tmp_path / f"{name}.safetensors").read_bytes()
        assert again == (PACKAGED / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", WHOLE)
def test_a_half_gives_what_the_whole_has_half_way(shared: Path, name: str) -> None:
    folder = shared / "weights"
    whole = backbones.create(WHOLE[name], pretrained=True, image_size=SIDE, weights_dir=folder)
    half = backbones.create(name, pretrained=False, image_size=SIDE)
    half.load_state_dict(cutting.cut(name, whole))
    image = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = half_way(whole.eval(), image)
        found = half.eval().forward_features(image)  # type: ignore[operator]
    assert torch.allclose(found, expected, atol=1e-5)


def half_way(whole: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the whole network has after its sixth block, normed, or after its fifth stage."""
    seen: list[torch.Tensor] = []
    transformer = hasattr(whole, "patch_embed")
    last = cast(torch.nn.Sequential, whole.blocks)[5 if transformer else 4]
    last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    whole.forward_features(image)  # type: ignore[operator]
    return whole.norm(seen[0]) if transformer else seen[0]  # type: ignore[operator]
