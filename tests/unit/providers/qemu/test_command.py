"""The command line of a micro-VM, and the options behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import BadOptionsError
from runner.ids import ClusterId
from runner.providers.qemu.command import OVERHEAD_BYTES, Build, arguments, build_of, guest_view
from runner.providers.qemu.image import VmImage
from runner.providers.qemu.options import parse
from runner.providers.registry import check_provider
from tests.contract.providers.harness import make_spec

IMAGE = VmImage(Path("/images/a,b"), "image-1", "3.11", 1, "0.1.0", "slim", "6.1")
BUILD = Build("7.2.22", "tcg", "image-1", cpus=2, memory_mib=512)


def pairs(build: Build = BUILD) -> list[tuple[str, str]]:
    words = arguments(build, IMAGE, Path("/state/m-1/boot"), "control")
    return [*zip(words, words[1:], strict=False)]


def test_the_boot_configuration_is_named_and_not_shown() -> None:
    words = " ".join(word for pair in pairs() for word in pair)
    assert ("-fw_cfg", "name=opt/runner/boot,file=/state/m-1/boot") in pairs()
    assert make_spec(ClusterId("c-1"), "m-1").boot.join_token not in words


def test_the_root_file_system_is_read_only_and_a_comma_in_a_path_is_one() -> None:
    assert ("-drive", "if=none,id=root,format=raw,readonly=on,file=/images/a,,b/root.ext4") in pairs()


def test_the_processor_is_the_hosts_only_where_it_is_used() -> None:
    assert ("-cpu", "max") in pairs()
    assert ("-cpu", "host") in pairs(replace(BUILD, accel="kvm"))


@pytest.mark.parametrize(
    ("cpus", "memory_bytes", "wanted"), [(0.5, 0, (1, 300)), (1.5, 1 << 30, (2, 1024 + (OVERHEAD_BYTES >> 20)))]
)
def test_what_a_machine_promises_is_there_beside_what_it_needs_itself(
    cpus: float, memory_bytes: int, wanted: tuple[int, int]
) -> None:
    boot = replace(make_spec(ClusterId("c-1"), "m-1").boot, cpus=cpus, memory_bytes=memory_bytes)
    build = build_of(boot, qemu="7.2.22", accel="tcg", image_id="image-1", memory_bytes=300 << 20)
    assert (build.cpus, build.memory_mib) == wanted
    assert Build.from_dict(build.to_dict()) == build


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("127.0.0.1:7420", "10.0.2.2:7420"),
        ("localhost:7420", "10.0.2.2:7420"),
        ("192.168.1.7:7420", "192.168.1.7:7420"),
        ("[::1]:7420", "10.0.2.2:7420"),
    ],
)
def test_guests_find_this_hosts_loopback(address: str, seen: str) -> None:
    assert guest_view(address) == seen


def test_an_image_is_a_variant_or_a_folder(tmp_path: Path) -> None:
    assert parse({"image": "slim"}).image_folder(tmp_path) == tmp_path / "images" / "slim"
    assert parse({"image": "/somewhere/else"}).image_folder(tmp_path) == Path("/somewhere/else")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accel": "hvf"}, "option accel .* is 'hvf'; expected one of auto, kvm, tcg"),
        ({"default_memory": "64MiB"}, "a guest needs 256 MiB at least"),
        ({"image": "runner-worker:slim"}, "expected cpu or slim, or the path of a folder"),
        ({"image": ""}, "expected a text"),
        ({"disk": 1}, "has no option disk; it has accel, default_memory, image, qemu"),
    ],
)
def test_bad_options_are_refused_with_what_would_do(options: dict[str, object], words: str) -> None:
    with pytest.raises(BadOptionsError, match=words):
        check_provider("qemu", options)
