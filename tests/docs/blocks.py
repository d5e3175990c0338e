"""The code blocks of a document, as a reader would copy them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

# Fences may be indented, as in lists; the first word after one is the language.
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"(?://|#) (\S+\.\w+)\n")


class Block(NamedTuple):
    """A block: its language, its code, the line it begins at, and what the document says that it prints."""

    language: str
    code: str
    line: int
    prints: str | None

    @property
    def file(self) -> str | None:
        """The file name that its first line gives as a comment."""
        named = _FILE_NAME.match(self.code)
        return named[1] if named else None


def blocks(page: str) -> list[Block]:
    """The blocks of a page of the repository. One in `text` right behind another is what that one prints."""
    text = (ROOT / page).read_text()
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        language, code = match.groups()
        if language == "text" and found and not text[end : match.start()].strip():
            found[-1] = found[-1]._replace(prints=code)
        else:
            found.append(Block(language, code, text.count("\n", 0, match.start()) + 1, None))
        end = match.end()
    return found


def files(page: str) -> dict[str, Block]:
    """The blocks that are files, by name."""
    return {block.file: block for block in blocks(page) if block.file}


def shell(page: str, containing: str) -> Block:
    """The one shell block that contains a text."""
    (block,) = [block for block in blocks(page) if block.language == "sh" and containing in block.code]
    return block
