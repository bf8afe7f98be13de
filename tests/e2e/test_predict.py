"""A saved run is handed on, answers for any image and is scored: as the run that made it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import CNN, SMALL, VIT, call, files_below, one_line, records, succeed
from PIL import Image

from wsolbench.metrics import functional as F
from wsolbench.protocol import load_protocol
from wsolbench.registry import DATASETS

PROTOCOLS = ("standard", "sat", "wsoleval")


@dataclass(frozen=True)
class Shared:
    """A run that was handed on, and what its maker knows."""

    run: Path
    results: Path
    data: Path

    def record(self, protocol: str) -> dict[str, Any]:
        found = [r for r in records(self.results) if r["protocol"]["name"] == protocol]
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
def shared_run(tiny_cub: Path, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A run of a method with class-dependent maps, its two files alone in another folder."""
    folder = tmp_path_factory.mktemp("saved")
    words = ["--method", "ts-cam", *VIT, *SMALL, "--epochs", 2, "--dataset", "cub"]
    words += ["--data-root", tiny_cub, "--results", folder / "results"]
    succeed("run", *words, "--protocol", "wsoleval,standard")
    succeed("run", *words, "--protocol", "sat")  # what was scored before stays
    (made,) = (folder / "results/runs").iterdir()
    (folder / "handed on").mkdir()
    for name in ("run.json", "model.safetensors"):
        shutil.copy(made / name, folder / "handed on" / name)
    return Shared(folder / "handed on", folder / "results", tiny_cub)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def said(out: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(file.read_text("utf-8")) for file in out.rglob("*.json")]
    return {content["image"]: content for content in found}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_handed_on_run_is_scored_as_where_it_was_made(
    shared_run: Shared, protocol: str, tmp_path: Path
) -> None:
    data = ["--dataset", "cub", "--data-root", shared_run.data, "--protocol", protocol]
    file = tmp_path / "scores.json"
    succeed("score", "--run", shared_run.run, *data, "--json", file)
    made, again = shared_run.record(protocol), json.loads(file.read_text("utf-8"))
    assert again["figures"] == made["figures"]
    assert again["threshold"] == pytest.approx(made["threshold"], abs=1e-6)


