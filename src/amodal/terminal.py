"""What the command line writes, made safe for whatever reads it: any terminal, any encoding, a pipe that closes.

Names come from files and may hold anything. Control characters would be obeyed by a terminal, and characters that it
has no code for would end the program; both become escapes. A reader that has gone (``amodal ... | head``) ends no work
and causes no message.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

# C0 and C1 controls but newline and tab, delete, and what turns the direction of text round.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
# What progress bars move the cursor with: to the start of the line, and a line up or down.
_BAR_MOVES = re.compile("(?:\r|\n|\x1b\\[A)*")


class SafeStream:
    """A text stream whose every write is made safe; all else is the stream's own."""

    def __init__(self, stream: TextIO, bars: bool = False) -> None:
        """
        Args:
            stream: where the text goes.
            bars: progress bars are drawn there, too; their own moves of the cursor pass.
        """
        self._stream, self._bars = stream, bars

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text with escapes for control characters and for what the encoding lacks."""
        self._try(lambda: self._stream.write(_safe(text, self._stream.encoding, self._bars)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """:meth:`write` of each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes out what is held."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as fault:
            # What is still held would fail again when Python ends, with a message that helps nobody.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if fault.errno != errno.EPIPE:
                raise


def _safe(text: str, encoding: str | None, bars: bool) -> str:
    if bars and _BAR_MOVES.fullmatch(text):
        return text
    # A bar returns to the start of its line before it is drawn, and again when it has cleared it with blanks.
    start = int(bars and text.startswith("\r"))
    end = len(text) - int(start == 1 and text.endswith("\r"))
    middle = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text[start:end])
    code = encoding or "utf-8"
    return text[:start] + middle.encode(code, "backslashreplace").decode(code) + text[end:]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def safe_streams() -> Iterator[None]:
    """``sys.stdout`` and ``sys.stderr`` as :class:`SafeStream`, flushed in the end; closed ones lead nowhere."""
    for number in range(3):
        if not _is_open(number):
            # The lowest free number is taken: no file that is opened later can be written to by mistake.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    whole = [stream or open(os.devnull, "w", encoding="utf-8") for stream in before]  # noqa: SIM115
    made = [SafeStream(whole[0]), SafeStream(whole[1], bars=True)]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in made)
    try:
        yield
    finally:
        for stream in made:
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before
