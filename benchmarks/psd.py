"""Saving layered PSD files: this project's writer against psd-tools' public one, as ratios measured in one run.

    python benchmarks/psd.py [--side 2048] [--repeats 3]

Every save runs in a process of its own (Linux: the peak is read from /proc). Figures are the best of the repeats. Memory
is the peak during the save above what the process held before it, the layers' pixels already in memory. On a busy
machine the processor's time is the steadier figure; both writers are single-threaded.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from psd_tools import PSDImage

from mrt_core.documents.psd.writer import save_psd
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack

CASES = {"20 layers, full": (20, False), "50 layers, cropped": (50, True)}
WRITERS = ("ours", "public")


def example(count: int, cropped: bool, side: int) -> LayerStack:
    """`count` textured layers with soft edges on an opaque background; each full-size or an eighth to a half of `side`."""
    rng = np.random.default_rng(0)
    layers = [Layer(_texture(rng, side, side), 0, 0, "Background")]
    for index in range(1, count):
        height, width = rng.integers(side // 8, side // 2, 2) if cropped else (side, side)
        pixels = _texture(rng, int(height), int(width))
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        pixels[..., 3] = np.clip((1 - np.sqrt(x * x + y * y)) * 20, 0, 1) * 255
        pixels[pixels[..., 3] == 0] = 0  # both writers get what compresses best
        left, top = rng.integers(-side // 8, side, 2) if cropped else (0, 0)
        layers.append(Layer(pixels, int(left), int(top), f"Layer {index}"))
    return LayerStack(Size(side, side), tuple(layers))


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth gradient of two colours in which every tenth row is noise: neither flat nor incompressible."""
    first, second = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, width)[:, None]
    pixels = np.empty((height, width, 4), np.uint8)
    pixels[..., :3] = (first * (1 - ramp) + second * ramp).astype(np.uint8)
    pixels[::10, :, :3] = rng.integers(0, 256, (len(pixels[::10]), width, 3), dtype=np.uint8)
    pixels[..., 3] = 255
    return pixels


def save_public(stack: LayerStack, path: Path) -> None:
    """As a program would with psd-tools' documented interface."""
    document = PSDImage.new("RGBA", stack.frame)  # "RGB" would turn the layers' alpha into masks
    for layer in stack.layers:
        document.create_pixel_layer(Image.fromarray(layer.pixels), layer.name, top=layer.y, left=layer.x)
    document.save(path)


def measure(case: str, writer: str, side: int, path: Path) -> dict[str, float]:
    """Seconds by the clock and of the processor, peak extra MiB and file MiB of one save in this process."""
    stack = example(*CASES[case], side)
    save = save_psd if writer == "ours" else save_public
    save(example(2, True, 64), path.with_suffix(".warm.psd"))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    save(stack, path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "time": seconds,
        "processor": cpu,
        "memory": (_status("VmHWM") - before) / 1024,
        "file": path.stat().st_size / 2**20,
    }


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])  # KiB


def compare(case: str, side: int, repeats: int) -> dict[str, dict[str, float]]:
    """Both writers' figures, alternating between them."""
    runs: dict[str, list[dict[str, float]]] = {writer: [] for writer in WRITERS}
    for _ in range(repeats):
        for writer in WRITERS:
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    __file__,
                    "--one",
                    case,
                    writer,
                    str(Path(folder) / "a.psd"),
                    "--side",
                    str(side),
                ]
                runs[writer].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return {writer: {key: min(run[key] for run in found) for key in found[0]} for writer, found in runs.items()}


def main() -> None:
    """Measure every case and write a table of figures and ratios to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="frame's width and height in px")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("CASE", "WRITER", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, writer, path = options.one
        sys.stdout.write(json.dumps(measure(case, writer, options.side, Path(path))))
        return
    sys.stdout.write(f"{'':22}{'ours':>12}{'public':>12}{'ratio':>8}\n")
    for case in CASES:
        figures = compare(case, options.side, options.repeats)
        for key, unit in (("time", "s"), ("processor", "s"), ("memory", "MiB"), ("file", "MiB")):
            ours, public = figures["ours"][key], figures["public"][key]
            label = f"{case}: {key}" if key == "time" else f"  {key}"
            sys.stdout.write(f"{label:30}{ours:9.2f} {unit:4}{public:9.2f} {unit:4}{ours / public:7.3f}\n")


if __name__ == "__main__":
    main()
