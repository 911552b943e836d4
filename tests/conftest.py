"""Peers that are brought up once for all tests that ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import LabError, need
from tests.lab.libvirtd import LibvirtLab


@pytest.fixture(scope="session")
def libvirt_lab() -> Iterator[LibvirtLab]:
    """An isolated libvirtd with guests that really boot."""
    try:
        lab = LibvirtLab()
    except (LabError, OSError) as error:
        need(error, "the lab's libvirtd cannot be brought up")
        raise
    with lab:
        yield lab
