"""XML of other people: parsed without document types, whose entities can expand without end or name other files."""

from xml.etree import ElementTree
from xml.parsers import expat

from ..errors import MRTError


class DoctypeError(MRTError):
    """The text has a document type declaration."""


def parse_xml(data: bytes) -> ElementTree.Element:
    """The root of an XML text in any encoding; comments are left out.

    Raises DoctypeError for a document type, and ElementTree.ParseError, ValueError or LookupError for what is no XML.
    """
    data = data.lstrip(b" \t\r\n")  # XML forbids it before the declaration, and people write it
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = _refuse
    try:
        guard.Parse(data, True)  # by a parser and not by a search for "<!", which other encodings spell differently
    except expat.ExpatError as error:
        raise ElementTree.ParseError(str(error)) from error
    return ElementTree.fromstring(data)


def _refuse(*_: object) -> None:
    raise DoctypeError("The XML has a document type, and its declarations are not read; save it again without.")
