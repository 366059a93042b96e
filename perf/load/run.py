# SPDX-License-Identifier: Apache-2.0
"""`blobzero loadtest`: put load on a server in a closed or an open loop, report, and judge the result."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import tyro
from rich.console import Console

from clients.lock import sole_writer
from clients.provenance import machine
from mcts_ext.contract import MODEL_NAME
from mcts_ext.errors import BlobError, InvalidConfig
from perf.load import Generator, Load, LoadError, Patience, Point, Slo, Target, Traffic, highest_rate, parse_sweep
from perf.load.plan import TransportName
from perf.load.report import Results, show_results, write
from ui.console import plain_console
from ui.next_step import command_line
from ui.progress import progress
from ui.stopping import INTERRUPTED

CAPACITY_CONCURRENCY: Final = 16
"""Requests in flight of the closed loop that measures where a search for a rate begins."""


@dataclass(frozen=True, kw_only=True)
class LoadTestConfig:
    """Put load on a Triton server in a closed or an open loop; report rates, latencies and where the time goes."""

    url: str | None = None
    """HOST:PORT of the server's gRPC endpoint; by default one is started."""
    metrics_url: str = ""
    """HOST:PORT of its metrics endpoint; by default the port after that of gRPC."""
    repository: Path = Path("model_repo")
    """Model repository of the server started here."""
    model: str = MODEL_NAME
    """Name of the model."""
    model_version: str = ""
    """Version of the model; by default the latest."""
    key_file: Path | None = None
    """Key of the control API, which shared memory needs if the server requires one."""
    transport: tuple[TransportName, ...] = ("grpc",)
    """Transport of the requests; several are measured in turns."""
    concurrency: str = "1:64:x2"
    """Requests in flight, each followed by the next: 8, 1,4,16, 1:64:x2 or 10:50:10."""
    rate: str | None = None
    """Requests/s instead of requests in flight, sent at random times whether or not answers arrive (100:500:100)."""
    slo: str | None = None
    """Find the highest rate that meets a latency objective instead, for example p99=20ms."""
    require: float | None = None
    """Requests/s that must be reached, with the objective if there is one; otherwise the exit status is 1."""
    precision: float = 0.05
    """Precision of the highest rate, as a fraction of it."""
    traffic: Annotated[Traffic, tyro.conf.arg(name="")] = field(default_factory=Traffic)
    patience: Annotated[Patience, tyro.conf.arg(name="")] = field(default_factory=Patience)
    out: Path | None = None
    """Folder for JSON, CSV and pictures; by default nothing is written."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the result as JSON on standard output."""


class RateMissed(BlobError):
    """The required rate was not reached."""


def loadtest(config: LoadTestConfig) -> int:
    """Measure, report and judge; return the exit status."""
    loads, slo = _loads(config), None if config.slo is None else Slo.parse(config.slo)
    transports = list(dict.fromkeys(config.transport))
    _check(config, slo, transports)
    console = plain_console(stderr=config.json, is_wide=True)
    points: list[tuple[str, Point]] = []
    best_rate: float | None = None
    fault: KeyboardInterrupt | LoadError | None = None
    with contextlib.ExitStack() as lock, contextlib.ExitStack() as stack:
        if config.out is not None:
            lock.enter_context(sole_writer(config.out))
        target = _target(config, stack, console)
        show = stack.enter_context(progress(console, "points", total=len(loads) * len(transports) or None))
        generators = [stack.enter_context(Generator(target, config.traffic, one)) for one in transports]

        def measure(generator: Generator, load: Load) -> Point:
            patience = config.patience
            if slo is not None and load.rate is not None:
                patience = slo.patience(patience, load.rate)
            point = generator.measure(load, patience, say=show)
            points.append((generator.transport, point))
            show(f"{generator.transport}, {point}", len(points), is_line=not console.is_terminal)
            return point

        try:
            if slo is not None:
                probe, least = partial(measure, generators[0]), slo.least_rate(config.patience)
                first = config.require or 0.8 * probe(Load(concurrency=CAPACITY_CONCURRENCY)).requests_per_s
                best_rate = highest_rate(probe, slo, first=first, precision=config.precision, least=least)
            for load in loads:
                for generator in generators:
                    measure(generator, load)
        except (KeyboardInterrupt, LoadError) as error:  # the points measured before are still reported
            fault = error
        stack.close()
        if points:
            provenance = {
                "model": {"name": config.model, "max_batch_size": generators[0].max_batch_size},
                "machine": machine(),
                "config": json.loads(json.dumps(asdict(config), default=str)),
                "interrupted": isinstance(fault, KeyboardInterrupt),
            }
            results = Results(f"{config.model} at {target.url}", points, slo, best_rate, provenance)
            _report(console, config, results)
    if isinstance(fault, KeyboardInterrupt):
        return INTERRUPTED
    if fault is not None:
        raise fault
    _judge(config, results)
    return 0


