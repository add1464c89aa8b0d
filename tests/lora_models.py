"""The smallest model with a LoRA in it, plain and with weights that are quantised, for the tests of LoRA."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from tiny_checkpoints import TINY
from torch import nn

from mrt_core.geometry import TokenBox
from mrt_core.lora.apply import apply_loras
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer


def tiny_model(operations=nn) -> MaskedRegionTransformer:
    torch.manual_seed(0)
    return MaskedRegionTransformer(TINY, operations=operations).eval().requires_grad_(False)


def changed_weights(lora, strength: float = 1.0, model=None) -> dict[str, torch.Tensor]:
    """What applying a LoRA adds to every parameter of the model."""
    model = model or tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_loras(model, [(lora, strength)])
    return {name: tensor - before[name] for name, tensor in model.state_dict().items()}


def velocity(model: MaskedRegionTransformer) -> torch.Tensor:
    """The model's output on two slots, of which one is clean, from the same random input each time."""
    generator = torch.Generator().manual_seed(1)
    slots = (
        Slot(Role.COMPOSITE, 0, TokenBox(0, 0, 3, 4), clean=True),
        Slot(Role.LAYER, 2, TokenBox(1, 1, 2, 2), clean=False),
    )
    batch = pack_samples([SlotLayout(slots, 3, 4)], [torch.randn(5, TINY.text_dim, generator=generator)])
    return model(torch.randn(16, 64, generator=generator), torch.tensor([0.6]), batch)


class EightBitLinear(nn.Linear):
    """A linear layer whose weight is 8-bit whole numbers and a scale."""

    def __init__(self, columns, rows, bias=True, **factory):
        super().__init__(columns, rows, bias, **factory)
        self.register_buffer("weight_scale", self.weight.detach().abs().max() / 127)
        self.weight = nn.Parameter((self.weight.detach() / self.weight_scale).round().to(torch.int8), False)

    def plain_weight(self) -> torch.Tensor:
        return self.weight.float() * self.weight_scale

    def forward(self, x):
        return F.linear(x, self.plain_weight().to(x), self.bias)


EIGHT_BIT = SimpleNamespace(**{**vars(nn), "Linear": EightBitLinear})


def plain_twin(quantised: MaskedRegionTransformer) -> MaskedRegionTransformer:
    """The same model with plain weights."""
    model = tiny_model()
    state = {name: tensor for name, tensor in quantised.state_dict().items() if not name.endswith("weight_scale")}
    for name, module in quantised.named_modules():
        if isinstance(module, EightBitLinear):
            state[f"{name}.weight"] = module.plain_weight()
    model.load_state_dict(state)
    return model
