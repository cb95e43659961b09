"""Finds the command and its options, and suggests the nearest spelling of one that does not exist."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from ..errors import did_you_mean
from ..version import bundle_version
from . import audit, demo, evaluate, export, export_bundle, inspect, phantom, predict, prepare, report, train

__all__ = ["COMMANDS", "build_parser"]

#: Each is a file of its own, with `HELP`, `add_arguments(parser)` and `run(args)`.
COMMANDS = {
    "demo": demo,
    "phantom": phantom,
    "prepare": prepare,
    "inspect": inspect,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "audit": audit,
    "report": report,
    "export": export,
    "export-bundle": export_bundle,
}


class _Parser(argparse.ArgumentParser):
    """Refuses a command or option that does not exist before it looks at the rest of the line."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse the arguments; see `argparse`."""
        words = list(sys.argv[1:] if args is None else args)
        if self.get_default("module") is None:
            self._check_command(next(iter(words), "-"))
        else:
            for word in takewhile(lambda word: word != "--", words):
                self._check_option(word.partition("=")[0])
        return super().parse_known_args(words, namespace)

    def _check_command(self, word: str) -> None:
        if not word.startswith("-") and word not in COMMANDS:
            hint = did_you_mean(word, COMMANDS) or f" The commands are {', '.join(COMMANDS)}."
            self.error(f'there is no command "{word}".{hint}')

    def _check_option(self, word: str) -> None:
        known = [option for action in self._actions for option in action.option_strings]
        is_option = word.startswith("--") and " " not in word
        if is_option and not any(option.startswith(word) for option in known):
            self.error(f"there is no option {word}.{did_you_mean(word, known)}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. The command's module is in `module`."""
    parser = _Parser(prog="pixnet", description="Predict dense gene expression from H&E slides.")
    parser.add_argument("--version", action="version", version=f"pixnet {bundle_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=f"{module.HELP[0].upper()}{module.HELP[1:]}.")
        command.set_defaults(module=module)
        module.add_arguments(command)
    return parser
