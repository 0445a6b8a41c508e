"""The world of the random histories of agents: the environments of attempts, and what happens to templates."""

from __future__ import annotations

from runner.worker.agent import events as ev
from runner.worker.agent.events import Environment
from runner.worker.agent.templates import BASE, USER_TEMPLATES_MAX, user_part

LAYER = frozenset({"torch"})
# More user templates than a machine has room for.
USERS = [frozenset({f"template-{index}"}) for index in range(USER_TEMPLATES_MAX + 1)]
ENVIRONMENTS = [
    Environment(),
    Environment(threads=2),
    Environment(layer=LAYER),
    Environment(layer=LAYER | USERS[0], template_s=50.0),
    *(Environment(layer=each, template_s=5.0) for each in USERS[1:]),
]


class TemplateWorld:
    """The templates of one machine, as they obey its agent."""

    def __init__(self) -> None:
        self.loading: set[frozenset[str]] = set()  # layers
        self.making: dict[int, frozenset[str]] = {}  # processes of user templates
        self.doomed: set[int] = set()  # those of them that were killed
        self.ready: set[frozenset[str]] = {BASE}

    def obey(self, command: ev.Command) -> None:
        match command:
            case ev.LoadLayer(modules):
                assert modules not in self.loading
                self.loading.add(modules)
            case ev.MakeTemplate(number, names, parent):
                assert (parent in self.ready and parent == names - user_part(names)) or parent == BASE
                assert names not in self.making.values()
                self.making[number] = names
                assert len(self.user_templates()) <= USER_TEMPLATES_MAX
            case ev.KillTemplate(number):
                assert self.making[number] not in self.ready, "it is ready"
                self.doomed.add(number)
            case ev.EndTemplate(names):
                self.ready.remove(names)
                (number,) = [number for number, each in self.making.items() if each == names]
                del self.making[number]
            case _:
                pass

    def user_templates(self) -> list[frozenset[str]]:
        return [names for number, names in self.making.items() if number not in self.doomed]
