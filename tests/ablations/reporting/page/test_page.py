"""The page in a browser: what it shows, does, and does not let in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ablations.reporting.page import render as pages
from tests.ablations.drawn import HOSTILE, ROOT, gather
from tests.browsers import SCREENS, violations
from tests.browsers import browser as browser

pytestmark = pytest.mark.xdist_group("drawn")  # tables are drawn once


@pytest.fixture(scope="module")
def file(drawn, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    pages.write(path, drawn.found, drawn.pictures)
    return path


@pytest.fixture
def visit(browser, file):
    """Opens the page; whatever a test does, nothing may be asked of the network or complained of."""
    contexts, wrong = [], []

    def go(anchor: str = "", **settings) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.extend([request.url] * (not own(request.url))))
        page.goto(file.as_uri() + anchor)
        return page

    def own(url: str) -> bool:
        return url.split("#")[0] in (file.as_uri(), "data:,")

    yield go
    for context in contexts:
        context.close()
    assert not wrong


def column(page: Page, table: str, head: str) -> list[str]:
    """The texts of a column as they stand, by its head's text."""
    heads = page.locator(f"#{table} tr.heads > th").all_inner_texts()
    place = [text.strip() for text in heads].index(head)
    return page.locator(f"#{table} .results tbody tr > :nth-child({place + 1})").all_inner_texts()


def test_it_shows_every_table_with_its_figures_words_and_pictures(visit, drawn):
    page = visit()
    headings = page.locator("main h2").all_inner_texts()
    assert [text.split(".")[0] for text in headings[:5]] == [f"Table {number}" for number in range(4, 9)]
    for table in drawn.found.tables:
        assert page.locator(f"#{table.name} .results tbody tr").count() == len(table.rows)
        judged = [effect for effect in table.effects if effect.ours is not None]
        assert page.locator(f"#{table.name} .below tbody tr").count() == len(judged)
    assert column(page, "table6", "paper") == ["81.0", "81.3", "81.3", "81.1"]
    ours = column(page, "table6", "ours")
    assert ours[2].split("\n") == ["81.40 ± 0.27 (n=3)", "equivalent"]
    assert ours[3].split("\n") == ["79.00 ± 0.47 (n=1)", "differs"]
    assert page.locator("#table6 figure svg").count() == 3
    assert page.locator("#table6 figure").first.get_attribute("aria-label").startswith("Table 6")
    expect(page.get_by_text("torn.json")).to_be_visible()  # a record that does not count


def test_ids_are_there_once(visit):
    ids = visit().evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))


def test_a_column_sorts_down_up_and_back_and_what_is_empty_stays_last(visit):
    page = visit()
    button = page.locator("#table4 tr.heads th").nth(5).get_by_role("button")  # top-1, ours
    paper = column(page, "table4", "row")
    for order, expected in (
        ("descending", ["TNT-B", "TNT-S + SE", "TNT-S"]),
        ("ascending", ["TNT-S", "TNT-S + SE", "TNT-B"]),
        ("none", paper[:3]),
    ):
        button.click()
        expect(page.locator("#table4 tr.heads th").nth(5)).to_have_attribute("aria-sort", order)
        assert column(page, "table4", "row")[:3] == expected
    assert column(page, "table4", "row") == paper


def test_numbers_sort_as_numbers_and_names_as_words(visit):
    page = visit()
    heads = page.locator("#table4 tr.heads th")
    heads.nth(1).get_by_role("button").click()  # parameters
    assert column(page, "table4", "row")[0] == "ViT-B/16"
    heads.nth(0).get_by_role("button").click()
    assert column(page, "table4", "row")[0] == "ViT-B/16"
    assert column(page, "table4", "row")[-1] == "DeiT-B"


def test_it_filters_by_table_by_words_and_by_verdict(visit):
    page = visit()
    page.get_by_label("Table", exact=True).select_option("table6")
    assert page.locator("main > section:visible").count() == 1
    assert page.get_by_role("status").inner_text() == "10 rows"  # four, and six effects
    page.get_by_label("Table", exact=True).select_option("")
    page.get_by_role("searchbox").fill("tnt-b")
    assert page.locator("tbody tr:visible th").all_inner_texts() == [
        "TNT-B",
        "TNT-B↑384",
        "TNT-B",
        "PyramidTNT-B",
    ]
    page.get_by_role("searchbox").fill("")
    differs = page.get_by_role("button", name="differs", exact=False).first
    differs.click()
    assert page.locator("main tbody tr:visible").count() >= 1
    assert all("differs" in text for text in page.locator("main tbody tr:visible").all_inner_texts())
    differs.click()
    assert page.locator("#table4 .results tbody tr:visible").count() == 15