def _loads(config: LoadTestConfig) -> list[Load]:
    """Return the points of the sweep; none for a search."""
    if config.slo is not None:
        return []
    if config.rate is not None:
        return [Load(rate=rate) for rate in parse_sweep(config.rate, flag="--rate")]
    found = parse_sweep(config.concurrency, flag="--concurrency")
    if any(n != int(n) for n in found):
        raise InvalidConfig(f"expected whole numbers of requests in flight, got --concurrency {config.concurrency}")
    return [Load(concurrency=int(n)) for n in found]


def _check(config: LoadTestConfig, slo: Slo | None, transports: Sequence[str]) -> None:
    """Raise InvalidConfig for settings that do not fit together, before anything is started."""
    if not transports:
        raise InvalidConfig("expected at least one --transport, got none; choose grpc or shm")
    if config.url is None and config.model != MODEL_NAME:
        raise InvalidConfig(f"expected --url with --model {config.model}: a server started here has only {MODEL_NAME}")
    if slo is not None and (config.rate is not None or len(transports) > 1):
        raise InvalidConfig("expected --slo with one --transport and without --rate, which it searches for")
    if not 0 < config.precision < 1:
        raise InvalidConfig(f"expected --precision in 0..1, got {config.precision:g}")
    if config.require is not None and config.require <= 0:
        raise InvalidConfig(f"expected --require above 0 requests/s, got {config.require:g}")
    if slo is not None:
        least = slo.least_rate(config.patience)
        if config.require is not None and config.require < least:
            raise InvalidConfig(
                f"expected --require of at least {least:g} requests/s, because {slo.name} is judged by "
                f"{slo.n_requests} requests; got {config.require:g}; "
                f"use --duration {math.ceil(slo.n_requests / config.require)}"
            )


def _target(config: LoadTestConfig, stack: contextlib.ExitStack, console: Console) -> Target:
    """Return the given server, or start one."""
    url, metrics_url = config.url, config.metrics_url
    if url is None:
        from serving.embedded import own_server  # not every installation has a server

        own = own_server(
            config.repository, say=console.print, model=config.model, key_file=config.key_file,
            is_watched=False,  # a failure under load must show
        )  # fmt: skip
        triton = stack.enter_context(own)
        url, metrics_url = triton.url, triton.metrics_url.split("/")[2]
    return Target(url, config.model, config.model_version, metrics_url, config.key_file)


def _report(console: Console, config: LoadTestConfig, results: Results) -> None:
    show_results(console, results)
    slo, best = results.slo, results.best_rate
    least = slo.least_rate(config.patience) if slo is not None else 0.0
    if slo is not None and best is not None:
        held = f"holds up to {best:,.1f}" if best else f"does not hold even at {least:,.1f}"
        console.print(f"slo      {slo.name} within {slo.limit_ms:g} ms {held} requests/s")
    if config.out is not None:
        for path in write(results, config.out, console.print):
            console.print(f"written  {path}")
    if slo is None:
        then = replace(
            config, slo="p99=20ms", transport=config.transport[:1], rate=None, require=None,
            patience=replace(config.patience, duration=None),
        )  # fmt: skip
        why = "find the highest rate that meets this objective"
    elif best:
        then = replace(config, require=max(least, round(0.9 * best)))
        why = "use the result as a gate"
    else:
        then = replace(config, slo=f"{slo.name}={2 * slo.limit_ms:g}ms", require=None)
        why = "try an easier objective"
    console.print(f"next     {command_line('loadtest', then)}   {why}", soft_wrap=True)
    if config.json:
        print(json.dumps(results.to_json()))


def _judge(config: LoadTestConfig, results: Results) -> None:
    """Raise RateMissed if the required rate was not reached."""
    if config.require is None:
        return
    found, objective = results.best_rate, f" with {config.slo}"
    if found is None:
        found, objective = max(point.requests_per_s for _, point in results.points), ""
    if found < config.require:
        raise RateMissed(
            f"expected {config.require:g} requests/s{objective}, got {found:.1f}; the server's columns show where the "
            "time goes"
        )
