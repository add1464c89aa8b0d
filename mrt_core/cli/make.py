"""`mrt text`, `mrt image`, `mrt add` and `mrt restyle`: the four tasks, from files to files."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..documents import check_destination, load, save
from ..errors import MRTError
from ..geometry import Box, Size
from ..layouts.layout import Region, full_frame_layout
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import LayerStack
from ..stacks.subdivision import find_layer, replace_layer
from ..tasks.request import with_background
from ..tasks.scaling import resize
from ..unmixing.refinement import SLACK
from .common import (
    add_layout_options,
    add_model_options,
    add_sampling_options,
    load_pipeline,
    progress_bar,
    read_image,
    read_layout_file,
    sampling_options,
)


def add_commands(commands) -> None:
    """Register the four commands."""
    text = _command(commands, "text", run_text, "text to layers: make every layer of a layout")
    text.add_argument("layout", help="a layout, or boxes in any of the forms of docs/layout.md")
    text.add_argument(
        "--frame", nargs=2, type=int, metavar=("W", "H"), help="the frame in px, where the layout has none"
    )
    add_layout_options(text)
    image = _command(commands, "image", run_image, "image to layers: take an image apart into the layers of a layout")
    image.add_argument("image", help="an image of the frame's size, or with --layer a layered document")
    image.add_argument("layout", nargs="?", help="a layout, or boxes in the image (docs/layout.md); without one, --layers as "
                       "large as the image")  # fmt: skip
    add_layout_options(image)
    image.add_argument("--layers", type=int, default=4, help="how many layers to make without a layout, the background "
                       "among them, default: %(default)s")  # fmt: skip
    image.add_argument("--layer", metavar="NAME", help="take this layer of a document apart; the result is the document with "
                       "a group in its place")  # fmt: skip
    image.add_argument("--no-match", dest="match_image", action="store_false", help="leave the layers as the model makes "
                       "them; default: outlines and colours become the image's")  # fmt: skip
    image.add_argument("--box-slack", type=_share, default=SLACK, metavar="SHARE", help="how much too small boxes may be, in "
                       "parts of the frame's mean side: layers grow past them; 0 if exact; default: %(default)s")  # fmt: skip
    add = _command(commands, "add", run_add, "layers to layers: add layers to a document")
    add.add_argument("document", help="a layered document, such as a PSD")
    add.add_argument("--box", nargs=4, type=float, action="append", required=True, metavar=("X", "Y", "W", "H"),
                     help="where the new layer goes, in frame px; once per layer")  # fmt: skip
    add.add_argument("--caption", action="append", required=True, help="what the new layer shows; once per layer")
    add.add_argument("--name", action="append", default=[], help="the new layer's name; default: its caption")
    add.add_argument("--place", type=int, action="append", default=[],
                     help="its place among the final layers, 0 is the lowest above the background; default: on top")  # fmt: skip
    restyle = _command(commands, "restyle", run_restyle, "layers to layers: redraw assets in a document's style")
    restyle.add_argument("document", help="a layered document, such as a PSD")
    restyle.add_argument("--layer", action="append", required=True, help="name of a layer to redraw; once per layer")
    restyle.add_argument("--asset", action="append", default=[],
                         help="the picture to redraw in its place; default: the layer's own pixels")  # fmt: skip


def _command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to save; the extension is the format"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--prompt", help="the prompt; default: from the layout")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one result per seed")
    add_sampling_options(parser)
    add_model_options(parser)
    return parser


def _output_paths(options: argparse.Namespace) -> list[Path]:
    """One path per seed: the output itself, or with the seed in its name where there are several."""
    path = Path(options.output)
    if len(options.seed) == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{seed}{path.suffix}") for seed in options.seed]


def _make(
    options: argparse.Namespace, title: str, task: Callable[[Pipeline, SamplingOptions], list[LayerStack]]
) -> None:
    """Check the outputs, run `task`, save one document per seed and say where."""
    paths = _output_paths(options)
    for path in paths:
        check_destination(path, options.overwrite)
    pipeline = load_pipeline(options)
    with progress_bar(sampling_options(options, tuple(options.seed)), title) as sampling:
        stacks = task(pipeline, sampling)
    for stack, path in zip(stacks, paths, strict=True):
        save(stack, path, overwrite=options.overwrite)
        print(f"{path}: {len(stack.layers)} layers, {stack.frame.width} x {stack.frame.height} px")


def run_text(options: argparse.Namespace) -> None:
    layout = read_layout_file(options.layout, options.frame and Size(*options.frame), options.boxes_as)
    _make(options, "text to layers", lambda pipeline, s: pipeline.text_to_layers(layout, options.prompt, s))


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is no share of the frame; give 0 to 0.5, such as {SLACK}")
    return share


def run_image(options: argparse.Namespace) -> None:
    document = load(options.image) if options.layer else None
    image = find_layer(document, options.layer).pixels if document else read_image(options.image)
    frame = Size(image.shape[1], image.shape[0])
    boxes = options.layout and read_layout_file(options.layout, frame, options.boxes_as)
    layout = boxes or full_frame_layout(frame, options.layers)

    def task(pipeline: Pipeline, sampling: SamplingOptions) -> list[LayerStack]:
        sampling = replace(sampling, match_image=options.match_image, box_slack=options.box_slack)
        stacks = pipeline.image_to_layers(image, layout, options.prompt, sampling)
        return [replace_layer(document, options.layer, stack) for stack in stacks] if document else stacks

    _make(options, "image to layers", task)


def run_add(options: argparse.Namespace) -> None:
    if len(options.caption) != len(options.box):
        raise MRTError(
            f"{len(options.box)} boxes came with {len(options.caption)} captions; give one --caption per --box"
        )
    stack = with_background(load(options.document))
    names = options.name + options.caption[len(options.name) :]
    top = len(stack.layers) - 1
    places = options.place + [top + number for number in range(len(options.place), len(options.box))]
    regions = [Region(n, Box(*box), c) for n, box, c in zip(names, options.box, options.caption, strict=True)]
    additions = dict(zip(places, regions, strict=True))
    _make(options, "add layers", lambda pipeline, s: pipeline.add_layers(stack, additions, options.prompt, s))


def run_restyle(options: argparse.Namespace) -> None:
    stack = with_background(load(options.document))
    names = [layer.name for layer in stack.layers[1:]]
    assets = {}
    for number, name in enumerate(options.layer):
        if name not in names:
            raise MRTError(
                f"there is no layer named {json.dumps(name)} in {options.document}; its layers are {', '.join(names)}"
            )
        index = names.index(name)
        pixels = stack.layers[1 + index].pixels
        if number < len(options.asset):
            pixels = resize(read_image(options.asset[number]), pixels.shape[1], pixels.shape[0])
        assets[index] = pixels
    _make(options, "restyle layers", lambda pipeline, s: pipeline.restyle_layers(stack, assets, options.prompt, s))
