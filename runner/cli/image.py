"""`runner image`: the image that machines boot from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.options import json_option, settings
from runner.cli.output import print_json

if TYPE_CHECKING:
    from runner.image.context import Contents


@click.group("image")
def command() -> None:
    """Build or check the image that machines boot from."""


@command.command("build")
@click.option(
    "--variant",
    type=click.Choice(["cpu", "cuda", "slim"]),
    default="cpu",
    show_default=True,
    help="cpu and cuda have torch, slim has not.",
)
@click.option(
    "--base",
    metavar="IMAGE",
    default="",
    help="An image with this Python; for qemu a tar file of a root file system.  [default: python:X.Y-slim-bookworm; Debian 12]",
)
@click.option(
    "--tag",
    metavar="NAME",
    default="",
    help="For qemu a folder.  [default: runner-worker:VARIANT; ~/.runner/images/VARIANT]",
)
@click.option(
    "--engine",
    type=click.Choice(["docker", "podman", "qemu"]),
    help="What will run it; qemu: micro-VMs, built by root.  [default: docker or podman, what is installed]",
)
@click.option(
    "--engine-option", "engine_options", multiple=True, metavar="FLAG", help="Before `build`, such as --root=PATH."
)
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="As the engine's own option.")
@click.option("--torch-index", metavar="URL", default="", help="Where pip finds torch's builds for the variant.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="One more package for your code; repeat it.")
@click.option(
    "--context", type=click.Path(file_okay=False, path_type=Path), help="Write the build context here, and stop."
)
def build(
    variant: str,
    base: str,
    tag: str,
    engine: str | None,
    engine_options: tuple[str, ...],
    build_args: tuple[str, ...],
    torch_index: str,
    packages: tuple[str, ...],
    context: Path | None,
) -> None:
    """Build the worker image of this very installation.

    The packages are fetched by this Python's pip, with its settings, in the
    pinned versions; the build itself needs no network but for the base image.
    """
    from runner.image.build import build, build_arguments, find_engine
    from runner.image.context import Contents, make_context
    from runner.providers.qemu.image import default_folder

    contents = Contents(variant, torch_index, packages)
    if engine == "qemu":
        if engine_options or build_args or context is not None:
            raise click.UsageError("--engine qemu has no --engine-option, --build-arg and --context")
        _build_vm(
            Path(tag) if tag else default_folder(settings().home, variant), contents, Path(base) if base else None
        )
        return
    arguments = build_arguments(variant, base, build_args)
    if context is not None:
        if context.exists() and any(context.iterdir()):
            raise click.UsageError(f"--context {context} is not empty")
        context.mkdir(parents=True, exist_ok=True)
        make_context(context, contents, click.echo)
        click.echo(f"build it with: docker build {' '.join(arguments)} {context}")
        return
    program = find_engine(engine or "")
    tag = tag or f"runner-worker:{variant}"
    with tempfile.TemporaryDirectory(prefix="runner-image-") as folder:
        make_context(Path(folder), contents, click.echo)
        build([program, *engine_options], Path(folder), tag, arguments)
    click.echo(f"built {tag}")


def _build_vm(folder: Path, contents: Contents, base: Path | None) -> None:
    from runner.image.vm import build

    image = build(folder, contents, base, click.echo)
    size_mb = sum(path.stat().st_blocks * 512 for path in folder.iterdir()) / 1e6
    click.echo(f"built {folder}: kernel {image.kernel}, Python {image.python}, {size_mb:.0f} MB")


@command.command("check")
@click.argument("image")
@click.option(
    "--socket", metavar="URL", default="", help="The engine.  [default: DOCKER_HOST, or where engines listen]"
)
@json_option
def check(image: str, socket: str, as_json: bool) -> None:
    """Run IMAGE once: can machines of it serve this client?

    Exits with 1 when they cannot, and says why.
    """
    from runner.image.check import check as look
    from runner.providers.container.engine import find_engine
    from runner.providers.container.options import parse

    engine = find_engine(parse({"socket": socket}), settings())
    try:
        report = look(engine, image)
    finally:
        engine.close()
    if as_json:
        print_json({"image": image, **report.facts, "faults": list(report.faults)})
    else:
        words = ", ".join(f"{name} {value}" for name, value in report.facts.items() if value != "")
        click.echo(f"{image}: {words}")
        for fault in report.faults:
            click.echo(f"cannot serve this client: {fault}")
        if not report.faults:
            click.echo("machines of it can serve this client")
    if report.faults:
        raise SystemExit(1)
