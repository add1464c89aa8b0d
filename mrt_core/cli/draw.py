"""`mrt layout`: whether a layout is valid, and a picture of it."""

import argparse
from pathlib import Path

from ..atomic import refuse_existing
from ..errors import MRTError
from ..layouts.documents import load_layout
from ..layouts.drawing import draw_layout


def add_commands(commands) -> None:
    """Register the command."""
    layout = commands.add_parser("layout", help="validate a layout and draw a picture of it")
    layout.add_argument("layout", help="a layout, JSON (docs/layout.md)")
    layout.add_argument("-o", "--output", metavar="PNG", help="where to save the picture")
    layout.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    layout.set_defaults(run=run_layout)


def run_layout(options: argparse.Namespace) -> None:
    if options.output and Path(options.output).suffix.lower() != ".png":
        raise MRTError(
            f"the picture is to be saved as {options.output}, but it is a PNG file; give a name that ends in .png"
        )
    layout = load_layout(options.layout)
    canvas = layout.canvas
    print(f"frame {layout.frame.width} x {layout.frame.height} px, canvas {canvas.width:g} x {canvas.height:g} px")
    for number, region in enumerate([layout.background_region, *layout.regions]):
        box = region.box
        print(
            f"{number:3d}  {region.name}  {box.width:g} x {box.height:g} px at ({box.x:g}, {box.y:g})  {region.caption}"
        )
    if options.output:
        path = Path(options.output)
        refuse_existing(path, options.overwrite)
        draw_layout(layout).save(path)
        print(path)
