"""A small classifier that names one of the common drawings: an eye that looks at what a model drew.

It is trained on the spot (`training.probe`) and kept where the user says, not shipped: it follows the artwork, the generator
and the autoencoder as they are, with fixed seeds, and the package holds no weights that only measure.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..designs.artwork import COMMON_NAMES
from ..errors import MRTError
from ..stacks.layers import premultiply
from ..weights.safetensors_file import save_atomically

SIDE = 32  # px of the picture that the probe looks at
WIDTHS = (16, 32, 64, 96)
CHANCE = 1 / len(COMMON_NAMES)


_NAME = re.compile(rf"\b({'|'.join(sorted(COMMON_NAMES, key=len, reverse=True))})\b")
_QUOTED = re.compile(r'"[^"]*"')


def asked_drawing(caption: str) -> str | None:
    """The common drawing that a caption asks for; None for shapes, words and all other drawings."""
    found = _NAME.search(_QUOTED.sub("", caption))
    return found[0] if found else None


class ClassProbe(nn.Sequential):
    """Premultiplied RGBA (B, 4, SIDE, SIDE) in 0..1 to scores (B, classes), in the order of COMMON_NAMES."""

    def __init__(self):
        layers: list[nn.Module] = []
        for before, width in zip((4, *WIDTHS), WIDTHS, strict=False):
            stride = 1 if before == 4 else 2
            convolution = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], len(COMMON_NAMES)))

    @torch.no_grad()
    def names(self, layers: Sequence[np.ndarray]) -> list[str]:
        """The class of each straight RGBA uint8 image (height, width, 4), of any size."""
        if not layers:
            return []
        best = self(torch.stack([picture(pixels) for pixels in layers])).argmax(1)
        return [COMMON_NAMES[index] for index in best.tolist()]


def picture(pixels: np.ndarray) -> Tensor:
    """What the probe sees of straight RGBA uint8: premultiplied (4, SIDE, SIDE) in 0..1, centred, with its proportions."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    page = Image.new("RGBA", (SIDE, SIDE))
    page.paste(
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    )
    return torch.from_numpy(premultiply(np.asarray(page))).permute(2, 0, 1).contiguous()


def save_probe(probe: ClassProbe, path: Path) -> None:
    """Keep a trained probe, in fp16 with the names of its classes."""
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in probe.state_dict().items()
    }
    save_atomically(weights, path, {"classes": json.dumps(COMMON_NAMES)})


def load_probe(path: Path) -> ClassProbe:
    """A probe from `save_probe`; raises MRTError for any other file, and for one that was trained on other classes."""
    probe = ClassProbe()
    try:
        with safe_open(path, "pt") as file:
            classes = (file.metadata() or {}).get("classes")
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise MRTError(
            f"{path} is not a probe ({error}); give a new path, and one is trained and kept there"
        ) from error
    if classes != json.dumps(COMMON_NAMES):
        raise MRTError(
            f"{path} is not a probe for the present {len(COMMON_NAMES)} classes; give a new path or delete it"
        )
    probe.load_state_dict(weights)
    return probe.eval()
