# SPDX-License-Identifier: Apache-2.0
"""The `blobzero` command: finds the verb, runs it, turns errors into one line and an exit status.

A verb imports what only it needs when it runs, for not every installation has it (pyproject.toml: extras).

Exit status: 0 done, 1 an error that one line explains, 2 wrong arguments, 130 interrupted (Ctrl-C),
143 terminated (SIGTERM), 129 hung up, 141 nobody reads the output. `serve` and `top` end with 0 when they are asked to.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import tyro

from blobzero.arguments import check_arguments
from blobzero.bench import BenchConfig, bench
from blobzero.export import ExportConfig, export
from blobzero.loadtest import LoadTestConfig, loadtest
from blobzero.loop import LoopConfig, loop
from blobzero.match import MatchConfig, match
from blobzero.models import (
    DoctorConfig,
    ModelsConfig,
    RollbackConfig,
    UnpublishConfig,
    doctor,
    models,
    rollback,
    unpublish,
)
from blobzero.output import OutputLost, guarded
from blobzero.play import PlayConfig, play
from blobzero.publish import PublishConfig, publish
from blobzero.report import ReportConfig, report
from blobzero.selfplay import SelfPlayConfig, selfplay
from blobzero.serve import ServeConfig, serve
from blobzero.soak import SoakConfig, soak
from blobzero.stack import (
    DownConfig,
    LogsConfig,
    ScaleConfig,
    StatusConfig,
    UpConfig,
    down,
    logs,
    scale,
    status,
    up,
)
from blobzero.stopping import INTERRUPTED, exit_status, interrupting_signals
from blobzero.top import TopConfig, top
from blobzero.train import TrainCommand, train
from blobzero.tune import TuneConfig, tune
from clients.files import Unfit
from clients.keys import exposure
from clients.limits import is_of_processes
from mcts_ext.errors import BlobError

Command = (
    Annotated[SelfPlayConfig, tyro.conf.subcommand("selfplay")]
    | Annotated[PlayConfig, tyro.conf.subcommand("play")]
    | Annotated[ServeConfig, tyro.conf.subcommand("serve")]
    | Annotated[TopConfig, tyro.conf.subcommand("top")]
    | Annotated[TrainCommand, tyro.conf.subcommand("train")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[PublishConfig, tyro.conf.subcommand("publish")]
    | Annotated[ModelsConfig, tyro.conf.subcommand("models")]
    | Annotated[RollbackConfig, tyro.conf.subcommand("rollback")]
    | Annotated[UnpublishConfig, tyro.conf.subcommand("unpublish")]
    | Annotated[DoctorConfig, tyro.conf.subcommand("doctor")]
    | Annotated[MatchConfig, tyro.conf.subcommand("match")]
    | Annotated[LoopConfig, tyro.conf.subcommand("loop")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
    | Annotated[BenchConfig, tyro.conf.subcommand("bench")]
    | Annotated[LoadTestConfig, tyro.conf.subcommand("loadtest")]
    | Annotated[TuneConfig, tyro.conf.subcommand("tune")]
    | Annotated[SoakConfig, tyro.conf.subcommand("soak")]
    | Annotated[UpConfig, tyro.conf.subcommand("up")]
    | Annotated[DownConfig, tyro.conf.subcommand("down")]
    | Annotated[StatusConfig, tyro.conf.subcommand("status")]
    | Annotated[LogsConfig, tyro.conf.subcommand("logs")]
    | Annotated[ScaleConfig, tyro.conf.subcommand("scale")]
)

VERBS: dict[type, Callable[[Any], int]] = {
    SelfPlayConfig: selfplay,
    PlayConfig: play,
    ServeConfig: serve,
    TopConfig: top,
    TrainCommand: train,
    ExportConfig: export,
    PublishConfig: publish,
    ModelsConfig: models,
    RollbackConfig: rollback,
    UnpublishConfig: unpublish,
    DoctorConfig: doctor,
    MatchConfig: match,
    LoopConfig: loop,
    ReportConfig: report,
    BenchConfig: bench,
    LoadTestConfig: loadtest,
    TuneConfig: tune,
    SoakConfig: soak,
    UpConfig: up,
    DownConfig: down,
    StatusConfig: status,
    LogsConfig: logs,
    ScaleConfig: scale,
}

EXTRA_OF: Final = {
    **dict.fromkeys(("torch", "onnx", "safetensors"), "train"),
    **dict.fromkeys(("openvino", "onnxruntime"), "local"),
    **dict.fromkeys(("scipy", "matplotlib"), "report"),
    "python_on_whales": "stack",
    "optuna": "tune",
}
"""Packages that a verb may miss, and the extra that brings each."""


OUTPUT_IS_THE_RESULT: Final = (ModelsConfig, DoctorConfig, TopConfig, StatusConfig, LogsConfig, PlayConfig)
"""Verbs that leave nothing else behind; with --json it is every verb's, whatever else it leaves."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    with guarded() as output:
        try:
            config: Any = tyro.cli(
                Command,
                prog="blobzero",
                description="Self-play for the card game Blob, with the network behind NVIDIA Triton.",
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
        except SystemExit as end:  # the help, or wrong arguments
            if not isinstance(end.code, int | None):
                raise
            raise SystemExit(output.status(end.code or 0, is_result=True)) from None
        except BlobError as error:  # a setting that is checked as soon as it is read
            return _refused(str(error))
        is_result = isinstance(config, OUTPUT_IS_THE_RESULT) or getattr(config, "json", False)
        if isinstance(config, OUTPUT_IS_THE_RESULT):
            output.ends_with_it()
        try:
            status = _run(config)
        except OutputLost:
            status = 0
        return output.status(status, is_result=is_result)


def _run(config: Any) -> int:
    """The exit status of one verb; its errors in one line."""
    try:
        check_arguments(config)
        if line := exposure(getattr(config, "key_file", None)):
            print(f"blobzero: {line}", file=sys.stderr)
        with interrupting_signals():
            return exit_status(VERBS[type(config)](config))
    except BlobError as error:
        return _refused(str(error))
    except (OSError, RuntimeError) as error:  # of a path or a limit that nobody nearer knew more about
        if not isinstance(error, OSError) and not is_of_processes(error):
            raise
        return _refused(_of_the_system(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        return _refused(f"expected the package {error.name}, got none; pip install 'blobzero[{EXTRA_OF[error.name]}]'")
    except KeyboardInterrupt:
        print("blobzero: interrupted", file=sys.stderr)
        return exit_status(INTERRUPTED)


def _refused(why: str) -> int:
    """Say why in one line; the exit status."""
    print(f"blobzero: {why}", file=sys.stderr)
    return 1


def _of_the_system(error: OSError | RuntimeError) -> str:
    """What the disk or the machine refused."""
    if is_of_processes(error) or not isinstance(error, OSError):
        return f"expected to start processes and threads, got {error}; raise ulimit -u"
    got = error.strerror or " ".join(str(error).split())
    if isinstance(error, Unfit):
        return f"expected a small regular file, got {error} at {error.path}; name another"
    if error.filename is None:
        return f"expected the machine to have room, memory and open files left, got {got}; free some"
    return f"expected to read or write {error.filename}, got {got}; see to its disk and permissions, or name another"


if __name__ == "__main__":
    sys.exit(main())
