"""What happens to values in random histories: read, lost with the machine that had them, handed over."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import rule

from runner.core import events as e
from runner.core.values import SegmentRecord, ValueRecord
from runner.ids import ClientId
from tests.properties.cluster_model import CLIENTS, ClusterModel


class ValueRules(ClusterModel):
    """Rules of `ClusterMachine`."""

    @rule(data=st.data(), kind=st.integers(0, 3))
    def values(self, data: st.DataObject, kind: int) -> None:
        """Somebody reads a value; and values of machines that end, or of others, reach the coordinator's store."""
        object_id = data.draw(self.living())
        if kind == 0:
            self.feed(e.ObjectWanted(object_id))
            assert self.cluster.object_state(object_id) != "evicted", "what is needed is made again, or failed"
            return
        if kind == 1 and self.bringing:
            object_id = data.draw(st.sampled_from(list(self.bringing)))
        outcome = self.cluster.object_outcome(object_id)
        segment = outcome.segment if isinstance(outcome, ValueRecord) else None
        path = self.bringing.pop(object_id, "") or (segment.path if segment is not None else "")
        value = None
        if data.draw(st.sampled_from([True, True, False])):
            there = f"/{object_id}-{len(self.written)}"
            self.written.add(there)
            value = ValueRecord(b"v", (), SegmentRecord("h", there, 1))
        self.feed(e.ObjectBrought(object_id, path, value, "no room"))

    @rule(data=st.data(), client_id=st.sampled_from(CLIENTS), take_refs=st.booleans(), how=st.integers(0, 3))
    def lose(self, data: st.DataObject, client_id: ClientId, take_refs: bool, how: int) -> None:
        """Values that only one machine has, lost with it or handed over; some are wanted after that."""
        for fence in [fence for fence in self.running if self.cluster.is_current(*fence)][:2]:
            self.succeed(data, fence)
        volatile = self.cluster._state.objects.volatile
        if not volatile:
            return
        machine_id = data.draw(st.sampled_from(sorted(volatile)))
        lost = tuple(sorted(volatile[machine_id]))
        if take_refs:
            self.connect(client_id)
            self.feed(e.RefsAdded(client_id, lost))
        if how == 0:
            self.feed(e.MachineRemovalRequested(machine_id, force=data.draw(st.booleans())))
        else:
            self.feed(e.MachineExited(machine_id, "killed"))
            assert machine_id not in volatile
            self.cluster.check()
        if how > 1:
            self.feed(e.ObjectsResolved(client_id, lost))
