"""The sizes of the models, and the constants that their shapes follow from."""

from dataclasses import dataclass

TIME_CHANNELS = 256  # of the transformer's timestep embedding
MLP_RATIO = 4  # of its hidden layers to its width

LATENT_CHANNELS = 16
LEVEL_MULTIPLES = (1, 2, 4, 4)  # width of each level, times the base width

# The public constants of the Wan 2.1 latent space (architecture: latents), shared by Qwen-Image and Qwen-Image-Layered.
WAN_LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer; the defaults are Qwen-Image's. `clean_timestep` is "zero" (MRT) or "shared" (Layered)."""

    num_layers: int = 60
    num_heads: int = 24
    head_dim: int = 128
    text_dim: int = 3584
    in_channels: int = 64  # latent channels x 2 x 2
    rope_axes: tuple[int, int, int] = (16, 56, 56)
    rope_theta: float = 10000.0
    additional_t_cond: bool = False  # Qwen-Image-Layered's extra timestep embedding
    condition_embedding: bool = True  # MRT's condition-token embedding
    clean_timestep: str = "zero"

    @property
    def width(self) -> int:
        return self.num_heads * self.head_dim


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder: base width, image channels in and out (3 or 4), and the latent normalisation."""

    base_width: int = 96
    in_channels: int = 4
    out_channels: int = 4
    latent_mean: tuple[float, ...] = WAN_LATENT_MEAN
    latent_std: tuple[float, ...] = WAN_LATENT_STD


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a small model's text embeddings: tokens, width, and positions in a caption, of which the last serves all
    that follow."""

    vocabulary: int = 2048
    width: int = 256
    positions: int = 64
