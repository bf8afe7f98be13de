"""CNNs in the evaluators' form: VGG16-GAP, ResNet50, InceptionV3, and what stands where in them."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn

from wsolbench.cnn import ConvHead, LinearHead, hooked, min_max, of_class, open_trunk, stages
from wsolbench.errors import InputError
from wsolbench.layers import resolve
from wsolbench.registry import METHODS
from wsolbench.request import recipe_sections

CLASSES = 7
#: HaS and CutMix have CAM's network
METHOD_NAMES = ("cam", "adl", "acol", "spg")
FIELD = ("vgg16", "resnet50", "inception_v3")
OTHERS = ("efficientnet_lite0_half_128", "convnext_atto")


def on_meta(name: str, backbone: str, stride: int | None = 16, **options: Any) -> Any:
    """A method without memory or work: its tensors have shapes and nothing else."""
    method: Any = METHODS.get(name)
    given = method.Options(output_stride=stride, **options)
    with torch.device("meta"):
        return method(timm.create_model(backbone, num_classes=0), CLASSES, given)


def shapes(model: Any, side: int = 224) -> tuple[torch.Size, torch.Size]:
    image = torch.zeros(2, 3, side, side, device="meta")
    label = torch.zeros(2, dtype=torch.int64, device="meta")
    prediction = model.eval().localize(image, label)
    return prediction.maps.shape, prediction.logits.shape


@pytest.mark.parametrize(("stride", "grid"), [(16, 14), (8, 28)])
@pytest.mark.parametrize("backbone", FIELD)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_maps_of_the_fields_networks(name: str, backbone: str, stride: int, grid: int) -> None:
    model = on_meta(name, backbone, stride)
    assert shapes(model) == ((2, grid, grid), (2, CLASSES))


@pytest.mark.parametrize("backbone", OTHERS)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_any_cnn_that_offers_the_features(name: str, backbone: str) -> None:
    maps, logits = shapes(on_meta(name, backbone))
    assert maps[1] in (13, 14)  # one loses a cell at a border that it does not pad
    assert logits == (2, CLASSES)


@pytest.mark.parametrize(
    ("backbone", "millions"), [("vgg16", 19.4), ("resnet50", 23.5), ("inception_v3", 25.5)]
)
def test_nothing_is_left_that_no_map_needs(backbone: str, millions: float) -> None:
    """VGG16 has conv6 and no linear layer of its own; InceptionV3 two convolutions after 6e."""
    model = on_meta("cam", backbone)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.1)


def test_inception_halves_between_its_stages_5_and_6() -> None:
    """112, 110, 56, 54, 28 and 14 cells, as the evaluators' paddings make them."""
    model = on_meta("spg", "inception_v3")
    trunk, seen = model.trunk, {}
    for name in ("Conv2d_1a_3x3", "Conv2d_2b_3x3", "Pool1", "Conv2d_4a_3x3", "Mixed_5d"):
        trunk.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output.shape[-1]})
        )
    trunk.eval().forward_features(torch.zeros(1, 3, 224, 224, device="meta"))
    assert list(seen.values()) == [112, 110, 56, 54, 28]
    assert trunk.num_features == 768


@pytest.mark.parametrize(
    ("name", "backbone", "option", "places"),
    [
        ("adl", "vgg16", "places", ["trunk.features.16", "trunk.features.22", "trunk.features.29"]),
        ("adl", "resnet50", "places", ["trunk.layer3.0", "trunk.layer4.0", "trunk.layer4.2"]),
        ("adl", "inception_v3", "places", ["trunk.Mixed_5d", "trunk.Mixed_6e", "neck"]),
        ("adl", "tf_efficientnet_lite0", "places", ["trunk.blocks.4", "trunk.blocks.6"]),
        ("spg", "vgg16", "sources", ["features.23", "features.29"]),
        ("spg", "resnet50", "sources", ["layer3.0", "layer3"]),
        ("spg", "inception_v3", "sources", ["Mixed_6a.pool", "Mixed_6d"]),
        ("spg", "tf_efficientnet_lite0", "sources", ["blocks.2", "blocks.4"]),
    ],
)
def test_what_stands_where(name: str, backbone: str, option: str, places: list[str]) -> None:
    assert list(getattr(on_meta(name, backbone), option)) == places


