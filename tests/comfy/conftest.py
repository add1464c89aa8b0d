"""A running ComfyUI with this pack, and Chromium to look at it; where either is missing the tests say so and are skipped."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import SOFTWARE_WEBGL, WAIT_SECONDS, find_browser
from comfy_client import ComfyClient
from comfy_server import ComfyMissingError, ComfyServer, Installation, find_installation
from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).parent
WINDOW = {"width": 1600, "height": 1000}


def pytest_terminal_summary(terminalreporter) -> None:
    """Print why tests of this folder were skipped, which pytest does not do on its own."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if Path(terminalreporter.config.rootpath, report.nodeid.split("::")[0]).is_relative_to(HERE):
            _file, _line, reason = report.longrepr
            reasons[reason.removeprefix("Skipped: ")] += 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"tests/comfy: {count} skipped: {reason}")


@pytest.fixture(scope="session")
def comfy_installation() -> Installation:
    """ComfyUI's folder and its Python; skips where there is none."""
    try:
        return find_installation()
    except ComfyMissingError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def comfy_path(comfy_installation) -> Path:
    """ComfyUI's folder; skips where there is none."""
    return comfy_installation.folder


@pytest.fixture(scope="session")
def start_server(comfy_installation, tmp_path_factory) -> Callable[..., ComfyServer]:
    """A function that makes a server with more command line arguments; use it in a `with`."""

    def make(*arguments: str) -> ComfyServer:
        return ComfyServer(comfy_installation, tmp_path_factory.mktemp("comfyui"), *arguments)

    return make


@pytest.fixture(scope="session")
def server(start_server) -> Iterator[ComfyServer]:
    """The server that all tests of the session share."""
    with start_server() as running:
        yield running


@pytest.fixture(scope="session")
def client(server) -> ComfyClient:
    """Requests to the shared server."""
    return ComfyClient(server)


# Not for the whole session: Playwright keeps an event loop running, in which other tests could not start theirs.
@pytest.fixture(scope="module")
def browser(comfy_installation) -> Iterator[Browser]:
    """Chromium without a window; skips where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on PATH; install the package chromium to run the tests that open ComfyUI's page")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=SOFTWARE_WEBGL)
        yield chromium
        chromium.close()


@pytest.fixture
def browser_page(browser, server) -> Iterator[Page]:
    """An empty page with storage of its own, so that no workflow of another test comes back."""
    context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
    context.set_default_timeout(WAIT_SECONDS * 1000)
    expect.set_options(timeout=WAIT_SECONDS * 1000)
    yield context.new_page()
    context.close()
