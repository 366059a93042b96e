# SPDX-License-Identifier: Apache-2.0
"""Entry point of the `blobzero` command: runs a verb, and converts errors to one line and an exit status.

The first word selects a module, and only that is imported: some verbs take seconds to import, or need optional packages
(pyproject.toml: extras).

Exit status: 0 success, 1 error (explained in one line), 2 invalid arguments, 130 interrupted (Ctrl-C),
143 terminated (SIGTERM), 129 hung up (SIGHUP), 141 broken pipe. `serve` and `top` end with 0 when stopped.
"""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from blobzero.arguments import check_arguments
from blobzero.output import Output, OutputLost, guarded
from clients.files import fault
from clients.keys import exposure
from clients.limits import is_of_processes
from mcts_ext.errors import BlobError
from ui.stopping import INTERRUPTED, exit_status, interrupting_signals


@dataclass(frozen=True)
class Verb:
    """Verb: a function of the verb's name in `module`, whose argument is the verb's configuration."""

    module: str
    summary: str
    is_shown: bool = False
    """Whether the output is the verb's only result; with --json it counts as the result of any verb."""

    def function(self, name: str) -> tuple[Callable[[Any], int], type]:
        """Return the function of the verb `name` and the type of its configuration."""
        function = getattr(importlib.import_module(self.module), name)
        return function, next(iter(inspect.get_annotations(function).values()))


VERBS: Final = {
    "selfplay": Verb("blobzero.verbs.selfplay", "play rounds with a served network and record them"),
    "play": Verb("blobzero.play.play", "play against the network in this terminal", is_shown=True),
    "serve": Verb("blobzero.verbs.serve", "serve a model repository with Triton, without a container"),
    "top": Verb("blobzero.monitor.top", "show live metrics of server, self-play and training", is_shown=True),
    "train": Verb("blobzero.verbs.train", "train the network on records"),
    "export": Verb("blobzero.verbs.export", "export a checkpoint in several formats and precisions"),
    "publish": Verb("blobzero.verbs.publish", "publish a network in the model repository"),
    "models": Verb("blobzero.verbs.models", "list the versions of the model repository", is_shown=True),
    "rollback": Verb("blobzero.verbs.models", "make an earlier version's network current again"),
    "unpublish": Verb("blobzero.verbs.models", "remove a version from the model repository"),
    "doctor": Verb("blobzero.verbs.models", "check a model repository for inconsistencies", is_shown=True),
    "match": Verb("blobzero.verbs.match", "play a match of duplicate deals between players"),
    "exploit": Verb("perf.exploit.run", "train a best response to a network, and say what it gains"),
    "loop": Verb("blobzero.loop.loop", "generations of self-play, training, publishing and matches"),
    "report": Verb("blobzero.loop.report", "write an HTML report of a learning loop"),
    "bench": Verb("perf.bench.run", "benchmark one level of the system, or all"),
    "loadtest": Verb("perf.load.run", "load-test a Triton server"),
    "tune": Verb("perf.tune.run", "search for a better configuration of a server"),
    "soak": Verb("perf.soak.run", "play for long with injected faults, and account for every round"),
    "up": Verb("blobzero.stack.verbs", "start the whole system in containers"),
    "down": Verb("blobzero.stack.verbs", "stop the containers"),
    "status": Verb("blobzero.stack.verbs", "show the state of the containers", is_shown=True),
    "logs": Verb("blobzero.stack.verbs", "show the logs of the containers", is_shown=True),
    "scale": Verb("blobzero.stack.verbs", "change the number of self-play containers"),
}

HELP: Final = ("-h", "--help")
EXTRA_OF: Final = {
    **dict.fromkeys(("torch", "onnx", "safetensors"), "train"),
    **dict.fromkeys(("openvino", "onnxruntime"), "local"),
    **dict.fromkeys(("scipy", "matplotlib"), "report"),
    "python_on_whales": "stack",
    "optuna": "tune",
    "pyspiel": "dev",
}
"""Extra that installs each optional package."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in HELP and rest:  # `--help VERB` is `VERB --help`
        name, rest = rest[0], [name]
    with guarded() as output:
        if name in HELP:
            print(_help())
            return output.status(0, is_result=True)
        if name not in VERBS:
            near = difflib.get_close_matches(name, VERBS, n=1)
            advice = f"blobzero {near[0]}" if near else "blobzero --help lists them"
            print(f"blobzero: expected a verb, got {name or 'none'}; {advice}", file=sys.stderr)
            return 2
        try:
            return _run(name, rest, output)
        except BlobError as error:
            return _failed(str(error))
        except (OSError, RuntimeError) as error:  # a path or limit without a more specific handler
            if is_of_processes(error):
                return _failed(f"expected to start processes and threads, got {error}; raise ulimit -u")
            if not isinstance(error, OSError) or not (line := fault(error)):
                raise
            return _failed(line)
        except ModuleNotFoundError as error:
            if error.name not in EXTRA_OF:
                raise
            install = f"pip install 'blobzero[{EXTRA_OF[error.name]}]'"
            return _failed(f"expected the package {error.name}, got none; {install}")
        except KeyboardInterrupt:
            print("blobzero: interrupted", file=sys.stderr)
            return exit_status(INTERRUPTED)


def _help() -> str:
    lines = [f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        (
            "usage: blobzero VERB [OPTIONS]",
            "",
            "Self-play for the card game Blob, with the network served by NVIDIA Triton.",
            "",
            *lines,
            "",
            "blobzero VERB --help explains a verb and its options.",
        )
    )


def _run(name: str, arguments: list[str], output: Output) -> int:
    import tyro  # slow to import, and not needed by --help

    function, config_type = VERBS[name].function(name)
    try:
        config: Any = tyro.cli(config_type, prog=f"blobzero {name}", args=arguments)
    except SystemExit as end:  # help, or invalid arguments
        if not isinstance(end.code, int | None):
            raise
        raise SystemExit(output.status(end.code or 0, is_result=True)) from None
    check_arguments(name, config)
    if line := exposure(getattr(config, "key_file", None)):
        print(f"blobzero: {line}", file=sys.stderr)
    if VERBS[name].is_shown:
        output.ends_with_it()
    try:
        with interrupting_signals():
            status = exit_status(function(config))
    except OutputLost:
        status = 0
    return output.status(status, is_result=VERBS[name].is_shown or getattr(config, "json", False))


def _failed(why: str) -> int:
    """Print the error in one line; return the exit status."""
    print(f"blobzero: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
