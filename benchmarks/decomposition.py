"""How well pictures come apart: our layers, GrabCut with inpainting, and opaque crops, visible and hidden parts apart.

    python benchmarks/decomposition.py [--designs 40] [--size 256] [--jitter 0.04] [--generator ours|other]
        [--methods model matched grabcut crops] [--seeds 0 1] [--cache FOLDER] [--json FILE] [--brief]

Designs are the held-out ones (`ours`) or those of another generator (`decomposing/other_designs.py`, `other`), at a frame area
of size x size px. Every method gets the picture and the layout: frame, boxes bottom to top, captions. With --jitter every edge
of a foreground box is off by up to that share of the frame's side. A method is one of those below, or MODULE:FUNCTION for a
function (raw stack, picture) -> stack in place of `match_image`. --cache keeps what takes long, the model's raw layers and
GrabCut's: trials of the matching alone then take seconds. Empty the folder when model or designs change.

Figures are means over designs of the means over their layers (pooled ones: over all layers of all designs), and paired
differences to each method of --against, per design, with their standard errors. Seeds are averaged within designs.
What the figures are: `decomposing/scores.py`.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from decomposing import grabcut
from decomposing.other_designs import other_design
from decomposing.scores import (
    DesignScores,
    Estimate,
    differences,
    figures,
    is_of_all_kinds,
    means,
    pooled,
    score,
    table_order,
)

from mrt_core.atomic import atomic_file
from mrt_core.designs.artwork import load_artwork
from mrt_core.designs.shapes import SHAPES
from mrt_core.evaluation.held_out import held_out_design, sample
from mrt_core.evaluation.robustness import SMALLEST_BOX, jitter_rng
from mrt_core.evaluation.tables import markdown
from mrt_core.geometry import Box
from mrt_core.layouts.layout import Layout
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.tasks.request import image_to_layers_request
from mrt_core.unmixing.refinement import match_image

Method = Callable[[np.ndarray, Layout, int], LayerStack]  # picture (h, w, 4) straight RGBA uint8, layout, seed
Matching = Callable[[LayerStack, np.ndarray], LayerStack]
SEED_STEP = 100_000  # between the noises of a design: number 3 has seeds 3, 100,003 and so on


class Example(NamedTuple):
    """One design to take apart: the truth, background first, its layout, and the kinds of its foreground layers."""

    stack: LayerStack
    layout: Layout
    kinds: Sequence[str]


def our_example(index: int, frame_area: int) -> Example:
    """Held-out design number `index`."""
    design = held_out_design(index, frame_area)
    return Example(design.stack, design.layout, [kind_of(region.name) for region in design.layout.regions])


def other_example(index: int, frame_area: int) -> Example:
    """Design number `index` of the other generator."""
    return Example(*other_design(index, frame_area))


GENERATORS: dict[str, Callable[[int, int], Example]] = {"ours": our_example, "other": other_example}


def kind_of(caption: str) -> str:
    """What a held-out layer shows, read from its caption."""
    if caption.startswith('the word "'):
        return "word"
    drawn = any(drawing.name in caption for drawing in load_artwork(held_out=True))
    plain = caption.removesuffix(" with a glow").removesuffix(" with a soft shadow")
    return "shape" if plain.endswith(SHAPES) and not drawn else "drawing"


def jittered(layout: Layout, share: float, rng: np.random.Generator) -> Layout:
    """The layout with every edge of every foreground box off by up to `share` of the frame's width or height, in whole px."""
    most = share * np.asarray([layout.frame.width, layout.frame.height] * 2)
    regions = []
    for region in layout.regions:
        box = region.box
        edges = np.asarray([box.x, box.y, box.right, box.bottom])
        left, top, right, bottom = np.rint(edges + rng.uniform(-most, most)).astype(int).tolist()
        moved = Box(left, top, max(right - left, SMALLEST_BOX), max(bottom - top, SMALLEST_BOX))
        regions.append(replace(region, box=moved))
    return replace(layout, regions=tuple(regions))


def model_layers(pipeline: Pipeline, image: np.ndarray, layout: Layout, seed: int) -> LayerStack:
    """The layers as the model makes them."""
    return sample(pipeline, image_to_layers_request(image, layout), seed, SamplingOptions())


def matched_layers(raw: Method, matching: Matching, image: np.ndarray, layout: Layout, seed: int) -> LayerStack:
    """The layers of `raw`, made to show the image together."""
    return matching(raw(image, layout, seed), image)


def opaque_crops(image: np.ndarray, layout: Layout, seed: int) -> LayerStack:
    """Every layer is what its box holds of the picture."""
    flat = LayerStack(layout.frame, (Layer(image, 0, 0, "Image"),))
    regions = (layout.background_region, *layout.regions)
    layers = [Layer(composite(flat, x.box), int(x.box.x), int(x.box.y), x.name, x.caption) for x in regions]
    return LayerStack(layout.frame, tuple(layers))


