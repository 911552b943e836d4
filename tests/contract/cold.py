"""The suite for a hypervisor that takes a change only while the VM is off: none can be left pending."""

from __future__ import annotations

import pytest

from nestvirt import engine
from nestvirt.engine import Manner
from nestvirt.errors import ChangeRejected
from nestvirt.journal import Journal
from tests.contract.conformance import MANNER, OFF, ON, Conformance, agree
from tests.contract.rig import Rig


class ColdConformance(Conformance):
    """See Conformance; what differs is what --no-restart comes to."""

    def test_no_restart_leaves_it_pending_and_says_what_remains(self, rig: Rig, journal: Journal) -> None:
        """It does not: that a running VM does not take the change is said before anything is touched."""
        for nested, goal in ((False, ON), (True, OFF)):
            name = rig.make(nested=nested)
            before = rig.see(name)
            for dry_run in (False, True):
                manner = Manner(consent=agree, restart=False, dry_run=dry_run)
                with pytest.raises(ChangeRejected) as caught:
                    engine.reach(self.session(rig, journal, name), goal, manner)
                assert "--no-restart" in caught.value.cure
            assert rig.see(name) == before
        assert journal.runs() == []

    def test_undoing_what_the_running_vm_never_received_needs_no_power_cycle(
        self, rig: Rig, journal: Journal
    ) -> None:
        """It has received everything, so undo needs one, and refuses without."""
        name = rig.make()
        run = engine.reach(self.session(rig, journal, name), ON, MANNER).run
        before = rig.see(name)
        manner = Manner(consent=agree, restart=False)
        with pytest.raises(ChangeRejected) as caught:
            engine.undo(self.session(rig, journal, name), journal.find(run), manner)
        assert "--no-restart" in caught.value.cure
        assert rig.see(name) == before
        assert journal.find(None).id == run
