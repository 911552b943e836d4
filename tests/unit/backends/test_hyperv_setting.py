"""Settings and their values as text: what is written is what is read, and nothing else is taken."""

from __future__ import annotations

import pytest

from nestvirt.backends.hyperv.setting import Order
from tests.unit.backends.hyperv_situations import ADAPTER, DYNAMIC


@pytest.mark.parametrize(
    ("setting", "after", "order"),
    [
        ("SavedState", None, Order()),
        ("Version", "10.0", Order({"version": "10.0"})),
        ("DynamicMemoryEnabled", "false, startup=8589934592", Order({"enabled": False})),
        (
            "DynamicMemoryEnabled",
            DYNAMIC,
            Order({"enabled": True, "minimum": 512 << 20, "startup": 8 << 30, "maximum": 16 << 30}),
        ),
        ("ExposeVirtualizationExtensions", "true", Order({"enabled": True})),
        ("ExposeVirtualizationExtensions", "false", Order({"enabled": False})),
        ("VirtualizationBasedSecurityOptOut", "true", Order({"enabled": True})),
        (f"MacAddressSpoofing:{ADAPTER}", "On", Order({"word": "On"}, ADAPTER)),
        (f"MacAddressSpoofing:{ADAPTER}", "Off", Order({"word": "Off"}, ADAPTER)),
    ],
)
def test_a_value_becomes_an_order(setting: str, after: str | None, order: Order) -> None:
    assert Order.parse(setting, after) == order


@pytest.mark.parametrize(
    ("setting", "after"),
    [
        ("SavedState", "saved"),
        ("Version", None),
        ("Version", "10.0; Remove-VM"),
        ("DynamicMemoryEnabled", "true"),
        ("DynamicMemoryEnabled", "false"),
        ("DynamicMemoryEnabled", "false, startup="),
        ("DynamicMemoryEnabled", "true, minimum=1, startup=2"),
        ("ExposeVirtualizationExtensions", None),
        ("ExposeVirtualizationExtensions", "True"),
        ("ExposeVirtualizationExtensions", DYNAMIC),
        ("MacAddressSpoofing:", "On"),
        (f"MacAddressSpoofing:{ADAPTER}", "on"),
        ("MacAddressSpoofing:a b", "On"),
        ("Name", "true"),
    ],
)
def test_nothing_else_is_an_order(setting: str, after: str | None) -> None:
    with pytest.raises(ValueError, match="not a value"):
        Order.parse(setting, after)
