"""Asks the lab for attempts of an unfinished change, from inside of an agent's cage: a script of its own.

`ask_fleet URL WORK_TREE [HOW_MANY]`; without a number it says what came of the attempts that were asked for last. The
lab gets the files of the work tree as they are now, and never looks into the tree itself while the agent can write it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

LONGEST_S = 110.0  # for an answer; the lab gives one within a minute
MOST_BYTES = 16 << 20
LEFT_OUT = frozenset({".git", "__pycache__"})
PLAIN, PROGRAM, LINK = "100644", "100755", "120000"  # as git has them


def files(top: Path) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Yield path, mode and content of every file below a folder, without following a link."""
    for folder, names, found in os.walk(top):
        links = [name for name in names if Path(folder, name).is_symlink()]
        names[:] = [name for name in names if name not in LEFT_OUT and name not in links]
        for name in [*found, *links]:
            path = Path(folder, name)
            yield str(path.relative_to(top)), _read(path)


def ask(url: str, question: dict[str, object]) -> str:
    """Return the lab's answer.

    Raises:
        OSError: there is none.
    """
    where = urlsplit(url)
    line = http.client.HTTPConnection(where.hostname or "", where.port, timeout=LONGEST_S)
    line.request("POST", where.path, json.dumps(question).encode(), {"content-type": "application/json"})
    answer = line.getresponse()
    text = answer.read().decode("utf-8", "replace")
    return text if answer.status == 200 else f"Refused: {json.loads(text)['error']['message']}"


def main(arguments: Sequence[str]) -> int:
    """Ask, print the answer, and return 0 where it is no refusal."""
    url, work, *words = arguments
    question: dict[str, object] = {"files": {}}
    if words:
        sent, size = {}, 0
        for path, (mode, data) in files(Path(work)):
            size += len(data)
            if size > MOST_BYTES:
                print(f"Refused: the work tree holds more than {MOST_BYTES >> 20} MB.")
                return 2
            sent[path] = (mode, base64.b64encode(data).decode())
        question = {"files": sent, "attempts": int(words[0]) if words[0].isdecimal() else " ".join(words)}
    try:
        said = ask(url, question)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"The lab does not answer ({type(error).__name__}); ask again without a number.")
        return 1
    print(said)
    return 2 if said.startswith("Refused") else 0


def _read(path: Path) -> tuple[str, bytes]:
    if path.is_symlink():
        return LINK, os.fsencode(path.readlink())
    if not path.is_file():
        return "000000", b""
    return PROGRAM if path.stat().st_mode & stat.S_IXUSR else PLAIN, path.read_bytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
