"""An answer as files: the map, what was said as JSON, and a picture of both over the image."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsolbench.answers import Answer, Found
from wsolbench.boxes import Cut
from wsolbench.files import write_atomically, write_text
from wsolbench.saved_run import Card

_TOP = 5
#: share of the heat map in the picture
_HEAT = 0.5
_BOX = (255, 255, 255)
_EDGE = (0, 0, 0)


def write_answer(answer: Answer, found: Found, card: Card, cut: Cut, out: Path) -> dict[str, Any]:
    """Write what was said of an image below a folder, and return what the JSON holds.

    ``<name>.json`` and ``<name>.overlay.png``; ``<name>.npy`` is the method's own map (h, w) in
    float32, as ``score --maps`` reads it, where the method has maps.

    Raises:
        WsolbenchError: when a file cannot be written.
    """
    content = described(answer, found, card, cut)
    base = out / found.name
    native = answer.native
    if native is not None:
        write_atomically(_beside(base, ".npy"), lambda f: np.save(f, native.astype(np.float32)))
    picture = io.BytesIO()
    Image.fromarray(overlay(answer, _caption(content))).save(picture, "png")
    png = picture.getvalue()
    write_atomically(_beside(base, ".overlay.png"), lambda f: f.write(png))
    write_text(_beside(base, ".json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def described(answer: Answer, found: Found, card: Card, cut: Cut) -> dict[str, Any]:
    """Return an answer as JSON holds it; the box is x0, y0, x1, y1 in stored pixels."""
    height, width = answer.pixels.shape[:2]
    shown: list[int] = []
    if answer.probabilities is not None:
        shown = np.argsort(-answer.probabilities, kind="stable")[:_TOP].tolist()
    return {
        "image": found.name.as_posix(),
        "size": [width, height],
        "class": None if answer.label is None else _class(answer, card, answer.label),
        "classes": [_class(answer, card, label) for label in shown],
        "box": [round(value, 2) for value in answer.box],
        "dead_map": answer.dead,
        **cut._replace(threshold=round(cut.threshold, 6)).described(),
        "run": card.recipe.run_name(),
        "weights": card.sha256,
    }


def overlay(answer: Answer, caption: str) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) under its map, with the box and a caption."""
    image = Image.fromarray(_heated(answer))
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 150))
    x0, y0, x1, y1 = answer.box
    if x1 > x0 and y1 > y0:
        draw.rectangle((x0, y0, x1, y1), outline=_EDGE, width=2 * width)
        draw.rectangle((x0, y0, x1, y1), outline=_BOX, width=width)
    font = ImageFont.load_default(size=max(10, image.size[1] // 20))
    draw.text((width, width), caption, _BOX, font, stroke_width=1, stroke_fill=_EDGE)
    return np.array(image)


def _heated(answer: Answer) -> NDArray[np.uint8]:
    if answer.score is None:
        return answer.pixels
    x0, y0, x1, y1 = (round(value) for value in answer.region)
    # An image of a few pixels may leave no room for the part that the map is of.
    size = max(1, x1 - x0), max(1, y1 - y0)
    levels = cv2.resize(np.asarray(answer.score, np.float32), size).clip(0, 1)
    colours = cv2.applyColorMap((255 * levels).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    pixels = answer.pixels.copy()
    part = pixels[y0 : y0 + size[1], x0 : x0 + size[0]]
    part[:] = np.rint((1 - _HEAT) * part + _HEAT * colours[: part.shape[0], : part.shape[1]])
    return pixels


def _class(answer: Answer, card: Card, label: int) -> dict[str, Any]:
    known = answer.probabilities
    probability = None if known is None else round(float(known[label]), 6)
    return {"index": label, "name": card.class_names[label], "probability": probability}


def _caption(content: dict[str, Any]) -> str:
    named = content["class"]
    if named is None:
        return ""
    probability = named["probability"]
    share = "" if probability is None else f" {100 * probability:.0f}%"
    return f"{named['name']}{share}"


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)
