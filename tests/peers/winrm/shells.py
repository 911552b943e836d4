"""The shells of a host, and the commands in them: what is behind each operation of WinRM."""

from __future__ import annotations

import base64
import re
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from tests.peers.winrm import soap
from tests.peers.winrm.command import Invocation, Program, Result
from tests.peers.winrm.ills import Ill, Ills
from tests.peers.winrm.soap import Refused, Request

CMD_LIMIT = 8191
"""Characters that cmd.exe takes on one line."""
LIMIT = 32766
"""Characters that Windows itself takes, without the zero at their end."""
SPOKEN_TO_CMD = re.compile(r'[&|<>^%()"!]')
DONE, RUNNING = f"{soap.SHELL}/CommandState/Done", f"{soap.SHELL}/CommandState/Running"
OVERHEAD = 4096
"""Bytes of an answer's envelope, amply."""
PROGRESS = (
    b'#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
    b'<Obj S="progress" RefId="0"><TN RefId="0"><T>System.Management.Automation.PSCustomObject</T>'
    b'<T>System.Object</T></TN><MS><I64 N="SourceId">1</I64><PR N="Record">'
    b"<AV>Preparing modules for first use.</AV><AI>0</AI><Nil /><PI>-1</PI><PC>-1</PC><T>Completed</T>"
    b"<SR>-1</SR><SD> </SD></PR></MS></Obj></Objs>"
)


@dataclass
class Command:
    """One command, until the client has its end.

    Attributes:
        invocation: as far as it is known: stdin grows.
        waits: whether its stdin is a pipe that is still open.
        outcome: what it will have written.
        sent: how many bytes of stdout the client has.
    """

    invocation: Invocation
    waits: bool
    outcome: Future[Result] = field(default_factory=Future)
    sent: int = 0
    floods: bool = False


@dataclass
class Shell:
    """One shell; only its owner sees it.

    Attributes:
        started: how many commands were started in it. Windows counts those that have ended, too.
    """

    owner: str
    codepage: str
    commands: dict[str, Command] = field(default_factory=dict)
    started: int = 0


