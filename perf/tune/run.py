# SPDX-License-Identifier: Apache-2.0
"""The run of `blobzero tune`: the server, the study, the verdict, the file.

```
default  trial  trial  trial  default  trial ...      search: a score is a ratio to the defaults on both sides
default  best 1  best 2  best 3  default  best 3 ...  choice: the best are measured again, for luck made some of them
default  best  best  default  default  best ...       verdict: fresh pairs, Student's interval of their log ratios
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

LEAST_PAIRS: Final = 6
GIVE_BACK_S: Final = 30.0
"""How long it may take until it serves again what it did."""
REVIVAL_S: Final = 120.0
"""How long a server that others run may take to come back."""


def tune(config: TuneConfig) -> int:
    """Search, compare, write; the exit status."""
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
        except (BlobError, OSError) as error:  # what was measured before it is still told
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
    """This machine's name, as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", platform.node().lower()).strip("-") or "machine"


def _check(config: TuneConfig) -> Slo | None:
    if config.limit is not None and config.objective != "rows":
        raise InvalidConfig("expected --limit only with --objective rows, got --objective rounds; leave one out")
    if config.trials < 1 or config.seconds <= 0:
        raise InvalidConfig(
            f"expected --trials of 1 or more and --seconds above 0, got {config.trials} and {config.seconds:g}"
        )
    if config.pairs < LEAST_PAIRS:
        raise InvalidConfig(f"expected --pairs of {LEAST_PAIRS} or more, for an interval means little with less, "
                            f"got {config.pairs}")  # fmt: skip
    if not 0 <= config.seed < 1 << 31:
        raise InvalidConfig(f"expected --seed of 0 or more, below 2^31, got {config.seed}")
    require_repository(config.repository)
    return None if config.limit is None else Slo.parse(config.limit, flag="--limit")


def _server(config: TuneConfig, stack: contextlib.ExitStack, console: Console) -> tuple[Target, Callable[[], None]]:
    """The server that is named, or one of our own, and what brings it back to life."""
    if config.url is None:
        triton = stack.enter_context(
            own_server(
                config.repository,
                say=console.print,
                config_name=None if config.config_name == "config" else config.config_name,
                key_file=config.key_file,
                log_file=config.out / "triton.log",
                is_watched=False,  # a setting that ends it is to be seen
            )
        )
        return Target(triton.url, metrics=triton.metrics_url.split("/")[2], key_file=config.key_file), triton.restart
    control = stack.enter_context(ModelServer(config.url, key_file=config.key_file))
    control.load()  # it is there, serves the model, and takes the key
    before = control.config()

    def restore() -> None:
        """Whoever runs it starts it again; then it serves the repository's configuration."""
        if not control.load_until_done(within_s=REVIVAL_S):
            raise StudyError(
                f"expected the server at {config.url} to load its model again, but it does not; see its log"
            )

    def give_back() -> None:
        """Load what was served before: without a configuration Triton 2.51 reads none, for no file has changed.

        The load of an interrupted trial may still be under way, and end after ours: two looks have to find it back.
        """
        deadline = time.monotonic() + GIVE_BACK_S
        n_found = 0
        while time.monotonic() < deadline:
            with contextlib.suppress(EvaluatorError):
                n_found = n_found + 1 if control.config() == before else 0
                if n_found == 2:
                    return
                if n_found == 0:
                    control.load(config=as_json(before))
            time.sleep(1.0)
        console.print(f"note     {config.url} does not serve what it did before; load its model again")

    stack.callback(give_back)
    return Target(config.url, key_file=config.key_file), restore


def _open_folder(config: TuneConfig, base: Any, space: Space, stack: contextlib.ExitStack) -> None:
    """Make the folder, or go on in it, alone: what is compared must be the same."""
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
    """The configuration that won, with what was measured in comments."""
    name = f"tuned-{host()}"
    path = config_path(config.repository, name)
    promise = f" and {config.limit}" if config.limit else ""
    lines = [
        f"Found by blobzero tune on {datetime.now(UTC):%Y-%m-%d}; serve with: blobzero serve --config-name {name}",
        json.dumps(machine()),
        f"With measurements of {config.seconds:g} s{promise}: {verdict.describe(config.unit)}",
        "Pairs: " + ", ".join(f"{best.rate:,.0f}/{default.rate:,.0f}" for default, best in verdict.pairs),
        f"Setting: {json.dumps(verdict.setting)}; the default: {json.dumps(verdict.default)}",
        f"The clients' part of it: {client_flags(verdict.setting)}",
    ]
    text = "".join(f"# {line}\n" for line in lines) + as_text(apply(base, verdict.setting))
    write_whole(path, text.encode())
    return path
