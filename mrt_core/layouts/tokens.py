"""Boxes that a text holds outside JSON: a model's location tokens, tagged boxes, lines of numbers, CSV, Pascal VOC's XML.

Each reader returns plain objects as `dialects` reads them. Where the syntax fixes order and scale, "bbox_format" says so.
"""

# ruff: noqa: RUF001  (full-width signs are what is read here)
import csv
import re
from typing import Any

from .dialect_keys import LISTED, plain_key

NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"  # bounded, so that a search stays linear
NUMBERS = re.compile(NUMBER)
FLORENCE = re.compile(r"((?:<loc_\d{1,4}>)+)")
PALIGEMMA = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>([^;<\n]*)")
KOSMOS = re.compile(
    r"(?:<phrase>([^<]*)</phrase>\s*)?<object>((?:<(?:patch_index_\d+|/delimiter_of_multi_objects/)>)+)</object>"
)
KOSMOS_SIDE = 32  # patches on each side of Kosmos-2's picture
TAG = re.compile(
    r"(?:<\|?(?:object_ref_start|ref|p|phrase)\|?>(?P<label>[^<]*)<\|?/?(?:object_ref_end|ref|p|phrase)\|?>[\s,]*)?"
    r"<\|?(?P<tag>box_start|box|bbox|det|begin_of_box)\|?>(?P<body>[^<]*)(?:<\|?/?(?:box_end|box|bbox|det|end_of_box)\|?>|(?P<cut>\Z))"
)
LABELLED = re.compile(r"[{:]")  # a tagged box that holds objects is JSON for the ordinary reader
POINT_TAG = re.compile(r"<points?\s[^>]*\bx1?\s*=")
VOC_FIELD = re.compile(r"<(name|xmin|ymin|xmax|ymax|width|height)>([^<]*)</")
FOUR = re.compile(
    r"(?<![\w.])"
    + r"[\s,;，；()（）\[\]]{1,8}(?:(?:to|and|-|→|–)[\s(（\[]{1,4})?".join([f"({NUMBER})(?:px)?"] * 4)
    + r"(?![\w.%])"
)
PAIR = re.compile(rf"""([A-Za-z][\w-]{{0,40}})["']?\s{{0,4}}[:=]\s{{0,4}}["']?({NUMBER}(?:%|px)?)(?![\w.])""")
ATTRIBUTE = re.compile(r"""([A-Za-z][\w-]{0,40})\s{0,4}=\s{0,4}["']([^"'<>]{0,200})["']""")
YAML_LABEL = re.compile(r"\s*(?:-\s*)?(?:label|name|class|caption|object)\s*:\s*(\S.*)")
LINE_LENGTH = 2000  # characters; a line of boxes is far shorter
CSV_COLUMNS = re.compile(r"(?i)^[\"']?(x|xmin|x_min|x1|x0|left|bbox|x_center|cx)[\"']?$")


def read_tokens(text: str) -> tuple[list[dict[str, Any]], str]:
    """The boxes in a model's special tokens and which they are; none and "" where the text has no such tokens."""
    readers = (_florence, _paligemma, _kosmos, _tagged, _voc)
    for marker, reader in zip(("<loc_", "<loc", "<patch_index_", "<", "<bndbox>"), readers, strict=True):
        if marker in text and (found := reader(text))[0]:
            return found
    return [], ""


def read_lines(text: str) -> tuple[list[dict[str, Any]], str]:
    """The boxes of a CSV table, of YOLO's label lines, or of lines with four numbers and a name each."""
    return _table(text) or _yolo_lines(text) or _pair_lines(text) or _number_lines(text)


def has_points(text: str) -> bool:
    """Whether the text marks points, as Molmo does, in place of boxes."""
    return POINT_TAG.search(text) is not None


def _florence(text: str) -> tuple[list[dict[str, Any]], str]:
    """label<loc_x1><loc_y1><loc_x2><loc_y2>, in thousandths; eight may be two boxes or the corners of one."""
    found, parts = [], FLORENCE.split(text)
    for before, tokens in zip(parts[::2], parts[1::2], strict=False):
        label = re.sub(r"</?[\w/]{1,20}>", " ", before).strip(" ,.;\n")
        numbers = [int(number) for number in re.findall(r"\d+", tokens)]
        boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
        ordered = all(len(box) == 4 and box[0] < box[2] and box[1] < box[3] for box in boxes)
        boxes = boxes if ordered or len(numbers) < 6 or len(numbers) % 2 else [numbers]
        found += [{"label": label, "bbox": box, "bbox_format": "xyxy-1000"} for box in boxes]
    return found, "Florence-2's <loc_...> tokens"


def _paligemma(text: str) -> tuple[list[dict[str, Any]], str]:
    """<locY1><locX1><locY2><locX2> label, of 1024."""
    found = [
        {
            "label": match[5].strip(),
            "bbox": [int(number) / 1024 for number in match.groups()[:4]],
            "bbox_format": "yxyx-1",
        }
        for match in PALIGEMMA.finditer(text)
    ]
    return found, "PaliGemma's <loc....> tokens"