class Cached:
    """A method whose stacks are kept in files of a folder, one per design and seed."""

    def __init__(self, method: Method, folder: Path, setting: str):
        self.method, self.folder, self.setting = method, folder, setting

    def __call__(self, image: np.ndarray, layout: Layout, seed: int) -> LayerStack:
        path = self.folder / self.setting / f"{seed}.npz"
        if path.exists():
            with np.load(path) as arrays:
                places, layers = arrays["places"].tolist(), [arrays[f"layer_{i}"] for i in range(len(arrays) - 1)]
            regions = (layout.background_region, *layout.regions)
            found = zip(layers, places, regions, strict=True)
            return LayerStack(layout.frame, tuple(Layer(p, x, y, r.name, r.caption) for p, (x, y), r in found))
        stack = self.method(image, layout, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        layers = {f"layer_{i}": layer.pixels for i, layer in enumerate(stack.layers)}
        with atomic_file(path, overwrite=True) as file:
            np.savez_compressed(file, places=[(layer.x, layer.y) for layer in stack.layers], **layers)
        return stack


def methods(names: Sequence[str], checkpoint: str | None, cache: Path | None, setting: str) -> dict[str, Method]:
    """The methods by their names; the checkpoint is loaded when the first picture asks for it."""

    def kept(method: Method, name: str) -> Method:
        return method if cache is None else Cached(method, cache, f"{name}-{setting}")

    loaded: list[Pipeline] = []

    def from_model(image: np.ndarray, layout: Layout, seed: int) -> LayerStack:
        if not loaded:
            loaded.append(Pipeline.load(checkpoint))
        return model_layers(loaded[0], image, layout, seed)

    raw = kept(from_model, "model" if checkpoint is None else f"model-{Path(checkpoint).stem}")
    known: dict[str, Method] = {
        "model": raw,
        "matched": partial(matched_layers, raw, match_image),
        "grabcut": kept(grabcut.take_apart, "grabcut"),
        "crops": opaque_crops,
    }
    return {
        name: known[name] if name in known else partial(matched_layers, raw, imported_function(name)) for name in names
    }


def imported_function(name: str) -> Matching:
    """The function that MODULE:FUNCTION names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


Results = dict[str, dict[int, list[DesignScores]]]  # by method and design, one per seed


def measure(found: Mapping[str, Method], options: argparse.Namespace) -> Iterator[tuple[str, int, DesignScores]]:
    """The scores of every method on every design with every seed, as they come."""
    for index in range(options.first, options.first + options.designs):
        example = GENERATORS[options.generator](index, options.size**2)
        image = composite(example.stack)
        layout = example.layout
        if options.jitter:
            layout = jittered(layout, options.jitter, jitter_rng(index))
        for name, method in found.items():
            for seed in options.seeds:
                stack = method(image, layout, seed * SEED_STEP + index)
                yield name, index, score(stack, example.stack, example.kinds)


def by_design(results: Mapping[int, Sequence[DesignScores]]) -> dict[int, dict[str, float]]:
    """The figures of every design, averaged over seeds."""
    return {
        index: {name: value.mean for name, value in means(dict(enumerate(map(figures, scores)))).items()}
        for index, scores in results.items()
    }


def table(results: Results, against: Sequence[str], brief: bool = False) -> str:
    """One Markdown table: a row per figure, a column per method, then the paired differences; a brief one has no rows by
    kind of layer."""
    rows = {name: by_design(found) for name, found in results.items()}
    totals = {}
    for name, found in results.items():
        totals[name] = {figure: value.mean for figure, value in means(rows[name]).items()}
        totals[name] |= pooled([scores for several in found.values() for scores in several])
    pairs = [(a, b) for b in against for a in results if a != b and a not in against and b in results]
    paired = {f"{a} - {b}": differences(rows[a], rows[b]) for a, b in pairs}
    counts, cells = means(next(iter(rows.values()))), {}
    for figure in table_order(name for name in counts if not brief or is_of_all_kinds(name)):
        digits = 2 if "PSNR" in figure else 3
        cells[figure] = [
            str(counts[figure].designs),
            *(f"{total[figure]:.{digits}f}" if figure in total else "-" for total in totals.values()),
            *(difference_cell(found.get(figure), digits) for found in paired.values()),
        ]
    return markdown(("designs", *totals, *paired), cells)


def difference_cell(difference: Estimate | None, digits: int) -> str:
    if difference is None:
        return "-"
    return f"{difference.mean:+.{digits}f} ± {difference.error:.{digits}f}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="number of the first design, default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="side of a square frame in px, default: %(default)s")
    parser.add_argument("--jitter", type=float, default=0.0, help="share of the frame's side, default: exact boxes")
    parser.add_argument("--generator", choices=GENERATORS, default="ours")
    parser.add_argument("--methods", nargs="+", default=["model", "matched", "grabcut", "crops"])
    parser.add_argument("--against", nargs="*", default=["grabcut"], help="methods to subtract, default: grabcut")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the noise, default: 0")
    parser.add_argument("--checkpoint")
    parser.add_argument("--cache", type=Path, metavar="FOLDER")
    parser.add_argument("--brief", action="store_true", help="without the rows by kind of layer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every score of every layer")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    setting = f"{options.generator}-{options.size}-{options.jitter:g}"
    found = methods(options.methods, options.checkpoint, options.cache, setting)
    results: Results = {name: {} for name in found}
    started = time.monotonic()
    for name, index, scores in measure(found, options):
        results[name].setdefault(index, []).append(scores)
    boxes = f"boxes up to {100 * options.jitter:g} % off" if options.jitter else "exact boxes"
    heading = [f"{options.designs} designs ({options.generator})", f"{options.size} px", boxes]
    heading += [f"seeds {', '.join(map(str, options.seeds))}", f"{time.monotonic() - started:.0f} s"]
    print("; ".join(heading) + "\n\n" + table(results, options.against, options.brief))
    if options.json is not None:
        report = {
            "generator": options.generator, "size": options.size, "jitter": options.jitter, "seeds": options.seeds,
            "methods": {
                name: {str(index): [asdict(scores) for scores in several] for index, several in found.items()}
                for name, found in results.items()
            },
        }  # fmt: skip
        options.json.write_text(json.dumps(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
