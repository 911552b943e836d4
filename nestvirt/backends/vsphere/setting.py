"""The one switch, in its two spellings: the property nestedHVEnabled, and the .vmx line vhv.enable. Pure.

Both are written by one ReconfigVM_Task, so both are one setting here. It is written as people would:
``true``, ``false, vhv.enable=FALSE``, or ``vhv.enable=TRUE`` where the property is not set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SETTING = "nestedHVEnabled"
KEY = "vhv.enable"


@dataclass(frozen=True)
class Nesting:
    """What the configuration says about nesting.

    Attributes:
        field: config.nestedHVEnabled; None where it is not set.
        name: the key in extraConfig, as it is spelled there; None where there is none.
        value: that key's value.
    """

    field: bool | None = None
    name: str | None = None
    value: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Nesting:
        """Read the written form.

        Raises:
            ValueError: it is none.
        """
        field, separator, rest = (text or "").partition(", ")
        if field not in ("true", "false"):
            field, separator, rest = "", text or "", text or ""
        name, equals, value = rest.partition("=")
        if separator and not (equals and name.lower() == KEY):
            raise ValueError(f"not a value of {SETTING}: {text!r}")
        said = {"true": True, "false": False}.get(field)
        return cls(said, name, value) if separator else cls(said)

    def __str__(self) -> str:
        parts = [] if self.field is None else [str(self.field).lower()]
        parts += [] if self.name is None else [f"{self.name}={self.value}"]
        return ", ".join(parts)

    @property
    def text(self) -> str | None:
        """The written form; None where nothing is set."""
        return str(self) or None

    @property
    def enabled(self) -> bool | None:
        """Whether it nests as of the next start; None where the two contradict each other."""
        line = self.value.strip().upper() in ("TRUE", "1", "YES")
        if self.name is None or self.field is None:
            return bool(self.field) or (self.name is not None and line)
        return line if line is self.field else None

    def turned(self, on: bool) -> Nesting:
        """With both spellings in line; a key is not made, and turning off sets no property that was not."""
        field = None if not on and self.field is None and self.name is not None else on
        return replace(self, field=field, value=str(on).upper() if self.name is not None else "")
