"""Every API workflow is queued and its document opened again; interrupts, queues and seeds behave."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from comfy_client import RequestRefusedError
from comfy_server import PACK
from PIL import Image
from psd_tools import PSDImage

WORKFLOWS = sorted((PACK / "workflows" / "api").glob("*.json"))
DOCUMENTS = {  # workflow: the names of its document's layers, bottom to top
    "text_to_layers": ["Background", "Red circle", "Sunflower", "Headline"],
    "text_to_layered_image": ["Background", "Red circle", "Sunflower", "Headline"],
    "image_to_layers": [
        "Background",
        "tiger face",
        "pink diamond with a soft shadow",
        "semi-transparent pink arrow",
        'the word "jazz" in red',
        "green rounded rectangle",
    ],
    "layers_to_layers_add": ["Background", "navy arrow", "Heart", "snake"],
    "layers_to_layers_restyle": ["Background", "speak-no-evil monkey", 'the word "2026" in gray', "green hexagon"],
}


def workflow(name: str) -> dict:
    return json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def outputs_of(entry, prompt: dict, class_type: str) -> dict:
    (number,) = (number for number, node in prompt.items() if node["class_type"] == class_type)
    return entry.outputs[number]


def document(client, entry, prompt: dict) -> PSDImage:
    (saved,) = outputs_of(entry, prompt, "MRTSaveLayeredPSD")["psd"]
    return PSDImage.open(io.BytesIO(client.view(saved)))


def previews(client, entry, prompt: dict) -> list[np.ndarray]:
    files = outputs_of(entry, prompt, "MRTSaveLayeredPSD")["images"]
    return [np.asarray(Image.open(io.BytesIO(client.view(file))).convert("RGBA")) for file in files]


def shown_part(pixels: np.ndarray) -> np.ndarray:
    """A picture without the transparent rows and columns around what it shows, as documents hold layers."""
    rows, columns = np.nonzero(pixels[..., 3])
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def with_seed(prompt: dict, seed: int) -> dict:
    changed = json.loads(json.dumps(prompt))
    for node in changed.values():
        if node["class_type"] == "MRTMaskedRegionSampler":
            node["inputs"]["seed"] = seed
    return changed


def test_every_workflow_is_expected():
    assert [path.stem for path in WORKFLOWS] == sorted(DOCUMENTS)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_workflow_runs_and_its_document_opens(client, name):
    prompt = workflow(name)
    entry = client.run(prompt)
    psd = document(client, entry, prompt)
    assert [layer.name for layer in psd] == DOCUMENTS[name]
    composite, *layers = previews(client, entry, prompt)
    assert composite.shape[:2] == (psd.height, psd.width) and len(layers) == len(DOCUMENTS[name])
    for layer, pixels in zip(psd, map(shown_part, layers), strict=True):
        assert (layer.height, layer.width) == pixels.shape[:2]
        shown = pixels[..., 3] > 0
        assert np.array_equal(layer.numpy()[shown], np.float32(pixels[shown] / 255))


def test_overflow_is_kept(client):
    prompt = workflow("text_to_layers")
    layer = document(client, client.run(prompt), prompt)[1]
    assert (
        layer.name == "Red circle" and layer.top < -10 and layer.right > 138
    )  # of 128 x 128 px; the box ends at -20, 148


@pytest.mark.parametrize(("name", "targets"), [("layers_to_layers_add", {2}), ("layers_to_layers_restyle", {3})])
def test_layers_that_are_not_targets_come_back_bit_for_bit(client, name, targets):
    prompt = workflow(name)
    source = "mrt_example_document.psd" if name.endswith("add") else "mrt_example_styled.psd"
    before = list(PSDImage.open(PACK / "mrt_core" / "data" / "demo" / source.removeprefix("mrt_example_")))
    after = [layer for index, layer in enumerate(document(client, client.run(prompt), prompt)) if index not in targets]
    before = before if name.endswith("add") else [layer for i, layer in enumerate(before) if i not in targets]
    for old, new in zip(before, after, strict=True):
        assert old.name == new.name and old.bbox == new.bbox and np.array_equal(old.numpy(), new.numpy())


def test_a_document_of_this_pack_is_loaded_again(client):
    prompt = workflow("text_to_layers")
    (saved,) = outputs_of(client.run(prompt), prompt, "MRTSaveLayeredPSD")["psd"]
    name = client.upload("again.psd", client.view(saved))
    again = {
        "1": {"class_type": "MRTLoadLayeredPSD", "inputs": {"file": name}},
        "2": {
            "class_type": "MRTSaveLayeredPSD",
            "inputs": {"layers": ["1", 0], "filename_prefix": "again", "format": "psd", "compression": "rle"},
        },
    }
    first, second = document(client, client.run(prompt), prompt), document(client, client.run(again), again)
    for old, new in zip(first, second, strict=True):
        assert old.name == new.name and old.bbox == new.bbox and np.array_equal(old.numpy(), new.numpy())


def test_ksampler_takes_the_place_of_the_sampler(client):
    prompt = with_seed(workflow("text_to_layers"), 3)
    for node in prompt.values():
        if node["class_type"] == "MRTMaskedRegionSampler":
            node["inputs"] |= {"steps": 8, "cfg": 1.0}
    stock = json.loads(json.dumps(prompt))
    (number,) = (number for number, node in stock.items() if node["class_type"] == "MRTMaskedRegionSampler")
    links = {key: stock[number]["inputs"][key] for key in ("model", "positive", "negative")}
    latent = stock[number]["inputs"]["latent"]
    settings = {"seed": 3, "steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    stock[number] = {"class_type": "KSampler", "inputs": {**links, "latent_image": latent, **settings}}
    ours = previews(client, client.run(prompt), prompt)
    theirs = previews(client, client.run(stock), stock)
    for a, b in zip(ours, theirs, strict=True):
        assert abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("name", ["mrt-tiny student, 4 steps (bundled)", "mrt-tiny student, 8 steps (bundled)"])
def test_the_bundled_student_takes_4_steps(client, name):
    """By its name, and by the one that it had in earlier versions."""
    prompt = with_seed(workflow("text_to_layers"), 5)
    of_teacher = previews(client, client.run(prompt), prompt)
    prompt["1"]["inputs"]["model_name"] = name
    entry, messages = client.watch(prompt)
    steps = [m.data["value"] for m in messages if m.type == "progress" and m.data["max"] == 4]
    assert steps == [1, 2, 3, 4]
    assert [layer.name for layer in document(client, entry, prompt)] == DOCUMENTS["text_to_layers"]
    of_student = previews(client, entry, prompt)
    assert of_student[0].shape == of_teacher[0].shape
    assert not np.array_equal(of_student[0], of_teacher[0])


def test_a_model_that_is_not_there_says_so(client):
    prompt = with_seed(workflow("text_to_layers"), 5)
    prompt["1"]["inputs"]["model_name"] = "nothing.safetensors"
    with pytest.raises(RequestRefusedError, match="is in neither models/mrt nor models/diffusion_models"):
        client.run(prompt)


def test_queued_prompts_give_what_each_gives_alone(client):
    text, image = with_seed(workflow("text_to_layers"), 11), with_seed(workflow("image_to_layers"), 12)
    ids = [client.post_prompt(text), client.post_prompt(image)]
    queued = [
        previews(client, client.wait(prompt_id), prompt) for prompt_id, prompt in zip(ids, (text, image), strict=True)
    ]
    client.post("/free", {"unload_models": True, "free_memory": True})  # so that nothing comes from the cache
    for prompt, together in zip((image, text), reversed(queued), strict=True):
        alone = previews(client, client.run(prompt), prompt)
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_progress_and_previews_of_the_composite(client):
    prompt = with_seed(workflow("text_to_layers"), 21)
    (sampler,) = (node for node in prompt.values() if node["class_type"] == "MRTMaskedRegionSampler")
    sampler["inputs"]["steps"] = 12
    entry, messages = client.watch(prompt)
    assert entry.status == "success"
    steps = [m.data["value"] for m in messages if m.type == "progress" and m.data["max"] == 12]
    assert steps == list(range(1, 13))
    pictures = [Image.open(io.BytesIO(m.image)) for m in messages if m.type == "preview"]
    assert len(pictures) >= 6
    assert (
        pictures[-1].width > pictures[-1].height * 0.9
    )  # the canvas: the frame and what overflows to its right and top


def test_interrupt_stops_within_a_step(client):
    prompt = with_seed(workflow("text_to_layers"), 31)
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "MRTMaskedRegionSampler")
    prompt[number]["inputs"]["steps"] = 400
    seen = []

    def stop_after_three(message):
        if message.type == "progress" and message.data["max"] == 400:
            seen.append(message.data["value"])
            if message.data["value"] == 3:
                client.interrupt()

    entry, _ = client.watch(prompt, stop_after_three)
    assert entry.interrupted
    assert seen[-1] <= 3 + 3  # what was under way while the request came
    assert client.run(workflow("text_to_layers")).status == "success"


def test_a_big_frame_is_sampled_small_and_enlarged(client):
    prompt = workflow("text_to_layers")
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "MRTLayoutBuilder")
    layers = [{"name": "Sun", "box": {"x": 400, "y": -80, "width": 300, "height": 300}, "caption": "a sun"}]
    prompt[number]["inputs"] |= {"width": 640, "height": 480, "layout_json": json.dumps({"layers": layers})}
    psd = document(client, client.run(prompt), prompt)
    assert psd.size == (640, 480) and psd[1].bbox == (400, -80, 700, 220)


def test_file_names_of_saved_documents(client):
    prompt = workflow("text_to_layers")
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "MRTSaveLayeredPSD")
    prompt[number]["inputs"] |= {"filename_prefix": "cards/%year%/a card %width%", "format": "ora"}
    names = []
    for seed in (41, 42):  # the same prompt again would do nothing
        (saved,) = outputs_of(client.run(with_seed(prompt, seed)), prompt, "MRTSaveLayeredPSD")["ora"]
        names.append(saved["filename"])
        assert saved["subfolder"].startswith("cards/20") and client.view(saved)[:2] == b"PK"
    assert names == ["a card 128_00001_.ora", "a card 128_00002_.ora"]


def test_example_files_are_in_the_input_folder(server):
    assert {path.name for path in Path(server.base, "input").glob("mrt_example_*")} == {
        "mrt_example_image.png",
        "mrt_example_asset.png",
        "mrt_example_document.psd",
        "mrt_example_styled.psd",
    }
