"""Cmdlets by their documented syntax, and how a call's arguments find their parameters.

A cmdlet is declared by the lines that ``Get-Command NAME -Syntax`` prints, one a parameter set. What it takes
from the pipeline is not in those lines; here a bar marks it: ``[-VM] <VirtualMachine[]|>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.peers.pwsh.convert import cast, is_list, text, type_of
from tests.peers.pwsh.raising import Raised, failure
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, CaseDict, ErrorRecord, TypeName, Variables

if TYPE_CHECKING:
    from tests.peers.pwsh.engine import Engine

BINDING = "System.Management.Automation.ParameterBindingException"
COMMON = {
    "erroraction": "string",
    "warningaction": "string",
    "warningvariable": "string",
    "verbose": "switch",
    "confirm": "switch",
}
FORM = re.compile(
    r"\[\[-(?P<o>\w+)\] <(?P<ot>[^>]+)>\]"  # [[-Name] <type>]: optional, by position too
    r"|\[-(?P<p>\w+)\] <(?P<pt>[^>]+)>"  # [-Name] <type>: mandatory, by position too
    r"|\[-(?P<n>\w+) <(?P<nt>[^>]+)>\]"  # [-Name <type>]
    r"|\[-(?P<s>\w+)\]"  # [-Switch]
    r"|-(?P<m>\w+) <(?P<mt>[^>]+)>"  # -Name <type>: mandatory
    r"|-(?P<ms>\w+)"  # -Switch that makes the set
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of one parameter set."""

    name: str
    kind: str
    mandatory: bool
    positional: bool
    pipeline: bool


@dataclass(frozen=True)
class ParameterSet:
    """The parameters that can be given together."""

    parameters: tuple[Parameter, ...]

    def find(self, name: str) -> Parameter | None:
        return next((each for each in self.parameters if each.name.lower() == name.lower()), None)


@dataclass
class Call:
    """One run of a cmdlet for one object of the pipeline, or for none."""

    cmdlet: Cmdlet
    engine: Engine
    scope: Variables
    given: CaseDict
    items: list[Any]
    action: str | None = None
    confirm: bool | None = None
    warned: list[str] = field(default_factory=list)
    out: list[Any] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.given.get(name)

    @property
    def asks(self) -> bool:
        """Whether it asks first, if what it does is of much impact."""
        if self.confirm is not None:
            return self.confirm
        return text(self.engine.variable("ConfirmPreference", self.scope)).lower() != "none"

    def warn(self, words: str) -> None:
        """A warning, which only -WarningVariable keeps: the scripts' preference is not to show them."""
        self.warned.append(words)

    def fail(self, record: ErrorRecord) -> None:
        """An error after which the cmdlet goes on, unless the caller wants it otherwise."""
        self.engine.report(self._signed(record), self.scope, self.action)

    def refuse(self, record: ErrorRecord) -> Raised:
        """An error that ends the cmdlet."""
        return Raised(self._signed(record))

    def _signed(self, record: ErrorRecord) -> ErrorRecord:
        record.properties["CategoryInfo"].properties["Activity"] = self.cmdlet.name
        return record


@dataclass(frozen=True)
class Cmdlet:
    """One cmdlet.

    Attributes:
        run: what it does for one object of the pipeline.
        whole: it is run once, with all objects of the pipeline.
        module: what has to be installed for it.
    """

    name: str
    sets: tuple[ParameterSet, ...]
    run: Callable[[Call], None]
    whole: bool = False
    module: str = ""


CMDLETS: dict[str, Cmdlet] = {}


def cmdlet(
    *syntax: str, whole: bool = False, module: str = ""
) -> Callable[[Callable[[Call], None]], Callable[[Call], None]]:
    """Declare a cmdlet by its syntax, one line a parameter set."""
    name = syntax[0].split()[0]

    def register(run: Callable[[Call], None]) -> Callable[[Call], None]:
        CMDLETS[name] = Cmdlet(name, tuple(map(_set, syntax)), run, whole, module)
        return run

    return register


def _set(line: str) -> ParameterSet:
    made = []
    for found in FORM.finditer(line.partition(" ")[2]):
        groups = {key: each for key, each in found.groupdict().items() if each}
        kind = next((each for key, each in groups.items() if key.endswith("t")), "switch")
        name = next(each for key, each in groups.items() if not key.endswith("t"))
        form = next(iter(groups))
        made.append(
            Parameter(name, kind.rstrip("|"), form in ("p", "m", "ms"), form in ("o", "p"), "|" in kind)
        )
    return ParameterSet(tuple(made))


PRESENT = object()
"""The value of a parameter after which none stands: right for a switch alone."""


@dataclass
class Arguments:
    """What a command line gives: by name, in order, and how errors are to be taken."""

    named: CaseDict = field(default_factory=CaseDict)
    ordered: list[Any] = field(default_factory=list)