def test_a_cell_opens_where_its_figure_comes_from(visit, drawn):
    page = visit()
    page.locator("#table6 [data-opens='table6/4']").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    text = dialog.inner_text()
    [entry] = [entry for entry in drawn.table("inner_heads").rows[2].entries if entry.column == "top1"]
    for id in entry.records:
        record = drawn.found.records[id]
        for part in (id, record.commit, record.fingerprint, record.weights_sha256, *record.jobs):
            assert part in text
        assert f"python pipeline/launch.py ablation=inner_heads cells=4 seeds={record.seed}" in text
    assert page.url.endswith("#table6/4")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_an_address_opens_its_cell_and_a_cell_that_was_not_run_tells_the_command(visit):
    dialog = visit("#table5/none").get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert "python pipeline/launch.py ablation=position_encoding cells=none seeds=0" in dialog.inner_text()
    expect(visit("#table6/nothing").get_by_role("dialog")).to_have_count(0)


def test_a_command_is_copied_by_its_button(visit):
    page = visit("#table5/none", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("dialog").get_by_role("button", name="Copy: python pipeline/launch.py").first
    button.click()
    expect(button).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "python pipeline/launch.py ablation=position_encoding cells=none seeds=0"


def test_what_says_nothing_is_folded(visit):
    page = visit()
    opened = page.locator("details.whole[open] h2").all_inner_texts()
    of_se = "Squeeze-and-excitation in the inner and the outer transformer"
    assert [text.split(".")[0] for text in opened] == ["Table 4", "Table 6", of_se]


def test_the_keyboard_is_enough(visit):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_text("To the tables")).to_be_focused()
    figure = page.locator("[data-opens='table6/8']").first
    figure.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(figure).to_be_focused()
    page.locator("#table6 tr.heads button").first.focus()
    page.keyboard.press("Space")
    assert column(page, "table6", "row") == ["8", "4", "2", "1"]


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_never_scrolls_sideways(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= width
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate(wide) <= width
    page.evaluate("location.hash = 'table4/tnt_s_se'")  # with the hostile record's long words
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.evaluate(wide) <= width
    assert dialog.evaluate("(each) => each.scrollWidth - each.clientWidth") <= 0


@pytest.mark.parametrize("settings", SCREENS)
def test_axe_finds_nothing_to_complain_of(visit, settings):
    assert violations(visit(bypass_csp=True, **settings)) == []


def test_in_the_dark_its_pictures_are_dark_too(visit):
    def lightness(page: Page, name: str) -> float:
        colour = page.evaluate(f"getComputedStyle(document.querySelector(`{name}`)).fill")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765

    background, ink = "#table6 svg [id$='patch_1'] path", "#table6 svg [id$='text_1'] g"
    for scheme, dark in (("light", False), ("dark", True)):
        page = visit(color_scheme=scheme)
        assert (lightness(page, background) < 0.3) is dark
        assert (lightness(page, ink) > 0.7) is dark


def test_it_prints(visit):
    page = visit(color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation")).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_what_stands_in_a_record_is_shown_and_never_run(visit):
    page = visit("#table4/tnt_s_se")
    assert HOSTILE in page.get_by_role("dialog").inner_text()
    assert page.evaluate("window.taken") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1


def test_no_foreign_script_runs_and_nothing_can_be_fetched(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.taken = 1'}))"
    )
    assert page.evaluate("window.taken") is None
    assert page.evaluate("fetch('data:,x').then(() => 'came', () => 'refused')") == "refused"
    page.close()


def test_the_same_records_make_the_same_page(drawn, file):
    assert pages.render(gather(drawn.folder), drawn.pictures).encode() == file.read_bytes()


def test_without_scripts_the_tables_are_still_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#table6 .results tbody tr").count() == 4
    expect(page.locator("#table6 .value").first).to_be_visible()


@pytest.mark.slow
def test_the_command_draws_and_writes_the_page_without_torch(drawn, shelf, tmp_path):
    for cell in ("4", "8"):
        shelf.add("inner_heads", cell, 96.0, overrides=["scale=demo"])
    check = (
        "import sys; from ablations import report; "
        "report.main(['--scale', 'demo', '--html']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "report-demo.html").as_uri() in done.stdout
    text = (tmp_path / "results" / "report-demo.html").read_text()
    assert "These numbers cannot be compared with the paper's" in text
    assert not re.search(r"\b81\.3\b", text)  # the paper's figure for that cell
    assert "No run has finished" not in text
    assert (tmp_path / "results" / "figures" / "demo" / "table6-top1.png").exists()
