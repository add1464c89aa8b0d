"""Reconstruction and time of the three ways to code a region (crop, halo, full), on held-out designs.

    python benchmarks/region_modes.py [--designs 50] [--checkpoint FILE]

Every slot of an image-to-layers sample is encoded and decoded; the PSNR is that of premultiplied RGBA, mean over slots.
"""

import argparse
import time
from collections import defaultdict

import numpy as np

from mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_core.evaluation.held_out import held_out_design
from mrt_core.evaluation.metrics import psnr
from mrt_core.models.modes import REGION_MODES
from mrt_core.models.sequence import Role
from mrt_core.stacks.layers import premultiply
from mrt_core.tasks.region_codec import RegionCodec, canvas_regions, slot_pixels
from mrt_core.tasks.slots import text_to_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=50)
    parser.add_argument("--checkpoint")
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint or bundled_checkpoint())
    print("| mode | layers (dB) | backgrounds (dB) | composites (dB) | encode (s/design) | decode (s/design) |")
    print("|---|---|---|---|---|---|")
    for mode in REGION_MODES:
        codec = RegionCodec(checkpoint.autoencoder, mode)
        scores: dict[Role, list[float]] = defaultdict(list)
        encoding = decoding = 0.0
        for index in range(options.designs):
            design = held_out_design(index, checkpoint.info.frame_area)
            sample = text_to_layers(design.layout)
            images = [slot_pixels(slot, design.layout, design.stack) for slot in sample.slots]
            where = canvas_regions(sample, sample.slots)
            started = time.perf_counter()
            latents = codec.encode(images, where)
            encoded = time.perf_counter()
            decoded = codec.decode(latents, where)
            encoding, decoding = encoding + encoded - started, decoding + time.perf_counter() - encoded
            for slot, image, result in zip(sample.slots, images, decoded, strict=True):
                scores[slot.role].append(psnr(premultiply(result), premultiply(image)))
        quality = " | ".join(f"{np.mean(scores[r]):.2f}" for r in (Role.LAYER, Role.BACKGROUND, Role.COMPOSITE))
        print(
            f"| {mode} | {quality} | {encoding / options.designs:.3f} | {decoding / options.designs:.3f} |", flush=True
        )


if __name__ == "__main__":
    main()
