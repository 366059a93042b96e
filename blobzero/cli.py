# SPDX-License-Identifier: Apache-2.0
"""The `blobzero` command: finds the verb, runs it, turns errors into one line and an exit status.

A verb imports what only it needs when it runs, for not every installation has it (pyproject.toml: extras).

Exit status: 0 done, 1 an error that one line explains, 2 wrong arguments, 130 interrupted (Ctrl-C),
143 terminated (SIGTERM), 129 hung up, 141 nobody reads the output.
"""

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final

import tyro

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
from clients.files import fault
from clients.keys import exposure
from mcts_ext.errors import BlobError, InvalidConfig

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
"""Verbs that leave nothing else behind; of `match` and `loadtest` so where no --out is given."""


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
            print(f"blobzero: {error}", file=sys.stderr)
            return 1
        is_result = isinstance(config, OUTPUT_IS_THE_RESULT) or (
            isinstance(config, MatchConfig | LoadTestConfig) and config.json and config.out is None
        )
        if isinstance(config, OUTPUT_IS_THE_RESULT):
            output.ends_with_it()
        try:
            status = _run(config)
        except OutputLost:
            status = 0
        return output.status(status, is_result=is_result)


def _check_paths(config: Any) -> None:
    """Refuse what PyTorch, ONNX Runtime, OpenVINO and TensorBoard cannot open; a server's and a run's folder may be so.

    Raises:
        InvalidConfig: a path that is not UTF-8.
    """
    if isinstance(config, ServeConfig) or (isinstance(config, SelfPlayConfig) and config.evaluator != "local"):
        return
    for field in fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str | Path) and any("\ud800" <= letter <= "\udfff" for letter in str(one)):
                raise InvalidConfig(f"expected UTF-8 in the path {str(one)!a}, got other bytes; link to it by another")


def _run(config: Any) -> int:
    """The exit status of one verb; its errors in one line."""
    try:
        _check_paths(config)
        if line := exposure(getattr(config, "key_file", None)):
            print(f"blobzero: {line}", file=sys.stderr)
        with interrupting_signals():
            return exit_status(VERBS[type(config)](config))
    except BlobError as error:
        print(f"blobzero: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if not (line := fault(error)):
            raise
        print(f"blobzero: {line}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        install = f"pip install 'blobzero[{EXTRA_OF[error.name]}]'"
        print(f"blobzero: expected the package {error.name}, got none; {install}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("blobzero: interrupted", file=sys.stderr)
        return exit_status(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
