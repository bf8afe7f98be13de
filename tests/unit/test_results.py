"""Records: what they accept, and that a folder of them is never left half-written."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from records import make_result

from wsolbench import environment
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.files import check_writable, write_text
from wsolbench.protocol import FIGURES
from wsolbench.results import (
    Result,
    load_results,
    read_result,
    save_result,
)

PERCENT = st.floats(0, 100)


def files_below(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*") if file.is_file()}


@settings(deadline=None)
@given(
    figures=st.dictionaries(st.sampled_from(FIGURES), PERCENT),
    curve=st.lists(PERCENT, min_size=2, max_size=2),
    title=st.text(),
    command=st.text(),
)
def test_any_record_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory,
    figures: dict[str, float],
    curve: list[float],
    title: str,
    command: str,
) -> None:
    folder = tmp_path_factory.mktemp("results")
    changes: dict[str, Any] = {
        "figures": figures,
        "curves": {"thresholds": [0.0, 0.5], "c": curve},
        "command": command,
    }
    result = make_result(**changes, dataset={"title": title})
    assert read_result(save_result(result, folder)) == result
    assert load_results(folder) == ([result], [])


def test_a_record_with_full_curves_is_small_and_keeps_lists_on_one_line(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 100, (8, 1000))
    result = make_result(
        curves={
            "thresholds": np.arange(0, 1, 0.001).tolist(),
            **{f"a_curve_{i}": row.tolist() for i, row in enumerate(values)},
        },
    )
    text = save_result(result, tmp_path).read_text("utf-8")
    assert len(text) < 100_000
    assert len(text.splitlines()) < 150
    back = Result.model_validate_json(text)
    assert back.curves["thresholds"] == tuple(i / 1000 for i in range(1000))
    kept = [back.curves[f"a_curve_{i}"] for i in range(len(values))]
    assert np.allclose(np.array(kept, dtype=float), values, atol=5.1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 100.1])
def test_a_figure_that_is_no_percentage_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        make_result(figures={"gt_known_loc": value})


def test_a_figure_of_another_name_is_refused() -> None:
    with pytest.raises(ValidationError):
        make_result(figures={"accuracy": 3.0})


def test_where_a_curve_is_undefined_the_record_has_null(tmp_path: Path) -> None:
    result = make_result(curves={"pxap_precision": [float("nan"), 0.50004]})
    assert result.curves["pxap_precision"] == (None, 0.5)
    assert read_result(save_result(result, tmp_path)) == result


@pytest.mark.parametrize(
    "changes",
    [
        {"curves": {"thresholds": [0.0, 0.5], "c": [1.0, 2.0, 3.0]}},
        {"curves": {"c": [1.0]}},
        {"threshold": None},
        {"threshold_source": "none"},
        {"schema_version": 2},
        {"source": "reported"},
        {"split": "val"},
        {"created": "2026-01-02T03:04:05"},
        {"surplus": 1},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_result(**changes)


def variants() -> list[Result]:
    return [
        make_result(),
        make_result({"seed": 1}),
        make_result({"epochs": 14}),
        make_result({"precision": "bf16"}),
        make_result(protocol={"name": "other"}),
        make_result(dataset={"fingerprint": "ba9876543210"}),
        make_result(environment={"device_type": "cuda"}),
    ]


def test_different_identities_have_different_files(tmp_path: Path) -> None:
    made = variants()
    assert len({r.identity() for r in made}) == len(made)
    assert len({save_result(r, tmp_path) for r in made}) == len(made)
    loaded = load_results(tmp_path)
    assert {r.identity() for r in loaded.results} == {r.identity() for r in made}
    assert loaded.results == sorted(made, key=Result.file_name)
    assert loaded.problems == []


def test_the_same_identity_takes_the_place_of_the_earlier_record(tmp_path: Path) -> None:
    save_result(make_result(), tmp_path)
    again = make_result(figures={"gt_known_loc": 91.0}, created="2026-02-02T03:04:05Z")
    save_result(again, tmp_path)
    assert load_results(tmp_path) == ([again], [])


def test_two_files_of_one_identity_are_reported_and_not_merged(tmp_path: Path) -> None:
    good = make_result()
    file = save_result(good, tmp_path)
    copied = make_result(figures={"gt_known_loc": 1.0})
    copy = save_result(copied, tmp_path / "other").rename(file.with_name("0-copy.json"))
    results, problems = load_results(tmp_path)
    assert results == [good]
    assert len(problems) == 1
    assert copy.name in problems[0]
    assert file.name in problems[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Invalid JSON"),
        (b'{"schema_version": 1, "figur', "Invalid JSON"),
        (b"\xff\xfe\x00", "Invalid JSON"),
        (b"[]", "object"),
        (b'{"hello": "world"}', "recipe"),
        (b"null", "object"),
    ],
)
def test_a_foreign_file_is_named_and_the_rest_is_read(
    tmp_path: Path, content: bytes, says: str
) -> None:
    file = save_result(make_result(), tmp_path).with_name("zzz.json")
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_result(file)
    assert "\n" not in str(caught.value)
    assert "zzz.json" in str(caught.value)
    assert load_results(tmp_path) == ([make_result()], [str(caught.value)])


def test_a_truncated_record_is_reported_wherever_it_was_cut(tmp_path: Path) -> None:
    file = save_result(make_result(), tmp_path)
    whole = file.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        file.write_bytes(whole[:length])
        results, problems = load_results(tmp_path)
        assert results == []
        assert [file.name in p for p in problems] == [True]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"gt_known_loc": 90.0', '"gt_known_loc": NaN', "figures.gt_known_loc"),
        ('"gt_known_loc": 90.0', '"gt_known_lok": 90.0', "unknown figure 'gt_known_lok'"),
        ('"schema_version": 1', '"schema_version": 2', "schema_version"),
        ('"dead_maps": 0', '"dead_map": 0', "dead_map"),
    ],
)
def test_an_edited_record_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    file = save_result(make_result(), tmp_path)
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(InputError, match=says) as caught:
        read_result(file)
    assert "\n" not in str(caught.value)


def test_a_folder_of_the_name_of_a_record_is_reported(tmp_path: Path) -> None:
    (tmp_path / "measured" / "folder.json").mkdir(parents=True)
    results, problems = load_results(tmp_path)
    assert results == []
    assert "folder.json" in problems[0]


def test_no_results_folder_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    assert load_results(tmp_path) == ([], [])
    with pytest.raises(InputError, match="--results"):
        load_results(tmp_path / "absent")


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, WsolbenchError), (errno.EACCES, InputError)],
)
def test_a_failed_write_leaves_the_earlier_record_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    code: int,
    expected: type[WsolbenchError],
) -> None:
    file = save_result(make_result(), tmp_path)
    before = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(WsolbenchError) as caught:
        save_result(make_result(figures={"gt_known_loc": 1.0}), tmp_path)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert file.read_bytes() == before
    assert files_below(tmp_path) == {file.name}


def test_an_interrupt_leaves_the_earlier_record_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_result(make_result(), tmp_path)
    before = file.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_result(make_result(figures={"gt_known_loc": 1.0}), tmp_path)
    assert file.read_bytes() == before
    assert files_below(tmp_path) == {file.name}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    def on_full_disk(self: Path, *arguments: Any, **named: Any) -> Any:
        self.touch()
        return real_open(Path("/dev/full"), *arguments, **named)

    monkeypatch.setattr(Path, "open", on_full_disk)
    with pytest.raises(WsolbenchError, match="No space left on device; make room"):
        save_result(make_result(), tmp_path)
    assert files_below(tmp_path) == set()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    blocking = tmp_path / "results"
    blocking.write_text("mine")
    for use in (check_writable, lambda folder: save_result(make_result(), folder)):
        with pytest.raises(InputError, match="is a file, not a folder") as caught:
            use(blocking)
        assert f"'{blocking}'" in str(caught.value)
    with pytest.raises(InputError):
        load_results(blocking)
    assert blocking.read_text() == "mine"


def test_a_folder_that_can_be_written_to_is_prepared(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "results")
    assert load_results(tmp_path / "new" / "results") == ([], [])
    assert files_below(tmp_path) == set()


def test_files_get_the_mode_of_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, env=clean
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "results").mkdir(parents=True)
    (folder / "code.py").write_text("one")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_only_changes_beside_results_make_a_checkout_dirty(checkout: Path) -> None:
    commit, dirty = environment.git_state(checkout)
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    (checkout / "results" / "record.json").write_text("{}")
    assert environment.git_state(checkout) == (commit, False)
    (checkout / "new_method.py").write_text("two")
    assert environment.git_state(checkout) == (commit, True)


def test_the_commit_of_a_surrounding_project_is_not_ours(checkout: Path) -> None:
    inside = checkout / "site-packages"
    inside.mkdir()
    assert environment.git_state(inside) == (None, None)
    assert environment.git_state(checkout.parent) == (None, None)


def test_a_checkout_without_commits_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert environment.git_state(tmp_path) == (None, None)


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment.git_state(checkout) == (None, None)


def test_the_environment_names_versions_and_no_host_or_path() -> None:
    found = environment.collect(torch.device("cpu"))
    assert found.device_type == "cpu"
    assert found.threads == torch.get_num_threads()
    assert found.torch == str(torch.__version__)
    values = [str(value) for value in found.model_dump().values()]
    assert platform.node() not in values
    assert not any(str(environment.__file__)[:5] in value for value in values)
