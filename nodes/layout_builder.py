"""MRT Layout Builder."""

import json

import numpy as np
from comfy_api.latest import io
from PIL import Image

from ..mrt_core.errors import MRTError
from ..mrt_core.geometry import Size
from ..mrt_core.layouts.boxes import layout_from_any
from ..mrt_core.layouts.documents import decode_json, parse_layout
from ..mrt_core.layouts.drawing import draw_layout
from ..mrt_core.layouts.layout import Layout
from ..mrt_core.tasks.slots import layered_prompt
from .convert import LayoutType, image_to_pixels, pixels_to_image

DOCUMENT_KEYS = ("frame", "layers", "caption", "background")

SAMPLE = json.dumps(
    {
        "caption": "a sunflower and a red circle on a sky blue background",
        "background": {"caption": "a flat sky blue background"},
        "layers": [
            {"name": "Red circle", "box": {"x": 84, "y": -20, "width": 64, "height": 64}, "caption": "a red circle"},
            {"name": "Sunflower", "box": {"x": 16, "y": 48, "width": 64, "height": 64}, "caption": "a sunflower"},
        ],
    },
    indent=2,
)


class LayoutBuilder(io.ComfyNode):
    """Boxes with names, captions and stacking order, from JSON or from another node's boxes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTLayoutBuilder",
            display_name="MRT Layout Builder",
            category="MRT",
            description="A frame and its layers' boxes, bottom to top. Boxes may run past the frame. They come from the "
            "JSON text, or from boxes that another node found or drew.",
            search_aliases=["layer boxes", "regions", "bounding boxes to layers"],
            inputs=[
                io.Int.Input(
                    "width",
                    default=128,
                    min=0,
                    max=16384,
                    tooltip="Width of the frame in px; 0 takes it from the layout's own frame or from the image.",
                ),
                io.Int.Input(
                    "height",
                    default=128,
                    min=0,
                    max=16384,
                    tooltip="Height of the frame in px; 0 takes it from the layout's own frame or from the image.",
                ),
                io.String.Input(
                    "layout_json",
                    default=SAMPLE,
                    multiline=True,
                    tooltip="The layout as JSON: caption, background, and layers bottom to top, each with name, box (x, y, "
                    "width, height in px of the frame) and caption.",
                ),
                io.MultiType.Input(
                    "boxes",
                    [io.BoundingBox, io.Array, io.String],
                    optional=True,
                    tooltip="Boxes that take the place of the JSON's layers: bounding boxes in px, elements on a 0-1000 "
                    "grid, or either as JSON text.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="A picture to draw the preview on, such as the one to take apart."
                ),
            ],
            outputs=[
                LayoutType.Output(display_name="layout", tooltip="For the Region Latents nodes."),
                io.Image.Output(display_name="preview", tooltip="The layout as a picture."),
                io.String.Output(
                    display_name="prompt",
                    tooltip="The layers' captions, <layer> ... </layer> each, and the caption of the whole.",
                ),
            ],
        )

    @classmethod
    def execute(cls, width: int, height: int, layout_json: str, boxes=None, image=None) -> io.NodeOutput:
        backdrop = None if image is None else image_to_pixels(image[:1], "image")
        built = build_layout(layout_json, width, height, boxes, None if backdrop is None else backdrop.shape[1::-1])
        picture = draw_layout(built, backdrop=None if backdrop is None else Image.fromarray(backdrop).convert("RGB"))
        return io.NodeOutput(built, pixels_to_image(np.asarray(picture)), layered_prompt(built))


def build_layout(text: str, width: int, height: int, boxes=None, image_size=None) -> Layout:
    """The layout of the node's inputs; raises MRTError for sizes that disagree and for what `parse_layout` refuses."""
    document = decode_json(text) if text.strip() else {}
    if not _is_document(document):  # boxes or elements, written into the layout's text
        document, boxes = {}, document if boxes is None else boxes
    boxes = decode_json(boxes) if isinstance(boxes, str) else boxes
    if boxes is not None and _is_document(boxes):  # a whole layout, from another node
        document, boxes = boxes, None
    document = {"layers": [], **document, "frame": _choose_frame(width, height, document.get("frame"), image_size)}
    if boxes is None:
        return parse_layout(document)
    whole = parse_layout({**document, "layers": []})
    placed = layout_from_any(boxes, whole.frame)
    return Layout(whole.frame, placed.regions, whole.caption, whole.background)


def _is_document(value) -> bool:
    """Whether a JSON value is a layout and not boxes; an empty object is a layout without layers."""
    return isinstance(value, dict) and (not value or not value.keys().isdisjoint(DOCUMENT_KEYS))


def _choose_frame(width: int, height: int, stated, image_size: tuple[int, int] | None) -> dict[str, int]:
    """The frame from the widgets; where they are 0, the layout's own, else the image's."""
    if stated is not None:
        stated = parse_layout({"frame": stated, "layers": []}).frame
    fallback = stated or (Size(*image_size) if image_size else None)
    if (not width or not height) and fallback is None:
        raise MRTError(
            f"the frame is {width} x {height} px, but 0 stands for the size of the layout's own frame or of the image, and "
            "there is neither; set width and height"
        )
    frame = Size(width or fallback.width, height or fallback.height)
    if stated is not None and frame != stated:
        raise MRTError(
            f"the node's frame is {frame.width} x {frame.height} px, but the layout's own is {stated.width} x "
            f"{stated.height} px; set width and height to 0 to use the layout's, or remove its frame"
        )
    return frame._asdict()
