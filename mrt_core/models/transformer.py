"""The masked region transformer: Qwen-Image's dual-stream MMDiT over a packed sequence of regions.

Parameter names and arithmetic are Qwen-Image's, so its public weights load unchanged
(architecture: parameter names, forward pass). What MRT adds: arbitrary regions instead of full canvases, a noise level
of 0 for clean tokens, and a condition-token embedding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configs import MLP_RATIO, TIME_CHANNELS, TransformerConfig
from .modulation import ComputedModulations, Modulation, Modulations
from .rope import rotate, rotation_angles
from .sequence import PackedBatch

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q (1, heads, Q, dim), k, v (1, heads, S, dim) -> like q
Block = Callable[..., tuple[Tensor, Tensor]]  # a TransformerBlock, or what stands in for one


def timestep_embedding(timestep: Tensor) -> Tensor:
    """Sinusoidal embedding (R, 256) in fp32 of noise levels (R,) in 0..1; cosines first
    (architecture: forward pass)."""
    half = TIME_CHANNELS // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = 1000.0 * timestep.float()[:, None] * torch.exp(-torch.log(torch.tensor(10000.0)) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimestepEmbedder(nn.Module):
    """Sinusoid, linear, SiLU, linear."""

    def __init__(self, width: int, operations, **factory):
        super().__init__()
        self.linear_1 = operations.Linear(TIME_CHANNELS, width, **factory)
        self.linear_2 = operations.Linear(width, width, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:  # (R,) -> (R, width)
        return self.linear_2(F.silu(self.linear_1(timestep_embedding(timestep).to(dtype))))


class TimeTextEmbed(nn.Module):
    """The time vector that all modulations start from."""

    def __init__(self, config: TransformerConfig, operations, **factory):
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(config.width, operations, **factory)
        if config.additional_t_cond:
            self.addition_t_embedding = operations.Embedding(2, config.width, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:  # (R,) -> (R, width)
        vector = self.timestep_embedder(timestep, dtype)
        if hasattr(self, "addition_t_embedding"):
            index = torch.zeros(len(timestep), dtype=torch.long, device=timestep.device)  # row 0: layered images
            vector = vector + self.addition_t_embedding(index).to(vector.dtype)
        return vector


class GELUProjection(nn.Module):
    """Linear, then GELU in its tanh form."""

    def __init__(self, width: int, hidden: int, operations, **factory):
        super().__init__()
        self.proj = operations.Linear(width, hidden, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers around a GELU; `net.1` is the public model's dropout."""

    def __init__(self, width: int, operations, **factory):
        super().__init__()
        hidden = MLP_RATIO * width
        projection = GELUProjection(width, hidden, operations, **factory)
        self.net = nn.Sequential(projection, nn.Identity(), operations.Linear(hidden, width, **factory))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class JointAttention(nn.Module):
    """Full attention over each sample's [text, image] tokens, with projections and q/k norms of their own per stream."""

    def __init__(self, config: TransformerConfig, operations, **factory):
        super().__init__()
        width, self.heads = config.width, config.num_heads
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            setattr(self, name, operations.Linear(width, width, **factory))
        self.to_out = nn.ModuleList([operations.Linear(width, width, **factory)])
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            setattr(self, name, operations.RMSNorm(config.head_dim, eps=1e-6, elementwise_affine=True, **factory))

    def _split_heads(self, x: Tensor) -> Tensor:  # (S, width) -> (S, heads, dim)
        return x.unflatten(-1, (self.heads, -1))

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        angles: "JointAngles",
        lengths: "JointLengths",
        attend: Attention,
        with_text_queries: bool = True,
    ):
        """Attention outputs (N, width) and (M, width), before their output projections.

        Without `with_text_queries` text is looked at but does not look itself, and its output is empty.
        """
        image_q = rotate(self.norm_q(self._split_heads(self.to_q(image))), angles.image)
        image_k = rotate(self.norm_k(self._split_heads(self.to_k(image))), angles.image)
        image_v = self._split_heads(self.to_v(image))
        text_q, text_queries = image_q[:0], (0,) * len(lengths.text)
        if with_text_queries:
            text_queries = lengths.text
            text_q = rotate(self.norm_added_q(self._split_heads(self.add_q_proj(text))), angles.text)
        text_k = rotate(self.norm_added_k(self._split_heads(self.add_k_proj(text))), angles.text)
        text_v = self._split_heads(self.add_v_proj(text))
        joint = zip(
            text_q.split(text_queries),
            *(x.split(lengths.text) for x in (text_k, text_v)),
            *(x.split(lengths.image) for x in (image_q, image_k, image_v)),
            strict=True,
        )
        text_out, image_out = [], []
        for tq, tk, tv, iq, ik, iv in joint:  # one sample: (T_i, heads, dim) and (N_i, heads, dim)
            q, k, v = (torch.cat(pair).transpose(0, 1)[None] for pair in ((tq, iq), (tk, ik), (tv, iv)))
            attended = attend(q, k, v.to(q.dtype))[0].transpose(0, 1).flatten(1)  # (queries, width)
            text_out.append(attended[: len(tq)])
            image_out.append(attended[len(tq) :])
        return torch.cat(image_out), torch.cat(text_out)


