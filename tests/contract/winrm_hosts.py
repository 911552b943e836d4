"""A played Windows host behind real WinRM, and sessions with it, for the tests of transport."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nestvirt.backends.hyperv import shell
from nestvirt.backends.hyperv.session import HyperVSession
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import Endpoint

LONG = {"names": ["\u00e4" * 8000]}
Settings = Callable[..., dict[str, str]]


def answered(answer: object) -> Result:
    text = base64.b64encode(json.dumps(answer).encode()).decode()
    return Result(f"Something else\r\nNESTVIRT:{text}\r\n".encode())


def size(invocation: Invocation) -> Result:
    """What is behind the service: it tells how much it has read."""
    return answered({"ok": {"read": len(invocation.stdin)}})


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(size, certificates) as made:
        yield made
        assert made.failures == []


@pytest.fixture
def settings(host: Endpoint) -> Settings:
    def make(**more: str) -> dict[str, str]:
        known = {"endpoint": host.https_url, "ca_file": host.certificates.ca_file}
        files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
        return {**known, **files, "username": host.user, "password": host.password, **more}

    return make


@pytest.fixture
def session(settings: Settings) -> Iterator[HyperVSession]:
    made = HyperVSession(settings())
    yield made
    made.close()


@contextmanager
def impatient(ill: Ill) -> Iterator[None]:
    """An answer that will not come is not awaited for long."""
    with pytest.MonkeyPatch.context() as patch:
        if ill is Ill.STALL:
            patch.setattr(shell, "ANSWER", 1.0)
            patch.setattr(shell, "OPERATION", 1)
            patch.setattr(shell, "GRACE", 0.0)
        yield
