"""An API server as a kubelet asks it: by HTTPS, and again while it restarts."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

PATIENCE = 60.0
"""Seconds for which an API server that does not answer is asked again."""
MERGE = "application/strategic-merge-patch+json"

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:1000]}")
        self.status = status


class Api:
    """One API server, asked as one user.

    Args:
        server: https://127.0.0.1:PORT.
        folder: of the certificates.
        user: whose certificate is shown.
    """

    def __init__(self, server: str, folder: Path, user: str) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / f"{user}.crt", folder / f"{user}.key")
        self._pool = urllib3.PoolManager(ssl_context=context, maxsize=32, block=False, retries=False)

    def get(self, path: str, **query: str) -> Any:
        """What is at a path.

        Raises:
            ApiError: it is not there, or was refused.
        """
        return self._ask("GET", path, query)

    def items(self, path: str, **query: str) -> list[Object]:
        """The objects of a list."""
        found: list[Object] = self.get(path, **query)["items"]
        return found

    def post(self, path: str, made: Object) -> Object:
        """Create an object."""
        answer: Object = self._ask("POST", path, {}, made)
        return answer

    def patch(self, path: str, change: Object) -> Object:
        """Merge a change into an object."""
        answer: Object = self._ask("PATCH", path, {}, change, MERGE)
        return answer

    def delete(self, path: str, options: Object | None = None, **query: str) -> None:
        """Delete an object or a collection; an absent one is fine."""
        try:
            self._ask("DELETE", path, query, options)
        except ApiError as error:
            if error.status not in (404, 409):  # 409: it is another one of that name by now
                raise

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            return self._once("GET", f"{self.server}/readyz", None, "").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def watch(self, path: str, version: str, **query: str) -> Iterator[Object]:
        """The events from a version on, until the API server ends the stream."""
        query |= {"watch": "true", "resourceVersion": version}
        url = f"{self.server}{path}?{urlencode(query)}"
        response = self._pool.request(
            "GET", url, preload_content=False, timeout=urllib3.Timeout(connect=5, read=None)
        )
        try:
            if response.status != 200:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            rest = b""
            while chunk := response.read1(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except urllib3.exceptions.HTTPError:
            return
        finally:
            response.close()

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Object | None = None,
        kind: str = "application/json",
    ) -> Any:
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._once(method, url, content, kind)
            except urllib3.exceptions.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            if response.status < 300:
                return response.json()
            if response.status not in (429, 500, 503) or time.monotonic() > deadline:
                raise ApiError(response.status, response.data.decode(errors="replace"))
            time.sleep(0.1)

    def _once(self, method: str, url: str, content: bytes | None, kind: str) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": kind, "Accept": "application/json"}
        return self._pool.request(method, url, body=content, headers=headers, timeout=10)