def test_poolings_of_vgg() -> None:
    """Of 3x3 cells throughout for ACoL, at the fourth for SPG; what lost its stride is no pooling
    for the others."""
    kernels = {
        name: [m.kernel_size for m in on_meta(name, "vgg16").modules() if type(m) is nn.MaxPool2d]
        for name in ("cam", "acol", "spg")
    }
    assert kernels == {"cam": [2, 2, 2, 2, 1], "acol": [3] * 5, "spg": [2, 2, 2, 3, 1]}


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        ("cam", ("neck.", "fc.")),
        ("spg", ("neck.", "classifier.", "mask_", "trunk.features.17", "trunk.features.28")),
        ("acol", ("branch_a.", "branch_b.")),
    ],
)
def test_what_is_fast_on_vgg16_is_all_that_is_new(name: str, fast: tuple[str, ...]) -> None:
    """The evaluators: all but the features; SPG takes conv4 and conv5 out of these."""
    chosen = {"backbone": "vgg16.tv_in1k"}
    recipe = resolve(recipe_sections(name), name, "cub", "released", chosen)
    options = {key: value for key, value in recipe.options.items() if key != "output_stride"}
    model = on_meta(name, "vgg16", **options)
    slow, quick = model.param_groups(1.0, 0.0)
    assert (slow["lr"], quick["lr"]) == (1.0, 10.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(names[id(p)].startswith("trunk.features.") for p in slow["params"])
    for part in fast:
        assert any(names[id(p)].startswith(part) for p in quick["params"])
    count = 26 if name != "spg" else 14  # tensors of 13 or 7 convolutions
    assert len(slow["params"]) == count


@pytest.mark.parametrize("name", ["cam", "acol", "spg"])
def test_what_is_fast_on_inception_is_all_that_is_new(name: str) -> None:
    chosen = {"backbone": "inception_v3.tv_in1k"}
    recipe = resolve(recipe_sections(name), name, "cub", "released", chosen)
    options = {key: value for key, value in recipe.options.items() if key != "output_stride"}
    model = on_meta(name, "inception_v3", **options)
    slow, quick = model.param_groups(1.0, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(names[id(p)].startswith("trunk.") for p in slow["params"])
    assert not any(names[id(p)].startswith("trunk.") for p in quick["params"])


@pytest.mark.parametrize("backbone", ["vgg16", "vgg19.tv_in1k", "vgg16_bn.tv_in1k"])
def test_new_layers_of_spg_are_fast_on_every_vgg(backbone: str) -> None:
    recipe = resolve(recipe_sections("spg"), "spg", "cub", "released", {"backbone": backbone})
    fast = cast(list[str], recipe.options["fast_layers"])
    assert fast[:3] == ["neck.", "classifier.", "mask_"]
    assert ("features.17" in fast) == (backbone == "vgg16")


def test_fast_layers_that_are_not_there_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wsolbench"):
        on_meta("cam", "resnet18", fast_layers=["layer4.", "layer5."]).param_groups(1.0, 0.0)
    assert [record.getMessage().partition("contains ")[2] for record in caplog.records] == [
        "layer5."
    ]


@pytest.mark.parametrize("head", [LinearHead, ConvHead])
def test_the_mean_of_the_class_map_is_the_logit(head: type[LinearHead] | type[ConvHead]) -> None:
    """With its bias, and the linear one's once the mean over channels is made a sum."""
    torch.manual_seed(0)
    classifier = head(6, CLASSES).double()
    nn.init.normal_(classifier.bias)  # type: ignore[arg-type]
    features, label = torch.randn(3, 6, 4, 5).double(), torch.tensor([2, 0, 6])
    pooled = classifier.maps(features, label).mean((1, 2))
    if isinstance(classifier, LinearHead):
        pooled = pooled * 6 + classifier.bias[label]
    logits = classifier.logits(features)
    torch.testing.assert_close(pooled, logits[torch.arange(3), label])


def test_maps_are_stretched_image_by_image() -> None:
    maps: Tensor = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-4.0, -4.0], [-4.0, -4.0]]])
    assert min_max(maps).tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
    classes = torch.arange(2.0)[:, None, None, None] * 10 + torch.arange(3.0)[:, None, None]
    assert of_class(classes, torch.tensor([2, 1])).flatten().tolist() == [2.0, 11.0]


@pytest.mark.parametrize(
    ("backbone", "stride", "line"),
    [
        ("inception_v3", 32, "InceptionV3 has an output stride of 16 or 8, not 32"),
        ("vgg16", 3, "VGG .*cannot be given"),
        ("swin_tiny_patch4_window7_224", None, "SwinTransformer offers no map of features"),
        ("test_vit", None, "VisionTransformer offers no map of features"),
    ],
)
def test_what_cannot_be_had_is_one_line(backbone: str, stride: int | None, line: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(backbone, num_classes=0)
    with pytest.raises(InputError, match=f"^{line}"):
        open_trunk(model, stride)


def test_stages_must_be_named() -> None:
    with pytest.raises(InputError, match="timm names no stages of Sequential; try a ResNet"):
        stages(nn.Sequential())


def test_no_layer_is_hooked_after_a_step() -> None:
    """What a step hangs onto the network is gone after it, also when it fails."""
    model = nn.Sequential(nn.Identity())
    with hooked(model, ["0"], lambda x: x * 2):
        assert model(torch.ones(1)) == 2
    assert model(torch.ones(1)) == 1
    with pytest.raises(RuntimeError, match="size"), hooked(model, ["0"], lambda x: x.reshape(2)):
        model(torch.ones(1))
    assert model(torch.ones(1)) == 1
