"""Which files a bundle may hold: plainly named Python and TOML, none of them in the place of something else's.

What is refused here is refused early and with a sentence; what keeps a policy in is the cage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.archive import BundleMalformed

NAME = re.compile(r"[a-z_][a-z0-9_]{0,60}\.(py|toml)", re.ASCII)
MAX_FILES = 64


def check(files: Mapping[str, bytes]) -> None:
    """Raise unless a bundle may hold these files.

    Raises:
        BundleMalformed: too many, or one that may not be in a bundle; the first at fault is named.
    """
    if len(files) > MAX_FILES:
        raise BundleMalformed(f"{len(files)} files; at most {MAX_FILES} are allowed")
    for name in files:
        if not NAME.fullmatch(name):
            raise BundleMalformed(f"a file named {name!r:.80}; names are lower case words that end in .py or .toml")
