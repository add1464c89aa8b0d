"""The Wan/Qwen image autoencoder at one frame, as a plain 2D network.

At a single frame the causal 3D convolutions of the public autoencoder see only their last temporal tap and the temporal
resampling never runs, so the network below computes exactly the same function with a third of the weights
(architecture: autoencoder). Submodules carry the diffusers names of `AutoencoderKLQwenImage`; `autoencoder_keys` reads
the other public naming and collapses 5D weights. Latents are normalised: z = (mean - latent_mean) / latent_std.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configs import LATENT_CHANNELS, LEVEL_MULTIPLES, AutoencoderConfig


class ChannelRMSNorm(nn.Module):
    """x / ||x||_2 over channels, times sqrt(C) and a learned gain; statistics in fp32."""

    def __init__(self, channels: int, dtype=None, device=None):
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
        return x * (self.scale / norm).to(x.dtype) * self.gamma.to(x.dtype)[:, None, None]


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3 conv, twice; a 1x1 shortcut where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, operations=nn, **factory):
        super().__init__()
        self.norm1 = ChannelRMSNorm(in_channels, **factory)
        self.conv1 = operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.norm2 = ChannelRMSNorm(out_channels, **factory)
        self.conv2 = operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory)
        changes_width = in_channels != out_channels
        self.conv_shortcut = (
            operations.Conv2d(in_channels, out_channels, 1, **factory) if changes_width else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.conv_shortcut(x) + hidden


class SpatialAttention(nn.Module):
    """Single-head attention over all positions, with a residual."""

    def __init__(self, channels: int, operations=nn, **factory):
        super().__init__()
        self.norm = ChannelRMSNorm(channels, **factory)
        self.to_qkv = operations.Conv2d(channels, 3 * channels, 1, **factory)
        self.proj = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]  # (B, 1, H*W, 3C)
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))  # (B, 1, H*W, C)
        return x + self.proj(attended[:, 0].transpose(1, 2).unflatten(2, (height, width)))


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, operations=nn, **factory):
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels, operations, **factory) for _ in range(2)])
        self.attentions = nn.ModuleList([SpatialAttention(channels, operations, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Halve both sides: pad one zero column right and one zero row below, 3x3 conv with stride 2."""

    def __init__(self, channels: int, operations=nn, **factory):
        super().__init__()
        conv = operations.Conv2d(channels, channels, 3, stride=2, **factory)
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(x)


class Upsample(nn.Module):
    """Double both sides by nearest neighbour, then a 3x3 conv that halves the width."""

    def __init__(self, channels: int, operations=nn, **factory):
        super().__init__()
        conv = operations.Conv2d(channels, channels // 2, 3, padding=1, **factory)
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(x)


class UpBlock(nn.Module):
    """Three residual blocks, then an upsampler on all levels but the last."""

    def __init__(self, in_channels: int, out_channels: int, upsample: bool, operations=nn, **factory):
        super().__init__()
        widths = [in_channels, out_channels, out_channels]
        self.resnets = nn.ModuleList([ResidualBlock(width, out_channels, operations, **factory) for width in widths])
        self.upsamplers = nn.ModuleList([Upsample(out_channels, operations, **factory)] if upsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for module in [*self.resnets, *self.upsamplers]:
            x = module(x)
        return x


class Encoder(nn.Module):
    """Image (B, in_channels, H, W) to posterior mean and log-variance (B, 32, H/8, W/8)."""

    def __init__(self, config: AutoencoderConfig, operations=nn, **factory):
        super().__init__()
        widths = [config.base_width * multiple for multiple in LEVEL_MULTIPLES]
        self.conv_in = operations.Conv2d(config.in_channels, widths[0], 3, padding=1, **factory)
        blocks: list[nn.Module] = []
        for level, width in enumerate(widths):
            below = widths[max(level - 1, 0)]
            blocks += [
                ResidualBlock(below, width, operations, **factory),
                ResidualBlock(width, width, operations, **factory),
            ]
            if level < len(widths) - 1:
                blocks.append(Downsample(width, operations, **factory))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = MidBlock(widths[-1], operations, **factory)
        self.norm_out = ChannelRMSNorm(widths[-1], **factory)
        self.conv_out = operations.Conv2d(widths[-1], 2 * LATENT_CHANNELS, 3, padding=1, **factory)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latent (B, 16, h, w) to image (B, out_channels, 8h, 8w)."""

    def __init__(self, config: AutoencoderConfig, operations=nn, **factory):
        super().__init__()
        widths = [config.base_width * multiple for multiple in reversed(LEVEL_MULTIPLES)]
        self.conv_in = operations.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1, **factory)
        self.mid_block = MidBlock(widths[0], operations, **factory)
        inputs = [widths[0], *(width // 2 for width in widths[:-1])]  # each upsampler halves the width
        last = len(widths) - 1
        self.up_blocks = nn.ModuleList(
            [UpBlock(inputs[i], widths[i], i < last, operations, **factory) for i in range(len(widths))]
        )
        self.norm_out = ChannelRMSNorm(widths[-1], **factory)
        self.conv_out = operations.Conv2d(widths[-1], config.out_channels, 3, padding=1, **factory)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latent))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """RGB or straight-alpha RGBA images in -1..1 to normalised latents at an eighth of the size, and back."""

    def __init__(self, config: AutoencoderConfig, dtype=None, device=None, operations=nn):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.config = config
        self.encoder = Encoder(config, operations, **factory)
        self.quant_conv = operations.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1, **factory)
        self.post_quant_conv = operations.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1, **factory)
        self.decoder = Decoder(config, operations, **factory)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor(self.config.latent_mean), torch.tensor(self.config.latent_std)
        return mean.to(like)[:, None, None], std.to(like)[:, None, None]

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, not normalised, of an image (B, C, H, W) in -1..1: each (B, 16, H/8, W/8)."""
        return self.quant_conv(self.encoder(image)).chunk(2, dim=1)

    def encode(self, image: Tensor) -> Tensor:
        """Normalised posterior mode (B, 16, H/8, W/8) of an image (B, C, H, W) in -1..1; H and W are multiples of 8."""
        mean, std = self._statistics(image)
        return (self.posterior(image)[0] - mean) / std

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Image (B, C, 8h, 8w), not clamped, from an unnormalised latent (B, 16, h, w)."""
        return self.decoder(self.post_quant_conv(latent))

    def decode(self, latent: Tensor) -> Tensor:
        """Image (B, C, 8h, 8w) in -1..1 from a normalised latent (B, 16, h, w)."""
        mean, std = self._statistics(latent)
        return self.reconstruct(latent * std + mean).clamp(-1, 1)
