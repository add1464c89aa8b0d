"""Render the inputs of `mrt demo` from held-out designs: `python -m mrt_core.designs.build_demo`.

The layout of the text-to-layers demo is written by hand and stays as it is.
"""

import json
from pathlib import Path

from PIL import Image

from ..documents import save
from ..evaluation.held_out import held_out_design
from ..layers import composite
from ..layout_json import layout_to_json

FOLDER = Path(__file__).parent.parent / "data" / "demo"
FRAME_AREA = 128 * 128  # px
IMAGE_DESIGN, DOCUMENT_DESIGN, STYLED_DESIGN = 10, 46, 30  # numbers in the held-out set
ADDITION = {
    "name": "Heart",
    "caption": "a red heart",
    "box": {"x": 96, "y": 58, "width": 44, "height": 40},
    "place": 1,
}


def _write_json(name: str, value: dict) -> None:
    (FOLDER / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    flat = held_out_design(IMAGE_DESIGN, FRAME_AREA)
    Image.fromarray(composite(flat.stack)).save(FOLDER / "image.png")
    _write_json("image_layout.json", layout_to_json(flat.layout))
    save(held_out_design(DOCUMENT_DESIGN, FRAME_AREA).stack, FOLDER / "document.psd", overwrite=True)
    _write_json("addition.json", ADDITION)
    styled = held_out_design(STYLED_DESIGN, FRAME_AREA)
    save(styled.stack, FOLDER / "styled.psd", overwrite=True)
    Image.fromarray(styled.assets[-1]).save(FOLDER / "asset.png")


if __name__ == "__main__":
    main()
