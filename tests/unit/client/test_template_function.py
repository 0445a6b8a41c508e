from __future__ import annotations

import textwrap
import threading
import types
from dataclasses import replace
from typing import Any

import cloudpickle
import pytest

import runner
from runner.client.calls import PickledFunction, SourcePackage
from runner.client.code_shipping import needs_of
from runner.client.remote_function import pickle_function
from runner.client.template_function import TemplateFunction
from runner.client.template_shipping import with_templates
from runner.errors import BadOptionsError, BadTypeError, NotSerializableError, UsageError
from runner.objects.packages import CWD
from runner.objects.template_code import TemplateCode, is_template
from runner.options import parse_options
from runner.runtime_env import RuntimeEnv


def scope_of(source: str) -> dict[str, Any]:
    """What a script or notebook cell defines: in __main__."""
    scope: dict[str, Any] = {"__name__": "__main__", "runner": runner}
    exec(textwrap.dedent(source), scope)
    return scope


def codes(function: PickledFunction) -> list[TemplateCode]:
    return [TemplateCode.unpack(each.zip_bytes) for each in function.packages if is_template(each.package_id)]


# ---- the value ----
def test_the_value_is_made_once_and_also_by_what_is_unpickled_here() -> None:
    made: list[int] = []

    def value() -> object:
        """What it is."""
        made.append(1)
        return object()

    template = runner.template(value)
    assert template.__doc__ == "What it is."
    before = template()
    assert template() is before
    assert made == [1]


def test_copies_in_one_process_share_the_value() -> None:
    template = scope_of("@runner.template\ndef weights(): return object()")["weights"]
    first, second = cloudpickle.loads(cloudpickle.dumps(template)), cloudpickle.loads(cloudpickle.dumps(template))
    assert first is not second
    assert first() is second()


def test_other_code_has_another_value_whatever_its_name() -> None:
    first = scope_of("@runner.template\ndef weights(): return 'first'")["weights"]
    second = scope_of("@runner.template\ndef weights(): return 'second'")["weights"]
    first.find_key(), second.find_key()
    assert (first(), second()) == ("first", "second")


def test_code_may_wait_for_threads_that_make_other_values() -> None:
    @runner.template
    def part() -> int:
        return 1

    @runner.template
    def whole() -> list[int]:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(part()), daemon=True)
        thread.start()
        thread.join(5)
        return found

    assert whole() == [1]


def test_threads_that_ask_at_once_get_one_value() -> None:
    barrier = threading.Barrier(4)
    made: list[object] = []

    @runner.template
    def value() -> object:
        made.append(object())
        return made[-1]

    def ask(template: Any, found: list[object]) -> None:
        barrier.wait(5)
        found.append(template())

    found: list[object] = []
    copies = [cloudpickle.loads(cloudpickle.dumps(scope_of(NAMED)["weights"])) for _ in range(2)]
    threads = [threading.Thread(target=ask, args=(each, found)) for each in (value, value, *copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(made) == 1
    assert len(set(map(id, found))) == 2


NAMED = "@runner.template\ndef weights(): return object()"


def test_an_error_is_no_value() -> None:
    answers: list[Any] = [ValueError("not yet"), "there"]

    @runner.template
    def value() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    with pytest.raises(ValueError, match="not yet"):
        value()
    assert value() == "there"


def test_a_template_may_name_itself() -> None:
    template = scope_of("@runner.template\ndef weights(): return weights.name")["weights"]
    assert cloudpickle.loads(cloudpickle.dumps(template))() == "weights"


# ---- what cannot be a template ----
@pytest.mark.parametrize("source", ["def f(x): ...", "def f(x=1): ...", "def f(): yield", "async def f(): ..."])
def test_functions_that_cannot_be_templates(source: str) -> None:
    with pytest.raises(BadOptionsError, match="f cannot be a template"):
        runner.template(scope_of(source)["f"])


def test_only_functions_are_templates() -> None:
    with pytest.raises(BadTypeError, match="takes a function, not a type"):
        runner.template(dict)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), "1", True])
def test_bad_time_limits(timeout_s: Any) -> None:
    with pytest.raises(BadOptionsError, match="timeout_s"):
        runner.template(timeout_s=timeout_s)


def test_the_option_takes_one_or_several() -> None:
    first, second = runner.template(lambda: 1), runner.template(lambda: 2)
    assert parse_options({"template": first}).template == (first,)
    assert parse_options({"template": [first, second]}).template == (first, second)
    with pytest.raises(BadTypeError, match=r"a function with @runner.template"):
        parse_options({"template": print})


