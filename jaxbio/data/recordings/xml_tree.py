"""XML from anybody as a tree: no entity is declared or looked up, nothing is nested without end, no file is huge.

root = read_tree(path)      # names without their namespaces
"""

import xml.etree.ElementTree as ET
from xml.parsers import expat

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of

_LARGEST = 2**27  # bytes: an hour of twelve leads at 500 Hz in digits
_DEEPEST = 100


def read_tree(path: str) -> ET.Element:
    """Return the root of an XML file; raises RecordingError for one that is damaged, or declares entities."""
    with open_regular(path) as file:
        if size_of(file) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        if size_of(file) > _LARGEST:
            raise RecordingError("unreadable_file", path, f"more than {_LARGEST:,} bytes of XML")
        check_written(file, path)
        content = file.read()
    builder, depth = ET.TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise RecordingError("unreadable_file", path, f"elements nested more than {_DEEPEST} deep")
        builder.start(_plain(name), {_plain(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_plain(name))

    def refuse(*_: object) -> None:
        raise RecordingError("unreadable_file", path, "declares entities, which no recording needs")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {str(error)[:200]}") from error
    return builder.close()


def _plain(name: str) -> str:
    return name.rpartition(" ")[2]
