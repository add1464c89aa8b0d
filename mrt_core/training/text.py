"""Warm-up of the small text encoder: before the transformer reads them, text states learn what their words look like.

Every token's state predicts, through one linear layer that is thrown away afterwards, a coarse picture of the region that
it describes. The transformer then has to copy from text to regions and no more; without this, a small one trained for a
short time does not learn to follow its prompts at all (docs/results.md).
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sequence import captioned_slots, unpatchify
from ..tasks import Task
from ..text import SmallTextEncoder
from .muon import muon_for
from .samples import TrainingSample
from .state import warmup_stable_decay

log = logging.getLogger(__name__)

PICTURE = 4  # latent pixels a side of the coarse picture
DESCRIBED = (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS, Task.ADD_LAYERS)
WARMUP_STEPS = 50


def coarse_pictures(sample: TrainingSample) -> Tensor:
    """A coarse latent (16 * PICTURE^2) of the background and of every layer that is made: (1 + layers, 256)."""
    pieces = dict(
        zip(sample.sample.slots, sample.tokens.split([s.box.count for s in sample.sample.slots]), strict=True)
    )
    latents = [unpatchify(pieces[slot], slot.box.rows, slot.box.cols) for slot in captioned_slots(sample.sample)]
    return torch.stack([F.adaptive_avg_pool2d(latent.float(), PICTURE).flatten() for latent in latents])


def picture_loss(
    encoder: SmallTextEncoder, head: nn.Linear, samples: list[TrainingSample], prompts: list[str]
) -> Tensor:
    """Mean squared error of the pictures that all tokens predict; text that stands for no picture of its own is left out."""
    states = torch.cat(encoder.encode_prompts(prompts))  # (M, width)
    targets, counted = [], []
    for sample, caption in zip(samples, encoder.caption_indices(prompts), strict=True):
        pictures = coarse_pictures(sample)
        known = caption < len(pictures) - 1  # a prompt that was cut or is not about these layers may name more
        if sample.task is Task.ADD_LAYERS:
            known &= caption >= 0  # the background is given and not described
        targets.append(pictures[(caption + 1).clamp(max=len(pictures) - 1)])
        counted.append(known)
    mask = torch.cat(counted).to(states.device)
    return (head(states)[mask] - torch.cat(targets).to(states)[mask]).square().mean()


def warm_up_text(
    encoder: SmallTextEncoder, samples: list[TrainingSample], steps: int, batch: int, seed: int = 0
) -> None:
    """Train `encoder` in place on the prompts and latents of encoded samples."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    described = [sample for sample in samples if sample.task in DESCRIBED]
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(encoder.config.width, 16 * PICTURE**2)})
    hidden = {name for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("encoder.blocks.")}
    optimizer = muon_for(model, hidden, 0.02, 2e-3, 0.01)
    losses = []
    for step in range(steps):
        chosen = [described[int(index)] for index in rng.integers(len(described), size=batch)]
        prompts = [sample.prompts[int(rng.integers(len(sample.prompts)))] for sample in chosen]
        with torch.autocast(next(encoder.parameters()).device.type, torch.bfloat16):
            loss = picture_loss(encoder, model["head"], chosen, prompts)
        loss.backward()
        optimizer.scale_learning_rates(warmup_stable_decay(step, steps, WARMUP_STEPS, 0.5))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach().item())
        if (step + 1) % 50 == 0:
            log.info("step %d loss %.4f", step + 1, np.mean(losses[-50:]))
