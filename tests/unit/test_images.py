"""Every kind of image file that datasets hold, and the resize that all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from wsolbench.data.images import read_image, resize_image
from wsolbench.errors import InputError


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def _saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_rgb_is_read_as_stored(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    pixels = read_image(_saved(tmp_path / "a.png", Image.fromarray(rgb)))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, rgb)


def test_a_png_named_jpeg_is_read_by_its_content(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = _saved(tmp_path / "a.JPEG", Image.fromarray(rgb), format="PNG")
    np.testing.assert_array_equal(read_image(path), rgb)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_gets_three_equal_channels(tmp_path: Path, rgb: NDArray[np.uint8], mode: str) -> None:
    image = Image.fromarray(rgb[..., 0]).convert(mode)
    pixels = read_image(_saved(tmp_path / "a.png", image))
    expected = np.array(image.convert("L"))
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_grey_jpeg(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = _saved(tmp_path / "a.jpg", Image.fromarray(rgb[..., 0]))
    with Image.open(path) as image:
        assert image.mode == "L"
        expected = np.array(image)
    np.testing.assert_array_equal(read_image(path), np.repeat(expected[..., None], 3, axis=2))


def test_alpha_is_dropped_not_blended(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    alpha = np.full((12, 17, 1), 3, np.uint8)
    image = Image.fromarray(np.concatenate([rgb, alpha], axis=2))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(read_image(_saved(tmp_path / "a.png", image)), rgb)


@pytest.mark.parametrize("transparency", [None, 2, bytes([0, 128, 255])])
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 250]], np.uint8)
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    image = Image.fromarray(index, "L").convert("P")
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    path = _saved(tmp_path / "a.png", image, **options)
    with Image.open(path) as stored:
        assert stored.mode == "P"
        assert ("transparency" in stored.info) == (transparency is not None)
    np.testing.assert_array_equal(read_image(path), colours[index])


def test_gif(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    pixels = read_image(_saved(tmp_path / "a.gif", image))
    np.testing.assert_array_equal(pixels, np.full((3, 4, 3), [9, 8, 7]))


def test_cmyk_jpeg_has_the_colours_that_were_meant(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    path = _saved(tmp_path / "a.jpg", image, quality=100)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    off = np.abs(read_image(path).astype(int) - [200, 40, 90])
    assert off.max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    path = _saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    with Image.open(path) as stored:
        assert stored.mode == "I;16"
    np.testing.assert_array_equal(read_image(path)[..., 1], [[0, 0, 1], [128, 254, 255]])


def test_big_endian_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 511, 65535]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    pixels = read_image(_saved(tmp_path / "a.tif", image))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 1, 255]])


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    """Boxes are in stored pixels: a rotated 20x10 image must stay 20 wide and 10 high."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif, quality=100)
    read = read_image(path)
    assert read.shape == (10, 20, 3)
    assert read[:, :9].min() > 250
    assert read[:, 11:].max() < 5


def test_values_of_32_bit_are_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "a.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"image {path} cannot be decoded (mode F: values of 32 bit have no known white); "
        "restore it from the dataset"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value) == f"image {path} does not exist; restore it from the dataset"


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0\n\n\n"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"image {path} cannot be decoded (")
    assert "\n" not in message


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    """Half a photograph is grey below: it must be an error, never a training image."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = _saved(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(cut=st.integers(0, 2000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_png_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    noise = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    content[cut % len(content)] = value
    path.write_bytes(content)
    try:
        pixels = read_image(path)
    except InputError as error:
        message = str(error)
    else:
        message = str(path)
        assert pixels.shape[2] == 3
    assert str(path) in message


@given(
    source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_resize_is_torchvisions(
    source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*source, 3), dtype=np.uint8)
    expected = tv.resize(Image.fromarray(pixels), list(target), InterpolationMode.BILINEAR)
    resized = resize_image(pixels, target)
    assert resized.shape == (*target, 3)
    np.testing.assert_array_equal(resized, np.array(expected))


def test_resize_takes_height_first(rgb: NDArray[np.uint8]) -> None:
    assert resize_image(rgb, (5, 9)).shape == (5, 9, 3)


def test_photographs_are_read(shared: Path) -> None:
    """Two of the first 50 classes' photographs are grey; one is among these."""
    folder = shared / "data/cub30/CUB_200_2011/images"
    grey = folder / "009.Brewer_Blackbird/Brewer_Blackbird_0028_2682.jpg"
    pixels = read_image(grey)
    assert pixels.shape[2] == 3
    assert (pixels[..., 0] == pixels[..., 1]).all()
