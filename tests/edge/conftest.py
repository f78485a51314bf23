"""What the tests of uplink and supply share: a line to a coordinator, and a lab to make a station of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.uplink.network import Coordinator
from tests.harness.lab_folder import LabFolder
from tests.harness.supply_world import TODAY_S
from tests.harness.uplink_world import Desk, connected


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[Desk, Coordinator]]:
    """Connect a coordinator that answers what it is told to with an uplink."""
    with connected() as found:
        yield found


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the lab that each test gets a copy of."""
    folder = tmp_path_factory.mktemp("lab")
    LabFolder(folder, lambda: TODAY_S, people=2)
    return folder
