"""Train the class probe on common drawings as the generator draws them, before and after a trip through the autoencoder.

What a model makes always comes out of the autoencoder, so the probe has to know its blur; it must not know the model's.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..designs.artwork import COMMON_NAMES
from ..designs.elements import ElementMix
from ..designs.generator import DesignSettings, generate_design
from ..evaluation.class_probe import SIDE, ClassProbe, asked_drawing, picture
from ..evaluation.reconstruction import reconstructed_layers
from ..tasks.region_codec import RegionCodec

log = logging.getLogger(__name__)

COMMON_ALONE = ElementMix(artwork=1.0, shape=0.0, word=0.0, common=1.0)
DRAWINGS = 1600  # of them all, each in two versions
STEPS, BATCH, LEARNING_RATE = 500, 128, 4e-3
MAX_SHIFT = 0.1  # of the picture's side
SIZES = (0.8, 1.15)  # times its size


def train_probe(codec: RegionCodec, frame_area: int, drawings: int = DRAWINGS, steps: int = STEPS) -> ClassProbe:
    """A probe for pictures that `codec` decodes, at a frame area in px; always the same on one machine."""
    log.info("training a class probe on %d drawings", drawings)
    pictures, classes = probe_pictures(codec, frame_area, drawings)
    torch.manual_seed(0)
    probe = ClassProbe()
    optimizer = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(pictures), (BATCH,))
        loss = F.cross_entropy(probe(augmented(pictures[chosen])), classes[chosen], label_smoothing=0.05)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            log.info("step %d loss %.3f", step + 1, loss.detach())
    return probe.eval()


def probe_pictures(codec: RegionCodec, frame_area: int, drawings: int) -> tuple[Tensor, Tensor]:
    """`drawings` drawings in full colour, first as drawn and then as decoded: (2 * drawings, 4, SIDE, SIDE) and classes."""
    settings = DesignSettings(frame_area=frame_area, styled_share=0.0, mix=COMMON_ALONE)
    rng = np.random.default_rng(6)
    drawn, decoded, classes = [], [], []
    while len(drawn) < drawings:
        design = generate_design(int(rng.integers(2**62)), settings)
        drawn += [picture(layer.pixels) for layer in design.stack.layers[1:]]
        decoded += [picture(pixels) for pixels in reconstructed_layers(codec, design)]
        classes += [COMMON_NAMES.index(asked_drawing(layer.caption)) for layer in design.stack.layers[1:]]
    pictures = torch.stack([*drawn[:drawings], *decoded[:drawings]])
    return pictures, torch.tensor(classes[:drawings]).repeat(2)


def augmented(pictures: Tensor) -> Tensor:
    """Pictures (B, 4, SIDE, SIDE) moved, scaled, softened and brightened a little, each in its own way."""
    count = len(pictures)
    coarse = int(torch.randint(SIDE // 3, SIDE + 1, ()))
    soft = F.interpolate(F.interpolate(pictures, size=coarse, mode="area"), size=SIDE, mode="bilinear")
    pictures = torch.where(torch.rand(count, 1, 1, 1) < 0.5, soft, pictures)
    scale = 1 / torch.empty(count).uniform_(*SIZES)
    shift = torch.empty(count, 2).uniform_(-2 * MAX_SHIFT, 2 * MAX_SHIFT)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0], place[:, 1, 1], place[:, :, 2] = scale, scale, shift
    moved = F.grid_sample(pictures, F.affine_grid(place, pictures.shape, align_corners=False), align_corners=False)
    light = torch.cat([torch.empty(count, 3).uniform_(0.85, 1.15), torch.ones(count, 1)], 1)[..., None, None]
    return torch.minimum(moved * light, moved[:, 3:])  # premultiplied colour is at most alpha