def call(
    engine: Engine, used: Cmdlet, given: Arguments, items: list[Any] | None, scope: Variables
) -> list[Any]:
    """Run a cmdlet; what it writes."""
    common = CaseDict({name: given.named.pop(name) for name in COMMON if name in given.named})
    action = text(common["ErrorAction"]) if "ErrorAction" in common else None
    known = {each.name.lower() for parameters in used.sets for each in parameters.parameters}
    unknown = [name for name in given.named if name.lower() not in known]
    if unknown:
        raise NotKnown(f"{used.name} -{unknown[0]}")
    confirm = None if "Confirm" not in common else common["Confirm"] in (True, PRESENT)
    out: list[Any] = []
    warned: list[str] = []
    turns: list[Any] = [NOTHING] if items is None or used.whole else items
    for item in turns:
        bound = bind(used, given, item, piped=items is not None and used.whole)
        one = Call(used, engine, scope, bound, items or [], action, confirm, warned)
        try:
            used.run(one)
        finally:
            out += one.out
    if "WarningVariable" in common:
        scope.here[text(common["WarningVariable"])] = warned
    return out


def bind(used: Cmdlet, given: Arguments, item: Any, *, piped: bool = False) -> CaseDict:
    """The parameters' values, by the first parameter set that all of them fit."""
    failed: Raised | None = None
    for each in used.sets:
        try:
            return _bound(used, each, given, item, piped)
        except Raised as raised:
            if failed is None or failed.record.id.startswith("AmbiguousParameterSet"):
                failed = raised
    assert failed is not None
    raise failed


def _bound(used: Cmdlet, wanted: ParameterSet, given: Arguments, item: Any, piped: bool) -> CaseDict:
    values, free = CaseDict(), list(given.ordered)
    for name, value in given.named.items():
        parameter = wanted.find(name)
        if parameter is None:
            raise _unbound(
                used, "AmbiguousParameterSet", "Parameter set cannot be resolved using the named parameters."
            )
        values[parameter.name] = converted(used, parameter, value)
    for parameter in wanted.parameters:
        if parameter.name in values:
            continue
        if item is not NOTHING and parameter.pipeline:
            values[parameter.name] = converted(used, parameter, item)
            item = NOTHING
        elif free and parameter.positional:
            values[parameter.name] = converted(used, parameter, free.pop(0))
        elif parameter.mandatory and not (piped and parameter.pipeline):
            message = f"One or more mandatory parameters are missing: {parameter.name}."
            raise _unbound(used, "MissingMandatoryParameter", message)
    if free:
        message = f"A positional parameter cannot be found that accepts argument '{text(free[0])}'."
        raise _unbound(used, "PositionalParameterNotFound", message)
    if item is not NOTHING:
        message = "The input object cannot be bound to any parameters for the command."
        raise _unbound(used, "InputObjectNotBound", message)
    return values


def _unbound(used: Cmdlet, error_id: str, message: str) -> Raised:
    return failure(f"{error_id},{used.name}", message, "InvalidArgument", BINDING)


def converted(used: Cmdlet, parameter: Parameter, value: Any) -> Any:
    """A value as the parameter's type; a list of one where it takes many."""
    value = None if value is NOTHING else value
    if value is PRESENT and parameter.kind != "switch":
        raise _unbound(used, "MissingArgument", f"Missing an argument for parameter '{parameter.name}'.")
    kind, many = parameter.kind.removesuffix("[]"), parameter.kind.endswith("[]")
    if value is None and kind != "switch":
        if parameter.mandatory and kind not in ("object", "psobject"):
            message = f"Cannot bind argument to parameter '{parameter.name}' because it is null."
            raise _unbound(used, "ParameterArgumentValidationErrorNullNotAllowed", message)
        if kind == "bool":
            message = f"Cannot bind parameter '{parameter.name}': $null is no System.Boolean."
            raise _unbound(used, "CannotConvertArgument", message)
        return None
    if value is PRESENT:
        return True
    items = value if many and is_list(value) else [value]
    made = [_one(used, parameter, kind, each) for each in items]
    return made if many else made[0]


def _one(used: Cmdlet, parameter: Parameter, kind: str, value: Any) -> Any:
    if kind in ("object", "psobject"):
        return value
    if value == "" and parameter.mandatory:
        message = f"Cannot bind argument to parameter '{parameter.name}' because it is an empty string."
        raise _unbound(used, "ParameterArgumentValidationErrorEmptyStringNotAllowed", message)
    why = f"Cannot process argument transformation on parameter '{parameter.name}'."
    if is_list(value) and kind not in ("array", "hashtable"):
        raise _unbound(used, "CannotConvertArgument", why)
    if kind == "bool" and not isinstance(value, bool | int):
        # a text is no truth for a parameter, "True" neither: unlike a cast
        raise _unbound(used, "CannotConvertArgument", f"{why} Cannot convert value to System.Boolean.")
    try:
        return cast(TypeName(kind), value)
    except Raised as raised:
        raise _unbound(used, "CannotConvertArgument", f"{why} {raised.record.exception.message}") from None
    except NotKnown:
        if type_of(value).rpartition(".")[2].lower() != kind.lower():
            raise _unbound(used, "CannotConvertArgument", f"{why} It is no {kind}.") from None
        return value