class Shells:
    """All of a host's.

    Attributes:
        program: what runs.
        open: the shells that are open, by their ids.
        invocations: every command that was started, with all of its stdin.
        signals: the ids of commands that were told to end, and whether they had ended already.
        failures: what the program has raised, which no Windows program can.
        most: how many shells one user may have.
        most_operations: how many commands one user may start in the shells that are open.
        largest: how many bytes a request may have.
    """

    def __init__(self, program: Program, ills: Ills) -> None:
        self.program = program
        self.open: dict[str, Shell] = {}
        self.invocations: list[Invocation] = []
        self.signals: list[tuple[str, bool]] = []
        self.failures: list[BaseException] = []
        self.most = 30
        self.most_operations = 1500
        self.largest = 500 * 1024
        self._ills = ills
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="winrm")

    def close(self) -> None:
        """Let what still runs end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def answer(self, request: Request, user: str) -> str:
        """Do what a client wants; return the body to answer with.

        Raises:
            Refused: it is not done.
        """
        if request.size > self.largest:
            raise Refused(soap.TOO_LARGE)
        operations = {
            "Create": self._create,
            "Command": self._command,
            "Send": self._send,
            "Receive": self._receive,
            "Signal": self._signal,
            "Delete": self._delete,
        }
        if request.operation not in operations:
            raise Refused(soap.NOT_SUPPORTED)
        return operations[request.operation](request, user)

    def _create(self, request: Request, user: str) -> str:
        with self._lock:
            if sum(shell.owner == user for shell in self.open.values()) >= self.most:
                raise Refused(soap.TOO_MANY_SHELLS)
            name = str(uuid.uuid4()).upper()
            options = request.root.findall("s:Header/w:OptionSet/w:Option", soap.NAMES)
            codepage = next((one.text or "" for one in options if one.get("Name") == "WINRS_CODEPAGE"), "437")
            self.open[name] = Shell(user, codepage)
        return soap.created(name, {"Owner": user, "IdleTimeOut": "PT7200.000S", "InputStreams": "stdin"})

    def _delete(self, request: Request, user: str) -> str:
        with self._lock:
            self._shell(request, user)
            del self.open[request.shell]
        return ""

    def _command(self, request: Request, user: str) -> str:
        shell = self._shell(request, user)
        words = request.texts("rsp:CommandLine/rsp:Command") + request.texts("rsp:CommandLine/rsp:Arguments")
        direct = request.option("WINRS_SKIP_CMD_SHELL")
        console = request.option("WINRS_CONSOLEMODE_STDIN")
        invocation = _invocation(words, user)
        command = Command(invocation, waits=not console)
        line = " ".join(word for word in words if word)
        refused = _refused_by_windows(line, invocation) if direct else _refused_by_cmd(line)
        if not direct and SPOKEN_TO_CMD.search(line):
            self.failures.append(AssertionError(f"cmd.exe reads more into it than words: {line[:200]}"))
        with self._lock:
            if sum(one.started for one in self.open.values() if one.owner == user) >= self.most_operations:
                raise Refused(soap.TOO_MANY_OPERATIONS)
            name = (request.attribute("rsp:CommandLine", "CommandId") or str(uuid.uuid4())).upper()
            shell.commands[name] = command
            shell.started += 1
        ill = self._ills.take("Command", (Ill.HANG, Ill.FLOOD, Ill.PROGRESS))
        command.floods = ill is Ill.FLOOD
        if refused is not None:
            command.waits = False
            command.outcome.set_result(refused)
        elif ill in (Ill.HANG, Ill.FLOOD):
            command.waits = False
        elif console:
            self._run(command, progress=ill is Ill.PROGRESS)
        return f"<rsp:CommandResponse><rsp:CommandId>{name}</rsp:CommandId></rsp:CommandResponse>"

    def _run(self, command: Command, *, progress: bool = False) -> None:
        command.waits = False
        with self._lock:
            self.invocations.append(command.invocation)

        def work() -> Result:
            result = self.program(command.invocation)
            return Result(result.stdout, PROGRESS + result.stderr, result.code) if progress else result

        command.outcome = self._pool.submit(work)

    def _send(self, request: Request, user: str) -> str:
        streams = request.root.findall("s:Body/rsp:Send/rsp:Stream", soap.NAMES)
        for stream in streams:
            command = self._find(request, user, stream.get("CommandId", ""))
            if command.outcome.done():
                raise Refused(soap.NO_COMMAND)
            if not command.waits:  # its stdin is the console, from which nobody reads
                continue
            sent = command.invocation.stdin + base64.b64decode(stream.text or "", validate=True)
            known = command.invocation
            command.invocation = Invocation(known.command, known.arguments, sent, known.user)
            if stream.get("End", "").lower() in ("true", "1"):
                self._run(command)
        return "<rsp:SendResponse/>"

    def _receive(self, request: Request, user: str) -> str:
        name = request.attribute("rsp:Receive/rsp:DesiredStream", "CommandId").upper()
        command = self._find(request, user, name)
        room = max(1024, (request.largest - OVERHEAD) * 3 // 4)
        if command.floods:
            return _received(name, b"x" * room, b"", None)
        if not wait([command.outcome], request.seconds).done:
            raise Refused(soap.TIMED_OUT)
        result = self._result(command)
        part = result.stdout[command.sent : command.sent + room]
        command.sent += len(part)
        if command.sent < len(result.stdout):
            return _received(name, part, b"", None)
        return _received(name, part, result.stderr, result.code)

    def _result(self, command: Command) -> Result:
        raised = command.outcome.exception()
        if raised is None:
            return command.outcome.result()
        with self._lock:
            if raised not in self.failures:
                self.failures.append(raised)
        return Result(b"", f"{type(raised).__name__}: {raised}".encode(), 1)

    def _signal(self, request: Request, user: str) -> str:
        name = request.attribute("rsp:Signal", "CommandId").upper()
        command = self._find(request, user, name)
        with self._lock:
            self.signals.append((name, command.outcome.done()))
            del self.open[request.shell].commands[name]
        return "<rsp:SignalResponse/>"

    def _shell(self, request: Request, user: str) -> Shell:
        shell = self.open.get(request.shell)
        if shell is None or shell.owner != user:
            raise Refused(soap.NO_SHELL)
        return shell

    def _find(self, request: Request, user: str, name: str) -> Command:
        command = self._shell(request, user).commands.get(name.upper())
        if command is None:
            raise Refused(soap.NO_COMMAND)
        return command


def _invocation(words: list[str], user: str) -> Invocation:
    command, *arguments = words or [""]
    split = tuple(word.strip('"') for given in arguments for word in re.findall(r'"[^"]*"|\S+', given))
    return Invocation(command.strip().strip('"'), split, b"", user)


def _refused_by_windows(line: str, invocation: Invocation) -> Result | None:
    """What CreateProcess does not start, for there is no cmd.exe.

    Raises:
        Refused: always, where it does not.
    """
    if len(line) > LIMIT:
        raise Refused(soap.LINE_TOO_LONG)
    if not _is_program(invocation.command):
        raise Refused(soap.NO_PROGRAM)
    return None


def _refused_by_cmd(line: str) -> Result | None:
    """What cmd.exe does not start, or would not start as it is meant."""
    if len(line) > CMD_LIMIT:
        return Result(stderr=b"The command line is too long.\r\n", code=1)
    first = line.split(" ", 1)[0]
    if not _is_program(first):
        return Result(
            stderr=f"'{first}' is not recognized as an internal or external command,\r\n"
            "operable program or batch file.\r\n".encode(),
            code=1,
        )
    return None


def _is_program(name: str) -> bool:
    return name.rpartition("\\")[2].lower().removesuffix(".exe") == "powershell"


def _received(name: str, stdout: bytes, stderr: bytes, code: int | None) -> str:
    command = quoteattr(name)
    parts = []
    for stream, content in (("stdout", stdout), ("stderr", stderr)):
        if content:
            text = base64.b64encode(content).decode()
            parts.append(f'<rsp:Stream Name="{stream}" CommandId={command}>{text}</rsp:Stream>')
    if code is None:
        state = f"<rsp:CommandState CommandId={command} State={quoteattr(RUNNING)}/>"
    else:
        parts += [
            f'<rsp:Stream Name="{stream}" CommandId={command} End="true"></rsp:Stream>'
            for stream in ("stdout", "stderr")
        ]
        state = (
            f"<rsp:CommandState CommandId={command} State={quoteattr(DONE)}>"
            f"<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
        )
    return f"<rsp:ReceiveResponse>{''.join(parts)}{state}</rsp:ReceiveResponse>"
