"""Parameters of notebooks, read from the command line or a file and checked before anything runs."""

import ast
import os
import re
from pathlib import Path

import papermill
import yaml
from environment import Refused

from smpcore.experiments.run_files import need_plain


class _Loader(yaml.SafeLoader):
    """YAML as the core schema of its version 1.2 reads it: 010 is ten, 1e-3 a number; yes, 1:30, 1_000 and 2025-01-02
    are words.

    PyYAML follows version 1.1 and reads 8, a word, True, 90, 1000 and a date instead. ruamel.yaml follows 1.2 but for
    2025-01-02, which stays a date there, and 1_000, which stays a number.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  as the base class has it
    _anchored = 0  # anchors around the node that is being read

    def compose_node(self, parent, index):
        """Refuse an alias within an anchor: ten nested ones can stand for billions of values."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if self._anchored:
                raise yaml.composer.ComposerError(None, None, f"the alias *{event.anchor} stands within an anchor: "
                                                  "write the values out", event.start_mark)
            return super().compose_node(parent, index)
        anchored = event.anchor is not None
        self._anchored += anchored
        node = super().compose_node(parent, index)
        self._anchored -= anchored
        return node

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _resolve(tag, pattern, first):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF"))
_resolve("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""])
_resolve("int", r"^[-+]?[0-9]+$", list("-+0123456789"))
_resolve("float", r"^[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF|nan|NaN|NAN))$",
         list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, RecursionError)  # int() takes no 5,000 digits


def read(text: str, parameter: dict | None = None):
    """One value from the command line: unchanged if the parameter is a word, else read as YAML.

    Raises
    ------
    Refused
        For what is neither.
    """
    if parameter and isinstance(parameter["default"], str):
        return text
    try:
        return yaml.load(text, _Loader)
    except _UNREADABLE as error:
        raise Refused(f"{text!r}: the value cannot be read as YAML ({_line(error)})") from error


def items(text: str) -> list[str]:
    """``a,[b, c],"d, e"`` as the text of each of its values.

    Raises
    ------
    Refused
        Where a bracket or a quotation mark is not closed, or a value is missing.
    """
    try:
        nodes = yaml.compose(f"[{text}]", _Loader).value
    except _UNREADABLE as error:
        raise Refused(f"its values cannot be read as YAML ({_line(error)})") from error
    # The marks count from the bracket that was put before the text.
    found = [node.value if isinstance(node, yaml.ScalarNode) and node.style else
             text[node.start_mark.index - 1:node.end_mark.index - 1].strip() for node in nodes]
    if not all(found):
        raise Refused("a value is missing between two commas")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def parameters_of(path: Path) -> dict[str, dict]:
    """A notebook's parameters: name -> {default, type, help}.

    Raises
    ------
    Refused
        For a file that is not a notebook, and for a default that is not a literal.
    """
    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:  # each format of notebook has errors of its own
        raise Refused(f"{path} cannot be read as a notebook: {_line(error)}") from error
    parameters = {}
    for key, entry in found.items():
        try:
            default = ast.literal_eval(entry["default"])
        except (ValueError, SyntaxError) as error:
            raise Refused(f"{path.stem}: the default of {key}, {entry['default']}, is not a literal, so values cannot "
                          "be checked against it") from error
        parameters[key] = {"default": default, "type": entry["inferred_type_name"], "help": entry["help"]}
    return parameters


def check(name: str, given: dict, known: dict) -> dict:
    """The parameters given to a notebook, refused where it has no such parameter or another type.

    Relative paths become the caller's, for a notebook runs in a folder of its own: `output_dir`, and each parameter
    whose help speaks of a file, where there is such a file.

    Raises
    ------
    Refused
        By name, with the names that exist or the type that is wanted.
    """
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise Refused(f"{name} has no parameter {key!r}; it has: {', '.join(known)}")
        default = known[key]["default"]
        try:
            if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            need_plain(value, "it")
        except (ValueError, OverflowError) as error:
            raise Refused(f"{name}: parameter {key} is not made of finite numbers, words and lists: "
                          f"{_line(error)}") from error
        if default is not None and type(value) is not type(default):
            raise Refused(f"{name}: parameter {key} = {value!r} is of type {type(value).__name__}, but its default "
                          f"{default!r} of type {type(default).__name__}")
        checked[key] = _callers(key, value, known[key]["help"])
    return checked


def _callers(key: str, value, meaning: str):
    if not isinstance(value, str) or not value:
        return value
    if key == "output_dir" or (re.search(r"\bfile\b", meaning) and os.path.exists(value)):
        return os.path.abspath(value)
    return value


def names_code(given: dict) -> bool:
    """Whether a parameter names a function, as ``package.module:function``, which may be one of the caller's."""
    def reads(value):
        return isinstance(value, str) and all(part.isidentifier() for part in value.replace(":", ".").split("."))

    return any(reads(value) and value.count(":") == 1 for value in given.values())


def from_file(path: Path, names: list[str], available: list[str]) -> dict[str, dict]:
    """The parameters of each notebook in a YAML file whose top keys are numbers, or `all`.

    Raises
    ------
    Refused
        For a file that cannot be read, or a top key that is neither.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (OSError, *_UNREADABLE) as error:
        raise Refused(f"{path} cannot be read as YAML: {_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict | None) for value in content.values()):
        raise Refused(f"{path}: its top keys are a notebook's number or 'all', with parameters below each")
    sections = {}
    for key, value in content.items():
        number = f"{key:02d}" if isinstance(key, int) and not isinstance(key, bool) else str(key)
        if number in sections:
            raise Refused(f"{path}: notebook {number} is given twice")
        sections[number] = value or {}
    numbers = {name[:2] for name in available}
    if unknown := set(sections) - numbers - {"all"}:
        raise Refused(f"{path}: no notebook {', '.join(sorted(unknown))}; there are {', '.join(sorted(numbers))}")
    return {name: {**sections.get("all", {}), **sections.get(name[:2], {})} for name in names}


