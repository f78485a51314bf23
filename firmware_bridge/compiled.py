"""How a numba function on disk notices that a function it calls, in another file, has changed.

Numba's disk cache looks at the file of the compiled function only. A kernel that was compiled with an old guard inside
would go on running it after an update. Numba keys its cache by the signature, so the signature must name the sources:

- by a last argument that nobody passes, `sources: int = sources_of(guard, ...)`: the default is part of the key;
- or, where records travel (with them an omitted argument costs half a millisecond a call), by the name of a field.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from types import ModuleType


def sources_of(*modules: ModuleType) -> int:
    """Return a number that changes with the source text of any of `modules`."""
    checksum = 0
    for module in modules:
        checksum = zlib.crc32(Path(str(module.__file__)).read_bytes(), checksum)
    return checksum
