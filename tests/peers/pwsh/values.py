"""The values of a script: Python's own where they behave alike, and these where they do not.

None is $null, list is object[], bytes is byte[], UUID is Guid, datetime and timedelta are as in .NET.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from tree_sitter import Node


class Nothing:
    """The value of a pipeline that wrote nothing: $null, but it vanishes in another pipeline."""

    def __repr__(self) -> str:
        return "$null"


NOTHING = Nothing()


class Wrapped(list[Any]):
    """An array that went through a pipeline as one object: ConvertTo-Json of 5.1 writes value and Count."""


class CaseDict(MutableMapping[str, Any]):
    """Keeps order, and a key's first spelling; looks keys up whatever their case."""

    def __init__(self, items: dict[str, Any] | None = None) -> None:
        self._kept: dict[Any, tuple[Any, Any]] = {}
        self.update(items or {})

    @staticmethod
    def _fold(key: Any) -> Any:
        return key.casefold() if isinstance(key, str) else key

    def __getitem__(self, key: str) -> Any:
        return self._kept[self._fold(key)][1]

    def __setitem__(self, key: str, value: Any) -> None:
        spelt = self._kept.get(self._fold(key), (key, None))[0]
        self._kept[self._fold(key)] = (spelt, value)

    def __delitem__(self, key: str) -> None:
        del self._kept[self._fold(key)]

    def __contains__(self, key: object) -> bool:
        return self._fold(key) in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter([spelt for spelt, _value in self._kept.values()])

    def __len__(self) -> int:
        return len(self._kept)


class Hashtable(CaseDict):
    """@{}; with [ordered] an OrderedDictionary, which is the same here."""

    type_name = "System.Collections.Hashtable"


class PsObject(CaseDict):
    """[pscustomobject]: properties and nothing else."""

    type_name = "System.Management.Automation.PSCustomObject"


@dataclass(frozen=True)
class EnumValue:
    """A value of a .NET enumeration: a name in a text, a number in JSON."""

    type_name: str
    name: str
    number: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ScriptBlock:
    """{ … }: a node of the syntax tree that can be run."""

    node: Node

    def __str__(self) -> str:
        return (self.node.text or b"").decode()


@dataclass(frozen=True)
class TypeName:
    """[name], as it was written."""

    name: str

    @property
    def short(self) -> str:
        """Its last part, in lower case."""
        return self.name.lower().removeprefix("system.")


class Net:
    """A .NET object that has properties, and methods where a subclass has them.

    Attributes:
        type_name: its full name.
        bases: the full names of what it derives from.
        text: what [string] makes of it; by itself the name of its type.
    """

    bases: tuple[str, ...] = ()

    def __init__(self, type_name: str, properties: dict[str, Any] | None = None, text: str = "") -> None:
        self.type_name = type_name
        self.properties = CaseDict(properties)
        self.text = text or type_name

    def methods(self) -> dict[str, Any]:
        """Its methods: lower-case name to what is called with the arguments."""
        return {}


class NetException(Net):
    """An exception as a script sees it."""

    def __init__(
        self, type_name: str, message: str, hresult: int = -2146233088, inner: NetException | None = None
    ) -> None:
        super().__init__(
            type_name,
            {
                "Message": message,
                "HResult": hresult,
                "InnerException": inner,
                "Data": Hashtable(),
                "StackTrace": None,
                "Source": None,
            },
            f"{type_name}: {message}",
        )

    @property
    def message(self) -> str:
        return cast(str, self.properties["Message"])

    def methods(self) -> dict[str, Any]:
        inner = self.properties["InnerException"]
        return {"getbaseexception": lambda: inner.methods()["getbaseexception"]() if inner else self}


class ErrorRecord(Net):
    """What stands in $_ in a catch block."""

    def __init__(self, exception: NetException, error_id: str, category: str, target: Any = None) -> None:
        reason = exception.type_name.rpartition(".")[2]
        about = Net(
            "System.Management.Automation.ErrorCategoryInfo",
            {
                "Category": EnumValue(
                    "System.Management.Automation.ErrorCategory", category, CATEGORIES.index(category)
                ),
                "Reason": reason,
                "Activity": "",
                "TargetName": "" if target is None else str(target),
            },
            f"{category}: ({target or ''}:) [], {reason}",
        )
        super().__init__(
            "System.Management.Automation.ErrorRecord",
            {
                "Exception": exception,
                "FullyQualifiedErrorId": error_id,
                "CategoryInfo": about,
                "TargetObject": target,
                "ErrorDetails": None,
                "ScriptStackTrace": "at <ScriptBlock>, <No file>: line 1",
                "InvocationInfo": None,
            },
            exception.message,
        )

    @property
    def exception(self) -> NetException:
        return cast(NetException, self.properties["Exception"])

    @property
    def id(self) -> str:
        return cast(str, self.properties["FullyQualifiedErrorId"])


CATEGORIES = [
    "NotSpecified",
    "OpenError",
    "CloseError",
    "DeviceError",
    "DeadlockDetected",
    "InvalidArgument",
    "InvalidData",
    "InvalidOperation",
    "InvalidResult",
    "InvalidType",
    "MetadataError",
    "NotImplemented",
    "NotInstalled",
    "ObjectNotFound",
    "OperationStopped",
    "OperationTimeout",
    "SyntaxError",
    "ParserError",
    "PermissionDenied",
    "ResourceBusy",
    "ResourceExists",
    "ResourceUnavailable",
    "ReadError",
    "WriteError",
    "FromStdErr",
    "SecurityError",
    "ProtocolError",
    "ConnectionError",
    "AuthenticationError",
    "LimitsExceeded",
    "QuotaExceeded",
    "NotEnabled",
]


@dataclass
class Secure:
    """A SecureString: nothing but a credential can be made of it."""

    value: str = field(repr=False)


class Credential(Net):
    """A PSCredential."""

    def __init__(self, user: str, password: Secure) -> None:
        super().__init__(
            "System.Management.Automation.PSCredential", {"UserName": user, "Password": password}
        )
        self.password = password


@dataclass
class Variables:
    """The variables and functions of one scope; what it lacks is asked of the one around it."""

    parent: Variables | None = None
    here: CaseDict = field(default_factory=CaseDict)
    functions: CaseDict = field(default_factory=CaseDict)
    types: CaseDict = field(default_factory=CaseDict)

    @property
    def outermost(self) -> Variables:
        return self if self.parent is None else self.parent.outermost

    def holder(self, name: str) -> Variables | None:
        """The nearest scope that has this variable."""
        if name in self.here:
            return self
        return self.parent.holder(name) if self.parent else None

    def function(self, name: str) -> Any:
        if name in self.functions:
            return self.functions[name]
        return self.parent.function(name) if self.parent else None
