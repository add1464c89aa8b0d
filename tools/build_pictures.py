"""Make the pictures of the ComfyUI pack again: thumbnails of the templates, and docs/comfyui.png.

    python tools/build_pictures.py

It runs every workflow in the real ComfyUI that tests/comfy find, and takes a picture of its page with Chromium.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "comfy"))

from browser import SOFTWARE_WEBGL, WAIT_SECONDS, find_browser, load_workflow, open_page, queue_and_wait, screenshot  # noqa: E402
from comfy_client import ComfyClient  # noqa: E402
from comfy_server import ComfyServer, find_installation  # noqa: E402

SIZE, COMPOSITE = (640, 400), 400  # px of a thumbnail, and of the square that shows the composite
GAP, SQUARE = 4, 8
PAGE_SIZE = {"width": 2100, "height": 1000}
MARGIN = 8  # px around the graph
GRAPH_BOX = """() => {
    const boxes = app.graph.nodes.map((node) => node.getBounding()), { offset, scale } = app.canvas.ds
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]))
    const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]))
    return [canvas.left + (left + offset[0]) * scale, canvas.top + (top + offset[1]) * scale,
            canvas.left + (right + offset[0]) * scale, canvas.top + (bottom + offset[1]) * scale]
}"""  # in px of the page: left, top, right, bottom


def checkerboard(width: int, height: int) -> Image.Image:
    """What transparency is shown on."""
    board = Image.new("RGB", (width, height), "white")
    grey = Image.new("RGB", (SQUARE, SQUARE), (217, 217, 217))
    for y in range(0, height, SQUARE):
        for x in range(y % (2 * SQUARE), width, 2 * SQUARE):
            board.paste(grey, (x, y))
    return board


def thumbnail(composite: Image.Image, layers: list[Image.Image]) -> Image.Image:
    """The composite on the left, its layers in two columns on the right."""
    page = Image.new("RGB", SIZE)
    rows = -(-len(layers) // 2)
    cells = [(composite, (0, 0, COMPOSITE, SIZE[1]))]
    width, height = (SIZE[0] - COMPOSITE) // 2, SIZE[1] // rows
    for index, layer in enumerate(layers):
        column, row = index % 2, index // 2
        cells.append((layer, (COMPOSITE + column * width, row * height, width, height)))
    for picture, (x, y, cell_width, cell_height) in cells:
        board = checkerboard(cell_width - 1, cell_height - 1)
        scale = min((cell_width - 2 * GAP) / picture.width, (cell_height - 2 * GAP) / picture.height)
        shown = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        board.paste(shown, ((board.width - shown.width) // 2, (board.height - shown.height) // 2), shown)
        page.paste(board, (x, y))
    return page


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ComfyServer(find_installation(), Path(folder)) as server:
        client = ComfyClient(server)
        for path in sorted((ROOT / "workflows" / "api").glob("*.json")):
            prompt = json.loads(path.read_text(encoding="utf-8"))
            entry = client.run(prompt)
            (saver,) = (n for n, node in prompt.items() if node["class_type"] == "MRTSaveLayeredPSD")
            files = [client.view(file) for file in entry.outputs[saver]["images"]]
            composite, *layers = (Image.open(io.BytesIO(file)).convert("RGBA") for file in files)
            shown = [layer.crop(layer.getchannel("A").getbbox() or (0, 0, 1, 1)) for layer in layers]
            thumbnail(composite, shown).save(ROOT / "workflows" / f"{path.stem}.jpg", quality=88)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=SOFTWARE_WEBGL)
            page = browser.new_page(viewport=PAGE_SIZE, reduced_motion="reduce")
            page.set_default_timeout(WAIT_SECONDS * 1000)
            open_page(page, client, vue_nodes=False)
            load_workflow(page, json.loads((ROOT / "workflows" / "image_to_layers.json").read_text(encoding="utf-8")))
            queue_and_wait(page, client)
            picture = Path(folder) / "page.png"
            screenshot(page, picture)
            left, top, right, bottom = page.evaluate(GRAPH_BOX)
            shown = Image.open(picture).crop((left - MARGIN, top - 2 * MARGIN, right + MARGIN, bottom + MARGIN))
            shown.convert("RGB").quantize(256).save(ROOT / "docs" / "comfyui.png")
            browser.close()


if __name__ == "__main__":
    main()
