"""What may lie beside CUB: the hold-out CUBv2, masks, and the list of images of ImageNet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import SMALL, VIT, records, succeed
from miniatures import pen, write
from PIL import Image
from trees import CLASSES

from wsolbench import provenance
from wsolbench.dataset import Dataset
from wsolbench.errors import InputError
from wsolbench.metrics.derived import figures_without
from wsolbench.registry import DATASETS
from wsolbench.request import make_request
from wsolbench.results import Result, read_table
from wsolbench.truth import read_truth

LIST = "metadata/CUB/val/localization.txt"


def cub(root: Path, holdout: int = 0) -> Dataset:
    return DATASETS.get("cub")(root, holdout)


@pytest.fixture
def root(tiny_cub: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_cub, tmp_path / "data")
    return tmp_path / "data"


def add_v2(root: Path, folder: str = "CUBV2") -> None:
    hand, lines = pen(), []
    for label, name in enumerate(CLASSES):
        for number in range(2):
            image = f"{name}/3010731{label}{number}.jpg"
            box = hand.draw(root / folder / image, label)
            lines.append(",".join([image, *map(str, box)]))
    # of a class that is not in this part of CUB, without its image
    write(root / LIST, [*lines, "059.California_Gull/1.jpg,1,2,3,4"], end="")


@pytest.mark.parametrize("folder", ["CUBV2", "CUB_200_2011/images"])
def test_cubv2_is_the_holdout_where_it_is(root: Path, folder: str) -> None:
    before = cub(root, 2)
    assert before.holdout_name() == "2 training images a class"
    add_v2(root, folder)
    after = cub(root, 2)
    assert after.holdout_name() == "CUBv2"
    assert [s.label for s in after.samples("val")] == [0, 0, 1, 1, 2, 2]
    assert len(after.samples("train")) == len(before.official("train"))
    assert cub(root).samples("val") == []
    # thresholds are others now, and so are the figures; without a hold-out they are not
    assert after.fingerprint() != before.fingerprint()
    assert cub(root).fingerprint() == before.fingerprint()
    for sample in after.samples("val"):
        read_truth(sample)


def test_real_lines_of_the_holdout(shared: Path, tmp_path: Path) -> None:
    """The metadata has corners, the release has widths and heights under names of corners."""
    fixtures = shared / "data/fixtures/wsolevaluation"
    root = tmp_path / "data"
    shutil.copytree(shared / "data/cub30/CUB_200_2011", root / "CUB_200_2011", symlinks=True)
    lines = (fixtures / "CUB_val_localization.txt").read_text().rstrip("\n").split("\n")
    write(root / LIST, lines, end="")
    for line in lines:
        image = root / "CUBV2" / line.split(",")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1000, 1000)).save(image)
    data = cub(root, 5)
    val = data.samples("val")
    assert list(val[0].boxes) == [(176, 136, 459, 291)]
    assert data.class_names[val[5].label] == "002.Laysan_Albatross"
    (root / LIST).rename(root / "CUBV2/CUBV2_boxes.txt")
    with pytest.raises(InputError, match=r"CUBV2_boxes.txt does not do"):
        cub(root, 5).samples("val")


def test_half_a_holdout_is_refused(root: Path) -> None:
    add_v2(root)
    next((root / "CUBV2" / CLASSES[1]).iterdir()).unlink()
    with pytest.raises(InputError, match=r"localization.txt:[34]: .* unpack CUBV2.tar again"):
        cub(root, 2).samples("val")


def add_masks(root: Path) -> None:
    data = cub(root)
    for samples in (data.official("train"), data.official("test")):
        for sample in samples:
            with Image.open(sample.path) as image:
                width, height = image.size
            grey = np.zeros((height, width), np.uint8)
            x0, y0, x1, y1 = (int(value) for value in sample.boxes[0])
            grey[y0 : y1 + 3, x0 : x1 + 3] = 102  # two of five annotators
            grey[y0:y1, x0:x1] = 153
            file = (root / "segmentations" / sample.image_id).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).convert("LA").save(file)


def test_a_mask_is_what_most_annotators_saw(root: Path) -> None:
    before = cub(root)
    add_masks(root)
    after = cub(root)
    assert after.fingerprint() == before.fingerprint()
    truth = read_truth(after.samples("test")[0])
    (mask,) = truth.instance_masks
    x0, y0, x1, y1 = (int(value) for value in truth.boxes[0])
    assert mask[y0:y1, x0:x1].all()
    assert mask.sum() == (x1 - x0) * (y1 - y0)
    assert not any(s.instance_masks for s in after.samples("train"))
    next((root / "segmentations" / CLASSES[0]).iterdir()).unlink()
    with pytest.raises(InputError, match=r"unpack segmentations\.tgz again"):
        cub(root)


def test_the_real_list_of_overlaps(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(shared / "data/cub30/CUB_200_2011", root / "CUB_200_2011", symlinks=True)
    real = shared / "data/fixtures/cub/imagenet_overlap_test43.tsv"
    shutil.copy(real, root / "cub_imagenet_overlap.tsv")
    seen = cub(root).in_imagenet()
    # of the 43 those in the 30 classes that are there
    listed = [line.split("\t")[1] for line in real.read_text().splitlines()[1:]]
    assert len(listed) == 43
    assert seen == {name for name in listed if int(name[:3]) <= 30}
    assert len(seen) > 10
    write(root / "cub_imagenet_overlap.tsv", ["name", "x"])
    with pytest.raises(InputError, match=r"overlap.tsv:1: expected columns between tabs"):
        cub(root).in_imagenet()


@pytest.mark.parametrize(
    ("backbone", "seen"),
    [
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", True),
        ("tf_efficientnet_lite0.in1k", True),
        ("vit_small_patch16_224.dino", True),
        ("vit_small_patch14_dinov2.lvd142m", True),
        ("vit_base_patch16_clip_224.openai", False),
        ("test_vit", False),
    ],
)
def test_what_has_seen_imagenet(backbone: str, seen: bool) -> None:
    request = {"method": "sat", "dataset": "cub", "backbone": backbone}
    (recipe,) = make_request(request).recipes()
    assert provenance.saw_imagenet(recipe) == seen
    assert not provenance.saw_imagenet(recipe.model_copy(update={"pretrained": False}))


def test_clean_figures_are_those_of_the_other_images(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the figures of all; with masks there is PxAP, too."""
    add_v2(root)
    add_masks(root)
    test = [s.image_id for s in cub(root).samples("test")]
    write(root / "cub_imagenet_overlap.tsv", ["cub_path\tother", *(f"{n}\tx" for n in test[:5])])
    arguments = (
        *("run", "--method", "sat", "--dataset", "cub", "--data-root", root, *VIT, *SMALL),
        *("--epochs", "1", "--device", "cpu", "--protocol", "standard", "--results", tmp_path),
    )
    succeed(*arguments)
    (record,) = records(tmp_path)
    assert record["clean"] is None  # random weights have seen nothing
    assert record["dataset"]["holdout"] == "CUBv2"
    assert "pxap" in record["figures"]
    monkeypatch.setattr("wsolbench.recording.saw_imagenet", lambda _: True)
    said = succeed(*arguments, "--no-resume").out
    (record,) = records(tmp_path)
    assert "  without 5 test images that are in ImageNet: gt_known_loc " in said
    clean = record["clean"]
    assert clean["left_out"] == 5
    assert "pxap" not in clean["figures"]
    (file,) = (tmp_path / "measured").glob("*.json")
    result = Result.model_validate(json.loads(file.read_text()))
    table = read_table(result, tmp_path)
    every = figures_without(table, record["figures"], record["threshold"], ())
    assert every == pytest.approx({name: record["figures"][name] for name in every})
    right = sum(
        table.iou[table.at(int(np.argmin(abs(table.thresholds - record["threshold"]))))][i] >= 0.5
        for i, name in enumerate(table.image_id)
        if name not in test[:5]
    )
    assert clean["figures"]["gt_known_loc"] == pytest.approx(100 * right / 7)
