"""Weights in eight bits."""

from __future__ import annotations

import torch

from wsolbench import backbones
from wsolbench.packing import SCALE, pack, unpack
from wsolbench.small import PACKAGED, SIDE, WHOLE


def test_packing_rounds_by_half_a_step_of_each_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-4, 2, 40)[:, None, None]
    state = {
        "wide": torch.randn(40, 16, 3, generator=generator) * size,
        "silent": torch.zeros(64, 32),
        "bias": torch.randn(2000, generator=generator),
        "count": torch.tensor(7),
    }
    packed = pack(state)
    assert {k: v.dtype for k, v in packed.items() if not k.endswith(SCALE)} == {
        "wide": torch.int8,
        "silent": torch.int8,
        "bias": torch.float16,
        "count": torch.int64,
    }
    back = unpack(packed)
    assert back.keys() == state.keys()
    step = state["wide"].abs().amax((1, 2), keepdim=True) / 127
    assert ((back["wide"] - state["wide"]).abs() <= 0.5001 * step).all()
    assert torch.equal(back["silent"], state["silent"])
    assert torch.equal(back["bias"], state["bias"].half().float())
    assert torch.equal(back["count"], state["count"])


def test_what_is_not_packed_is_left_as_it_is() -> None:
    state = {"scale": torch.ones(3), "a.scale": torch.ones(2), "a": torch.ones(2000, 2)}
    assert {k: v.tolist() for k, v in unpack(state).items()} == {
        k: v.tolist() for k, v in state.items()
    }


def test_packaged_weights_are_small_and_load_without_a_download() -> None:
    files = [PACKAGED / f"{name}.safetensors" for name in WHOLE]
    assert sum(file.stat().st_size for file in files) < 4_000_000
    for name in WHOLE:
        model = backbones.create(name, pretrained=True, image_size=SIDE).eval()
        with torch.no_grad():
            features = model.forward_features(torch.zeros(1, 3, SIDE, SIDE))  # type: ignore[operator]
        assert features.shape[1:] in ((65, 192), (112, 8, 8))
        assert torch.isfinite(features).all()
