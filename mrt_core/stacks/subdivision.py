"""Taking one layer of a stack apart: what it is made of stands in its place, as a group
(architecture: Qwen-Image-Layered)."""

import json
from collections.abc import Iterator
from dataclasses import replace

from ..errors import MRTError
from .layers import Group, Layer, LayerStack


def find_layer(stack: LayerStack, name: str) -> Layer:
    """The lowest layer of that name, in groups too; raises MRTError when there is none."""
    layers = list(_layers(stack.layers))
    for layer in layers:
        if layer.name == name:
            return layer
    names = ", ".join(json.dumps(layer.name, ensure_ascii=False) for layer in layers)
    raise MRTError(
        f"there is no layer named {json.dumps(name, ensure_ascii=False)} in the document; its layers are {names or 'none'}"
    )


def _layers(nodes: tuple[Layer | Group, ...]) -> Iterator[Layer]:
    for node in nodes:
        if isinstance(node, Group):
            yield from _layers(node.layers)
        else:
            yield node


def replace_layer(stack: LayerStack, name: str, parts: LayerStack) -> LayerStack:
    """The stack with a group in the place of its lowest layer of that name, of the layer's own name, opacity and visibility.

    `parts` has that layer's box as its frame; its layers move to where the layer was.
    """
    old = find_layer(stack, name)
    moved = tuple(replace(layer, x=layer.x + old.x, y=layer.y + old.y) for layer in parts.layers)
    mode = {} if old.blend_mode == "normal" else {"blend_mode": old.blend_mode}
    group = Group(moved, old.name, old.opacity, visible=old.visible, **mode)
    return replace(stack, layers=_exchange(stack.layers, old, group), metadata={**stack.metadata, **parts.metadata})


def _exchange(nodes: tuple[Layer | Group, ...], old: Layer, new: Group) -> tuple[Layer | Group, ...]:
    return tuple(
        new
        if node is old
        else replace(node, layers=_exchange(node.layers, old, new))
        if isinstance(node, Group)
        else node
        for node in nodes
    )
