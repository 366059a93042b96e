# SPDX-License-Identifier: Apache-2.0
"""`blobzero loadtest`: a server, load on it in a closed or an open loop, the report, and the verdict."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro
from rich.console import Console

from clients.lock import sole_writer
from clients.provenance import machine
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig
from perf.load import Generator, Load, LoadError, Patience, Point, Slo, Target, Traffic, highest_rate, parse_sweep
from perf.load.plan import TransportName
from perf.load.report import Results, tell, write
from ui.console import plain_console
from ui.next_step import command_line
from ui.progress import progress
from ui.stopping import INTERRUPTED

CAPACITY_CONCURRENCY: Final = 16
"""A search for a rate that has no rate to begin with measures a closed loop of so many first."""


@dataclass(frozen=True, kw_only=True)
class LoadTestConfig:
    """Put load on a Triton server, in a closed or an open loop, and report rates, latencies and where the time goes."""

    url: str | None = None
    """HOST:PORT of the server's gRPC endpoint; without it one is started here."""
    metrics_url: str = ""
    """HOST:PORT of its metrics; the port after gRPC's unless given."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here."""
    model: str = MODEL_NAME
    """Any model that the server serves."""
    model_version: str = ""
    """A fixed version; the current one unless given."""
    key_file: Path | None = None
    """Key of the control API: shared memory needs it where the server asks for one."""
    transport: tuple[TransportName, ...] = ("grpc",)
    """How requests travel; several are measured in turns."""
    concurrency: str = "1:64:x2"
    """Requests in flight, each followed by the next: 8, 1,4,16, 1:64:x2 or 10:50:10."""
    rate: str | None = None
    """Instead: requests a second, arriving at random whether answered or not (100:500:100)."""
    slo: str | None = None
    """Instead: find the highest rate that keeps a promise, for example p99=20ms."""
    require: float | None = None
    """Requests/s that must be reached, with the promise if there is one; else the exit status is 1."""
    precision: float = 0.05
    """Of the rate that keeps the promise, as a share."""
    rows: int | Literal["selfplay"] = "selfplay"
    """Rows in a request; `selfplay` draws them from what self-play sends."""
    data: str = "auto"
    """`positions` of a search, `random`, the folder of a run, or `auto`: positions if the model accepts them."""
    shape: tuple[str, ...] = ()
    """NAME:DIMENSIONS of an input with a dimension of any size, for example tokens:128."""
    processes: int | Literal["auto"] = "auto"
    """Client processes; `auto` is one for two cores."""
    ramp: float = 0.5
    """Seconds in which the load grows."""
    warmup: float = 1.0
    """Seconds after that which do not count."""
    window: float = 2.0
    """Seconds of a window; windows are repeated until the last three agree."""
    stability: float = 0.1
    """They agree when throughput and mean latency lie within this share of their mean."""
    max_windows: int = 10
    duration: float | None = None
    """Instead of windows: so many seconds."""
    requests: int | None = None
    """Instead of windows: until so many requests were answered."""
    timeout: float = 20.0
    """Seconds after which a request has failed."""
    seed: int = 0
    """Of rows, sizes and arrivals."""
    out: Path | None = None
    """Folder for JSON, CSV and pictures; nothing is written without it."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""


class RateMissed(BlobError):
    """The required rate was not reached."""


def loadtest(config: LoadTestConfig) -> int:
    """Measure, report, judge; the exit status."""
    loads, patience = _loads(config), _patience(config)
    slo = Slo.parse(config.slo) if config.slo is not None else None
    traffics = [_traffic(config, transport) for transport in dict.fromkeys(config.transport)]
    _check(config, traffics)
    if slo is not None:
        _check_promise(config, slo, patience)
    console = plain_console(stderr=config.json, is_wide=True)
    points: list[tuple[str, Point]] = []
    best_rate: float | None = None
    fault: KeyboardInterrupt | LoadError | None = None
    with contextlib.ExitStack() as lock, contextlib.ExitStack() as stack:
        if config.out is not None:
            lock.enter_context(sole_writer(config.out))
        target = _target(config, stack, console)
        show = stack.enter_context(progress(console, "points", total=len(loads) * len(traffics) or None))
        generators = [stack.enter_context(Generator(target, traffic)) for traffic in traffics]

        def measure(generator: Generator, load: Load) -> Point:
            enough = patience if slo is None or load.rate is None else slo.patience(patience, load.rate)
            point = generator.measure(load, enough, say=show)
            points.append((generator.traffic.transport, point))
            show(f"{generator.traffic.transport}, {point}", len(points), is_line=not console.is_terminal)
            return point

        try:
            if slo is not None:
                best_rate = _search(lambda load: measure(generators[0], load), slo, config, slo.least_rate(patience))
            for load in loads:
                for generator in generators:
                    measure(generator, load)
        except (KeyboardInterrupt, LoadError) as error:  # what was measured before it is still told
            fault = error
        stack.close()
        if points:
            signature = generators[0].signature
            tensors = {name: list(map(asdict, getattr(signature, name))) for name in ("inputs", "outputs")}
            provenance = {
                "model": {"name": config.model, "max_batch_size": signature.max_batch_size, **tensors},
                "machine": machine(),
                "config": json.loads(json.dumps(asdict(config), default=str)),
                "interrupted": isinstance(fault, KeyboardInterrupt),
            }
            results = Results(f"{config.model} at {target.url}", points, slo, best_rate, provenance)
            _report(console, config, results, patience)
    if isinstance(fault, KeyboardInterrupt):
        return INTERRUPTED
    if fault is not None:
        raise fault
    _judge(config, results)
    return 0


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


def _check_promise(config: LoadTestConfig, slo: Slo, patience: Patience) -> None:
    least = slo.least_rate(patience)
    slo.patience(patience, least)
    if config.require is not None and config.require < least:
        raise InvalidConfig(
            f"expected --require of at least {least:g} requests/s, for {slo.name} is judged by {slo.n_requests} "
            f"requests; got {config.require:g}; --duration {math.ceil(slo.n_requests / config.require)}"
        )


def _target(config: LoadTestConfig, stack: contextlib.ExitStack, console: Console) -> Target:
    """The server named, or one started for the time being."""
    url, metrics_url = config.url, config.metrics_url
    if url is None:
        from serving.embedded import own_server  # not every installation has a server

        own = own_server(
            config.repository, say=console.print, model=config.model, key_file=config.key_file,
            is_watched=False,  # a server that fails under load should be seen to
        )  # fmt: skip
        triton = stack.enter_context(own)
        url, metrics_url = triton.url, triton.metrics_url.split("/")[2]
    return Target(url, config.model, config.model_version, metrics_url, config.key_file)


def _search(measure: Callable[[Load], Point], slo: Slo, config: LoadTestConfig, least: float) -> float:
    """The highest rate that keeps the promise; the one that is required is asked about first."""
    first = config.require or 0.8 * measure(Load(concurrency=CAPACITY_CONCURRENCY)).requests_per_s
    return highest_rate(measure, slo, first=first, precision=config.precision, least=least)[0]


def _report(console: Console, config: LoadTestConfig, results: Results, patience: Patience) -> None:
    tell(console, results)
    slo = results.slo
    least = slo.least_rate(patience) if slo is not None else 0.0
    if slo is not None and results.best_rate is not None:
        held = f"holds up to {results.best_rate:,.1f}" if results.best_rate else f"does not hold even at {least:,.1f}"
        console.print(f"slo      {slo.name} within {slo.limit_ms:g} ms {held} requests/s")
    if config.out is not None:
        for path in write(results, config.out, console.print):
            console.print(f"written  {path}")
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
