"""What a processor computes in other forms, against the usual ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsolbench import backbones, vit

BATCH, HEADS, TOKENS, WIDTH = 3, 2, 198, 32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_pointwise_layers_are_linear_layers(
    bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias, dtype=dtype)
    pointwise = vit.PointwiseLinear(24, 40, bias=bias, dtype=dtype)
    pointwise.load_state_dict(plain.state_dict())
    whole = torch.randn(BATCH, TOKENS, 48, dtype=dtype)
    for tokens in (whole[..., :24].contiguous(), whole[..., ::2], whole[0, :, :24]):
        expected, found = _with_gradients(plain, tokens), _with_gradients(pointwise, tokens)
        assert len(found) == 3 + bias
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * a.abs().max().item())


def _with_gradients(layer: nn.Linear, tokens: Tensor) -> list[Tensor]:
    """Output, and gradients of its weighted sum by the input and the parameters."""
    tokens = tokens.detach().requires_grad_()
    output = layer(tokens)
    weight = _weights(output)
    wanted = (tokens, *layer.parameters())
    return [output.detach(), *torch.autograd.grad((output * weight).sum(), wanted)]


def _weights(output: Tensor) -> Tensor:
    """What the sum of an output weighs its values with."""
    rng = torch.Generator().manual_seed(1)
    return torch.rand(output.shape, generator=rng).to(output.dtype)


def test_pointwise_layers_leave_tokens_in_their_order_in_memory() -> None:
    output = vit.PointwiseLinear(24, 40)(torch.randn(BATCH, TOKENS, 24))
    assert output.shape == (BATCH, TOKENS, 40)
    assert output.is_contiguous()


def test_a_transformer_is_given_pointwise_layers_with_its_own_parameters() -> None:
    model: Any = VisionTransformer(img_size=32, embed_dim=32, depth=3, num_heads=2)
    before = dict(model.named_parameters())
    vit.use_pointwise_layers(model)
    layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 4 * len(model.blocks)
    assert {type(layer) for layer in layers} == {vit.PointwiseLinear}
    assert type(model.head) is nn.Linear, "its input has no tokens"
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("name", "kind"), [("test_vit", vit.PointwiseLinear), ("test_resnet", nn.Conv2d)]
)
def test_backbones_come_with_pointwise_layers(name: str, kind: type[nn.Module]) -> None:
    model = backbones.create(name, pretrained=False, image_size=32)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert kind in {type(layer) for layer in layers}
    assert not any(type(layer) is nn.Linear for layer in layers)


def test_looking_at_a_transformer_changes_nothing_in_it() -> None:
    model = VisionTransformer(img_size=32, embed_dim=32, depth=3, num_heads=2, num_classes=0)
    kinds = [type(m) for m in model.modules()]
    assert vit.plain_vit(model, "a method") is model
    assert [type(m) for m in model.modules()] == kinds


def test_attention_in_bf16_is_attention() -> None:
    torch.manual_seed(0)
    packed = torch.randn(BATCH, TOKENS, 3, HEADS, WIDTH).bfloat16()
    expected = _attended(packed.double())
    found = _attended(packed)
    for a, b in zip(expected, found, strict=True):
        # each product of two factors of 8 bits rounds once more
        assert (b.double() - a).abs().max() < 2**-6 * a.abs().max()


def _attended(packed: Tensor) -> list[Tensor]:
    """Attention of heads that lie side by side in memory, and its gradient."""
    packed = packed.detach().requires_grad_()
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
    mixed = vit.softmax_attention(query, key, value)
    (gradient,) = torch.autograd.grad((mixed * _weights(mixed)).sum(), packed)
    return [mixed.detach(), gradient]


def test_attention_in_bf16_takes_no_kernel_that_is_slow_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Tensor) -> Tensor:
        raise AssertionError("fused attention")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refused)
    part = torch.randn(BATCH, HEADS, TOKENS, WIDTH)
    assert vit.softmax_attention(*(part.bfloat16(),) * 3).dtype == torch.bfloat16
    with pytest.raises(AssertionError, match="fused"):
        vit.softmax_attention(part, part, part)
