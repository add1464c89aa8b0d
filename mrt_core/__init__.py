"""MRT, the Masked Region Transformer, as a PyTorch library: a layout of boxes in, separate RGBA layers out.

The names below are the public ones. Each is imported when it is first asked for: `import mrt_core` alone loads no PyTorch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Pipeline": "pipeline",
    "SamplingOptions": "tasks.options",
    "Layout": "layouts.layout",
    "load_layout": "layouts.documents",
    "LayerStack": "stacks.layers",
    "load": "documents",
    "save": "documents",
    "MRTError": "errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
