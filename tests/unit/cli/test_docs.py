"""docs/cli.md and the code say the same: every command, option, setting and exit code (the idea is Datasette's)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from podium.cli.application import build
from podium.cli.environment import CLIENT_VARIABLES, INTERNAL_VARIABLES, KNOWN, SERVER_VARIABLES
from podium.cli.exits import Exit
from podium.cli.session import GLOBAL_OPTIONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text()
OPTION = re.compile(r"`(--?[A-Za-z][-a-z0-9]*)[ `]")


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, f"{path} {name}")
        else:
            yield path, command

    return walk(typer.main.get_command(build()), "podium")


def sections() -> dict[str, str]:
    parts = re.split(r"^### (podium .+)$", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def own_options(command: Any) -> set[str]:
    found = {
        name
        for parameter in command.params
        if parameter.param_type_name == "option" and not set(parameter.opts) & set(GLOBAL_OPTIONS)
        for name in parameter.opts
    }
    return found - {"-h", "--help"}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert list(sections()) == [path for path, _ in commands()]


def test_every_option_is_described_and_every_described_option_exists() -> None:
    for path, command in commands():
        described = set(OPTION.findall(sections()[path]))
        assert described == own_options(command), path


def test_every_argument_is_described() -> None:
    for path, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                name = (parameter.metavar or parameter.name.upper()).strip("[]{}")
                assert f"| `{name}` |" in sections()[path], f"{path} {name}"


def test_what_the_help_says_stands_in_the_docs() -> None:
    for path, command in commands():
        for paragraph in command.help.split("\n\n"):
            assert " ".join(paragraph.split()) in " ".join(sections()[path].split()), path
        for parameter in command.params:
            if set(parameter.opts) & {*own_options(command)}:
                assert parameter.help in sections()[path], f"{path} {parameter.name}"


def test_the_global_options_are_those_of_every_command() -> None:
    local = {"up", "down", "doctor", "schema", "version", "demo", "model serve"}
    for path, command in commands():
        has = {name for parameter in command.params for name in parameter.opts} & set(GLOBAL_OPTIONS)
        wanted = {"--output", "--verbose"} if path.removeprefix("podium ") in local else set(GLOBAL_OPTIONS)
        assert has == wanted, path
    intro = PAGE.partition("## Exit codes")[0]
    assert set(GLOBAL_OPTIONS) <= set(OPTION.findall(intro))


def test_every_setting_is_described_and_no_other() -> None:
    described = set(re.findall(r"^\| `(PODIUM_[A-Z_]+)` \|", PAGE, flags=re.MULTILINE))
    assert described == set(SERVER_VARIABLES) | set(CLIENT_VARIABLES)


def test_the_known_settings_are_those_that_the_code_reads() -> None:
    read: set[str] = set()
    for path in (ROOT / "src" / "podium").rglob("*.py"):
        if "demo" not in path.parts:
            read |= set(re.findall(r"[\"'](PODIUM_[A-Z_]*[A-Z])[\"']", path.read_text()))
    assert read == KNOWN
    assert set(INTERNAL_VARIABLES) < KNOWN


def test_every_exit_code_is_described() -> None:
    described = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}
    assert described == {int(code) for code in Exit}
