"""What other programs write at the start of a text file: the byte-order marks of UTF-8 and UTF-16."""

import codecs


def without_mark(content: bytes) -> bytes:
    """Return the content without the byte-order mark of UTF-8 that Notepad, Excel and PowerShell write first."""
    return content.removeprefix(codecs.BOM_UTF8)


def is_utf16(content: bytes) -> bool:
    """Whether the content starts with the byte-order mark of UTF-16."""
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
