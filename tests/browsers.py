"""The browser that is installed, for the tests of pages."""

import os
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        why = f"none of {', '.join(BROWSERS)} is installed (Debian: apt install chromium)"
        if os.environ.get("TNT_REQUIRE_CHROMIUM"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=QUIET)
        yield started
        started.close()


# Light, dark, and a phone.
SCREENS = ({}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}})


def violations(page: Page) -> list[str]:
    """What axe complains of: the rule, and the first of the places."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
