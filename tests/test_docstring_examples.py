"""Examples in docstrings are calls that the code accepts: each is bound to the signature of what it names."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

import jaxbio

MODULES = sorted(module.name for module in pkgutil.walk_packages(jaxbio.__path__, "jaxbio."))
_STARTS_BLOCK = re.compile(r"(with|for|while|if) .*:$")


@cache
def public_names() -> dict[str, Any]:
    """Every public function and class of jaxbio by its name, where only one has it."""
    found: dict[str, set[Any]] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            own = getattr(value, "__module__", None) == name and not attribute.startswith("_")
            if own and (inspect.isfunction(value) or inspect.isclass(value)):
                found.setdefault(attribute, set()).add(value)
    return {attribute: values.pop() for attribute, values in found.items() if len(values) == 1}


def example_lines(docstring: str) -> Iterator[ast.AST]:
    """Yield the statements among the lines of a docstring; a block's opening line stands without its body."""
    for line in textwrap.dedent(docstring).splitlines():
        text = re.sub(r"\s{2,}(#|->).*$", "", line.strip())
        text = re.sub(r"\) -> .*$", ")", text)
        text = text + " pass" if _STARTS_BLOCK.match(text) else text
        if "(" not in text:
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        yield from tree.body


def docstrings_of(module: ModuleType) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the docstrings of the module, its functions, classes and methods, each with the names its owner has."""
    yield inspect.getdoc(module) or "", frozenset()
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        own = frozenset(getattr(value, "__annotations__", {})) if inspect.isclass(value) else frozenset()
        if inspect.isfunction(value) or inspect.isclass(value):
            yield inspect.getdoc(value) or "", own
        if inspect.isclass(value):
            methods = [method for method in vars(value).values() if inspect.isfunction(method)]
            yield from ((inspect.getdoc(method) or "", own) for method in methods)


def resolve(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return what a name or a chain of attributes stands for, or None where that is not known."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, names)
        return None if owner is None else getattr(owner, node.attr, None)
    return None


def result_of(called: Any) -> Any:
    """Return the class that a call of `called` gives, or None."""
    if inspect.isclass(called):
        return called
    try:
        given = typing.get_type_hints(called).get("return")
    except (NameError, TypeError):
        return None
    return given if inspect.isclass(given) and given.__module__.startswith("jaxbio") else None


def misfit(call: ast.Call, called: Callable) -> str | None:
    """Return how the call does not fit the signature, or None; `...` stands for whatever is left out."""
    shortened = any(isinstance(value, ast.Constant) and value.value is ... for value in call.args)
    positional = [value for value in call.args if not (isinstance(value, ast.Constant) and value.value is ...)]
    if any(isinstance(value, ast.Starred) for value in positional) or any(k.arg is None for k in call.keywords):
        shortened, positional = True, [value for value in positional if not isinstance(value, ast.Starred)]
    keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    signature = inspect.signature(called)
    if inspect.isfunction(called) and "." in called.__qualname__:
        positional = [None, *positional]  # self
    try:
        (signature.bind_partial if shortened else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return f"{ast.unparse(call)}: {error}; {called.__name__}{signature}"
    return None


def assigned_names(statements: Iterable[ast.AST]) -> set[str]:
    """Return the names that the statements give a value."""
    nodes = (node for statement in statements for node in ast.walk(statement))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def checked_calls(module: ModuleType) -> Iterator[tuple[str, str | None]]:
    """Yield (call, what is wrong with it or None) of the calls in the module's docstrings.

    Functions of other libraries, and methods of what no example makes, are not looked into.
    """
    for docstring, own in docstrings_of(module):
        names = {**vars(builtins), **public_names(), **vars(module), "jaxbio": jaxbio}
        names = {name: value for name, value in names.items() if name not in own}
        statements = list(example_lines(docstring))
        known = {*names, *own, *assigned_names(statements)}
        for statement in statements:
            for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
                called = resolve(call.func, names)
                if isinstance(call.func, ast.Name) and call.func.id not in known:
                    yield ast.unparse(call), f"{call.func.id} is no function of jaxbio"
                if inspect.isfunction(called) or (inspect.isclass(called) and called.__module__.startswith("jaxbio")):
                    yield ast.unparse(call), misfit(call, called)
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                made = result_of(resolve(statement.value.func, names))
                names |= {target.id: made for target in statement.targets if isinstance(target, ast.Name) and made}


def test_every_call_in_a_docstring_fits_its_function():
    found = {name: list(checked_calls(importlib.import_module(name))) for name in MODULES}
    misfits = {name: [wrong for _, wrong in calls if wrong] for name, calls in found.items()}
    assert {name: wrong for name, wrong in misfits.items() if wrong} == {}
    assert sum(map(len, found.values())) > 80  # else the search has lost its eyes


@pytest.mark.parametrize(
    "line", ["read_the_store(path)", "open_store()", "open_store('a', 'b')", "store = open_store('a')\nstore.read()"]
)
def test_a_wrong_call_is_found(line):
    module = ModuleType("jaxbio.made_up", line)
    assert [wrong for _, wrong in checked_calls(module) if wrong]
