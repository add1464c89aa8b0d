"""The Qwen2.5-VL text encoder: template, dropped system turn, truncation and loading, with tiny models made here."""

import socket
import sys

import pytest
import torch
from quantised_files import save_fp8
from qwen_files import tiny_qwen, write_tokenizer
from safetensors.torch import load_file, save_file

from mrt_core.checkpoints.qwen_text import TEMPLATE_END, TEMPLATE_START, QwenTextEncoder, load_qwen_text_encoder
from mrt_core.cli import main
from mrt_core.errors import MRTError
from mrt_core.training.prompts import CachedText

transformers = pytest.importorskip(
    "transformers", reason="Qwen2.5-VL is read through transformers: pip install -e .[dev]"
)

SIZES = dict(
    hidden_size=256, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    """A tiny Qwen2.5-VL with its vision tower, and its tokenizer."""
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(str(tokenizer_folder), local_files_only=True)
    torch.manual_seed(0)
    model = tiny_qwen(len(tokenizer), **SIZES)
    for parameter in model.parameters():  # norms and biases too, so that every tensor matters
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def weights_file(reference, tmp_path_factory):
    """The reference's weights as one file, in the naming of ComfyUI's: model.layers.*, visual.*."""
    path = tmp_path_factory.mktemp("weights") / "qwen_2.5_vl.safetensors"
    state = {
        name.replace("model.language_model.", "model."): tensor for name, tensor in reference[0].state_dict().items()
    }
    save_file({name.replace("model.visual.", "visual."): tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(weights_file, tokenizer_folder):
    return load_qwen_text_encoder(weights_file, tokenizer_folder, dtype=torch.float32)


PROMPTS = ["", " ", "a red cat", "two\nlines", "\nleading line feed", "猫 🐈", "<layer> a cat </layer>"]


@torch.no_grad()
def test_states_are_those_of_the_public_pipeline(reference, encoder):
    model, tokenizer = reference
    for prompt, states in zip(PROMPTS, encoder.encode_prompts(PROMPTS), strict=True):
        inputs = tokenizer([TEMPLATE_START + prompt + TEMPLATE_END], return_tensors="pt")
        expected = model(**inputs, output_hidden_states=True).hidden_states[-1][0, encoder.dropped :]
        assert states.shape == expected.shape == (states.shape[0], encoder.width)
        assert (states - expected).abs().max() < 1e-5
        assert expected.abs().mean() > 0.1


def test_the_template_before_the_prompt_is_dropped(encoder):
    tokenizer = encoder.tokenizer
    kept = [tokenizer.convert_ids_to_tokens(encoder.tokenize(prompt)[encoder.dropped :]) for prompt in ("", "user")]
    assert kept[0] == ["<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert kept[1] == ["user", *kept[0]]
    before = tokenizer.convert_ids_to_tokens(encoder.tokenize("x")[: encoder.dropped])
    assert before[-3:] == ["<|im_start|>", "user", "Ċ"]
    assert before.count("<|im_start|>") == 2


def test_long_prompts_are_cut_and_keep_their_states(encoder, reference):
    long_prompt = "system user " * 400
    assert encoder.max_tokens == 512
    (states,) = encoder.encode_prompts([long_prompt])
    assert states.shape == (512, encoder.width)
    short = QwenTextEncoder(encoder.model, encoder.tokenizer, max_tokens=20)
    (cut,) = short.encode_prompts([long_prompt])
    assert cut.shape[0] == 20
    assert (cut - states[:20]).abs().max() < 1e-5  # causal: the end does not change the start
    for bound in (0, 1025):
        with pytest.raises(MRTError, match=f"max_tokens is {bound}"):
            QwenTextEncoder(encoder.model, encoder.tokenizer, max_tokens=bound)


def test_folders_of_shards_load(reference, encoder, tokenizer_folder, tmp_path):
    folder = tmp_path / "Qwen-Image" / "text_encoder"
    folder.mkdir(parents=True)
    tensors = [(name, tensor.contiguous()) for name, tensor in reference[0].state_dict().items()]
    save_file(dict(tensors[::2]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(tensors[1::2]), folder / "model-00002-of-00002.safetensors")
    (folder.parent / "tokenizer").symlink_to(tokenizer_folder)
    loaded = load_qwen_text_encoder(folder.parent)
    assert loaded.model.norm.weight.dtype == torch.bfloat16
    assert not loaded.model.norm.weight.requires_grad
    assert torch.equal(loaded.model.norm.weight, encoder.model.norm.weight.bfloat16())
    save_file(dict(tensors[:3]), folder / "copy.safetensors")
    with pytest.raises(MRTError, match=r"3 .safetensors files .* one model, whole or in shards, was expected"):
        load_qwen_text_encoder(folder.parent)


@pytest.mark.parametrize("scheme", ["scaled", "layers", "metadata"])
def test_fp8_weights_become_the_plain_ones_that_they_stand_for(weights_file, tokenizer_folder, tmp_path, scheme):
    save_fp8(tmp_path / "fp8.safetensors", load_file(weights_file), scheme)
    loaded = load_qwen_text_encoder(tmp_path / "fp8.safetensors", tokenizer_folder, dtype=torch.float32).model
    stands_for = save_fp8(tmp_path / "again.safetensors", load_file(weights_file), scheme)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, stands_for[f"model.{name}"]), name


def test_a_scale_that_is_missing_is_named(weights_file, tokenizer_folder, tmp_path):
    save_fp8(tmp_path / "whole.safetensors", load_file(weights_file), "layers")
    state = load_file(tmp_path / "whole.safetensors")
    del state["model.layers.1.mlp.up_proj.weight_scale"]
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(MRTError, match=r"1 tensors are .*layers.1.mlp.up_proj.weight_scale"):
        load_qwen_text_encoder(tmp_path / "wrong.safetensors", tokenizer_folder)


def test_unknown_schemes_are_refused_by_name(weights_file, tokenizer_folder, tmp_path):
    state = load_file(weights_file)
    state["model.layers.0.mlp.up_proj.weight.absmax"] = torch.ones(4)
    save_file(state, tmp_path / "4bit.safetensors")
    with pytest.raises(MRTError, match="quantised as bitsandbytes, but plain or fp8 weights were expected"):
        load_qwen_text_encoder(tmp_path / "4bit.safetensors", tokenizer_folder)


def test_foreign_tokenizer_is_refused(encoder, tokenizer_folder, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    plain = transformers.Qwen2Tokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    with pytest.raises(MRTError, match="does not read <.im_start.>"):
        QwenTextEncoder(encoder.model, plain)


def test_paths_and_files_that_do_not_fit(weights_file, tokenizer_folder, tmp_path):
    with pytest.raises(MRTError, match="comes without a tokenizer"):
        load_qwen_text_encoder(weights_file)
    with pytest.raises(MRTError, match="is not a Qwen tokenizer folder"):
        load_qwen_text_encoder(weights_file, tmp_path)
    with pytest.raises(MRTError, match="0 .safetensors files"):
        load_qwen_text_encoder(tmp_path, tokenizer_folder)
    with pytest.raises(MRTError, match="does not exist"):
        load_qwen_text_encoder("Qwen/Qwen2.5-VL-7B-Instruct", tokenizer_folder)


def test_a_tensor_too_many_is_left_out_with_a_warning(weights_file, tokenizer_folder, tmp_path, caplog):
    state = load_file(weights_file) | {"model.norm.bias": torch.zeros(2)}
    save_file(state, tmp_path / "more.safetensors")
    load_qwen_text_encoder(tmp_path / "more.safetensors", tokenizer_folder)
    assert "more.safetensors has 1 tensors that are not used, such as norm.bias" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.embed_tokens.weight"), "is not Qwen2.5-VL: embed_tokens.weight is missing"),
        (lambda state: state.pop("model.layers.0.mlp.gate_proj.weight"), "its first layer is missing"),
        (lambda state: state.pop("model.layers.1.mlp.up_proj.weight"), r"1 tensors are .*layers.1.mlp.up_proj.weight"),
        (
            lambda state: state.update(
                {
                    "model.layers.1.mlp.up_proj.weight": state["model.layers.1.mlp.up_proj.weight"].to(
                        torch.float8_e4m3fn
                    ),
                    "model.layers.1.mlp.up_proj.factor": torch.ones(2),
                }
            ),
            r"1 tensors are .*layers.1.mlp.up_proj.factor",
        ),
        (lambda state: state.update({"model.layers.0.self_attn.q_proj.weight": torch.zeros(8, 256)}), "heads of 128"),
    ],
)
def test_weights_that_do_not_fit(weights_file, tokenizer_folder, tmp_path, change, message):
    state = load_file(weights_file)
    change(state)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(MRTError, match=message):
        load_qwen_text_encoder(tmp_path / "wrong.safetensors", tokenizer_folder)


def test_missing_transformers_names_the_remedy(monkeypatch, weights_file):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MRTError, match="pip install transformers"):
        load_qwen_text_encoder(weights_file)


def test_the_states_of_training_prompts(encoder, weights_file, tokenizer_folder, tmp_path):
    """`mrt train prompts` computes them once, for every prompt of a shard and the empty one."""
    shard = {"prompts": '[{"task": "text_to_layers", "prompts": ["a red cat", "two\\nlines"]}]'}
    save_file({"tokens": torch.zeros(1, 64)}, tmp_path / "samples-0000-00000.safetensors", shard)
    command = ["train", "prompts", "--samples", str(tmp_path), "--text-encoder", str(weights_file), "--device", "cpu"]
    assert main([*command, "--tokenizer", str(tokenizer_folder), "--dtype", "fp32"]) == 0
    prompts = ["two\nlines", " ", "a red cat"]
    found = CachedText(tmp_path, encoder.width).encode_prompts(prompts)
    for states, expected in zip(found, encoder.encode_prompts(prompts), strict=True):
        assert torch.equal(states, expected.bfloat16())
