"""Make runner/rpc/gen from protos/runner/v1, or say whether it is current (`--check`).

The modules live inside the package instead of under `runner/v1`, so the imports
between them are rewritten. Files without a service get no `_grpc` module.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "runner" / "rpc" / "gen"
# The version is written into the output; another one would make every check fail.
TOOLS_VERSION = "1.74.0"


def generate() -> dict[str, str]:
    """The text of every generated file by name."""
    version = importlib.metadata.version("grpcio-tools")
    if version != TOOLS_VERSION:
        sys.exit(f"grpcio-tools {version} is installed, the generated code needs {TOOLS_VERSION}: run `make setup`")
    sources = sorted((PROTOS / "runner" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory(prefix="runner-protos-") as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTOS)]
        command += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        subprocess.run([*command, *map(str, sources)], check=True)
        made = sorted(pathlib.Path(folder, "runner", "v1").iterdir())
        files = {path.name: _rewritten(path.read_text(encoding="utf-8")) for path in made}
    for source in sources:
        if not re.search(r"^service ", source.read_text(encoding="utf-8"), re.MULTILINE):
            files.pop(f"{source.stem}_pb2_grpc.py", None)
    files["__init__.py"] = ""
    return files


def _rewritten(text: str) -> str:
    return re.sub(r"^from runner\.v1 import", "from runner.rpc.gen import", text, flags=re.MULTILINE)


def _present() -> dict[str, str]:
    if not GEN.is_dir():
        return {}
    return {path.name: path.read_text(encoding="utf-8") for path in GEN.iterdir() if path.is_file()}


def _check(wanted: dict[str, str]) -> int:
    present = _present()
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in stale:
        lines = difflib.unified_diff(
            present.get(name, "").splitlines(), wanted.get(name, "").splitlines(), f"committed/{name}", f"fresh/{name}"
        )
        print("\n".join(list(lines)[:12]))
    if stale:
        print(f"runner/rpc/gen is stale ({', '.join(stale)}): run `make protos` and commit the result")
    return 1 if stale else 0


def main() -> int:
    """Write the files, or with --check compare and exit 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the committed code is stale")
    arguments = parser.parse_args()
    wanted = generate()
    if arguments.check:
        return _check(wanted)
    GEN.mkdir(parents=True, exist_ok=True)
    for name in _present().keys() - wanted.keys():
        (GEN / name).unlink()
    for name, text in wanted.items():
        (GEN / name).write_text(text, encoding="utf-8")
    print(f"runner/rpc/gen: {len(wanted)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
