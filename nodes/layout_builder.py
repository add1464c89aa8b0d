"""MRT Layout Builder."""

import json

import numpy as np
from comfy_api.latest import UI, io
from PIL import Image

from ..mrt_core.errors import MRTError
from ..mrt_core.geometry import Size
from ..mrt_core.layouts.boxes import BoxLayout, is_document, read_layout
from ..mrt_core.layouts.documents import parse_layout
from ..mrt_core.layouts.drawing import draw_layout
from ..mrt_core.layouts.layout import Layout
from ..mrt_core.layouts.readings import AUTO, BOXES_AS
from ..mrt_core.layouts.texts import Text, inner_layout, read_text
from ..mrt_core.tasks.slots import layered_prompt
from .convert import LayoutType, image_to_pixels, pixels_to_image

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
                    tooltip="Boxes that take the place of the JSON's layers: those of another node, or the answer of a language "
                    "model or a detector as text.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="A picture to draw the preview on, such as the one to take apart."
                ),
                io.Combo.Input(
                    "boxes_as",
                    options=list(BOXES_AS),
                    default=AUTO,
                    optional=True,
                    tooltip="How the boxes' numbers are to be read: their order, then px, 1 (shares), 100 (percent) or 1000. "
                    "auto goes by keys and values and says below the node what it chose.",
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
    def execute(cls, width: int, height: int, layout_json: str, boxes=None, image=None, boxes_as=AUTO) -> io.NodeOutput:
        backdrop = None if image is None else image_to_pixels(image[:1], "image")
        size = None if backdrop is None else backdrop.shape[1::-1]
        built, notes = build_layout(layout_json, width, height, boxes, size, boxes_as)
        picture = draw_layout(built, backdrop=None if backdrop is None else Image.fromarray(backdrop).convert("RGB"))
        text = UI.PreviewText("\n".join(notes)) if notes else None
        return io.NodeOutput(built, pixels_to_image(np.asarray(picture)), layered_prompt(built), ui=text)


def build_layout(text: str, width: int, height: int, boxes=None, image_size=None, boxes_as=AUTO) -> BoxLayout:
    """The layout of the node's inputs with the notes on how boxes were read; raises MRTError for sizes that disagree and
    for what `read_layout` refuses."""
    document, notes = read_text(text) if text.strip() else Text({}, ())
    document = inner_layout(document) or document
    if not _is_layout(document):  # boxes, written into the layout's text
        document, boxes = {}, document if boxes is None else boxes
    boxes, more = read_text(boxes) if isinstance(boxes, str) else Text(boxes, ())
    if boxes is not None and _is_layout(boxes):  # a whole layout, from another node
        document, boxes = boxes, None
    document = {"layers": [], **document, "frame": _choose_frame(width, height, document.get("frame"), image_size)}
    if boxes is None:
        built, said = read_layout(document, boxes_as=boxes_as)
        return BoxLayout(built, (*notes, *more, *said))
    whole = parse_layout({**document, "layers": []})
    placed, said = read_layout(boxes, whole.frame, boxes_as)
    return BoxLayout(Layout(whole.frame, placed.regions, whole.caption, whole.background), (*notes, *more, *said))


def _is_layout(value) -> bool:
    """Whether a JSON value is a layout and not boxes; an object of nothing but words for the whole is one without layers."""
    return is_document(value) or (isinstance(value, dict) and value.keys() <= {"caption", "background"})


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