def _kosmos(text: str) -> tuple[list[dict[str, Any]], str]:
    """<patch_index_A><patch_index_B>: the first and the last patch of 32 x 32, measured at their centres as Kosmos-2 does."""
    found = []
    for match in KOSMOS.finditer(text):
        patches = [int(number) for number in re.findall(r"<patch_index_(\d+)>", match[2])]
        for first, last in zip(patches[::2], patches[1::2], strict=False):
            (top, left), (bottom, right) = divmod(first, KOSMOS_SIDE), divmod(last, KOSMOS_SIDE)
            inset = 0 if left == right or top == bottom else 0.5
            corners = [left + inset, top + inset, right + 1 - inset, bottom + 1 - inset]
            box = [corner / KOSMOS_SIDE for corner in corners]
            found.append({"label": (match[1] or "").strip(), "bbox": box, "bbox_format": "xyxy-1"})
    return found, "Kosmos-2's <patch_index_...> tokens"


def _tagged(text: str) -> tuple[list[dict[str, Any]], str]:
    """<box>(x1,y1),(x2,y2)</box> and its kin of Qwen-VL, InternVL, MiniCPM, GLM and DeepSeek, in thousandths."""
    found: list[dict[str, Any]] = []
    for match in TAG.finditer(text):
        if LABELLED.search(match["body"]) or (
            match["cut"] is not None and not match["body"].rstrip().endswith((")", "]"))
        ):
            continue
        numbers = [float(number) for number in NUMBERS.findall(match["body"])]
        boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
        scale = "1" if numbers and max(numbers) <= 1 else "1000"
        label = (match["label"] or "").strip()
        found += [{"label": label, "bbox": box, "bbox_format": f"xyxy-{scale}"} for box in boxes]
    return found, "a model's box tags"


def _voc(text: str) -> tuple[list[dict[str, Any]], str]:
    head, *parts = text.split("<object>")
    size = dict(VOC_FIELD.findall(head))
    objects = [dict(reversed(VOC_FIELD.findall(part))) for part in parts]  # the first of a name counts: parts come last
    found: list[dict[str, Any]] = [{"bndbox": item, "name": item.get("name", "")} for item in objects]
    if found and {"width", "height"} <= size.keys():
        found = [{"size": {key: size[key] for key in ("width", "height")}, "object": found}]
    return found, "Pascal VOC's XML"


def _table(text: str) -> tuple[list[dict[str, Any]], str] | None:
    lines = [line for line in text.strip().splitlines() if line.strip() and len(line) <= LINE_LENGTH]
    if len(lines) < 2:
        return None
    if lines[0].count("|") > 3:  # Markdown
        lines = [line.strip().strip("|") for line in lines if line.count("|") > 3 and line.strip(" |:-")]
    for delimiter in (",", ";", "\t", "|"):
        names = [name.strip().strip("\"'") for name in lines[0].split(delimiter)]
        if len(names) >= 4 and any(CSV_COLUMNS.match(name) for name in names):
            rows = csv.reader(lines[1:], delimiter=delimiter, skipinitialspace=True)
            return [dict(zip(names, row, strict=False)) for row in rows], "a table with a line of column names"
    return None


def _yolo_lines(text: str) -> tuple[list[dict[str, Any]], str] | None:
    """`class x y w h` or with a confidence behind, all of 1: YOLO's label files; None where a line is something else."""
    found = []
    for line in text.split("\n"):
        words = line.split()
        if not words:
            continue
        if len(words) not in (5, 6) or not words[0].isdigit() or not all(NUMBERS.fullmatch(word) for word in words[1:]):
            return None
        numbers = [float(word) for word in words[1:]]
        if any(not 0 <= number <= 1 for number in numbers):
            return None
        score = {"score": numbers[4]} if len(numbers) == 5 else {}
        found.append({"label": words[0], "bbox": numbers[:4], "bbox_format": "cxcywh-1", **score})
    return (found, "YOLO's label lines") if found else None


def _pair_lines(text: str) -> tuple[list[dict[str, Any]], str] | None:
    """One box for each line, or element of XML, such as `cup: x=120, y=80, width=360, height=280`."""
    found = []
    for line in re.split(r"\n|(?<=>)", text):
        pairs = PAIR.findall(line) if len(line) <= LINE_LENGTH and not POINT_TAG.search(line) else []
        if len(pairs) >= 4:
            words = {key: word for key, word in ATTRIBUTE.findall(line) if not NUMBERS.fullmatch(word)}
            before = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line[: PAIR.search(line).start()]).strip(
                " \t,;:=([{-\"'*`"
            )
            label = {} if "<" in before or not before else {"label": before}
            found.append({**label, **words, **dict(pairs)})
    return (found, "lines with a name before each number") if found else None


def _number_lines(text: str) -> tuple[list[dict[str, Any]], str]:
    """One box for each line with four numbers in a row; what stands before or behind them is its label."""
    found, named = [], ""
    for line in text.split("\n"):
        if len(line) > LINE_LENGTH:
            continue
        if field := YAML_LABEL.match(line):
            named = field[1].strip("\"' ")
        if not (match := FOUR.search(line)):
            continue
        before, behind = line[: match.start()], line[match.end() :]
        label = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", before).strip(" \t,;:=([-\"'*`：")
        label = label or re.sub(r"^[\s,;)\]]+", "", behind).strip(" \t,;:\"'*`.")
        if plain_key(label) in LISTED:  # YAML
            found.append({"label": named, label: [float(number) for number in match.groups()]})
            named = ""
            continue
        rest = NUMBERS.findall(behind)
        fewer = not label and rest  # more than four numbers and no words: which four are the box?
        box = [float(number) for number in (*match.groups(), *(rest if fewer else ()))]
        found.append({"label": "" if fewer else label, "bbox": box, "line": True})
    return found, "lines with four numbers"
