"""LoHa, LoKr and DoRA: merged by the formulas of LyCORIS and PEFT, and beside quantised weights where that is possible."""

import json

import pytest
import torch
from lora_files import lora_state, random_pairs
from lora_models import EIGHT_BIT, changed_weights, plain_twin, tiny_model, velocity
from tiny_checkpoints import TINY

from mrt_core.errors import MRTError
from mrt_core.lora.apply import apply_loras
from mrt_core.lora.file import read_lora, save_lora
from mrt_core.lora.report import inspect_lora

LAYER = "transformer_blocks.0.img_mlp.net.0.proj"  # (128, 32)


def factors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(*shape, generator=generator) / 2 for name, shape in shapes.items()}


def kron(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The Kronecker product, from its definition."""
    (a, b), (c, d) = left.shape, right.shape
    return torch.einsum("ab,cd->acbd", left, right).reshape(a * c, b * d)


LOHA = {"hada_w1_a": (128, 4), "hada_w1_b": (4, 32), "hada_w2_a": (128, 3), "hada_w2_b": (3, 32)}
KINDS = {
    "LoHa": (LOHA, 1 / 4, lambda f: (f["hada_w1_a"] @ f["hada_w1_b"]) * (f["hada_w2_a"] @ f["hada_w2_b"])),
    "LoKr": ({"lokr_w1": (8, 4), "lokr_w2": (16, 8)}, None, lambda f: kron(f["lokr_w1"], f["lokr_w2"])),
    "LoKr of a small matrix and a product": (
        {"lokr_w1": (8, 4), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 8)},
        1 / 2,
        lambda f: kron(f["lokr_w1"], f["lokr_w2_a"] @ f["lokr_w2_b"]),
    ),
    "LoKr of two products": (
        {"lokr_w1_a": (8, 3), "lokr_w1_b": (3, 4), "lokr_w2_a": (16, 3), "lokr_w2_b": (3, 8)},
        1 / 3,
        lambda f: kron(f["lokr_w1_a"] @ f["lokr_w1_b"], f["lokr_w2_a"] @ f["lokr_w2_b"]),
    ),
    "LoKr with a Tucker core": (
        {"lokr_w1": (8, 4), "lokr_t2": (2, 2, 1, 1), "lokr_w2_a": (2, 16), "lokr_w2_b": (2, 8)},
        1 / 2,
        lambda f: kron(
            f["lokr_w1"], torch.einsum("ij,ip,jr->pr", f["lokr_t2"][..., 0, 0], f["lokr_w2_a"], f["lokr_w2_b"])
        ),
    ),
}  # fmt: skip


def file_state(kind: str, prefix: str = "lycoris_", alpha: float = 6.0) -> dict[str, torch.Tensor]:
    name = prefix + (LAYER.replace(".", "_") if prefix.endswith("_") else LAYER)
    state = {f"{name}.{part}": tensor for part, tensor in factors(**KINDS[kind][0]).items()}
    return state | {f"{name}.alpha": torch.tensor(alpha)}


def expected_change(kind: str, alpha: float = 6.0) -> torch.Tensor:
    shapes, share, formula = KINDS[kind]
    return (1.0 if share is None else alpha * share) * formula(factors(**shapes))


@pytest.mark.parametrize("strength", [1.0, -0.5])
@pytest.mark.parametrize("prefix", ["lycoris_", "diffusion_model."])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_by_the_formula(write, kind, prefix, strength):
    change = changed_weights(read_lora(write(file_state(kind, prefix)), TINY), strength)
    difference = change.pop(f"{LAYER}.weight")
    assert (difference - strength * expected_change(kind)).abs().max() < 1e-4
    assert difference.abs().max() > 0.1
    assert all(other.abs().max() == 0 for other in change.values())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_beside_quantised_weights_it_is_the_same(write, pairs, kind):
    quantised = tiny_model(EIGHT_BIT)
    plain = plain_twin(quantised)
    before = velocity(quantised)
    loras = [(read_lora(write(file_state(kind)), TINY), 0.3), (read_lora(write(lora_state(pairs)), TINY), 0.05)]
    for lora in loras:
        apply_loras(quantised, [lora])  # one after another on the same layer
    apply_loras(plain, loras)
    scale = velocity(plain).abs().max()
    assert (velocity(quantised) - velocity(plain)).abs().max() < 1e-4 * scale
    assert (velocity(plain) - before).abs().max() > 1e-3 * scale


# DoRA


MAGNITUDES = {  # name in the file: shape, the axis that each length is summed over
    "lora_magnitude_vector.weight": ((128,), 1),
    "lora_magnitude_vector.my_style.weight": ((128,), 1),
    "lora_magnitude_vector": ((128,), 1),
    "dora_scale": ((128, 1), 1),
    "dora_scale ": ((1, 32), 0),
}


@pytest.mark.parametrize("name", MAGNITUDES)
def test_dora_sets_the_lengths_along_its_axis(write, shapes, name):
    shape, axis = MAGNITUDES[name]
    pair = random_pairs({LAYER: (128, 32)})
    state = lora_state(pair) | {f"{LAYER}.{name.strip()}": 0.5 + torch.rand(shape)}
    weight = tiny_model().get_submodule(LAYER).weight.double()
    changed = weight + 0.5 * pair[LAYER].up.double() @ pair[LAYER].down.double()  # alpha 2, rank 4
    magnitude = state[f"{LAYER}.{name.strip()}"].double().reshape(shape if len(shape) == 2 else (-1, 1))
    expected = magnitude * changed / changed.norm(dim=axis, keepdim=True)
    for strength in (1.0, 0.4):
        difference = changed_weights(read_lora(write(state), TINY), strength)[f"{LAYER}.weight"]
        assert (difference - strength * (expected - weight)).abs().max() < 1e-5


def test_a_lokr_may_be_a_dora_too(write):
    state = file_state("LoKr", "") | {f"{LAYER}.dora_scale": torch.full((1, 32), 2.0)}
    model = tiny_model()
    apply_loras(model, [(read_lora(write(state), TINY), 1.0)])
    assert torch.allclose(model.get_submodule(LAYER).weight.norm(dim=0), torch.full((32,), 2.0), atol=1e-5)


def test_dora_beside_a_quantised_weight_is_refused_in_one_sentence(write):
    state = lora_state(random_pairs({LAYER: (128, 32)})) | {f"{LAYER}.dora_scale": torch.ones(128, 1)}
    model = tiny_model(EIGHT_BIT)
    with pytest.raises(MRTError, match=f"DoRA changes the lengths in {LAYER}.weight.*use the bf16 version"):
        apply_loras(model, [(read_lora(write(state), TINY), 1.0)])
    assert not hasattr(model.get_submodule(LAYER), "lora_branch")


# Files


def test_loha_of_peft_takes_its_alpha_from_the_settings(write, tmp_path):
    state = {name: tensor for name, tensor in file_state("LoHa", "base_model.model.").items() if "alpha" not in name}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA", "r": 4, "alpha": 12}))
    change = changed_weights(read_lora(write(state), TINY))[f"{LAYER}.weight"]
    assert (change - expected_change("LoHa", 12.0)).abs().max() < 1e-4


WRONG = {
    "half": (lambda s: s.pop(f"{LAYER}.hada_w2_b"), "not the matrix hada_w2_b that belongs to it for the layer"),
    "shape": (
        lambda s: s.update({f"{LAYER}.hada_w2_b": torch.zeros(3, 16)}),
        rf"has a LoHa of .* for the layer {LAYER}, but factors of a matrix \[128, 32\]",
    ),
    "two kinds": (
        lambda s: s.update({f"{LAYER}.lokr_w1": torch.zeros(8, 4), f"{LAYER}.lokr_w2": torch.zeros(16, 8)}),
        "has LoHa and LoKr for the layer",
    ),
    "magnitude": (lambda s: s.update({f"{LAYER}.dora_scale": torch.zeros(5, 1)}), r"has a DoRA magnitude \[5, 1\]"),
    "magnitude alone": (
        lambda s: s.update({"img_in.dora_scale": torch.zeros(32, 1)}),
        "img_in.dora_scale, but not the matrix down and up",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_does_not_fit_is_one_sentence(write, fault):
    change, message = WRONG[fault]
    state = file_state("LoHa", "")
    change(state)
    with pytest.raises(MRTError, match=f"style.safetensors {message}|style.safetensors has .*{message}"):
        read_lora(write(state), TINY)


def test_a_lokr_of_another_shape_is_left_out_by_name_where_others_fit(write, caplog):
    state = file_state("LoKr", "") | {"img_in.lokr_w1": torch.ones(2, 2), "img_in.lokr_w2": torch.ones(16, 16)}
    lora = read_lora(write(state), TINY)
    assert lora.adapters.keys() == {LAYER}
    assert "LoKr of lokr_w1 [2, 2], lokr_w2 [16, 16] for the layer img_in" in caplog.text
    assert "this layer is left out" in caplog.text


def test_inspect_names_the_kind(write):
    assert "style.safetensors: a LoRA of the kind LoHa, named lycoris_... .hada_w1_a, 1 layers, rank 4, " in str(
        inspect_lora(write(file_state("LoHa")))
    )
    dora = lora_state(random_pairs({LAYER: (128, 32)})) | {f"{LAYER}.dora_scale": torch.ones(128, 1)}
    assert "style.safetensors: a LoRA of the kind DoRA, " in str(inspect_lora(write(dora)))


def test_other_kinds_are_not_written(write, tmp_path):
    lora = read_lora(write(file_state("LoHa")), TINY)
    with pytest.raises(MRTError, match="changes 1 layers by LoHa, LoKr or DoRA, but only low-rank pairs are written"):
        save_lora(tmp_path / "out.safetensors", lora)
