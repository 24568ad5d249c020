"""Reading a command line: a recipe, its presets, changed fields, and the command's own flags.

The grammar is that of ml_collections: `--config FILE.py[:preset,...]` and `--config.section.field=value`. The parser is
our own, so that every fault of the line and of the configuration comes out together, and None can be set.

    flags, config = parse_command(arguments, parser)
"""

import argparse
import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ml_collections import ConfigDict

from jaxbio.config import adopt, families, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.field import Field
from jaxbio.config.local_paths import address_faults, check_local
from jaxbio.config.nearest import nearest
from jaxbio.config.resolve import find_faults, normalise

_PREFIX = "--config."


class _FlagError(Exception):
    """A flag of the command's own that argparse refused."""


def parse_command(
    arguments: Sequence[str],
    parser: argparse.ArgumentParser,
    *,
    needs_config: bool = True,
    needs_networks: bool = True,
) -> tuple[argparse.Namespace, ConfigDict | None]:
    """Return the command's own flags and the validated configuration (None where no recipe was named).

    A command that trains nothing sets `needs_networks` to False: the recipe's frozen networks need not be named.

    Raises UserError with every fault found: in the flags, the recipe, the changed fields and their combination.
    """
    _document(parser)
    recipe, changes, rest = _split(arguments)
    faults: list[Fault] = []
    flags = _parse_flags(parser, rest, faults)
    faults += _flag_addresses(parser, flags)
    config = None
    if recipe is not None:
        try:
            config = _adopt(load_recipe(recipe), changes)
        except UserError as error:
            faults += error.faults
    elif needs_config:
        faults.append(Fault("--config", None, "name a recipe, for example --config configs/quickstart.py"))
    elif changes:
        faults.append(Fault(_PREFIX + changes[0][0], changes[0][1], "name the recipe that it changes with --config"))
    if config is not None:
        faults += _change_fields(config, changes)
        unreadable = {fault.field for fault in faults}
        faults += [
            fault for fault in find_faults(config, needs_networks=needs_networks) if fault.field not in unreadable
        ]
    if faults:
        raise UserError(*faults)
    assert flags is not None
    return flags, None if config is None else normalise(config)


def recipe_of(arguments: Sequence[str]) -> str | None:
    """Return the `FILE.py[:preset,...]` of a command line."""
    return _split(arguments)[0]


def changes_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return the fields that a command line changes by name, as texts."""
    return dict(_split(arguments)[1])


def config_words(arguments: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """Return the words of a command line that choose its configuration, for another line; `without` these fields."""
    recipe, changes, _ = _split(arguments)
    named = [] if recipe is None else ["--config", recipe]
    return named + [f"{_PREFIX}{name}={text}" for name, text in changes if name not in without]


def load_recipe(recipe: str) -> ConfigDict:
    """Return the configuration of `FILE.py[:preset,...]`.

    Raises UserError for a file that is missing or no recipe, and for an unknown preset.
    """
    check_local("--config", recipe)
    name, _, argument = recipe.partition(":")
    path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(str(found) for found in path.parent.glob("*.py")))
        raise UserError(Fault("--config", name, f"no such file; recipes beside it: {known or 'none'}"))
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(Fault("--config", name, "a recipe is a Python file that defines get_config(argument)"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(Fault("--config", name, "a recipe defines get_config(argument) and returns a ConfigDict"))
    return module.get_config(argument)


def parse_value(text: str, field: Field) -> Any:
    """Return `text` as a value of the field's kind; raises ValueError where it is none."""
    if field.optional and text.lower() in ("none", "null"):
        return None
    if str in field.kinds and not (tuple in field.kinds and text.startswith(("(", "["))):
        return text
    if field.kind is bool:
        return {"true": True, "false": False}[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"not a {field.kind_name}") from error
    if tuple in field.kinds:
        return value if isinstance(value, (tuple, list)) else (value,)
    return value


def _document(parser: argparse.ArgumentParser) -> None:
    """Show the configuration's grammar in --help; the parser itself never sees these flags."""
    group = parser.add_argument_group("configuration")
    group.add_argument("--config", metavar="FILE.py[:preset,...]", help="the recipe")
    group.add_argument("--config.SECTION.FIELD", metavar="VALUE", help="change one field of it; None is a value; "
                       "python launch/run.py --list_fields [PATTERN] lists all, with defaults and reasons")  # fmt: skip


