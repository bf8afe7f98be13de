"""Backbones: weights from a folder, input sizes, strides taken out of CNNs."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from wsolbench.backbones import create, input_statistics, set_output_stride, weights_file
from wsolbench.errors import InputError

VIT = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
LITE = "tf_efficientnet_lite0.in1k"


# --------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(("name", "head"), [(VIT, "head"), (LITE, "classifier")])
def test_weights_of_the_folder_load_exactly(shared: Path, name: str, head: str) -> None:
    folder = shared / "weights"
    model = create(name, pretrained=True, image_size=224, weights_dir=folder)
    loaded = model.state_dict()
    stored = load_file(folder / f"{name}.safetensors")
    assert stored.keys() - loaded.keys() == {f"{head}.weight", f"{head}.bias"}
    assert all(torch.equal(tensor, stored[key].to(tensor.dtype)) for key, tensor in loaded.items())
    statistics = input_statistics(model)
    assert statistics.mean == statistics.std == (0.5, 0.5, 0.5)


def test_position_embeddings_are_resampled_to_the_image(shared: Path) -> None:
    folder = shared / "weights"
    model = create(VIT, pretrained=True, image_size=96, weights_dir=folder)
    stored = load_file(folder / f"{VIT}.safetensors")["pos_embed"].float()
    expected = resample_abs_pos_embed(stored, (6, 6), num_prefix_tokens=1)
    assert torch.equal(model.state_dict()["pos_embed"], expected)


@pytest.mark.parametrize(("image_size", "tokens"), [(32, 5), (160, 101), (176, 122)])
def test_a_vit_takes_any_image_size(image_size: int, tokens: int) -> None:
    model = create("test_vit", pretrained=False, image_size=image_size).eval()
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, image_size, image_size))  # type: ignore[operator]
    assert features.shape[1] == tokens


def write_weights(folder: Path, name: str, of: str) -> Path:
    file = folder / f"{name}.safetensors"
    save_file(timm.create_model(of).state_dict(), file)
    return file


def test_weights_with_a_classifier_of_their_own_fit(tmp_path: Path) -> None:
    file = write_weights(tmp_path, "test_resnet", of="test_resnet")
    model = create("test_resnet", pretrained=True, image_size=32, weights_dir=tmp_path)
    key, tensor = next(iter(model.state_dict().items()))
    assert torch.equal(tensor, load_file(file)[key])


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ("test_resnet", "holds no weights of 'test_vit': [0-9]+ of [0-9]+ tensors are missing"),
        ("test_vit3", "holds no weights of 'test_vit': "),
    ],
)
def test_weights_of_another_backbone_are_refused(tmp_path: Path, other: str, line: str) -> None:
    write_weights(tmp_path, "test_vit", of=other)
    with pytest.raises(InputError, match=line):
        create("test_vit", pretrained=True, image_size=32, weights_dir=tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_truncated_weights_are_refused(tmp_path: Path, keep: int) -> None:
    file = write_weights(tmp_path, "test_vit", of="test_vit")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"test_vit\.safetensors: not readable as safetensors"):
        create("test_vit", pretrained=True, image_size=32, weights_dir=tmp_path)


def test_weights_are_looked_for_in_an_existing_folder_only(tmp_path: Path) -> None:
    assert weights_file("test_vit", None) is None
    assert weights_file("test_vit", tmp_path) is None
    with pytest.raises(InputError, match="does not exist; check --weights-dir"):
        weights_file("test_vit", tmp_path / "nowhere")


# ------------------------------------------------------------------------------ names, arguments


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("test_vitt", "unknown backbone 'test_vitt'; did you mean 'test_vit'"),
        ("test_vit.r160_in2k", "backbone 'test_vit.r160_in2k'; did you mean 'test_vit.r160_in1k'"),
        ("?!", r"unknown backbone '\?!'; known: .* and [0-9]+ more"),
        ("", "unknown backbone ''"),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_backbone_gets_a_short_line(name: str, line: str, pretrained: bool) -> None:
    with pytest.raises(InputError, match=line) as raised:
        create(name, pretrained=pretrained, image_size=32)
    assert len(str(raised.value)) < 1500


@pytest.mark.parametrize("args", [{"no_such_argument": 1}, {"depth": -1}, {"embed_dim": "wide"}])
def test_arguments_that_a_backbone_does_not_take(args: dict[str, int | str]) -> None:
    with pytest.raises(InputError, match=r"backbone 'test_vit' does not take \{") as raised:
        create("test_vit", pretrained=False, image_size=32, args=args)
    assert "\n" not in str(raised.value)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match="leave in_chans out of backbone_args"):
        create("test_vit", pretrained=False, image_size=32, args={"in_chans": 5})


def test_images_smaller_than_a_patch() -> None:
    with pytest.raises(
        InputError, match="VisionTransformer takes no images of 8 pixels: "
    ) as raised:
        create("test_vit", pretrained=False, image_size=8)
    assert "\n" not in str(raised.value)


def test_arguments_reach_the_backbone() -> None:
    model = create("test_vit", pretrained=False, image_size=32, args={"depth": 2})
    assert len(model.blocks) == 2  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- strides


def on_meta(name: str) -> nn.Module:
    """Build a network without memory or work: its maps have shapes and nothing else."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, num_classes=0)
    return model.eval()


CNNS = ["resnet50", "vgg16", "tf_efficientnet_lite0", "resnet26d", "convnext_atto"]


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("name", CNNS)
def test_strides_are_taken_out_and_nothing_is_dilated(name: str, stride: int) -> None:
    model = on_meta(name)
    before = {key: tensor.shape for key, tensor in model.state_dict().items()}
    set_output_stride(model, stride)
    small, large = (
        model.forward_features(torch.zeros(1, 3, side, side, device="meta"))  # type: ignore[operator]
        for side in (224, 448)
    )
    assert large.shape[-1] - small.shape[-1] == 224 // stride
    # a convolution without padding loses a cell where it steps by one
    cells = {224 // stride, 224 // stride - 1, 224 // stride - 2}
    assert small.shape[-1] in (cells if name == "convnext_atto" else {224 // stride})
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == before
    dilations = [m.dilation for m in model.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    assert set(dilations) <= {1, (1, 1)}


def test_the_own_stride_changes_nothing() -> None:
    model = on_meta("resnet26d")
    strides = [m.stride for m in model.modules() if isinstance(m, nn.Conv2d)]
    set_output_stride(model, 32)
    assert [m.stride for m in model.modules() if isinstance(m, nn.Conv2d)] == strides


def test_a_pooling_that_pairs_with_its_stride_disappears() -> None:
    model = on_meta("vgg16")
    set_output_stride(model, 8)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert [p.kernel_size for p in pools] == [2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("name", "stride", "line"),
    [
        ("resnet26d", 64, "ResNet has an output stride of 32 and cannot be given 64"),
        ("resnet26d", 12, "cannot be given 12"),
        ("inception_v3", 16, "InceptionV3 cannot be given an output stride of 16"),
        ("test_vit", 16, "VisionTransformer .*"),
    ],
)
def test_a_stride_that_cannot_be_had(name: str, stride: int, line: str) -> None:
    with pytest.raises(InputError, match=line):
        set_output_stride(on_meta(name), stride)
