"""What is wrong with an input is said in one sentence in the history, and the server lives on."""

import json

import pytest
from comfy_client import PromptFailedError, RequestRefusedError
from test_workflows import document, outputs_of, workflow


def number_of(prompt: dict, class_type: str) -> str:
    return next(number for number, node in prompt.items() if node["class_type"] == class_type)


def layout(count: int, **changes) -> str:
    box = {"x": 4, "y": 4, "width": 40, "height": 40, **changes}
    return json.dumps(
        {"layers": [{"name": f"Layer {index}", "box": box, "caption": "a star"} for index in range(count)]}
    )


def changed(name: str, class_type: str, **inputs) -> dict:
    prompt = workflow(name)
    prompt[number_of(prompt, class_type)]["inputs"] |= inputs
    return prompt


def failing_text(client, prompt: dict) -> str:
    """The error that a prompt ends with; a good prompt must still run after it."""
    with pytest.raises(PromptFailedError) as caught:
        client.run(prompt)
    text = caught.value.entry.error["exception_message"].strip()
    assert "\n" not in text and text.count(". ") == 0, text  # one sentence
    assert client.run(workflow("text_to_layers")).status == "success"
    return text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (layout(51), "51"),
        (layout(1, width=0), "width"),
        (layout(1, x="left"), "x"),
        (layout(1, y=1e30), "y"),
        ('{"layers": [', "JSON"),
        ('{"layers": [], "colour": 1}', "colour"),
        ('{"frame": {"width": 64, "height": 64}, "layers": []}', "64 x 64"),
        ('{"frame": {"width": 64}, "layers": []}', "height"),
    ],
)
def test_bad_layouts(client, text, words):
    message = failing_text(client, changed("text_to_layers", "MRTLayoutBuilder", layout_json=text))
    assert words in message


def test_layout_without_boxes_to_add(client):
    prompt = changed("layers_to_layers_add", "MRTLayoutBuilder", layout_json='{"caption": "a sun"}')
    assert "no boxes" in failing_text(client, prompt)


def test_layout_that_does_not_fit_the_image(client):
    message = failing_text(client, changed("image_to_layers", "MRTLayoutBuilder", width=128, height=128))
    assert "160 x 112" in message and "128 x 128" in message


def test_layout_that_does_not_fit_the_layers(client):
    assert "128 x 96" in failing_text(client, changed("layers_to_layers_add", "MRTLayoutBuilder", width=128, height=96))


def test_targets_that_are_not_there(client):
    prompt = changed("layers_to_layers_restyle", "MRTLayersToRegionLatents", **{"mode.targets": "9"})
    assert "'9'" in failing_text(client, prompt)
    prompt = changed("layers_to_layers_restyle", "MRTLayersToRegionLatents", **{"mode.targets": "1, 2"})
    assert "is 2 and that of the assets 1" in failing_text(client, prompt)


def test_latent_of_another_node(client):
    prompt = workflow("text_to_layers")
    prompt["90"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}}
    prompt[number_of(prompt, "MRTMaskedRegionSampler")]["inputs"]["latent"] = ["90", 0]
    assert "no layout" in failing_text(client, prompt)


def test_conditioning_without_a_layout(client):
    prompt = workflow("text_to_layers")
    text = number_of(prompt, "CLIPTextEncode")
    prompt[number_of(prompt, "MRTMaskedRegionSampler")]["inputs"]["positive"] = [text, 0]
    assert "no layout" in failing_text(client, prompt)


def test_conditioning_of_another_layout(client):
    prompt = workflow("text_to_layers")
    latents, builder = (number_of(prompt, name) for name in ("MRTTextToRegionLatents", "MRTLayoutBuilder"))
    prompt["90"] = {**prompt[builder], "inputs": {**prompt[builder]["inputs"], "layout_json": layout(1)}}
    prompt["91"] = {**prompt[latents], "inputs": {**prompt[latents]["inputs"], "layout": ["90", 0]}}
    prompt[number_of(prompt, "MRTMaskedRegionSampler")]["inputs"]["latent"] = ["91", 2]
    assert "same node" in failing_text(client, prompt)


def test_batch_index_out_of_range(client):
    assert "batch" in failing_text(client, changed("text_to_layers", "MRTLayerSplitter", batch_index=1))


def test_wrong_vae(client, server, comfy_installation, tmp_path):
    import torch
    from safetensors.torch import save_file

    weights = {"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3), "taesd_decoder.1.weight": torch.zeros(64, 4, 3, 3)}
    save_file(weights, server.folder("models/vae") / "other.safetensors")
    prompt = workflow("image_to_layers")
    prompt["90"] = {"class_type": "VAELoader", "inputs": {"vae_name": "other.safetensors"}}
    prompt[number_of(prompt, "MRTImageToRegionLatents")]["inputs"]["vae"] = ["90", 0]
    message = failing_text(client, prompt)
    assert "Wan 2.1" in message and "VAE" in message


@pytest.mark.parametrize(("content", "words"), [(b"PK\x03\x04" + bytes(100), "pickle"), (b"<html>", "web page")])
def test_wrong_checkpoint(client, server, content, words):
    path = server.folder("models/diffusion_models") / "wrong.safetensors"
    path.write_bytes(content)
    assert words in failing_text(client, changed("text_to_layers", "MRTModelLoader", model_name=path.name))


def test_names_with_slashes_are_kept_and_harmless(client):
    name = "../../a/b\\c: 夏 🌻"
    text = json.dumps({"layers": [{"name": name, "box": {"x": 4, "y": 4, "width": 40, "height": 40}}]})
    prompt = changed("text_to_layers", "MRTLayoutBuilder", layout_json=text)
    entry = client.run(prompt)
    assert [layer.name for layer in document(client, entry, prompt)] == ["Background", name]
    assert len(outputs_of(entry, prompt, "MRTSaveLayeredPSD")["images"]) == 3


def test_saving_outside_the_output_folder(client, server):
    prompt = changed("text_to_layers", "MRTSaveLayeredPSD", filename_prefix="../outside/design")
    assert "output folder" in failing_text(client, prompt)
    assert not (server.base / "outside").exists()


@pytest.mark.parametrize("file", ["../user/comfyui.db", "missing.psd", "mrt_example_image.png"])
def test_loading_what_is_no_document(client, file):
    prompt = changed("layers_to_layers_add", "MRTLoadLayeredPSD", file=file)
    with pytest.raises(RequestRefusedError, match="no document in the input folder"):
        client.run(prompt)


def test_damaged_document(client):
    name = client.upload("damaged.psd", b"8BPS\x00\x01" + bytes(40))
    assert "damaged.psd" in failing_text(client, changed("layers_to_layers_add", "MRTLoadLayeredPSD", file=name))


def test_mode_that_does_not_exist(client):
    prompt = changed("layers_to_layers_add", "MRTLayersToRegionLatents", mode="remove")
    with pytest.raises(RequestRefusedError, match="the mode must be one of add, restyle"):
        client.run(prompt)


def test_empty_mask_keeps_everything(client):
    """A noise mask of zeros leaves nothing to be made: the latents come back as they were, without an error."""
    prompt = workflow("image_to_layers")
    prompt["90"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}}
    latents, sampler = number_of(prompt, "MRTImageToRegionLatents"), number_of(prompt, "MRTMaskedRegionSampler")
    prompt["91"] = {"class_type": "SetLatentNoiseMask", "inputs": {"samples": [latents, 2], "mask": ["90", 0]}}
    prompt[sampler]["inputs"]["latent"] = ["91", 0]
    assert client.run(prompt).status == "success"