# ---- which templates a function has ----
NAMING = """
@runner.template
def inner(): return 1
@runner.template
def weights(): return inner()
model = runner.Model(weights)
@runner.remote
def other(): return weights()
def helper(): return weights()
def by_global(): return weights()
def by_helper(): return helper()
def by_model(): return model.get()
def by_call(): return other.remote()
def by_default(value=weights): return value()
class Actor:
    def call(self): return weights()
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_global", ["weights"]),
        ("by_helper", ["weights"]),
        ("by_model", ["weights"]),
        ("by_default", ["weights"]),
        ("Actor", ["weights"]),
        ("by_call", []),  # it is the other task that needs it
    ],
)
def test_templates_that_the_code_names_are_found(name: str, expected: list[str]) -> None:
    assert [each.name for each in needs_of(scope_of(NAMING)[name]).templates] == expected


def test_a_template_of_a_module_is_found_where_the_code_names_both() -> None:
    scope = scope_of("def f(): return mine.weights()\ndef g(): return mine.other()")
    scope["mine"] = types.ModuleType("mine_of_this_test")
    vars(scope["mine"]).update(scope_of(NAMING))
    assert [each.name for each in needs_of(scope["f"]).templates] == ["weights"]
    assert needs_of(scope["g"]).templates == []


def test_what_a_called_task_needs_does_not_hide_what_the_caller_needs_too() -> None:
    scope = scope_of(NAMING + "\ndef both(): return other.remote(), helper()\n")
    assert [each.name for each in needs_of(scope["both"]).templates] == ["weights"]


def test_a_template_brings_its_modules() -> None:
    scope = scope_of("import numpy\n@runner.template\ndef w(): return numpy.ones(3)\ndef f(): return w()")
    assert needs_of(scope["f"]).modules == ["numpy"]


# ---- how it travels ----
def test_a_template_travels_as_a_package_with_what_it_needs() -> None:
    scope = scope_of("import numpy\n@runner.template\ndef w(): return numpy.ones(3)\ndef f(): return w()")
    function = pickle_function(scope["f"])
    shipped = with_templates(function, function.templates, RuntimeEnv(env_vars={"B": "2", "A": "1"}))
    (code,) = codes(shipped)
    assert (code.name, code.modules, code.package_ids) == ("w", ("numpy",), ())
    assert code.env_vars == (("A", "1"), ("B", "2"))
    assert code.timeout_s == 600.0
    assert cloudpickle.loads(code.blob[4:])().tolist() == [1, 1, 1]
    assert shipped.function_id != function.function_id


@pytest.mark.parametrize("env", [RuntimeEnv(), RuntimeEnv(env_vars={"A": "1"})])
def test_equal_templates_have_equal_ids_and_others_have_others(env: RuntimeEnv) -> None:
    scope = scope_of("@runner.template\ndef w(): return 1\ndef f(): return w()\ndef g(): return w() + 1")
    ids = [
        [each.package_id for each in with_templates(pickle_function(scope[name]), [scope["w"]], env).packages]
        for name in "fg"
    ]
    assert ids[0] == ids[1]
    elsewhere = RuntimeEnv(env_vars={"OTHER": "1"})
    assert ids[0] != [
        each.package_id for each in with_templates(pickle_function(scope["f"]), [scope["w"]], elsewhere).packages
    ]


def test_folders_of_the_runtime_env_are_the_templates_too() -> None:
    scope = scope_of("@runner.template\ndef w(): return 1\ndef f(): return w()")
    function = pickle_function(scope["f"])
    function = replace(function, packages=[SourcePackage(f"{CWD}1.0", b"zip"), SourcePackage("own-1", b"zip")])
    (code,) = codes(with_templates(function, function.templates, RuntimeEnv()))
    assert code.package_ids == (f"{CWD}1.0",)


def template_with(value: Any) -> TemplateFunction[Any]:
    return runner.template(lambda: value)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (b"x" * (4 << 20), UsageError, "Load large data in its code"),
        (threading.Lock(), NotSerializableError, "value"),
    ],
)
def test_what_cannot_travel_says_why(value: Any, kind: type[Exception], words: str) -> None:
    function = pickle_function(scope_of("def f(): ...")["f"])
    with pytest.raises(kind, match=words):
        with_templates(function, [template_with(value)], RuntimeEnv())
