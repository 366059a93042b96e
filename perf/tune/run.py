# SPDX-License-Identifier: Apache-2.0
"""`blobzero tune`: the server, the study, the verdict and the configuration that won.

```
default  trial  trial  trial  default  trial ...      search: a score is relative to the defaults before and after
default  best 1  best 2  best 3  default  best 3 ...  choice: the best are measured again, since some were lucky
default  best  best  default  default  best ...       verdict: new pairs, Student's interval of their log ratios
```
"""

import contextlib
import json
import platform
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from clients.errors import EvaluatorError
from clients.files import read_json, reason, write_json, write_whole
from clients.lock import sole_writer
from clients.provenance import machine
from export.publishing.config import config_path
from export.publishing.repository import require_repository
from export.publishing.server import ModelServer
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig
from mcts_ext.versions import version_number
from perf.load import Slo, Target
from perf.tune.config import TuneConfig
from perf.tune.measure import Bench
from perf.tune.report import TuneResult, report
from perf.tune.space import Space, apply, as_json, as_text, client_flags, read_config, space_of
from perf.tune.study import StudyError, Tuning, Verdict, open_study
from serving.embedded import own_server
from ui.console import plain_console
from ui.progress import progress

MIN_PAIRS: Final = 6
RESTORE_TIMEOUT_S: Final = 30.0
"""Time in which a server's previous configuration must be restored."""
REVIVAL_TIMEOUT_S: Final = 120.0
"""Time in which a server at --url must come back."""


def tune(config: TuneConfig) -> int:
    """Search, compare and write; return the exit status."""
    slo = _check(config)
    console = plain_console(stderr=config.json, is_wide=True)
    base = read_config(config_path(config.repository, config.config_name))
    space = space_of(config.objective, base)
    interrupted, verdict, written = False, None, None
    fault: BlobError | OSError | None = None
    with contextlib.ExitStack() as stack:
        _open_folder(config, base, space, stack)
        study = open_study(config.out / "study.log", seed=config.seed)
        target, revive = _server(config, stack, console)
        bench = Bench(
            target, base, objective=config.objective, slo=slo, seconds=config.seconds, seed=config.seed, revive=revive
        )
        show = stack.enter_context(progress(console, "trials", total=config.trials))
        tuning = Tuning(study, space, bench, limit_ms=slo.limit_ms if slo else None, show=show)
        try:
            tuning.search(config.trials)
            best = tuning.choose()
            if best is not None:
                verdict = tuning.compare(best, pairs=config.pairs)
        except KeyboardInterrupt:
            interrupted = True
        except (BlobError, OSError) as error:  # earlier measurements are still reported
            fault = error
    if verdict is not None and verdict.is_win:
        try:
            written = _write(config, base, verdict)
        except OSError as error:
            fault = error
    result = TuneResult(config, space, study, verdict, written, interrupted)
    report(console, result, is_broken_off=interrupted or fault is not None)
    if fault is not None:
        raise fault
    return 130 if interrupted else 0


def host() -> str:
    """Return this machine's name in the form used in file names."""
    return re.sub(r"[^a-z0-9]+", "-", platform.node().lower()).strip("-") or "machine"


def _check(config: TuneConfig) -> Slo | None:
    if config.limit is not None and config.objective != "rows":
        raise InvalidConfig("expected --limit only with --objective rows, got --objective rounds; omit one of them")
    if config.trials < 1 or config.seconds <= 0:
        raise InvalidConfig(
            f"expected --trials of 1 or more and --seconds above 0, got {config.trials} and {config.seconds:g}"
        )
    if config.pairs < MIN_PAIRS:
        raise InvalidConfig(f"expected --pairs of {MIN_PAIRS} or more for a meaningful interval, got {config.pairs}")
    if not 0 <= config.seed < 1 << 31:
        raise InvalidConfig(f"expected --seed of 0 or more, below 2^31, got {config.seed}")
    require_repository(config.repository)
    return None if config.limit is None else Slo.parse(config.limit, flag="--limit")