@dataclass(frozen=True)
class JointAngles:
    """Rotation angles of the image tokens (N, dim / 2) and of the text tokens (M, dim / 2)."""

    image: Tensor
    text: Tensor


@dataclass(frozen=True)
class JointLengths:
    """Tokens per sample in each stream."""

    image: tuple[int, ...]
    text: tuple[int, ...]


class TransformerBlock(nn.Module):
    """Joint attention and one MLP per stream, each modulated by the row of its token.

    After the last block nobody reads the text: what only it depends on is in the public weights, but never computed.
    """

    MODULATION = ("img_mod.", "txt_mod.")  # the weights that depend on the noise level alone
    CONTEXT_PRE_ONLY = ("attn.add_q_proj.", "attn.norm_added_q.", "attn.to_add_out.", "txt_mlp.")

    def __init__(self, config: TransformerConfig, number: int, operations, **factory):
        super().__init__()
        width = config.width
        self.number, self.is_last = number, number == config.num_layers - 1
        self.img_mod = nn.Sequential(nn.SiLU(), operations.Linear(width, 6 * width, **factory))
        self.txt_mod = nn.Sequential(nn.SiLU(), operations.Linear(width, 6 * width, **factory))
        self.attn = JointAttention(config, operations, **factory)
        self.img_mlp = FeedForward(width, operations, **factory)
        self.txt_mlp = FeedForward(width, operations, **factory)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        modulations: Modulations,
        rows: "TokenRows",
        angles: JointAngles,
        lengths: JointLengths,
        attend: Attention,
    ):
        """Both residual streams, image (N, width) and text (M, width), after the block; the last leaves text as it is."""
        image_rows, text_rows = modulations.of_block(self)
        image_attn, image_mlp = (Modulation(half, rows.image) for half in image_rows.chunk(2, dim=-1))
        text_attn, text_mlp = (Modulation(half, rows.text) for half in text_rows.chunk(2, dim=-1))
        image_out, text_out = self.attn(
            image_attn.modulate(image),
            text_attn.modulate(text),
            angles,
            lengths,
            attend,
            with_text_queries=not self.is_last,
        )
        image = image_attn.gated(self.attn.to_out[0](image_out), image)
        image = image_mlp.gated(self.img_mlp(image_mlp.modulate(image)), image)
        if not self.is_last:
            text = text_attn.gated(self.attn.to_add_out(text_out), text)
            text = text_mlp.gated(self.txt_mlp(text_mlp.modulate(text)), text)
        return image, text


@dataclass(frozen=True)
class TokenRows:
    """The modulation row of each image token (N,) and text token (M,), and at the output, which is never clean (N,)."""

    image: Tensor
    text: Tensor
    output: Tensor


class AdaptiveOutputNorm(nn.Module):
    """Layer norm with scale and shift by noise level; the scale comes first here (architecture: forward pass)."""

    def __init__(self, width: int, operations, **factory):
        super().__init__()
        self.linear = operations.Linear(width, 2 * width, **factory)

    def forward(self, x: Tensor, rows: Tensor, index: Tensor) -> Tensor:  # (N, width), (R, 2 * width), (N,)
        scale, shift = rows.chunk(2, dim=-1)
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return normed * (1 + scale).index_select(0, index) + shift.index_select(0, index)


