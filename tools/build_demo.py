"""Render the picture that `mrt demo` takes apart from a held-out design: `python tools/build_demo.py`.

The demo's documents and the layout of text to layers stay as they are.
"""

import json
from pathlib import Path

from PIL import Image

from mrt_core.evaluation.held_out import held_out_design
from mrt_core.layouts.documents import layout_to_json
from mrt_core.stacks.layers import composite

FOLDER = Path(__file__).parents[1] / "mrt_core" / "data" / "demo"
FRAME_AREA = 128 * 128  # px
# Of the held-out set; picked for contrast and overlaps after looking at what came of two, so no random sample.
IMAGE_DESIGN = 25


def main() -> None:
    design = held_out_design(IMAGE_DESIGN, FRAME_AREA)
    Image.fromarray(composite(design.stack)).save(FOLDER / "image.png")
    layout = json.dumps(layout_to_json(design.layout), indent=2, ensure_ascii=False)
    (FOLDER / "image_layout.json").write_text(layout + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
