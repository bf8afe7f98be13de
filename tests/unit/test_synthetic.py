"""Generated pictures: the same bits everywhere, and truth that nothing in training can reach."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from wsolbench.synthetic.birds import (
    PART_NAMES,
    SPECIES,
    Species,
    head_color,
)
from wsolbench.synthetic.paint import paint
from wsolbench.synthetic.scene import SIDE, Knobs, Scene, draw_scene
from wsolbench.synthetic.truth import part_map

KNOBS = {
    "plain": Knobs(),
    "small": Knobs(telling=0.5),
    "context": Knobs(context=1.0),
    "flock": Knobs(birds=(2, 4)),
    "covered": Knobs(cover=4),
}
#: of three scenes under each of KNOBS: pictures and truth. The generator is frozen: whoever changes
#: it makes another dataset, which needs another name.
DIGEST = "c44b53170078d9de61df2997cde53eaf8c6cdadb2b74542bda86214425491255"


def scenes(knobs: Knobs, count: int) -> list[Scene]:
    species = SPECIES
    return [draw_scene(f"test {i}", species[i % 12], knobs, i % 12) for i in range(count)]


def test_scenes_are_the_same_bits_everywhere() -> None:
    digest = hashlib.sha256()
    for knobs in KNOBS.values():
        for scene in scenes(knobs, 3):
            for array in (paint(scene), *part_map(scene)):
                digest.update(array.tobytes())
    assert digest.hexdigest() == DIGEST


def test_species_are_told_by_the_head_and_by_two_other_features_at_least() -> None:
    assert len(SPECIES) == len({head_color(s) for s in SPECIES}) == 12
    for a, b in combinations(SPECIES, 2):
        features = zip(vars(a).values(), vars(b).values(), strict=True)
        assert sum(x != y for x, y in features) >= 2


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS.keys())
def test_truth_is_of_what_was_painted(knobs: Knobs) -> None:
    """A picture changes where its birds are taken away, and nowhere else."""
    for scene in scenes(knobs, 6):
        without = Scene(scene.noise, scene.ground, scene.behind, (), scene.front)
        differs = (paint(scene) != paint(without)).any(axis=2)
        birds, parts = part_map(scene)
        assert ((birds > 0) == (parts > 0)).all()
        assert not differs[birds == 0].any()
        # a bird may have the very colour that is behind it, but not everywhere
        assert differs[birds > 0].mean() > 0.9
        assert set(np.unique(birds)) - {0} == set(range(1, len(scene.birds) + 1))
        assert parts.max() <= len(PART_NAMES)


def test_knobs_turn_what_they_say() -> None:
    plain, small = ([part_map(s)[1] for s in scenes(KNOBS[k], 12)] for k in ("plain", "small"))
    telling = [PART_NAMES.index(name) + 1 for name in ("wing", "tail", "crest")]

    def share(maps: list[np.ndarray]) -> float:
        return float(np.mean([np.isin(m, telling).sum() / (m > 0).sum() for m in maps]))

    assert share(small) < 0.6 * share(plain)
    own = [draw_scene(f"c{i}", SPECIES[3], Knobs(context=1.0), 3) for i in range(9)]
    grounds = np.array([scene.ground for scene in own])
    assert np.ptp(grounds, axis=0).max() <= 36
    assert {len(s.birds) for s in scenes(KNOBS["flock"], 24)} == {2, 3, 4}
    seen = [
        (part_map(c)[0] > 0).sum() / (part_map(p)[0] > 0).sum()
        for c, p in zip(scenes(KNOBS["covered"], 12), uncovered(12), strict=True)
    ]
    assert min(seen) > 0.2
    assert 0.5 < np.mean(seen) < 0.9


def uncovered(count: int) -> list[Scene]:
    return [
        Scene(s.noise, s.ground, s.behind, s.birds, ()) for s in scenes(KNOBS["covered"], count)
    ]


def test_a_picture_without_birds_has_no_truth() -> None:
    birds, parts = part_map(draw_scene("nobody", None, Knobs(), 0))
    assert birds.shape == parts.shape == (SIDE, SIDE)
    assert not birds.any()
    assert not parts.any()


def test_a_species_crest_shows_in_its_parts() -> None:
    crest = PART_NAMES.index("crest") + 1
    for kind in range(3):
        scene = draw_scene("crest", Species(0, 0, kind, 0), Knobs(), 0)
        assert (part_map(scene)[1] == crest).any() == (kind > 0)


def test_what_makes_the_small_backbones_cannot_reach_the_truth() -> None:
    """Nor any picture: it cuts published networks, and training sees images and labels."""
    code = (
        "import sys\n"
        "import wsolbench.cutting\n"
        "reach = ('wsolbench.synthetic', 'wsolbench.datas', 'wsolbench.truth')\n"
        "assert not [m for m in sys.modules if m.startswith(reach)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
