"""A client of ComfyUI's HTTP and websocket interface: what a script that uses the pack without a browser needs."""

import json
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import websocket
from comfy_server import ComfyServer

JSON = dict[str, Any]
TEXT_EVENT, PREVIEW_EVENT, PREVIEW_WITH_METADATA_EVENT = 3, 1, 4  # ComfyUI's protocol.py


class RequestRefusedError(Exception):
    """The server answered with an HTTP error; `status` is its number and `body` what came with it."""

    def __init__(self, path: str, status: int, body: str):
        super().__init__(f"{path} was answered with {status}: {body[:2000]}")
        self.status = status
        self.body = body


class PromptFailedError(Exception):
    """A prompt ended with an error or was interrupted; `entry` is its history."""

    def __init__(self, entry: "HistoryEntry"):
        super().__init__("the prompt was interrupted" if entry.error is None else entry.error_text)
        self.entry = entry


@dataclass(frozen=True)
class HistoryEntry:
    """What /history says of one finished prompt."""

    prompt_id: str
    status: str  # "success" or "error"
    outputs: dict[str, JSON] = field(repr=False)  # node number -> what the node showed, e.g. {"images": [...]}
    messages: list[tuple[str, JSON]] = field(repr=False)

    def message(self, kind: str) -> JSON | None:
        """The data of the first message of a kind, such as execution_error."""
        return next((data for name, data in self.messages if name == kind), None)

    @property
    def error(self) -> JSON | None:
        """Of a failed prompt: node_id, node_type, exception_type, exception_message and traceback."""
        return self.message("execution_error")

    @property
    def error_text(self) -> str:
        """Of a failed prompt: the node and the error's text."""
        error = self.error or {}
        return f"{error.get('node_type')} {error.get('node_id')}: {str(error.get('exception_message')).strip()}"

    @property
    def interrupted(self) -> bool:
        """Whether the prompt was stopped by an interrupt."""
        return self.message("execution_interrupted") is not None

    def cached_nodes(self) -> list[str]:
        """The numbers of the nodes whose results were taken from an earlier prompt."""
        return (self.message("execution_cached") or {"nodes": []})["nodes"]


class Message(NamedTuple):
    """One websocket message; `type` is ComfyUI's name of it, or "preview", of which `image` is the file."""

    type: str
    data: JSON
    image: bytes | None
    seconds: float  # since the prompt was posted


def read_message(raw: str | bytes, seconds: float) -> Message:
    """Take a websocket message apart."""
    if isinstance(raw, str):
        content = json.loads(raw)
        return Message(content["type"], content.get("data") or {}, None, seconds)
    (event,) = struct.unpack_from(">I", raw)
    if event == PREVIEW_EVENT:
        return Message("preview", {}, raw[8:], seconds)  # 4 bytes of event, 4 of file format
    if event == PREVIEW_WITH_METADATA_EVENT:
        (length,) = struct.unpack_from(">I", raw, 4)
        return Message("preview", json.loads(raw[8 : 8 + length]), raw[8 + length :], seconds)
    return Message("text" if event == TEXT_EVENT else str(event), {}, raw[4:], seconds)


def multipart(fields: dict[str, str], file_name: str, content: bytes) -> tuple[bytes, str]:
    """A form with one file in the field "image", and its content type."""
    boundary = uuid.uuid4().hex
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{file_name}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class ComfyClient:
    """Requests to one server."""

    def __init__(self, server: ComfyServer):
        self.server = server

    def _request(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.server.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise RequestRefusedError(path, error.code, error.read().decode(errors="replace")) from error
        except (urllib.error.URLError, ConnectionError):
            self.server.check_alive()
            raise

    def get(self, path: str, **query: object) -> bytes:
        """The body that a path is answered with."""
        return self._request(f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def get_json(self, path: str, **query: object) -> Any:
        """The JSON that a path is answered with."""
        return json.loads(self.get(path, **query))

    def post(self, path: str, data: object) -> bytes:
        """Post JSON."""
        return self._request(path, json.dumps(data).encode())

    def object_info(self, node_id: str | None = None) -> JSON:
        """The description of every node, or of one."""
        if node_id is None:
            return self.get_json("/object_info")
        return self.get_json(f"/object_info/{node_id}")[node_id]

    def system_stats(self) -> JSON:
        """Versions and memory of the server."""
        return self.get_json("/system_stats")

    def settings(self, values: JSON) -> None:
        """Change settings of the page, for every page that is opened after this."""
        self.post("/api/settings", values)

    def queue(self) -> tuple[list[str], list[str]]:
        """The ids of the prompts that run and that wait."""
        queue = self.get_json("/queue")
        return tuple([item[1] for item in queue[name]] for name in ("queue_running", "queue_pending"))

    def post_prompt(self, prompt: JSON, client_id: str | None = None) -> str:
        """Queue a workflow in API format and return the prompt's id; one that is not valid is refused."""
        data = {"prompt": prompt} if client_id is None else {"prompt": prompt, "client_id": client_id}
        return json.loads(self.post("/prompt", data))["prompt_id"]

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """The history of a finished prompt, or None while it waits or runs."""
        entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
        if entry is None:
            return None
        status = entry["status"]
        messages = [(name, data) for name, data in status["messages"]]
        return HistoryEntry(prompt_id, status["status_str"], entry["outputs"], messages)

    def wait(self, prompt_id: str, seconds: float = 300) -> HistoryEntry:
        """The history of a prompt once it has ended, well or not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.history(prompt_id)
            if entry is not None:
                return entry
            time.sleep(0.05)
        raise TimeoutError(f"the prompt {prompt_id} did not end in {seconds} s")

    def run(self, prompt: JSON, seconds: float = 300) -> HistoryEntry:
        """Queue a prompt and wait for its end; a PromptFailedError if that is not a good one."""
        entry = self.wait(self.post_prompt(prompt), seconds)
        if entry.status != "success":
            raise PromptFailedError(entry)
        return entry

    def watch(
        self, prompt: JSON, on_message: Callable[[Message], None] | None = None, seconds: float = 300
    ) -> tuple[HistoryEntry, list[Message]]:
        """Queue a prompt and collect what the websocket says of it until it ends, well or not.

        `on_message` is called with every message at once, for instance to interrupt after the first step.
        """
        client_id = uuid.uuid4().hex
        address = f"{self.server.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        messages = []
        with closing(websocket.create_connection(address, timeout=seconds)) as socket:
            flags = {"supports_preview_metadata": True}
            socket.send(json.dumps({"type": "feature_flags", "data": flags}))
            begin = time.monotonic()
            prompt_id = self.post_prompt(prompt, client_id)
            while True:
                message = read_message(socket.recv(), time.monotonic() - begin)
                messages.append(message)
                if on_message is not None:
                    on_message(message)
                data = message.data
                if message.type == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id:
                    return self.wait(prompt_id, seconds), messages

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop the prompt that runs, or only the one of this id if it runs."""
        self.post("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    def view(self, file: JSON) -> bytes:
        """A file of a prompt's outputs: {"filename", "subfolder", "type"}."""
        return self.get("/view", **{key: file[key] for key in ("filename", "subfolder", "type") if key in file})

    def upload(self, name: str, content: bytes, subfolder: str = "") -> str:
        """Put a file into the input folder and return the name that loading nodes know it by."""
        body, content_type = multipart({"subfolder": subfolder, "overwrite": "true"}, name, content)
        answer = json.loads(self._request("/upload/image", body, content_type))
        return "/".join(filter(None, [answer["subfolder"], answer["name"]]))
