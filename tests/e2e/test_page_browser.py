"""The page in a real Chromium: it loads clean, sorts, filters and shows its pictures, by keys."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from boards import Photos, add_few_shots, make_board, make_photos
from browser import NAMES, Tab, browser_tab, find_browser
from PIL import Image

from wsolbench.leaderboard import write_leaderboard
from wsolbench.registry import DATASETS
from wsolbench.report.page import FILE_NAME, Source, write_page

DESKTOP, PHONE = (1400, 900), (390, 844)
VISIBLE = "[...document.querySelectorAll({!r})].filter(e => e.checkVisibility())"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, folder = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("board")
    photos = make_photos(root)
    make_board(folder, photos)
    add_few_shots(folder, photos)
    (folder / "measured" / "<img src=x>.json").write_text("{")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATASETS, "_plugins", {**DATASETS._plugins, "photos": Photos})
        write_page(folder, write_leaderboard(folder, {}), {}, Source(root, "all"))
    return folder / FILE_NAME


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed: the page was not tried in a browser")
    with browser_tab(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, page: Path) -> Iterator[Tab]:
    browser.errors.clear()
    browser.size(*DESKTOP)
    browser.open(page)
    yield browser
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("document.title") == "wsolbench leaderboard"
    assert browser.run("document.querySelectorAll('[onerror], [onclick], img').length") == 0


def names(tab: Tab) -> list[str]:
    script = VISIBLE.format("#which table tbody th a") + ".map(e => e.textContent.trim())"
    return list(tab.run(script))


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_fits_its_window(tab: Tab, page: Path, size: tuple[int, int]) -> None:
    tab.size(*size)
    tab.open(page)
    assert tab.run("document.documentElement.scrollWidth") == size[0]
    assert tab.run(VISIBLE.format("#problems li") + ".length") == 1
    assert tab.run(VISIBLE.format(".forest .line .dot") + ".length") > 2


def test_keys_sort_a_table(tab: Tab) -> None:
    assert names(tab)[0] == "alpha"
    head = "document.querySelectorAll('#which thead button')"
    column = tab.run(f"[...{head}].findIndex(b => b.textContent.startsWith('GT-known'))")
    tab.run(f"{head}[{column}].focus()")
    tab.press("Enter")
    values = (
        f"[...document.querySelectorAll('#which tbody tr')].map(r => +r.cells[{column}].dataset.v)"
    )
    assert tab.run(values) == sorted(tab.run(values), reverse=True)
    tab.press("Enter")
    assert tab.run(values) == sorted(tab.run(values))
    assert tab.run(f"{head}[{column}].parentElement.ariaSort") == "ascending"
    assert names(tab)[-1] == "alpha"


def test_filters_hide_and_show(tab: Tab) -> None:
    tab.run("document.querySelector('[data-filter=method]').focus()")
    tab.send("Input.insertText", text="BET")
    assert names(tab) == ["beta"]
    assert tab.run("document.querySelector('#shown').textContent") == "1 rows in 1 comparisons"
    assert tab.run(VISIBLE.format(".forest .line:not(.scale)") + ".length") == 1
    tab.send("Input.insertText", text=" nothing")
    assert names(tab) == []
    tab.run("document.querySelector('#filters [type=reset]').focus()")
    tab.press("Enter")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert len(names(tab)) == 3


def test_the_pictures_are_there(tab: Tab) -> None:
    script = (
        "Promise.all([...document.querySelectorAll('#why image')].map(async e => {"
        "const i = new Image(); i.src = e.href.baseVal; await i.decode(); return i.naturalWidth}))"
    )
    widths = tab.run(script)
    assert len(widths) == 10 + 3 * 10
    assert sorted(widths)[0] == 1  # the dead map
    assert sorted(widths)[1] >= 15
    tab.run(
        "document.querySelector('.tile').scrollIntoView({behavior: 'instant', block: 'center'})"
    )
    box = tab.run(
        "new Promise(done => setTimeout(() => {"
        "const r = document.querySelector('.tile svg').getBoundingClientRect();"
        "done([r.left, r.top, r.right, r.bottom].map(Math.round))}, 200))"
    )
    assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(2, rel=0.05)
    seen = np.asarray(Image.open(io.BytesIO(tab.picture())).convert("RGB").crop(box), np.float64)
    assert seen.std(axis=(0, 1)).max() > 20  # a photograph and a map, not an empty tile


def test_a_gallery_shows_where_one_method_fails(tab: Tab) -> None:
    shown = VISIBLE.format(".strip")
    assert tab.run(f"{shown}.length") == 8
    tab.run("document.querySelector('[data-more]').focus()")
    tab.press("Enter")
    assert tab.run(f"{shown}.length") == 10
    tab.run(
        "const s = document.querySelector('[data-failing]:is(select)'); s.value = '2';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    failing = tab.run(f"{shown}.map(e => e.dataset.failing.trim().split(' ').includes('2'))")
    assert failing
    assert all(failing)


def test_a_figure_leads_to_its_record(tab: Tab, page: Path) -> None:
    tab.run("document.querySelector('#which td.number a').focus()")
    tab.press("Enter")
    tab.run("new Promise(done => setTimeout(done, 300))")
    assert tab.run("document.querySelector('details.record').open") is True
    assert tab.run("document.activeElement.tagName") == "SUMMARY"
    link = tab.run(
        "decodeURIComponent(document.querySelector('details.record li a').getAttribute('href'))"
    )
    assert (page.parent / link).is_file()
    assert "wsolbench run" in tab.run("document.querySelector('details.record code').textContent")


def test_the_first_tab_skips_to_the_figures(tab: Tab) -> None:
    tab.press("Tab")
    assert tab.run("document.activeElement.className") == "skip"
    tab.press("Enter")
    assert tab.run("location.hash") == "#which"


def test_without_scripts_everything_is_shown(tab: Tab, page: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(page)
    tab.send("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.run(VISIBLE.format(".strip") + ".length") == 10
    assert tab.run(VISIBLE.format(".focused") + ".length") == 2