class MaskedRegionTransformer(nn.Module):
    """Predicts the velocity eps - x0 of every token of a packed batch.

    `operations` supplies Linear, Embedding and RMSNorm (default: torch.nn), so that a runtime can cast, offload or
    quantise weights.
    """

    def __init__(self, config: TransformerConfig, dtype=None, device=None, operations=nn):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.config = config
        self.img_in = operations.Linear(config.in_channels, config.width, **factory)
        self.txt_norm = operations.RMSNorm(config.text_dim, eps=1e-6, elementwise_affine=True, **factory)
        self.txt_in = operations.Linear(config.text_dim, config.width, **factory)
        self.time_text_embed = TimeTextEmbed(config, operations, **factory)
        if config.condition_embedding:
            self.cond_token_embed = operations.Embedding(1, config.width, **factory)
        blocks = [TransformerBlock(config, number, operations, **factory) for number in range(config.num_layers)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.norm_out = AdaptiveOutputNorm(config.width, operations, **factory)
        self.proj_out = operations.Linear(config.width, config.in_channels, **factory)

    def embedders_and_head(self) -> list[nn.Module]:
        """What computes before and after the blocks where modulations are stored."""
        condition = [self.cond_token_embed] if self.config.condition_embedding else []
        return [self.img_in, self.txt_norm, self.txt_in, *condition, self.proj_out]

    def _embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        hidden = self.img_in(tokens).to(tokens.dtype)  # the residual stream keeps the input's precision
        if self.config.condition_embedding:
            embedding = self.cond_token_embed(torch.zeros(1, dtype=torch.long, device=tokens.device))  # (1, width)
            hidden = hidden + condition[:, None].to(hidden.dtype) * embedding.to(hidden.dtype)
        return hidden

    def _token_rows(self, batch: PackedBatch, count: int) -> TokenRows:
        """Row b of `count` is sample b's noise level, or there is one for all; the last is that of clean tokens, 0."""
        image, text = (index % (count - 1) for index in (batch.sample_of_token(), batch.sample_of_text()))
        is_zero = batch.clean & (self.config.clean_timestep == "zero")  # (N,)
        return TokenRows(torch.where(is_zero, count - 1, image), text, image)

    def modulations(self, timestep: Tensor, dtype: torch.dtype) -> Modulations:
        """Modulations for noise levels (B,), and one more row for the noise level 0 of clean tokens."""
        return ComputedModulations(self.time_text_embed(torch.cat([timestep, timestep.new_zeros(1)]), dtype))

    def forward(
        self,
        tokens: Tensor,
        timestep: Tensor,
        batch: PackedBatch,
        attend: Attention = F.scaled_dot_product_attention,
        modulations: Modulations | None = None,
        blocks: Iterable[Block] | None = None,
    ) -> Tensor:
        """Velocity (N, 64) of every token: `tokens` (N, 64) noisy and clean, `timestep` the noise level in 0..1 of every
        sample (B,), or one for all (1,).

        `modulations` may be those of `timestep`, made before; `blocks` may stand in for the model's own, in their order.
        """
        if modulations is None:
            modulations = self.modulations(timestep, tokens.dtype)
        image = self._embed(tokens, batch.condition)
        text = self.txt_in(self.txt_norm(batch.text)).to(batch.text.dtype)
        rows = self._token_rows(batch, modulations.rows)
        axes, theta = self.config.rope_axes, self.config.rope_theta
        angles = JointAngles(
            rotation_angles(batch.positions, axes, theta), rotation_angles(batch.text_positions, axes, theta)
        )
        lengths = JointLengths(batch.lengths, batch.text_lengths)
        for block in self.transformer_blocks if blocks is None else blocks:
            image, text = block(image, text, modulations, rows, angles, lengths, attend)
        return self.proj_out(self.norm_out(image, modulations.of_output(self.norm_out), rows.output))