def _split(arguments: Sequence[str]) -> tuple[str | None, list[tuple[str, str]], list[str]]:
    """Take the recipe and the changed fields out of `arguments`; return them and what is left."""
    recipe, changes, rest = None, [], []
    words = iter(arguments)
    for word in words:
        flag, has_value, value = word.partition("=")
        if flag != "--config" and not flag.startswith(_PREFIX):
            rest.append(word)
            continue
        if not has_value:
            value = next(words, "")
        if flag == "--config":
            recipe = value
        else:
            changes.append((flag.removeprefix(_PREFIX), value))
    return recipe, changes, rest


def _adopt(config: ConfigDict, changes: Sequence[tuple[str, str]]) -> ConfigDict:
    """Return `config` with the encoder of the export that the line starts from, where its objective trains any encoder;
    the line's other changes come after it. Raises UserError for an export that cannot be read.
    """
    text = dict(changes).get(adopt.FIELD)
    if text is None or not families.OBJECTIVES[config.objective.name].adopts:
        return config
    try:
        named = parse_value(text, fields.table(config.model.name, config.objective.name)[adopt.FIELD])
    except ValueError:
        return config  # a fault of the line, which is found where its fields are changed
    return config if named is None else adopt.from_export(config, named)


def _parse_flags(
    parser: argparse.ArgumentParser, rest: Sequence[str], faults: list[Fault]
) -> argparse.Namespace | None:
    def refuse(message: str) -> NoReturn:
        raise _FlagError(message)

    parser.error = refuse  # type: ignore[method-assign]  # argparse would exit before the other faults are known
    try:
        return parser.parse_args(rest)
    except _FlagError as error:
        faults.append(Fault("command line", " ".join(rest), f"{error}; see --help"))
        return None


def _flag_addresses(parser: argparse.ArgumentParser, flags: argparse.Namespace | None) -> list[Fault]:
    """Return a fault for every flag whose value is an address of something that is no local file or folder."""
    if flags is None:
        return []
    named = {
        action.dest: (action.option_strings or [action.dest])[0]
        for action in parser._actions
        if action.type is not free_text
    }
    opened = {action.dest for action in parser._actions if action.type is address}
    return [
        fault
        for dest, value in vars(flags).items()
        if dest in named
        for fault in address_faults(named[dest], value, opened=dest in opened)
    ]


def address(text: str) -> str:
    """Return `text`: the type of a flag that may name an address which is opened."""
    return text


def free_text(text: str) -> str:
    """Return `text`: the type of a flag that names no file or folder, and whose value may look like an address."""
    return text


def count(text: str) -> int:
    """Return `text` as a number of at least 1: the type of a flag that counts; argparse names one that is none."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def counts(text: str) -> tuple[int, ...]:
    """Return `text` as such numbers between commas: the type of a flag that lists them."""
    return tuple(count(part) for part in text.split(","))


def share(text: str) -> float:
    """Return `text` as a share of a whole, above 0 and at most 1: the type of such a flag."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text}: above 0 and at most 1")
    return number


def _change_fields(config: ConfigDict, changes: Sequence[tuple[str, str]]) -> list[Fault]:
    """Set the changed fields of `config`; return a fault for each that is unknown or cannot be read."""
    faults = []
    for name, text in changes:
        if name in ("model.name", "objective.name"):
            faults.append(Fault(name, text, "a family brings its own fields; start from a recipe of that family"))
            continue
        table = fields.table(config.model.name, config.objective.name)
        if name not in table:
            faults.append(Fault(name, text, f"unknown field; did you mean {nearest(name, table)}?"))
            continue
        try:
            fields.change(config, {name: parse_value(text, table[name])})
        except (ValueError, KeyError):
            faults.append(Fault(name, text, f"expected {table[name].kind_name}: {table[name].reason}"))
    return faults


def recipe_words(arguments: Sequence[str]) -> list[str]:
    """Return the words of the command that launch/run.py reads too: the recipe and its changed fields."""
    words = iter(arguments)
    return [
        word if "=" in word else f"{word}={next(words)}" for word in words if word.split("=")[0].startswith("--config")
    ]
