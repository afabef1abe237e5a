"""The one way to show what others wrote: a file's, a class's or a tensor's name, a decoder's sentence.

On a terminal, in a log and in CSV. JSON escapes by itself; HTML, LaTeX and Markdown each have one more escape
where they are written.
"""


def shown(text: object) -> str:
    """In one line, with control characters, marks of direction and undecodable bytes as `\\x1b`."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
