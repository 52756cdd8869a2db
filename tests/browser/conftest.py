"""Fixtures of the stories. Every test also fails for an error in the console of the browser, such as a violation of the
page's policy."""

import os

import pytest
from playwright.sync_api import sync_playwright
from windows import DESKTOP, Console, Shop


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def windows(chromium):
    """A function that opens a browser of its own: `windows()`; `windows(beside=console)` opens another tab of one."""
    contexts, opened = [], []

    def open_window(beside=None, **options):
        if beside is None:
            contexts.append(chromium.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **options}))
        opened.append(Console((beside.page.context if beside else contexts[-1]).new_page()))
        return opened[-1]

    yield open_window
    problems = [text for console in opened for text in console.unexpected()]
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def console(windows):
    return windows()


@pytest.fixture(scope="session")
def shop():
    return Shop()
