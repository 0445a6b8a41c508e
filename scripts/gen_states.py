"""Draws docs/states.md from the TRANSITIONS tables of the core. `--check` only says whether the page is current."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "states.md"
HEAD = "# States\n\nDrawn from the tables that the code checks every move against (`scripts/gen_states.py`).\n"


def main() -> int:
    """Write the page, or compare it."""
    sys.path.insert(0, str(PAGE.parent.parent))
    from runner.core import actors, groups, machine, objects, task

    text = HEAD
    tables = (("Task", task), ("Machine", machine), ("Object", objects), ("Actor", actors), ("Placement group", groups))
    for title, module in tables:
        text += f"\n## {title}\n\n`{module.__name__.replace('.', '/')}.py`\n\n" + diagram(module.TRANSITIONS)
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the tables say; run: python scripts/gen_states.py\n")
    return 1


def diagram(transitions: Mapping[Enum, frozenset[Enum]]) -> str:
    """One Mermaid state diagram; states without moves are final."""
    lines = []
    for state, moves in transitions.items():
        lines += [f"    {state.name} --> {to.name}" for to in sorted(moves, key=lambda each: str(each.name))]
        if not moves:
            lines.append(f"    {state.name} --> [*]")
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.exit(main())