def _server(config: TuneConfig, stack: contextlib.ExitStack, console: Console) -> tuple[Target, Callable[[], None]]:
    """Return the given server or start one, with a function that restores it after a failure."""
    if config.url is None:
        triton = stack.enter_context(
            own_server(
                config.repository,
                say=console.print,
                config_name=None if config.config_name == "config" else config.config_name,
                key_file=config.key_file,
                log_file=config.out / "triton.log",
                is_watched=False,  # a setting that kills it must show
            )
        )
        return Target(triton.url, metrics=triton.metrics_url.split("/")[2], key_file=config.key_file), triton.restart
    control = stack.enter_context(ModelServer(config.url, key_file=config.key_file))
    control.load()  # raises if the server, its model or the key is missing
    before = control.config()

    def revive() -> None:
        """Wait until its owner has restarted it."""
        if not control.load_until_done(within_s=REVIVAL_TIMEOUT_S):
            raise StudyError(
                f"expected the server at {config.url} to load its model again, but it did not; see its log"
            )

    def restore() -> None:
        """Load the previous configuration explicitly: Triton 2.51 does not read a file that has not changed.

        The load of an interrupted trial may end after ours, so the configuration must be found twice.
        """
        deadline = time.monotonic() + RESTORE_TIMEOUT_S
        n_found = 0
        while time.monotonic() < deadline:
            with contextlib.suppress(EvaluatorError):
                n_found = n_found + 1 if control.config() == before else 0
                if n_found == 2:
                    return
                if n_found == 0:
                    control.load(config=as_json(before))
            time.sleep(1.0)
        console.print(f"note     {config.url} does not serve its previous configuration; load its model again")

    stack.callback(restore)
    return Target(config.url, key_file=config.key_file), revive


def _open_folder(config: TuneConfig, base: Any, space: Space, stack: contextlib.ExitStack) -> None:
    """Create or continue the folder of a study; its measurements must be comparable."""
    stack.enter_context(sole_writer(config.out))
    path = config.out / "study.json"
    versions = (version_number(one.name) for one in (config.repository / MODEL_NAME).glob("[0-9]*"))
    wanted = {
        "objective": config.objective,
        "limit": config.limit,
        "seconds": config.seconds,
        "seed": config.seed,
        "host": host(),
        "machine": {name: machine()[name] for name in ("cpu", "cores")},
        "url": config.url,
        "version": max((one for one in versions if one is not None), default=None),
        "default": as_text(base),
        "space": space.to_json(),
    }
    if path.exists():
        try:
            found = read_json(path)
        except ValueError as error:
            raise StudyError(f"expected a study's JSON in {path}, got {reason(error)}; choose another --out") from error
        if other := [name for name in wanted if wanted[name] != found.get(name)]:
            raise StudyError(
                f"expected the same study in {config.out}, got another {other[0]} ({found.get(other[0])!r}, now "
                f"{wanted[other[0]]!r}); choose another --out"
            )
    write_json(path, wanted)


def _write(config: TuneConfig, base: Any, verdict: Verdict) -> Path:
    """Write the configuration that won, with the measurements in comments."""
    name = f"tuned-{host()}"
    path = config_path(config.repository, name)
    promise = f" and {config.limit}" if config.limit else ""
    lines = [
        f"Found by blobzero tune on {datetime.now(UTC):%Y-%m-%d}; serve with: blobzero serve --config-name {name}",
        json.dumps(machine()),
        f"With measurements of {config.seconds:g} s{promise}: {verdict.describe(config.unit)}",
        "Pairs: " + ", ".join(f"{best.rate:,.0f}/{default.rate:,.0f}" for default, best in verdict.pairs),
        f"Setting: {json.dumps(verdict.setting)}; the default: {json.dumps(verdict.default)}",
        f"For the clients: {client_flags(verdict.setting)}",
    ]
    text = "".join(f"# {line}\n" for line in lines) + as_text(apply(base, verdict.setting))
    write_whole(path, text.encode())
    return path
