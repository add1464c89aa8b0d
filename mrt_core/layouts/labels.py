"""Names, captions, scores and families of boxes, from the keys beside them."""

from typing import Any

from .dialect_keys import ABSENT, COCO, DESCRIPTIONS, LABELS, ROBOFLOW, SCORES, TEXTS, TITLES, plain_key
from .fields import FORBIDDEN_IN_CAPTIONS, describe
from .layout import MAX_CAPTION_LENGTH
from .marks import Context, Mark


def described(mark: Mark, value: dict, keys: dict, context: Context) -> Mark:
    """The mark with name, caption, score, place in the stack and family from the keys beside its box."""
    name, caption = _naming(value, keys, context)
    score = next((value[keys[key]] for key in SCORES if key in keys), None)
    score = (
        float(score)
        if isinstance(score, (int, float)) and not isinstance(score, bool) and abs(score) < 1e9
        else mark.score
    )
    z = value.get("z")
    z = float(z) if context.document and isinstance(z, (int, float)) and abs(z) < 1e9 else None
    label = (name, caption) if name or caption else (mark.name, mark.caption)
    hint = _family(value, keys) or context.hint
    return mark._replace(
        name=label[0], caption=label[1], score=score, z=z, hint=hint, certain=mark.certain and hint != "roboflow"
    )


def _family(value: dict, keys: dict) -> str:
    kind = value.get(keys.get("type", ABSENT))
    if "label" not in keys and (kind in ("obj", "text") or ("desc" in keys and "bbox" in keys)):
        return "elements"
    if not COCO.isdisjoint(keys):
        return "coco"
    return "roboflow" if any(group <= keys.keys() for group in ROBOFLOW) else ""


def _naming(value: dict, keys: dict, context: Context) -> tuple[str, str]:
    """Name and caption: a title or label names, a description, else a label, captions."""
    metadata = value.get(keys.get("metadata", ABSENT))
    if isinstance(metadata, dict):
        inner = {plain_key(key): key for key in metadata}
        title, desc, text = (first_text(metadata, inner, group) for group in (TITLES, DESCRIPTIONS, TEXTS))
        text = text if metadata.get("type") == "text" else ""
    else:
        title = desc = text = ""
    title = title or first_text(value, keys, TITLES)
    desc = desc or first_text(value, keys, DESCRIPTIONS)
    label = label_of(value, keys, context) or context.label
    written = first_text(value, keys, TEXTS)
    kind = value.get(keys.get("type", ABSENT))
    text = text or (written if kind == "text" or (kind is None and not label and not desc) else "")
    caption = text_caption(text, desc) if text else desc
    fallback = label or ("" if context.document else title)
    return title or label or text or desc, caption or fallback


def label_of(value: dict, keys: dict, context: Context) -> str:
    categories = dict(context.categories)
    for key in LABELS:
        item = value.get(keys.get(key, ABSENT))
        if isinstance(item, dict) and key == "regionattributes":
            item = next((part for part in item.values() if isinstance(part, str)), None)
        if isinstance(item, dict) and "category" in key:
            item = item.get("name")
        if isinstance(item, (list, tuple)):
            item = ", ".join(part for part in item[:20] if isinstance(part, str))
        if item in (None, "") or isinstance(item, (dict, bool)):
            continue
        text = clean_text(item)
        if key == "categoryid":
            return categories.get(text, "")
        return text
    return ""


def first_text(value: dict, keys: dict, group: tuple[str, ...]) -> str:
    return next(
        (
            clean_text(value[keys[key]])
            for key in group
            if key in keys and isinstance(value[keys[key]], (str, int, float))
        ),
        "",
    )


def clean_text(value: Any) -> str:
    """Any label as a text of at most MAX_CAPTION_LENGTH characters without those that no document stores."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = value if isinstance(value, str) else describe(value) if isinstance(value, (int, float)) else ""
    return FORBIDDEN_IN_CAPTIONS.sub("", text[:MAX_CAPTION_LENGTH])


def text_caption(text: str, desc: str) -> str:
    return (f'the text "{text}", {desc}' if desc else f'the text "{text}"')[:MAX_CAPTION_LENGTH]
