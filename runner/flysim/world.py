"""The whole API without a network: every operation of the description, on one cloud. Pure: time and word of processes come in as arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.flysim import app_calls, detail_calls, extra_calls, leases, machine_calls, volumes
from runner.flysim.answers import Answer
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud
from runner.flysim.gate import Limits, Loss, enter, loss_of_reply
from runner.flysim.lifecycle import drop_snapshot, exited
from runner.flysim.records import Command, Kill, Machine
from runner.flysim.settings import SimSettings
from runner.flysim.states import State
from runner.flysim.waiting import poll_wait, wait_timeout_s

# `waitMachine` is not here: it takes its time (World.poll_wait). [1.2 endpoints]
OPERATIONS: dict[str, Callable[[Cloud, Call], Answer]] = {
    "listApps": app_calls.list_apps,
    "createApp": app_calls.create_app,
    "getApp": app_calls.get_app,
    "deleteApp": app_calls.delete_app,
    "createDeployToken": extra_calls.create_deploy_token,
    "listSecrets": extra_calls.list_secrets,
    "setSecret": extra_calls.set_secret,
    "deleteSecret": extra_calls.delete_secret,
    "listIps": extra_calls.list_ips,
    "assignIp": extra_calls.assign_ip,
    "releaseIp": extra_calls.release_ip,
    "listMachines": machine_calls.list_machines,
    "createMachine": machine_calls.create_machine,
    "getMachine": machine_calls.get_machine,
    "updateMachine": machine_calls.update_machine,
    "destroyMachine": machine_calls.delete_machine,
    "startMachine": machine_calls.start_machine,
    "stopMachine": machine_calls.stop_machine,
    "suspendMachine": machine_calls.suspend_machine,
    "restartMachine": machine_calls.restart_machine,
    "signalMachine": machine_calls.signal_machine,
    "getLease": leases.get_lease,
    "acquireLease": leases.post_lease,
    "releaseLease": leases.delete_lease,
    "cordonMachine": machine_calls.cordon_machine,
    "uncordonMachine": machine_calls.uncordon_machine,
    "getMetadata": detail_calls.get_metadata,
    "replaceMetadata": detail_calls.put_metadata,
    "mergeMetadata": detail_calls.patch_metadata,
    "getMetadataKey": detail_calls.get_metadata_key,
    "setMetadataKey": detail_calls.post_metadata_key,
    "deleteMetadataKey": detail_calls.delete_metadata_key,
    "listEvents": detail_calls.list_events,
    "listVersions": detail_calls.list_versions,
    "listProcesses": extra_calls.list_processes,
    "execMachine": detail_calls.exec_in_machine,
    "listVolumes": volumes.list_volumes,
    "createVolume": volumes.create_volume,
    "getVolume": volumes.get_volume,
    "destroyVolume": volumes.delete_volume,
    "listOrgMachines": app_calls.list_org_machines,
    "listRegions": app_calls.get_regions,
    "findPlacements": app_calls.post_placements,
    "getCurrentToken": app_calls.current_token,
}
WAIT = "waitMachine"
EXEC = "execMachine"  # of machines that are real processes the shell runs the command


class World:
    """One simulated cloud. Every method that takes `now_s` first lets that time come."""

    def __init__(self, settings: SimSettings, *, start_s: float = 0.0, unix_start_s: float = 1_700_000_000.0) -> None:
        self.cloud = Cloud(settings, start_s=start_s, unix_start_s=unix_start_s)
        self._limits = Limits()

    # ---- calls ----
    def enter(self, operation: str, call: Call, now_s: float) -> None:
        """Admit the call or raise ApiError or CutError; sets `call.org`."""
        self.cloud.advance(now_s)
        enter(self.cloud, self._limits, operation, call)

    def perform(self, operation: str, call: Call, now_s: float) -> Answer:
        """Do it. Raises ApiError."""
        self.cloud.advance(now_s)
        return OPERATIONS[operation](self.cloud, call)

    def wait_timeout_s(self, call: Call) -> float:
        """How long this wait may take. Raises ApiError."""
        return wait_timeout_s(call)

    def poll_wait(self, call: Call, now_s: float, *, is_over: bool) -> Answer | None:
        """The answer of a wait, if it has come. Raises ApiError."""
        self.cloud.advance(now_s)
        return poll_wait(self.cloud, call, is_over=is_over)

    def loss_of_reply(self, *, is_change: bool) -> Loss:
        """Whether this reply, now made, gets lost."""
        return loss_of_reply(self.cloud, is_change=is_change)

    # ---- time and processes ----
    def advance(self, now_s: float) -> None:
        """Let time pass."""
        self.cloud.advance(now_s)

    def next_wakeup_s(self) -> float | None:
        """When time has to pass next."""
        return self.cloud.next_wakeup_s()

    def take_commands(self) -> list[Command]:
        """What processes are to be told; each once."""
        return self.cloud.take_commands()

    def process_exited(self, machine_id: str, life: int, exit_code: int, signal_number: int, now_s: float) -> None:
        """Nothing of this life of the machine runs any more. Word of an earlier life changes nothing."""
        self.cloud.advance(now_s)
        machine = self.cloud.machines.get(machine_id)
        if machine is not None and machine.life == life and machine.is_alive:
            exited(self.cloud, machine, exit_code, signal_number)

    # ---- faults, on demand ----
    def fail_host(self, name: str) -> None:
        """Its machines end without a word, and stay in the state they were last seen in. [1.4 host_status]"""
        for host in self.cloud.hosts:
            if host.name == name:
                host.status = "unreachable"
        for machine in self._on_host(name):
            if machine.is_alive:
                self.cloud.tell(Kill(machine.machine_id, machine.life))
                machine.is_alive = machine.has_snapshot = False
                if machine.state is State.DESTROYING:
                    exited(self.cloud, machine, 0, 9)
        self.cloud.changes += 1

    def restore_host(self, name: str) -> None:
        """It is back; what ran on it is found ended, and its restart policy decides. [1.4 host_status, restart policy]"""
        for host in self.cloud.hosts:
            if host.name == name:
                host.status = "ok"
        self.cloud.unpark()
        for machine in self._on_host(name):
            if not machine.is_alive and machine.state in (State.STARTED, State.STOPPING, State.RESTARTING):
                exited(self.cloud, machine, 137, 9)
            elif not machine.is_alive and machine.state in (State.SUSPENDING, State.SUSPENDED):
                machine.has_snapshot = False  # lost with the host: the next start is cold
        self.cloud.changes += 1

    def lose_snapshot(self, machine_id: str) -> None:
        """Of a suspended machine, which is shown as before: its next start is cold, as after a move to another host. [1.7 not guaranteed]

        Raises:
            ValueError: it has none.
        """
        machine = self.cloud.machines[machine_id]
        if not machine.has_snapshot:
            raise ValueError(f"machine {machine_id} has no snapshot, it is {machine.state.value}")
        drop_snapshot(self.cloud, machine)

    def _on_host(self, name: str) -> list[Machine]:
        return [machine for machine in self.cloud.machines.values() if machine.host.name == name]

    def set_capacity(self, region: str, capacity: int) -> None:
        """Room for so many machines in all; those that are there stay. [1.3 capacity]"""
        hosts = [host for host in self.cloud.hosts if host.region == region]
        for index, host in enumerate(hosts):
            host.room = capacity // len(hosts) + (index < capacity % len(hosts))

    def go_down(self, duration_s: float) -> None:
        """Nobody answers for so long; machines go on. [1.3 retryable]"""
        self.cloud.is_down_until_s = self.cloud.now_s + duration_s

    def dump(self) -> dict[str, Any]:
        """All that a test may want to see."""
        cloud = self.cloud
        return {
            "now_s": cloud.now_s,
            "apps": {name: {"org": app.org, "id": app.app_id} for name, app in cloud.apps.items()},
            "machines": {key: _dump_machine(machine) for key, machine in cloud.machines.items()},
            "hosts": {
                host.name: {
                    "region": host.region,
                    "room": host.room,
                    "status": host.status,
                    "machines": len(cloud.machines_on(host)),
                }
                for host in cloud.hosts
            },
            "volumes": {key: volume.machine_id for key, volume in cloud.volumes.items()},
        }


def _dump_machine(machine: Machine) -> Mapping[str, Any]:
    return {
        "name": machine.name,
        "app": machine.app,
        "state": machine.state.value,
        "host": machine.host.name,
        "region": machine.region,
        "life": machine.life,
        "is_alive": machine.is_alive,
        "instance_id": machine.instance_id,
        "metadata": dict(machine.metadata),
        "trail": [state.value for state in machine.trail],
    }
