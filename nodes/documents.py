"""Save Layered PSD and Load Layered PSD."""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import UI, io
from PIL import Image

from ..mrt_core import documents
from ..mrt_core.documents.psd.writer import save_psd
from ..mrt_core.documents.stack_layout import stack_layout
from ..mrt_core.errors import MRTError
from ..mrt_core.stacks.layers import LayerStack, composite
from .convert import LayoutType, layers_to_stack, pixels_to_image, stack_to_layers

READABLE = (".psd", ".psb", ".ora", ".zip")
WRITABLE = ("psd", "psb", "ora", "zip")
MAX_SAVE_TRIES = 1000  # names that other programs may take while one is chosen


class SaveLayeredPSD(io.ComfyNode):
    """Layers as a document in the output folder, with previews."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTSaveLayeredPSD",
            display_name="Save Layered PSD",
            category="MRT",
            description="Saves layers as a PSD for design programs (tried in GIMP, Krita and ImageMagick), or in another "
            "layered format. Nothing is ever overwritten.",
            search_aliases=["export psd", "save psd", "write psd", "photoshop"],
            is_output_node=True,
            inputs=[
                io.Layers.Input("layers", tooltip="The layers, from RGBA Layer Splitter or any other node."),
                io.String.Input(
                    "filename_prefix",
                    default="layers/design",
                    tooltip="Folder and name in the output folder; %year%, %month%, %day%, %width% and the like are filled in.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(WRITABLE),
                    default="psd",
                    tooltip="psd, or psb by itself where a psd is too small (30,000 px, 2 GiB); ora for Krita; "
                    "zip with a PNG per layer and a JSON file.",
                ),
                io.Combo.Input(
                    "compression",
                    options=["rle", "zip"],
                    default="rle",
                    advanced=True,
                    tooltip="Of psd and psb: rle is what most programs read; zip makes smaller files.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, layers, filename_prefix: str, format="psd", compression="rle") -> io.NodeOutput:
        stack = layers_to_stack(layers)
        if not args.disable_metadata:
            workflow = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
            stack = replace(stack, metadata={**stack.metadata, "comfyui": workflow})
        extension = documents.extension_for(stack) if format == "psd" else f".{format}"
        saved = _save(stack, filename_prefix, extension, compression)
        return io.NodeOutput(ui={format: [saved], "images": _previews(stack)})


def _save(stack: LayerStack, prefix: str, extension: str, compression: str) -> UI.SavedResult:
    """Write the document under the first free name; raises MRTError where it cannot be written."""
    output = Path(folder_paths.get_output_directory()).resolve()
    plain = _plain(prefix)
    if not (output / plain).resolve().is_relative_to(output):
        raise MRTError(
            f"the filename prefix {prefix!r} leads out of the output folder, but files are saved inside it; use a name, or "
            "folders inside it"
        )
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(plain, str(output), *stack.frame)
    for number in range(counter, counter + MAX_SAVE_TRIES):
        path = Path(folder) / f"{name}_{number:05}_{extension}"
        if os.path.lexists(path):
            continue
        if extension in (".psd", ".psb"):
            save_psd(stack, path, compression=compression)
        else:
            documents.save(stack, path)
        return UI.SavedResult(path.name, subfolder, io.FolderType.output)
    raise MRTError(
        f"{MAX_SAVE_TRIES} files named {name!r} stand in {subfolder or 'the output folder'}; use another prefix"
    )


def _plain(prefix: str) -> str:
    """The prefix without what file systems refuse; an empty one becomes a name."""
    cleaned = re.sub(r'[\x00-\x1f<>:"|?*]', "_", prefix.strip())
    return cleaned + "design" if not cleaned or cleaned.endswith(("/", "\\")) else cleaned


def _previews(stack: LayerStack) -> list[UI.SavedResult]:
    """PNG files in the temporary folder: the composite, then every layer bottom to top."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        "mrt_preview", folder_paths.get_temp_directory(), *stack.frame
    )
    pictures = [composite(stack), *(layer.pixels for layer in stack.flat())]
    results = []
    for number, pixels in enumerate(pictures, start=counter):
        file = f"{name}_{number:05}_.png"
        Image.fromarray(pixels).save(Path(folder) / file, compress_level=4)
        results.append(UI.SavedResult(file, subfolder, io.FolderType.temp))
    return results


class LoadLayeredPSD(io.ComfyNode):
    """A document of the input folder as layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTLoadLayeredPSD",
            display_name="Load Layered PSD",
            category="MRT",
            description="Loads a PSD, PSB, ORA or layer ZIP from the input folder: its layers, flattened image and layout.",
            search_aliases=["import psd", "open psd", "read psd", "photoshop"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_readable_files(),
                    tooltip="A document in ComfyUI's input folder; POST /upload/image puts one there.",
                ),
            ],
            outputs=[
                io.Layers.Output(display_name="layers", tooltip="The layers, bottom to top; groups are dissolved."),
                io.Image.Output(display_name="composite", tooltip="All visible layers flattened, RGBA."),
                LayoutType.Output(
                    display_name="layout", tooltip="The layers' boxes and names, to take an image apart alike."
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        stack = documents.load(_input_path(file))
        return io.NodeOutput(
            stack_to_layers(stack),
            pixels_to_image(composite(stack)),
            stack_layout(stack),
            ui=UI.PreviewText("\n".join(stack.warnings) or f"{sum(1 for _ in stack.flat())} layers"),
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        """A file that changes is loaded anew."""
        return hashlib.sha256(_input_path(file).read_bytes()).hexdigest()

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Whether the file is there, in one sentence if not: it may have been uploaded after the list was made."""
        try:
            _input_path(file)
        except MRTError as error:
            return str(error)
        return True


def _readable_files() -> list[str]:
    """Documents in the input folder and its subfolders, by their paths in it."""
    folder = Path(folder_paths.get_input_directory())
    found = (path for path in folder.rglob("*") if path.suffix.lower() in READABLE and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _input_path(file: str) -> Path:
    refusal = MRTError(
        f"{file!r} is no document in the input folder; choose one that ends in {', '.join(READABLE)}, or upload it first"
    )
    try:
        path = Path(folder_paths.get_annotated_filepath(file)).resolve()
    except ValueError:  # a path that leads out of the folder
        raise refusal from None
    places = (folder_paths.get_input_directory(), folder_paths.get_output_directory())  # "name.psd [output]"
    if not any(path.is_relative_to(Path(place).resolve()) for place in places):
        raise refusal
    if not path.is_file() or path.suffix.lower() not in READABLE:
        raise refusal
    return path
