"""What is refused before any machine boots, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.values import CPU, GPU, UNIT, make_shape
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import Wanted
from runner.providers.qemu.provider import QemuProvider
from tests.contract.providers.harness import make_spec
from tests.qemu.conftest import end_all

MakeProvider = Callable[..., QemuProvider]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image": "/nowhere/image"}, r"no image for micro-VMs in /nowhere/image; build it with `runner image build"),
        ({"qemu": "qemu-absent"}, r"qemu-absent is not installed on this host; install it with: apt-get install"),
        ({"qemu": "true"}, r"true does not tell its version; is it QEMU\?"),
    ],
)
async def test_what_is_missing_is_refused_with_what_to_do(
    make_provider: MakeProvider, cluster: ClusterId, given: dict[str, str], words: str
) -> None:
    provider = make_provider(cluster, **given)
    for call in (provider.prepare(()), provider.create(make_spec(cluster, MachineId("m-1")))):
        with pytest.raises(ProviderError, match=words) as caught:
            await call
        assert caught.value.is_permanent
    await end_all(provider, cluster)


async def test_gpus_are_refused(provider: QemuProvider, cluster: ClusterId) -> None:
    shape = make_shape({CPU: UNIT, GPU: UNIT})
    with pytest.raises(ProviderError, match="micro-VMs have no GPUs; providers that have them are") as caught:
        await provider.prepare([Wanted("default", shape, "", 1, 1)])
    assert caught.value.is_permanent
    with pytest.raises(ProviderError, match="create of machine m-1 failed: micro-VMs have no GPUs"):
        await provider.create(make_spec(cluster, MachineId("m-1"), **{GPU: UNIT}))


async def test_guests_are_emulated_only_where_kvm_does_not_run_one(
    provider: QemuProvider, make_provider: MakeProvider, cluster: ClusterId
) -> None:
    """The device alone says little: a guest is tried, once for each boot of the host."""
    forced = make_provider(cluster, accel="kvm")
    warnings = await provider.prepare(())
    if warnings:
        print(*warnings)
        assert "guests are emulated" in warnings[0]
        with pytest.raises(ProviderError, match=r"machines are to run with KVM \(option accel\), but") as caught:
            await forced.prepare(())
        assert caught.value.is_permanent
    else:
        assert await forced.prepare(()) == ()
    assert await make_provider(cluster, accel="tcg").prepare(()) == ()
    await forced.close()


async def test_without_qemu_nothing_can_be_suspended(make_provider: MakeProvider, cluster: ClusterId) -> None:
    assert make_provider(cluster).capabilities().suspend
    capabilities = make_provider(cluster, qemu="qemu-absent").capabilities()
    assert (capabilities.suspend, "not installed" in capabilities.suspend_reason) == (False, True)


async def test_a_command_line_that_qemu_refuses_is_told_in_its_words(
    make_provider: MakeProvider, cluster: ClusterId, tmp_path: Path
) -> None:
    picky = tmp_path / "picky"
    picky.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec qemu-system-x86_64 --version\necho no such option >&2\nexit 3\n'
    )
    picky.chmod(0o755)
    provider = make_provider(cluster, qemu=str(picky), accel="tcg")
    with pytest.raises(ProviderError, match="create of machine m-1 failed: QEMU exited with code 3 at once") as caught:
        await provider.create(make_spec(cluster, MachineId("m-1")))
    assert "no such option" in caught.value.log_lines
    assert await provider.get(MachineId("m-1")) is None
    await end_all(provider, cluster)
