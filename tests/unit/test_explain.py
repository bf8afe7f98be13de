"""Looking into a trained method: which layer, which places, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench import backbones
from wsolbench.errors import InputError
from wsolbench.explain import as_grid, cut_at, default_layer, differentiated
from wsolbench.method import Method
from wsolbench.predictions import predict
from wsolbench.registry import METHODS

CLASSES = 3
SIDE = 64
SWIN = {"img_size": SIDE, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 2}
CAIT = {"img_size": SIDE, "embed_dim": 16, "num_heads": 2, "depth": 2}


def source_on(
    backbone: str,
    name: str = "plain-classifier",
    size: int = SIDE,
    args: Any = None,
    **options: Any,
) -> Method:
    torch.manual_seed(0)
    model = backbones.create(backbone, pretrained=False, image_size=size, args=args)
    cls: Any = METHODS.get(name)
    source: Method = cls(model, CLASSES, cls.Options(**options))
    return source.eval().requires_grad_(False)


def post_hoc(name: str, source: nn.Module, **options: Any) -> Any:
    cls: Any = METHODS.get(name)
    return cls(source, CLASSES, cls.Options(**options)).eval()


def images(count: int = 2, size: int = SIDE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("backbone", "args", "method", "layer", "grid"),
    [
        ("test_resnet", None, "plain-classifier", "trunk.layer4", (2, 2)),
        ("vgg11", None, "cam", "neck", (2, 2)),
        ("test_efficientnet", None, "plain-classifier", "trunk.bn2", (2, 2)),
        ("test_convnext", None, "plain-classifier", "trunk.norm_pre", (2, 2)),
        ("test_nfnet", None, "plain-classifier", "trunk.final_act", (2, 2)),
        ("swin_tiny_patch4_window7_224", SWIN, "plain-classifier", "trunk.norm", (8, 8)),
        ("test_vit", None, "plain-classifier", "trunk.blocks.5.norm1", (4, 4)),
        ("test_vit", {"global_pool": "avg"}, "plain-classifier", "trunk.norm", (4, 4)),
        ("test_vit", None, "ts-cam", "vit.norm", (4, 4)),
        ("test_vit", None, "sat", "vit.norm", (4, 4)),
        ("cait_xxs24_224", CAIT, "plain-classifier", "trunk.blocks_token_only.1.attn.v", (4, 4)),
    ],
)
def test_the_last_layer_whose_places_decide(
    backbone: str, args: Any, method: str, layer: str, grid: tuple[int, int]
) -> None:
    source = source_on(backbone, method, args=args)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    found = post_hoc("layer-cam", source)
    assert found.layer_name == layer
    maps = predict(found, images(), torch.tensor([0, 1])).maps
    assert maps is not None
    assert maps.shape == (2, *grid)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


def test_weights_of_zero_hide_no_layer() -> None:
    source = source_on("test_vit")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    assert default_layer(source) == "trunk.blocks.5.norm1"


def test_before_an_average_and_a_linear_layer_grad_cam_is_cam() -> None:
    """A seed of random weights is enough: they are equal whatever the weights."""
    source: Any = source_on("test_resnet", "cam")
    label = torch.tensor([2, 0])
    own = predict(source, images(), label)
    maps = predict(post_hoc("grad-cam", source), images(), label).maps
    assert own.maps is not None
    assert maps is not None
    channels, places = source.fc.in_features, maps[0].numel()
    torch.testing.assert_close(maps, own.maps.relu() * channels / places)


@pytest.mark.parametrize("guard", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_are_there_within_and_not_behind(guard: Any) -> None:
    source = source_on("test_resnet", "cam").requires_grad_()
    layer = source.get_submodule("trunk.layer4")
    with guard():
        seen = differentiated(source, layer, images(), torch.tensor([0, 1]))
    assert seen.gradient.any()
    assert not seen.logits.requires_grad
    assert all(p.grad is None and p.requires_grad for p in source.parameters())
    assert not any(module._forward_hooks for module in source.modules())


def test_what_follows_in_place_leaves_the_output_alone() -> None:
    layer = nn.Conv2d(3, 2, 1)
    with cut_at(layer) as outputs:
        F.relu(layer(images()), inplace=True)
    torch.testing.assert_close(outputs[0], F.conv2d(images(), layer.weight, layer.bias))
    assert (outputs[0] < 0).any()


def test_score_cam_keeps_to_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_on("test_resnet", "cam")
    seen: list[int] = []
    original = type(source).localize

    def counted(self: Any, image: Tensor, label: Tensor | None) -> Any:
        seen.append(len(image))
        return original(self, image, label)

    monkeypatch.setattr(type(source), "localize", counted)
    label, maps = torch.tensor([0, 1]), {}
    for size in (50, 7):
        method = post_hoc("score-cam", source, masked_batch=size, layer="trunk.layer1")
        seen.clear()
        maps[size] = predict(method, images(), label).maps
        channels = source.get_submodule("trunk.layer1.0.conv2").out_channels
        assert seen[0] == 2
        assert max(seen[1:]) <= size
        assert sum(seen[1:]) == 2 * channels  # type: ignore[operator]
    torch.testing.assert_close(maps[50], maps[7])


def test_tokens_that_are_no_grid_are_none() -> None:
    class Strange(nn.Module):
        num_prefix_tokens = 1

    model, image = Strange(), torch.empty(1, 3, 32, 64)
    wide = as_grid(torch.arange(9.0).view(1, 9, 1), model, image)  # after the class token 8 = 2 x 4
    assert wide is not None
    assert wide.tolist() == [[[[1, 2, 3, 4], [5, 6, 7, 8]]]]
    assert as_grid(torch.empty(1, 8, 1), model, image) is not None  # without it
    for shape in ((1, 7, 1), (1, 0, 1), (1, 5)):
        assert as_grid(torch.empty(shape), model, image) is None


@pytest.mark.parametrize("name", ["grad-cam", "score-cam", "attention-rollout"])
def test_a_backbone_alone_is_no_source(name: str) -> None:
    with pytest.raises(InputError, match="looks into a trained network; name one in its recipe"):
        post_hoc(name, nn.Identity())


def test_what_cannot_be_looked_into_is_one_line() -> None:
    source, transformer = source_on("test_resnet", "cam"), source_on("test_vit")
    for options, said in (
        ({"layer": "trunk.layer44"}, "no layer 'trunk.layer44'; did you mean 'trunk.layer4'"),
        ({"layer": "fc"}, r"'fc' puts out \(2, 3\), no grid of places; name another layer"),
    ):
        with pytest.raises(InputError, match=said):
            predict(post_hoc("grad-cam", source, **options), images(), None)
    with pytest.raises(InputError, match=r"options\.start=6: there are 6 blocks, from 0"):
        post_hoc("attention-rollout", transformer, start=6)
    with pytest.raises(InputError, match="needs a plain ViT or DeiT"):
        post_hoc("attention-rollout", source)
    with pytest.raises(InputError, match="no backbone to look into"):
        post_hoc("grad-cam", source_on("none", "center-box"))
