"""`mrt layout`: whether a layout is valid, and a picture of it."""

import argparse
from pathlib import Path

from PIL import Image

from ..atomic import atomic_file, refuse_existing
from ..errors import MRTError
from ..geometry import Size
from ..layouts.drawing import draw_layout
from .common import add_layout_options, read_image, read_layout_file


def add_commands(commands) -> None:
    """Register the command."""
    layout = commands.add_parser("layout", help="validate a layout and draw a picture of it")
    layout.add_argument("layout", help="a layout, or boxes in any of the forms of docs/layout.md")
    frame = layout.add_mutually_exclusive_group()
    frame.add_argument(
        "--frame", nargs=2, type=int, metavar=("W", "H"), help="the frame in px, where the layout has none"
    )
    frame.add_argument("--image", metavar="FILE", help="the picture that the boxes lie in: its size is the frame's, and the "
                       "layout is drawn over it")  # fmt: skip
    add_layout_options(layout)
    layout.add_argument("-o", "--output", metavar="PNG", help="where to save the picture")
    layout.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    layout.set_defaults(run=run_layout)


def run_layout(options: argparse.Namespace) -> None:
    if options.output and Path(options.output).suffix.lower() != ".png":
        raise MRTError(
            f"the picture is to be saved as {options.output}, but it is a PNG file; give a name that ends in .png"
        )
    image = None if options.image is None else read_image(options.image)
    frame = Size(*options.frame) if options.frame else None if image is None else Size(image.shape[1], image.shape[0])
    layout = read_layout_file(options.layout, frame, options.boxes_as)
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
        backdrop = None if image is None else Image.fromarray(image).convert("RGB")
        with atomic_file(path, options.overwrite) as file:
            draw_layout(layout, backdrop=backdrop).save(file, "PNG")
        print(path)
