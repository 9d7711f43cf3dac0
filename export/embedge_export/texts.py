"""Texts out of the text of a file, one a line."""


def read_lines(content: str) -> list[str]:
    """Split a file's content into texts: a blank line is the empty text.

    The line end of the last line ends it and begins no other.
    """
    lines = content.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
