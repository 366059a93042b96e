# SPDX-License-Identifier: Apache-2.0
"""The run of `blobzero loadtest`: a server, its load, the report, and the verdict."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clients.lock import sole_writer
from clients.provenance import machine
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig
from perf.load import Generator, Load, LoadError, Patience, Point, Slo, Target, Traffic, highest_rate, parse_sweep
from perf.load.config import LoadTestConfig
from perf.load.plan import TransportName
from perf.load.report import Results, tell, write
from ui.console import plain_console
from ui.next_step import command_line
from ui.stopping import interrupting_signals

CAPACITY_CONCURRENCY: Final = 16
"""A search for a rate that has no rate to begin with measures a closed loop of so many first."""
PLAIN_WIDTH: Final = 140
"""Of tables where there is no terminal."""


class RateMissed(BlobError):
    """The required rate was not reached."""


def loadtest(config: LoadTestConfig) -> int:
    """Measure, report, judge; the exit status."""
    loads, patience = _loads(config), _patience(config)
    slo = Slo.parse(config.slo) if config.slo is not None else None
    least = slo.least_rate(patience) if slo is not None else 0.0
    traffics = [_traffic(config, transport) for transport in dict.fromkeys(config.transport)]
    _check(config, traffics)
    if slo is not None:
        _check_promise(config, slo, patience, least)
    with sole_writer(config.out) if config.out is not None else contextlib.nullcontext():
        return _run(config, loads, traffics, patience, slo, least)


def _run(
    config: LoadTestConfig,
    loads: Sequence[Load],
    traffics: Sequence[Traffic],
    patience: Patience,
    slo: Slo | None,
    least: float,
) -> int:
    console = plain_console(stderr=config.json)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    points: list[tuple[str, Point]] = []
    best_rate: float | None = None
    fault: BlobError | None = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupting_signals())
        target = _target(config, stack, console)
        show = stack.enter_context(_progress(console, total=len(loads) * len(traffics) or None))
        generators = [stack.enter_context(Generator(target, traffic)) for traffic in traffics]

        def measure(generator: Generator, load: Load) -> Point:
            enough = patience if slo is None or load.rate is None else slo.patience(patience, load.rate)
            point = generator.measure(load, enough, say=lambda text: show(text, None))
            points.append((generator.traffic.transport, point))
            show(_line(generator.traffic.transport, point), len(points))
            return point

        status = 0
        try:
            if slo is not None:
                best_rate = _search(generators[0], measure, slo, config, least)
            for load in loads:
                for generator in generators:
                    measure(generator, load)
        except KeyboardInterrupt:
            status = 130
        except LoadError as error:  # what was measured before it is still told
            fault = error
        described = {
            name: [asdict(one) for one in getattr(generators[0].signature, name)] for name in ("inputs", "outputs")
        }
    if not points:
        if fault is not None:
            raise fault
        return status
    provenance = {
        "model": {"name": config.model, "max_batch_size": generators[0].signature.max_batch_size, **described},
        "machine": machine(),
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "interrupted": status == 130,
    }
    results = Results(f"{config.model} at {target.url}", points, slo, best_rate, provenance)
    _report(console, config, results, least)
    if fault is not None:
        raise fault
    if status == 0:
        _judge(config, results)
    return status


def _loads(config: LoadTestConfig) -> list[Load]:
    """The points of the sweep; none where a promise is searched for."""
    if config.slo is not None:
        return []
    if config.rate is not None:
        return [Load(rate=rate) for rate in parse_sweep(config.rate, flag="--rate")]
    found = parse_sweep(config.concurrency, flag="--concurrency")
    if any(n != int(n) for n in found):
        raise InvalidConfig(f"expected whole numbers of requests in flight, got --concurrency {config.concurrency}")
    return [Load(concurrency=int(n)) for n in found]


def _patience(config: LoadTestConfig) -> Patience:
    return Patience(
        ramp_s=config.ramp,
        warmup_s=config.warmup,
        window_s=config.window,
        stability=config.stability,
        max_windows=config.max_windows,
        duration_s=config.duration,
        requests=config.requests,
    )


def _traffic(config: LoadTestConfig, transport: TransportName) -> Traffic:
    processes = config.processes if config.processes != "auto" else max(1, len(os.sched_getaffinity(0)) // 2)
    return Traffic(transport, config.rows, config.data, config.shape, processes, config.timeout, config.seed)


def _check(config: LoadTestConfig, traffics: Sequence[Traffic]) -> None:
    """What can be said before anything is started."""
    if not traffics:
        raise InvalidConfig("expected at least one --transport, got none; grpc or shm")
    if config.url is None and config.model != MODEL_NAME:
        raise InvalidConfig(f"expected --url with --model {config.model}: a server started here has {MODEL_NAME} alone")
    if config.slo is not None and (config.rate is not None or len(traffics) > 1):
        raise InvalidConfig("expected --slo with one --transport and without --rate, which it searches for")
    if not 0 < config.precision < 1:
        raise InvalidConfig(f"expected --precision in 0..1, got {config.precision:g}")
    if config.require is not None and config.require <= 0:
        raise InvalidConfig(f"expected --require above 0 requests/s, got {config.require:g}")


def _check_promise(config: LoadTestConfig, slo: Slo, patience: Patience, least: float) -> None:
    slo.patience(patience, least)
    if config.require is not None and config.require < least:
        raise InvalidConfig(
            f"expected --require of at least {least:g} requests/s, for {slo.name} is judged by {slo.n_requests} "
            f"requests; got {config.require:g}; --duration {math.ceil(slo.n_requests / config.require)}"
        )


def _target(config: LoadTestConfig, stack: contextlib.ExitStack, console: Console) -> Target:
    """The server named, or one started for the time being."""
    url, metrics_url = config.url or "", config.metrics_url
    if not url:
        from serving.config import ServerConfig
        from serving.embedded import EmbeddedTriton

        console.print(f"starting Triton on {config.repository}", markup=False)
        # Nobody watches it: a server that fails under load should be seen to.
        server = ServerConfig(config.repository, model=config.model, key_file=config.key_file)
        triton = stack.enter_context(EmbeddedTriton(server))
        url = triton.url
        metrics_url = triton.metrics_url.split("/")[2]
    return Target(url, config.model, config.model_version, metrics_url, config.key_file)


def _search(
    generator: Generator,
    measure: Callable[[Generator, Load], Point],
    slo: Slo,
    config: LoadTestConfig,
    least: float,
) -> float:
    """The highest rate that keeps the promise; the one that is required is asked about first."""
    first = config.require
    if first is None:
        first = 0.8 * measure(generator, Load(concurrency=CAPACITY_CONCURRENCY)).requests_per_s
    best, _ = highest_rate(
        lambda load: measure(generator, load), slo, first=first, precision=config.precision, least=least
    )
    return best


def _report(console: Console, config: LoadTestConfig, results: Results, least: float) -> None:
    tell(console, results)
    slo = results.slo
    if slo is not None and results.best_rate is not None:
        held = f"holds up to {results.best_rate:,.1f}" if results.best_rate else f"does not hold even at {least:,.1f}"
        console.print(f"slo      {slo.name} within {slo.limit_ms:g} ms {held} requests/s", markup=False)
    if config.out is not None:
        for path in write(results, config.out, console.print):
            console.print(f"written  {path}", markup=False)
    if slo is None:
        then = replace(
            config, slo="p99=20ms", transport=config.transport[:1],
            rate=None, duration=None, requests=None, require=None,
        )  # fmt: skip
        why = "the highest rate that keeps it"
    elif results.best_rate:
        then = replace(config, require=max(least, round(0.9 * results.best_rate)))
        why = "the same as a gate"
    else:
        then = replace(config, slo=f"{slo.name}={2 * slo.limit_ms:g}ms", require=None)
        why = "a promise that is easier to keep"
    console.print(f"next     {command_line('loadtest', then)}   {why}", soft_wrap=True)
    if config.json:
        print(json.dumps(results.to_json()))


def _judge(config: LoadTestConfig, results: Results) -> None:
    """Raise where the required rate was missed."""
    if config.require is None:
        return
    if results.best_rate is not None:
        found, promise = results.best_rate, f" with {config.slo}"
    else:
        found, promise = max(point.requests_per_s for _, point in results.points), ""
    if found < config.require:
        raise RateMissed(
            f"expected {config.require:g} requests/s{promise}, got {found:.1f}; the server's columns "
            "say where the time goes"
        )


def _line(transport: str, point: Point) -> str:
    return (
        f"{transport}, {point.load}: {point.requests_per_s:,.0f} requests/s, {point.rows_per_s:,.0f} rows/s, "
        f"p50 {point.p50_ms:.2f} ms, p99 {point.p99_ms:.2f} ms, {sum(point.errors.values())} errors"
    )


@contextlib.contextmanager
def _progress(console: Console, *, total: int | None) -> Iterator[Callable[[str, int | None], None]]:
    """Show points done and the running window: redrawn on a terminal, elsewhere a line a point."""
    progress = Progress(
        TextColumn("points"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    task: Any = progress.add_task("", total=total)

    def show(text: str, n_done: int | None) -> None:
        if console.is_terminal:
            progress.update(task, description=text, completed=n_done)
        elif n_done is not None:
            console.print(text, soft_wrap=True)

    with progress:
        yield show
