"""The envelopes of WS-Management: what a client asks, and the answers and faults of a Windows host."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from xml.sax.saxutils import escape, quoteattr

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
CMD = f"{SHELL}/cmd"
NAMES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL,
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
}
WMI_ERROR = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError"
OPERATIONS = {
    f"{NAMES['x']}/Create": "Create",
    f"{NAMES['x']}/Delete": "Delete",
    f"{SHELL}/Command": "Command",
    f"{SHELL}/Send": "Send",
    f"{SHELL}/Receive": "Receive",
    f"{SHELL}/Signal": "Signal",
}


class Malformed(Exception):
    """What came is no envelope of WS-Management."""


@dataclass(frozen=True)
class Fault:
    """What the service answers instead.

    Attributes:
        subcode: of SOAP, the part after ``w:``.
        code: of WS-Management, or of Windows itself.
        text: in English.
        translated: as a German Windows says it.
        sender: whether it is the client's doing.
        reason: what SOAP's own part says; empty: the same as the text.
        of_wmi: whether the details are WMI's, as those of some quotas are.
    """

    subcode: str
    code: int
    text: str
    translated: str = ""
    sender: bool = False
    reason: str = ""
    of_wmi: bool = False


class Refused(Exception):
    """An operation is not done."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


DENIED = Fault("AccessDenied", 5, "Access is denied. ", "Zugriff verweigert ", sender=True)
TIMED_OUT = Fault(
    "TimedOut",
    2150858793,
    "The WS-Management service cannot complete the operation within the time specified in OperationTimeout. ",
    "Der WS-Verwaltungsdienst kann den Vorgang nicht innerhalb der in OperationTimeout angegebenen Zeit "
    "abschließen. ",
)
SELECTORS = (
    "The WS-Management service cannot process the request because the request contained invalid selectors "
    "for the resource. "
)
NO_SHELL = Fault(
    "InvalidSelectors",
    2150858843,
    "The request for the Windows Remote Shell failed because the shell was not found on the server. ",
    "Die Anforderung für die Windows-Remoteshell ist fehlgeschlagen, da die Shell auf dem Server nicht "
    "gefunden wurde. ",
    sender=True,
    reason=SELECTORS,
)
NO_COMMAND = Fault(
    "InvalidSelectors",
    2150858843,
    "The Windows Remote Shell received a request to perform an operation on a command identifier that does "
    "not exist. Either the command has completed execution or the client specified an invalid command "
    "identifier. ",
    "Die Windows-Remoteshell hat eine Anforderung für einen nicht vorhandenen Befehl erhalten. ",
    sender=True,
    reason=SELECTORS,
)
TOO_MANY_SHELLS = Fault(
    "QuotaLimit",
    2150859173,
    "The WS-Management service cannot process the request. This user is allowed a maximum number of 30 "
    "concurrent shells, which has been exceeded. Close existing shells or raise the quota for this user. ",
    "Der WS-Verwaltungsdienst kann die Anforderung nicht verarbeiten. Die maximale Anzahl gleichzeitiger "
    "Shells für diesen Benutzer wurde überschritten. ",
)
TOO_MANY_OPERATIONS = Fault(
    "InternalError",
    2150859174,
    "The WS-Management service cannot process the request. This user is allowed a maximum number of 1500 "
    "concurrent operations, which has been exceeded. Close existing operations for this user, or raise the "
    "quota for this user. ",
    "Der WS-Verwaltungsdienst kann die Anforderung nicht verarbeiten. Die maximale Anzahl gleichzeitiger "
    "Vorgänge für diesen Benutzer wurde überschritten. ",
    of_wmi=True,
)
TOO_LARGE = Fault(
    "EncodingLimit",
    2150858805,
    "The WS-Management service cannot process the request because the encoding of the request exceeds an "
    "internal encoding limit. Reconfigure the client to send messages which fit the encoding limits of the "
    "service. ",
    sender=True,
)
NO_PROGRAM = Fault(
    "InternalError",
    2,
    "The system cannot find the file specified. ",
    "Das System kann die angegebene Datei nicht finden. ",
)
LINE_TOO_LONG = Fault(
    "InternalError",
    206,
    "The filename or extension is too long. ",
    "Der Dateiname oder die Erweiterung ist zu lang. ",
)
NOT_SUPPORTED = Fault(
    "ActionNotSupported",
    2150858752,
    "The action is not supported by the service. ",
    "Die Aktion wird vom Dienst nicht unterstützt. ",
    sender=True,
)


