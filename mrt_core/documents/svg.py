"""SVG with one embedded PNG per layer, for browsers and vector programs; written, not read.

Layers are named groups (Inkscape shows them as its layers). Source: SVG 1.1; Compositing and Blending Level 1 for
`mix-blend-mode`, which is in gamma space as ours is.
"""

import base64
import logging
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

from ..atomic import atomic_file
from ..stacks.layers import PASS_THROUGH, Group, Layer, LayerStack, check_blend_modes
from .metadata import to_json, xml_text
from .png_zip import encode_png

log = logging.getLogger(__name__)

_CSS_MODES = {
    "normal", "multiply", "screen", "overlay", "darken", "lighten", "color-dodge", "color-burn", "hard-light",
    "soft-light", "difference", "exclusion", "hue", "saturation", "color", "luminosity",
}  # fmt: skip


def save_svg(stack: LayerStack, path: Path, overwrite: bool = False) -> None:
    """Write `stack` as SVG, whole or not at all; warns by layer name of blend modes that SVG lacks.

    Raises MRTError as `atomic_file` does, and for metadata that JSON cannot hold.
    """
    check_blend_modes(stack.layers)
    width, height = stack.frame
    with atomic_file(Path(path), overwrite) as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            'xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" '
            f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
            f"<metadata>{escape(to_json(stack.metadata))}</metadata>\n".encode()
        )
        for node in stack.layers:
            _write_node(node, file)
        file.write(b"</svg>\n")


def _write_node(node: Layer | Group, file: BinaryIO) -> None:
    name = xml_text(node.name)
    style = [f"opacity:{node.opacity:.6g}"] if node.opacity < 1 else []
    if node.blend_mode != PASS_THROUGH:
        style += ["isolation:isolate"] if isinstance(node, Group) else []
        if node.blend_mode not in _CSS_MODES:
            log.warning('Layer "%s": SVG has no blend mode "%s" and will show "normal".', node.name, node.blend_mode)
        elif node.blend_mode != "normal":
            style.append(f"mix-blend-mode:{node.blend_mode}")
    attributes = f' style="{";".join(style)}"' if style else ""
    attributes += "" if node.visible else ' display="none"'
    label = quoteattr(name)
    file.write(
        f'<g inkscape:groupmode="layer" inkscape:label={label}{attributes}><title>{escape(name)}</title>'.encode()
    )
    if isinstance(node, Group):
        file.write(b"\n")
        for child in node.layers:
            _write_node(child, file)
    elif node.pixels.size:
        height, width = node.pixels.shape[:2]
        file.write(f'<image x="{node.x}" y="{node.y}" width="{width}" height="{height}" xlink:href="'.encode())
        file.write(b"data:image/png;base64," + base64.b64encode(encode_png(node.pixels)) + b'"/>')
    file.write(b"</g>\n")
