"""What pvesh prints on a node: ``python3 -I -S pvesh.py CONFIG PROGRAM ARGUMENTS…``, by the peer.

It is run by wrappers in a folder that goes first on PATH; see shims() in pve_node.py. PROGRAM is pvesh, or
cat for the kvm module's parameter. CONFIG is a JSON file: where the peer is, and what is wrong on this node.
"""

import json
import socket
import sys

METHODS = {"get": "GET", "create": "POST", "set": "PUT", "delete": "DELETE"}
USAGE = "pvesh {verb} <api_path> [OPTIONS] [FORMAT_OPTIONS]"

Answer = tuple[int, str, dict[str, object]]


class Node:
    """The node that pvesh runs on. Its HTTP is written by hand: that starts twice as fast."""

    def __init__(self, config: dict[str, str]) -> None:
        self._port = int(config["port"])
        self._token = config["token"]

    def ask(self, method: str, path: str, pairs: list[tuple[str, str]]) -> Answer:
        """Send one request; return status, reason and body."""
        url, body = f"/api2/json{path}", ""
        if method in ("GET", "DELETE"):
            url += "?" + "&".join(f"{key}={quoted(value)}" for key, value in pairs)
        else:
            values: dict[str, list[str]] = {}
            for key, value in pairs:
                values.setdefault(key, []).append(value)
            body = json.dumps({key: v if len(v) > 1 else v[0] for key, v in values.items()})
        status, reason, text = self._exchange(method, url, body)
        return status, reason, json.loads(text) if text else {}

    def sysfs(self, path: str) -> str:
        """A file of the node's kernel; empty where it is not there."""
        return self._exchange("GET", path, "")[2]

    def _exchange(self, method: str, url: str, body: str) -> tuple[int, str, str]:
        head = f"{method} {url} HTTP/1.0\r\nAuthorization: PVEAPIToken={self._token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall((head + body).encode())
            received = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, text = received.partition("\r\n\r\n")
        _, status, reason = head.partition("\r\n")[0].split(" ", 2)
        return int(status), reason, text


def quoted(text: str) -> str:
    """As a query wants it."""
    return "".join(chr(c) if chr(c).isalnum() and c < 128 else f"%{c:02X}" for c in text.encode())


def parse(words: list[str]) -> list[tuple[str, str]]:
    """Options as Getopt::Long takes them: -key value, --key value, --key=value."""
    pairs = []
    left = list(words)
    while left:
        key, equals, value = left.pop(0).lstrip("-").partition("=")
        pairs.append((key, value if equals else left.pop(0)))
    return [(key, value) for key, value in pairs if key != "output-format"]


def pvesh(node: Node, words: list[str]) -> int:
    """Run one pvesh command; return its exit code."""
    verb, path, pairs = words[0], f"/{words[1].strip('/')}", parse(words[2:])
    status, reason, body = node.ask(METHODS[verb], path, pairs)
    if status >= 400:
        return refused(verb, path, status, reason, body)
    data = body.get("data")
    if isinstance(data, str) and data.startswith("UPID:"):
        return task(node, data)
    if verb == "set" and path.endswith("/config"):
        vmid = path.split("/")[-2]
        shown = " ".join(f"-{key} {value}" for key, value in pairs if key != "digest")
        print(f"update VM {vmid}: {shown}")
    if data is not None:
        print(json.dumps(data, separators=(",", ":")))
    return 0


def refused(verb: str, path: str, status: int, reason: str, body: dict[str, object]) -> int:
    """Say why not, as pvesh does: only a 400 begins with its number."""
    errors = body.get("errors")
    if status == 400 and isinstance(errors, dict):
        lines = [f"400 {reason}", *(f"{key}: {str(why).rstrip()}" for key, why in errors.items())]
        print("\n".join([*lines, USAGE.format(verb=verb)]), file=sys.stderr)
        return 255
    if status == 501:
        reason = f"No '{verb}' handler defined for '{path}'"
    print(reason, file=sys.stderr)
    return 2 if "does not exist" in reason else 255


def task(node: Node, upid: str) -> int:
    """Wait for a task's end: what it printed, and then its UPID, whether it failed or not."""
    where = f"/nodes/{upid.split(':')[1]}/tasks/{upid}"
    end: object = None
    while end is None:
        data = node.ask("GET", f"{where}/status", [])[2]["data"]
        end = data.get("exitstatus") if isinstance(data, dict) else "no such task"
    log = node.ask("GET", f"{where}/log", [("limit", "500")])[2]["data"]
    assert isinstance(log, list)
    for line in log[:-1]:  # the last is the task's own "TASK OK"
        print(line["t"])
    print(json.dumps(upid))
    if end == "OK" or str(end).startswith("WARNINGS"):
        return 0
    print(end, file=sys.stderr)
    return 255


def cat(node: Node, paths: list[str]) -> int:
    """Print the files of the kvm modules; only one of the two is loaded."""
    code = 0
    for path in paths:
        text = node.sysfs(path)
        if text:
            print(text)
        else:
            print(f"cat: {path}: No such file or directory", file=sys.stderr)
            code = 1
    return code


def main() -> int:
    """Run one program."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes as long as all the rest
        config = json.load(file)
    program, words = sys.argv[2], sys.argv[3:]
    sys.stderr.write(config["noise"])
    if config["ill"]:
        sys.stderr.write(config["ill"])
        return 255
    node = Node(config)
    return pvesh(node, words) if program == "pvesh" else cat(node, words)


if __name__ == "__main__":
    sys.exit(main())