@pytest.mark.parametrize("name", ["standard", "sat"])
def test_predicted_boxes_are_those_that_were_scored(shared_run: Shared, name: str) -> None:
    """Each class's test images with their class asked for: the record's own GT-known."""
    data, protocol = DATASETS.get("cub")(shared_run.data, 5), load_protocol(name)
    samples = data.samples("test")
    hits = 0
    for label, class_name in enumerate(data.class_names):
        files = [s.path for s in samples if s.label == label]
        out = Path(class_name)
        words = ["--protocol", name, "--class", class_name, "--out", out]
        succeed("predict", shared_run.run, *files, *words)
        answers = said(out)
        for sample in (s for s in samples if s.label == label):
            answer = answers[sample.path.name]
            assert answer["class"]["index"] == label
            geometry, (width, height) = protocol.geometry, answer["size"]
            side = geometry.resize if geometry.mode == "crop" else geometry.frame
            scale = np.array([side / width, side / height] * 2)
            box = np.rint(np.array(answer["box"]) * scale - (side - geometry.frame) // 2)
            size, rule, sized = (width, height), protocol.truth, sample.sized
            true = F.true_boxes(np.array(sample.boxes), size, geometry, rule, sized=sized)
            hits += int(F.box_iou(box[None], true).max() >= protocol.iou)
    made = shared_run.record(name)
    assert 100 * hits / len(samples) == pytest.approx(made["figures"]["gt_known_loc"])
    assert answer["threshold"] == pytest.approx(made["threshold"])


def test_any_image_of_a_folder_is_answered(shared_run: Shared) -> None:
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (40, 90, 3), np.uint8)
    images = {
        "wide.JPG": Image.fromarray(rgb),
        "deep/down/tall.png": Image.fromarray(rgb.transpose(1, 0, 2)),
        "grey.png": Image.fromarray(rgb[..., 0]),
        "clear.webp": Image.fromarray(np.dstack([rgb, rgb[..., :1]])),
        "dot.bmp": Image.fromarray(rgb[:1, :1]),
    }
    for name, image in images.items():
        file = Path("photos") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    (Path("photos") / "notes.txt").write_text("not an image")
    done = succeed("predict", shared_run.run, "photos", "--out", "photos/found")
    answers = said(Path("photos/found"))
    assert set(answers) == set(images)
    assert len(done.out.splitlines()) == len(images)
    endings = (".json", ".npy", ".overlay.png")
    assert files_below(Path("photos/found")) == {n + e for n in images for e in endings}
    for name, image in images.items():
        answer = answers[name]
        with Image.open(f"photos/found/{name}.overlay.png") as overlay:
            assert (overlay.size, list(overlay.size)) == (image.size, answer["size"])
        x0, y0, x1, y1 = answer["box"]
        assert 0 <= x0 <= x1 <= image.size[0]
        assert 0 <= y0 <= y1 <= image.size[1]
        probabilities = [c["probability"] for c in answer["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert answer["class"] == answer["classes"][0]
        native = np.load(f"photos/found/{name}.npy")
        assert (native.ndim, native.dtype) == (2, np.float32)
    # its own pictures are no images to predict, and a folder gives what each file gives
    succeed("predict", shared_run.run, "photos", "--out", "photos/found")
    assert set(said(Path("photos/found"))) == set(images)
    succeed("predict", shared_run.run, "photos/wide.JPG", "--out", "one")
    assert said(Path("one"))["wide.JPG"]["class"] == answers["wide.JPG"]["class"]


def test_a_threshold_and_a_class_of_ones_own(shared_run: Shared) -> None:
    file = DATASETS.get("cub")(shared_run.data).samples("test")[0].path
    boxes = []
    for threshold in (0.05, 0.95):
        words = ["--threshold", threshold, "--class", "2", "--out", f"at{threshold}"]
        succeed("predict", shared_run.run, file, *words)
        (answer,) = said(Path(f"at{threshold}")).values()
        assert (answer["threshold"], answer["class"]["index"]) == (threshold, 2)
        boxes.append(answer["box"])
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    assert areas[0] > areas[1]


def test_a_damaged_image_costs_only_itself(shared_run: Shared) -> None:
    Path("some").mkdir()
    Image.new("RGB", (9, 9), "red").save("some/good.png")
    Path("some/bad.jpg").write_bytes(b"\xff\xd8\xff")
    done = call("predict", shared_run.run, "some", "--out", "out")
    assert done.code == 2
    assert "warning: image some/bad.jpg cannot be decoded" in done.err
    assert done.err.splitlines()[-1].startswith("error: 1 of 2 images could not be read")
    assert set(said(Path("out"))) == {"good.png"}


def test_what_trains_nothing_can_be_handed_on_too(tiny_cub: Path) -> None:
    places = ["--dataset", "cub", "--data-root", tiny_cub, "--results", "results"]
    succeed("run", "--method", "center-box", *SMALL, *places)
    (run,) = Path("results/runs").iterdir()
    Image.new("RGB", (64, 32)).save("a.png")
    done = succeed("predict", run, "a.png")
    (answer,) = said(Path("predictions")).values()
    assert (answer["class"], answer["classes"]) == (None, [])
    x0, y0, x1, y1 = answer["box"]
    assert (x0 + x1) / 2 == pytest.approx(32, abs=1.5)
    assert (y0 + y1) / 2 == pytest.approx(16, abs=1.5)
    assert done.out.startswith("a.png: object at ")


def test_all_that_answers_for_a_run_is_handed_on(tiny_cub: Path) -> None:
    """Maps of a method that looks into one run, class scores of a second one."""
    data = ["--dataset", "cub", "--data-root", tiny_cub]
    named = ["source.method=cam", "classifier.method=ts-cam", "classifier.backbone=test_vit"]
    words = ["--method", "grad-cam", *CNN, *SMALL, "--set", *named, "--epochs", 1]
    succeed("run", *words, *data, "--results", "results")
    (made,) = records(Path("results"))
    (run,) = Path("results/runs").glob("grad-cam-*")
    found = ["--protocol", "standard", "--json", "scores.json"]
    succeed("score", "--run", run, *data, *found)
    assert json.loads(Path("scores.json").read_text("utf-8"))["figures"] == made["figures"]


@pytest.fixture
def copied(shared_run: Shared, tmp_path: Path) -> Path:
    shutil.copytree(shared_run.run, tmp_path / "run")
    Image.new("RGB", (9, 9)).save("a.png")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["none.png"], "no image or folder 'none.png'"),
        (["a.png", "--class", "Red_Finch"], "the run knows no class 'Red_Finch'; did you mean"),
        (["a.png", "--class", "3"], "knows no class '3'"),
        (["a.png", "--threshold", "1"], "a threshold is in [0, 1), not 1"),
        (["a.png", "--protocol", "standart"], "did not score this run; did you mean 'standard'?"),
        (["a.png", "--protocol", "wsoleval"], "has no threshold; give one with --threshold T"),
        (["empty"], "folder 'empty' holds no images"),
        (["a.png", "more"], "a.png are both called 'a.png'"),
        (["a.png", "--out", "a.png"], "'a.png' is a file, not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_questions_are_one_line(copied: Path, words: list[str], line: str) -> None:
    for folder in ("empty", "more"):
        Path(folder).mkdir()
    shutil.copy("a.png", "more/a.png")
    one_line(call("predict", copied, *words), 2, line)
    assert files_below(Path.cwd()) == {"a.png", "more/a.png"}


def test_damage_to_a_run_is_one_line(copied: Path, tmp_path: Path) -> None:
    card, weights = copied / "run.json", copied / "model.safetensors"
    whole, held = card.read_text("utf-8"), weights.read_bytes()
    spoilt = bytearray(held)
    spoilt[len(held) // 2] ^= 1
    weights.write_bytes(bytes(spoilt))
    one_line(call("predict", copied, "a.png"), 2, "damaged, or of another run than run.json")
    weights.unlink()
    one_line(call("predict", copied, "a.png"), 2, "cannot be read: No such file")
    weights.write_bytes(held)
    for old, new, line in (
        ('"method": "ts-cam"', '"method": "ts-cma"', "unknown method 'ts-cma'; did you mean"),
        ('"class_names"', '"class_name"', "is no card of a run: unknown field 'class_name'"),
        ('"version": 1', '"version": 9', "protocol 'sat' is version 1 here and was 9"),
        ('"002.Green_Finch",', "", "does not fit method 'ts-cam' here"),
        ("{", "", "is no card of a run"),
    ):
        assert old in whole
        card.write_text(whole.replace(old, new), "utf-8")
        one_line(call("predict", copied, "a.png"), 2, line)
    one_line(call("predict", tmp_path, "a.png"), 2, "holds no saved run")


def test_what_is_scored_must_be_said_and_fit(shared_run: Shared, tiny_toybirds: Path) -> None:
    run = ["--run", shared_run.run]
    cub = ["--dataset", "cub", "--data-root", shared_run.data]
    for words, line in (
        (cub, "either --maps DIR or --run DIR"),
        ([*run, "--maps", "x", *cub], "either --maps DIR or --run DIR"),
        ([*run, *cub, "--holdout", 3], "--holdout does not go with --run"),
        ([*run, "--dataset", "toybirds", "--data-root", tiny_toybirds], "on other classes"),
    ):
        one_line(call("score", *words), 2, line)
