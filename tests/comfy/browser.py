"""ComfyUI's page in Chromium: open it, load a workflow, queue it, look at it."""

import shutil
from pathlib import Path
from typing import Any

from comfy_client import ComfyClient, HistoryEntry
from playwright.sync_api import Locator, Page, Response, expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
QUIET_SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the page opens with its templates instead of the canvas
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # else a workflow that is fitted to the window has no texts
}
READY = """() => window.app?.vueAppReady && window.app.canvas?.ds
    && window.app.extensionManager?.workflow?.activeWorkflow?.isLoaded && window.app.graph?.nodes.length > 0"""
# Every node of the graph and of its subgraphs; a node of a type that the server does not know is a red placeholder.
MISSING_TYPES = """() => {
    const missing = new Set()
    const visit = (graph) => {
        for (const node of graph.nodes) {
            if (node.subgraph) visit(node.subgraph)
            else if (!(node.type in LiteGraph.registered_node_types)) missing.add(node.type)
        }
    }
    visit(app.rootGraph)
    return [...missing].sort()
}"""
NODES_DRAWN = """(vue) => {
    const count = document.querySelectorAll('.lg-node').length
    return vue ? count === app.graph.nodes.length : count === 0
}"""
# The page has every node's output, and the pictures in it are loaded.
RESULTS_SHOWN = """(numbers) => numbers.every((number) => {
    const output = app.nodeOutputs[number], node = app.rootGraph.getNodeById(number)
    if (!output) return false
    return !node || !output.images?.length || LiteGraph.vueNodesMode || node.imgs?.length > 0
}) && [...document.images].every((image) => image.complete)"""
WAIT_SECONDS = 180  # at most, for one step of the page; a browser without a graphics card is slow


def find_browser() -> str | None:
    """The Chromium on PATH."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def watch_errors(page: Page) -> list[str]:
    """A list that takes up every uncaught JavaScript error of the page from now on."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def run_command(page: Page, name: str) -> None:
    """Run a command of the page's menus."""
    page.evaluate("(name) => app.extensionManager.command.execute(name)", name)


def open_page(page: Page, client: ComfyClient, *, vue_nodes: bool) -> None:
    """Open ComfyUI's page, its nodes drawn by the classic canvas or by Vue, with an empty workflow."""
    client.settings({**QUIET_SETTINGS, "Comfy.VueNodes.Enabled": vue_nodes})
    page.goto(client.server.url)
    page.wait_for_function(READY)
    run_command(page, "Comfy.NewBlankWorkflow")  # the first one wants files that are not here, and says so
    expect(notices(page)).to_have_count(0)
    wait_until_drawn(page)


def uses_vue_nodes(page: Page) -> bool:
    """Whether the page draws nodes with Vue."""
    return page.evaluate("() => LiteGraph.vueNodesMode")


def wait_until_drawn(page: Page) -> None:
    """Wait until every node of the graph has its element in the page, or none in the classic renderer."""
    page.wait_for_function(NODES_DRAWN, arg=uses_vue_nodes(page))


def load_workflow(page: Page, workflow: dict[str, Any]) -> None:
    """Open a workflow, in the form that the page saves, and wait until all its nodes are drawn."""
    page.evaluate("(workflow) => app.loadGraphData(workflow, true, true)", workflow)
    page.wait_for_function("(count) => app.rootGraph.nodes.length === count", arg=len(workflow["nodes"]))
    wait_until_drawn(page)
    fit_view(page)


def fit_view(page: Page) -> None:
    """Show the whole graph: the page loads the pictures of a node only when it draws the node."""
    run_command(page, "Comfy.Canvas.FitView")
    page.wait_for_timeout(1500)  # the view glides


def serialise(page: Page) -> dict[str, Any]:
    """The open workflow as the page would save it."""
    return page.evaluate("() => app.rootGraph.serialize()")


def missing_node_types(page: Page) -> list[str]:
    """The types of the open workflow's red nodes: those that no installed pack has."""
    return page.evaluate(MISSING_TYPES)


def queue_and_wait(page: Page, client: ComfyClient, seconds: float = 300) -> HistoryEntry:
    """Queue the open workflow from the page and wait until it ended and the page shows its results; return its history."""

    def is_queueing(response: Response) -> bool:
        return response.request.method == "POST" and response.url.endswith("/prompt")

    with page.expect_response(is_queueing) as answer:
        page.evaluate("() => app.queuePrompt(0, 1)")
    assert answer.value.ok, f"the page's prompt was refused: {answer.value.text()}"
    entry = client.wait(answer.value.json()["prompt_id"], seconds)
    if entry.status == "success":
        page.wait_for_function(RESULTS_SHOWN, arg=list(entry.outputs))
    return entry


def notices(page: Page) -> Locator:
    """The boxes in which the page tells of errors."""
    return page.get_by_test_id("error-overlay")


def error_notices(page: Page) -> list[str]:
    """The texts of the errors that the page tells its user, a second from now."""
    page.wait_for_timeout(1000)
    return [notice.inner_text() for notice in notices(page).all()]


def screenshot(page: Page, file: Path) -> None:
    """Fit the graph to the window and save what is seen as a PNG file."""
    fit_view(page)
    page.screenshot(path=file)
