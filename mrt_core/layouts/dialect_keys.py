"""Under which keys other tools keep boxes, labels and scores: one row for each form, in the spelling of `plain_key`."""

import re
from typing import Any, NamedTuple

XYXY, XYWH, YXYX, CENTRE = "xyxy", "xywh", "yxyx", "cxcywh"
PX, UNIT, PERCENT, GRID = "px", "1", "100", "1000"
ABSENT = object()  # a key that no object has


class Keyed(NamedTuple):
    """Four keys that hold a box's numbers, in any spelling (xMin, x_min, x-min)."""

    keys: tuple[str, str, str, str]
    order: str


class Listed(NamedTuple):
    """A key whose value is a list of four numbers; an order or a scale of None is left to the evidence."""

    order: str | None = None
    scale: str | None = None


def _keyed(order: str, *rows: str) -> tuple[Keyed, ...]:
    return tuple(Keyed(tuple(row.split()), order) for row in rows)  # type: ignore[arg-type]


KEYED = (
    *_keyed(XYXY, "xmin ymin xmax ymax", "x0 y0 x1 y1", "x1 y1 x2 y2", "left top right bottom", "minx miny maxx maxy"),
    *_keyed(XYXY, "startx starty endx endy", "xstart ystart xend yend", "xtl ytl xbr ybr", "l t r b", "x y x2 y2"),
    *_keyed(XYXY, "topleftx toplefty bottomrightx bottomrighty", "xleft ytop xright ybottom", "x y right bottom"),
    *_keyed(
        XYWH, "x y width height", "x y w h", "left top width height", "left top w h", "l t w h", "x1 y1 width height"
    ),
    *_keyed(
        XYWH,
        "originx originy width height",
        "xmin ymin width height",
        "xmin ymin w h",
        "x1 y1 w h",
        "x0 y0 width height",
    ),
    *_keyed(XYWH, "bboxx bboxy bboxw bboxh", "bboxx bboxy bboxwidth bboxheight", "offsetx offsety width height"),
    *_keyed(
        CENTRE, "cx cy w h", "cx cy width height", "xcenter ycenter width height", "xcenter ycenter w h", "xc yc w h"
    ),
    *_keyed(
        CENTRE,
        "centerx centery width height",
        "centerx centery w h",
        "xc yc width height",
        "xcentre ycentre width height",
    ),
)
CERTAIN = {("x", "y", "width", "height"), ("xmin", "ymin", "xmax", "ymax")}  # everybody means the same by these
CORNER_PAIRS = tuple(
    tuple(row.split())
    for row in (
        "topleft bottomright",
        "lefttop rightbottom",
        "upperleft lowerright",
        "tl br",
        "min max",
        "start end",
        "p1 p2",
    )
)
PLACE_AND_SIZE = tuple(
    tuple(row.split())
    for row in (
        "position size",
        "offset size",
        "origin size",
        "pos size",
        "location size",
        "topleft size",
        "position dimensions",
    )
)
LISTED = {
    "bbox2d": Listed(XYXY), "box2d": Listed(YXYX, GRID), "xyxy": Listed(XYXY), "bboxxyxy": Listed(XYXY),
    "boxxyxy": Listed(XYXY), "ltrb": Listed(XYXY), "tlbr": Listed(XYXY), "xyxyn": Listed(XYXY, UNIT),
    "ltwh": Listed(XYWH), "tlwh": Listed(XYWH), "xywhn": Listed(CENTRE, UNIT), "cxcywh": Listed(CENTRE),
    "bboxcxcywh": Listed(CENTRE), "cxcywhn": Listed(CENTRE, UNIT), "yxyx": Listed(YXYX), "xywh": Listed(),
    "bboxxywh": Listed(XYWH), "boxxywh": Listed(XYWH), "normalizedbbox": Listed(None, UNIT),
    "bboxnormalized": Listed(None, UNIT), "bboxnorm": Listed(None, UNIT), "bbox": Listed(), "box": Listed(),
    "boundingbox": Listed(), "bounds": Listed(), "rect": Listed(), "rectangle": Listed(), "bb": Listed(),
    "bboxes": Listed(), "boxes": Listed(), "coordinates": Listed(), "coords": Listed(), "roi": Listed(),
    "region": Listed(), "position": Listed(), "location": Listed(), "predboxes": Listed(), "recboxes": Listed(),
    "detectionboxes": Listed(YXYX), "boundingboxes": Listed(), "bboxs": Listed(), "bboxes2d": Listed(XYXY),
    "boxes2d": Listed(YXYX, GRID), "bndbox": Listed(), "absoluteboundingbox": Listed(), "shapeattributes": Listed(),
    "value": Listed(), "geometry": Listed(), "boxxyxypx": Listed(XYXY, PX), "locationbox": Listed(), "area": Listed(),
}  # fmt: skip
RANKS = {key: rank for rank, key in enumerate(LISTED)}  # the first of several counts
POINTED = ("quadboxes", "quadbox", "quad", "polygons", "polygon", "poly", "polys", "recpolys", "dtpolys", "vertices",
           "normalizedvertices", "boundingpoly", "boundingpolygon", "corners", "points", "segmentation", "contour")  # fmt: skip
POINT_KEYS = ("point", "point2d", "points", "keypoint", "keypoints", "points2d")
LABELS = ("label", "labels", "class", "classname", "category", "categoryname", "object", "objectname", "phrase", "phrases",
          "textlabel", "textlabels", "bboxeslabels", "bboxlabel", "displayname", "tagname", "entity", "tag", "rectanglelabels",
          "classes",
          "classnames", "names", "detectionclassentities", "rectexts", "regionattributes", "element", "item", "classid",
          "cls", "categoryid", "detectionclasses")  # fmt: skip
TITLES = ("name", "title")
DESCRIPTIONS = ("desc", "description", "caption", "captions", "prompt", "alt")
TEXTS = ("text", "textcontent", "transcription", "ocrtext", "content", "rectext", "texts")
SCORES = ("score", "scores", "confidence", "confidences", "conf", "probability", "prob", "logits", "logit", "recscores",
          "detectionscores", "predictediou", "detectionconfidence", "recscore")  # fmt: skip
COCO = {"imageid", "categoryid", "iscrowd", "segmentation", "predictediou", "stabilityscore", "zorder"}
ROBOFLOW = ({"class", "confidence"}, {"class", "classid"}, {"detectionid"}, {"predictions"})
GROUPS = ("layers", "children", "items", "elements", "nodes")  # an object with one of these and boxes in it is a group
NOT_BOXES = {"categories", "info", "licenses", "images", "metadata", "pointcoords", "cropbox", "frame", "size", "imagesize",
             "image", "usage", "imagebbox", "background", "padding", "margin", "color"}  # fmt: skip
FORMATS = {"xyxy": (XYXY, None), "pascalvoc": (XYXY, PX), "xyxyabs": (XYXY, PX), "xywh": (XYWH, None), "coco": (XYWH, PX),
           "xywhabs": (XYWH, PX), "cxcywh": (CENTRE, None), "yolo": (CENTRE, UNIT), "albumentations": (XYXY, UNIT),
           "yxyx": (YXYX, None), "ltrb": (XYXY, None), "ltwh": (XYWH, None), "xyxyn": (XYXY, UNIT)}  # fmt: skip


def plain_key(key: Any) -> str:
    """A key without case, blanks and punctuation: "xMin", "x_min" and "X-Min" are "xmin"."""
    return re.sub(r"[\W_]+", "", key[:80].lower()) if isinstance(key, str) else str(key)[:20]
