"""The words that a policy leaves in one attempt: data for researchers, never evidence.

They are a stranger's. What could command a terminal or end a string is replaced, and an attempt has room for so much
and no more.
"""

from __future__ import annotations

from policies.link import NOTE_BYTES

CUT = f"[cut: an attempt has room for {NOTE_BYTES} bytes of notes]"
# Control characters but for the tab and the new line.
CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


class Notes:
    """One attempt's notes, one below the other."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = NOTE_BYTES
        self._full = False

    def add(self, text: str) -> str:
        """Take a note and return what is kept of it, "" where there was no room left."""
        if self._full:
            return ""
        clean = text.translate(CONTROLS).encode(errors="replace")
        room = self._left - bool(self._parts)  # the line's end before it
        if len(clean) > room:
            self._full = True
            clean = clean[: max(room, 0)]
        self._left -= len(clean) + bool(self._parts)
        kept = clean.decode(errors="ignore")  # a character that the cut went through is left out
        if kept or not self._full:
            self._parts.append(kept)
        return kept

    @property
    def text(self) -> str:
        """All that was kept; its last line says so where more was cut."""
        return "\n".join([*self._parts, CUT] if self._full else self._parts)
