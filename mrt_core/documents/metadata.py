"""The job that made a document (prompt, seed, checkpoint, layout, captions), as JSON inside an XMP packet.

XMP is where programs keep a document's metadata when they save it again, so a PSD that was edited meanwhile can still be
loaded back as a job. Source: Adobe XMP specification part 1, "Packet wrapper" and "Serializing XMP".
"""

import json
import math
import re
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from ..errors import MRTError
from .xml_tree import parse_xml

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NAMESPACE = "urn:mrt:document:1.0"
_PROPERTY = f"{{{NAMESPACE}}}job"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:mrt="{namespace}">
   <xmp:CreatorTool>MRT</xmp:CreatorTool>
   <mrt:job>{job}</mrt:job>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def to_json(job: dict[str, Any]) -> str:
    """`job` as ASCII JSON; raises MRTError for a value that JSON does not have."""
    try:
        return json.dumps(job, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MRTError(
            f"The document's metadata cannot be stored as JSON ({error}); use only text, numbers, lists and dicts."
        ) from error


def xml_text(text: str) -> str:
    """`text` with a space for every character that XML 1.0 cannot hold."""
    return _NOT_IN_XML.sub(" ", text)


def to_xmp(job: dict[str, Any]) -> bytes:
    """`job` as a UTF-8 XMP packet."""
    return _PACKET.format(namespace=NAMESPACE, job=escape(to_json(job))).encode("utf-8")


def from_xmp(packet: bytes) -> dict[str, Any] | None:
    """The job in an XMP packet, or None where there is none that can be read."""
    if NAMESPACE.encode() not in packet:
        return None
    try:
        root = parse_xml(packet)
    except (ElementTree.ParseError, ValueError, LookupError):  # MRTError among them
        return None
    for element in root.iter():
        # Programs that save the packet again may turn the element into an attribute.
        text = element.text if element.tag == _PROPERTY else element.get(_PROPERTY)
        if text is not None:
            return _parse(text)
    return None


def _parse(text: str) -> dict[str, Any] | None:
    try:
        job = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return job if isinstance(job, dict) else None


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; raises ValueError for what is none, Infinity, NaN and numbers beyond a float among them."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that JSON has")
    return value
