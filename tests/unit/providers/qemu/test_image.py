"""Images that micro-VMs can boot from, and some that cannot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ProviderError
from runner.providers.qemu.image import KERNEL, MANIFEST, RAM_DISK, ROOT, VmImage, load
from runner.rpc.version import PROTOCOL, VERSION

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def image(tmp_path: Path) -> VmImage:
    for name in (KERNEL, RAM_DISK, ROOT):
        (tmp_path / name).touch()
    made = VmImage(tmp_path, "image-1", PYTHON, PROTOCOL, VERSION, "slim", "6.1.0")
    made.write()
    return made


def test_one_that_was_built_is_read_back(image: VmImage) -> None:
    assert load(image.folder) == image


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.9"}, r"has Python 3\.9, this client runs Python 3\.\d+"),
        ({"protocol": 99, "version": "9.9"}, r"has runner 9\.9 with protocol 99, this client has"),
        ({"python": None}, r"3\."),
    ],
)
def test_one_for_another_client_is_refused(image: VmImage, changes: dict[str, Any], words: str) -> None:
    path = image.folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ProviderError, match=words) as caught:
        load(image.folder)
    assert caught.value.is_permanent
    assert "runner image build --engine qemu" in str(caught.value)


def test_none_and_one_in_parts(image: VmImage, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="there is no image for micro-VMs in .*absent"):
        load(tmp_path / "absent")
    image.root_path.unlink()
    with pytest.raises(ProviderError, match=r"lacks root\.ext4"):
        load(image.folder)
    (image.folder / MANIFEST).write_text("{}")
    with pytest.raises(ProviderError, match=r"cannot be read \('image_id'\)"):
        load(image.folder)