class Request:
    """One envelope of a client.

    Raises:
        Malformed: it is none, or it lacks what every one has.
    """

    def __init__(self, text: bytes) -> None:
        self.size = len(text)
        try:
            self.root = ET.fromstring(text)  # noqa: S314 - from our own client
        except ET.ParseError as error:
            raise Malformed(f"{error}") from error
        self.message = self._header("a:MessageID")
        self.action = self._header("a:Action")
        self.resource = self._header("w:ResourceURI")

    def _header(self, name: str) -> str:
        found = self.root.findtext(f"s:Header/{name}", None, NAMES)
        if not found:
            raise Malformed(f"no {name}")
        return found

    @property
    def operation(self) -> str:
        """Create, Command, Send, Receive, Signal or Delete; empty: none of a shell."""
        return OPERATIONS.get(self.action, "") if self.resource == CMD else ""

    @cached_property
    def shell(self) -> str:
        """The id of the shell that it is about."""
        selectors = self.root.findall("s:Header/w:SelectorSet/w:Selector", NAMES)
        return next((one.text or "" for one in selectors if one.get("Name") == "ShellId"), "").upper()

    def option(self, name: str) -> bool:
        """Whether an option is there and true."""
        options = self.root.findall("s:Header/w:OptionSet/w:Option", NAMES)
        return any(one.get("Name") == name and (one.text or "").upper() in ("TRUE", "1") for one in options)

    @property
    def seconds(self) -> float:
        """How long the service may take for this operation."""
        given = re.fullmatch(
            r"PT(\d+(?:\.\d+)?)S", self.root.findtext("s:Header/w:OperationTimeout", "", NAMES)
        )
        return float(given[1]) if given else 60.0

    @property
    def largest(self) -> int:
        """How many bytes the answer may have."""
        return int(self.root.findtext("s:Header/w:MaxEnvelopeSize", "153600", NAMES))

    def find(self, path: str) -> ET.Element | None:
        """An element below the body."""
        return self.root.find(f"s:Body/{path}", NAMES)

    def attribute(self, path: str, name: str) -> str:
        """An attribute of an element below the body; empty where there is none."""
        found = self.find(path)
        return "" if found is None else found.get(name, "")

    def texts(self, path: str) -> list[str]:
        """The texts of all such elements below the body."""
        return [one.text or "" for one in self.root.findall(f"s:Body/{path}", NAMES)]


def answer(request: Request, body: str, *, relates_to: str = "") -> bytes:
    """A success."""
    return _envelope(f"{request.action}Response", relates_to or request.message, body)


def refusal(fault: Fault, message: str, *, german: bool = False) -> bytes:
    """A fault.

    Args:
        message: the id of the request.
        german: whether Windows speaks German.
    """
    text = escape(fault.translated if german and fault.translated else fault.text)
    language = "de-DE" if german else "en-US"
    detail = _wmi_error(fault, text) if fault.of_wmi else _wsman_fault(fault, text)
    body = (
        f"<s:Fault><s:Code><s:Value>s:{'Sender' if fault.sender else 'Receiver'}</s:Value>"
        f"<s:Subcode><s:Value>w:{fault.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="{language}">{escape(fault.reason) or text}</s:Text></s:Reason>'
        f"<s:Detail>{detail}</s:Detail></s:Fault>"
    )
    return _envelope("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", message, body)


def _wsman_fault(fault: Fault, text: str) -> str:
    return f'<f:WSManFault Code="{fault.code}" Machine="hyperv1"><f:Message>{text}</f:Message></f:WSManFault>'


def _wmi_error(fault: Fault, text: str) -> str:
    return (
        f'<p:MSFT_WmiError xmlns:p="{WMI_ERROR}"><p:CIMStatusCode>27</p:CIMStatusCode>'
        f"<p:Message>{text}</p:Message><p:MessageID>HRESULT 0x{fault.code:x}</p:MessageID>"
        f"<p:error_Category>30</p:error_Category><p:error_Code>{fault.code}</p:error_Code>"
        "<p:error_Type>HRESULT</p:error_Type></p:MSFT_WmiError>"
    )


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    spaces = " ".join(f"xmlns:{prefix}={quoteattr(name)}" for prefix, name in NAMES.items())
    return (
        f"<s:Envelope {spaces}><s:Header><a:Action>{escape(action)}</a:Action>"
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID>"
        f"<a:To>{NAMES['a']}/role/anonymous</a:To>"
        f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def created(shell: str, options: Mapping[str, str]) -> str:
    """The body that tells of a new shell."""
    told = "".join(f"<rsp:{name}>{escape(value)}</rsp:{name}>" for name, value in options.items())
    return (
        "<x:ResourceCreated><a:Address>http://127.0.0.1/wsman</a:Address><a:ReferenceParameters>"
        f"<w:ResourceURI>{CMD}</w:ResourceURI><w:SelectorSet>"
        f'<w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet></a:ReferenceParameters>'
        f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId>{told}</rsp:Shell>"
    )
