# SPDX-License-Identifier: Apache-2.0
"""`blobzero soak`: what it needs, the test itself (soak.py), and its report."""

import contextlib
from collections.abc import Sequence
from typing import Final

from clients.limits import allow_open_files
from clients.lock import LOCK, sole_writer
from mcts_ext.errors import BlobError, InvalidConfig
from perf.soak.disk import NoSmallDisk, SmallDisk
from perf.soak.faults import FaultName
from perf.soak.report import SoakResult, report
from perf.soak.rounds import Rounds
from perf.soak.soak import Soak, SoakConfig
from training.network import PRESETS
from ui.console import plain_console
from ui.progress import progress
from ui.stopping import stop_signals

MOST_MINUTES: Final = 10_000
"""A week: for each minute the workers keep a megabyte, of rounds that might be played."""


def soak(config: SoakConfig) -> int:
    """Play, break, account; the exit status."""
    _check(config)
    with sole_writer(config.out):
        _make_folder(config)
        return _run(config)


def _run(config: SoakConfig) -> int:
    console = plain_console(stderr=config.json, is_wide=True)
    total = 60 * config.minutes
    rounds: Rounds | None = None
    try:
        with contextlib.ExitStack() as stack:
            was_stopped = stack.enter_context(stop_signals())
            disk, kinds, left_out = _disk(config, stack)
            for kind, why in left_out.items():
                console.print(f"left out {kind}: {why}", markup=False)
            show = stack.enter_context(progress(console, "seconds of play", total=total))

            def show_at(at: float, text: str, is_line: bool) -> None:
                show(f"{at:7.1f} s  {text}", min(at, total), is_line=is_line)

            soaking = Soak(config, disk, kinds, show_at, was_stopped)
            soaking.play()
            interrupted = was_stopped()
            rounds = soaking.settle()
    except BlobError as error:
        if rounds is None:  # nothing was played
            with contextlib.suppress(OSError):
                (config.out / "shards").rmdir()
            raise
        soaking.broken_off = soaking.broken_off or str(error)
    result = SoakResult(soaking, rounds, left_out, interrupted)
    report(console, result)
    if interrupted:
        return 130
    return 0 if result.is_good else 1


def _check(config: SoakConfig) -> None:
    if not config.kinds:
        raise InvalidConfig("expected at least one of --kinds, got none")
    if not 0 < config.minutes <= MOST_MINUTES or config.faults < 0 or config.workers < 1:
        raise InvalidConfig(
            f"expected --minutes above 0 and at most {MOST_MINUTES}, --faults of 0 or more and --workers of 1 or more, "
            f"got {config.minutes:g}, {config.faults} and {config.workers}"
        )
    allow_open_files(config.workers, flag="--workers")
    if config.preset not in PRESETS:
        raise InvalidConfig(f"expected --preset of {', '.join(PRESETS)}, got {config.preset}")


def _make_folder(config: SoakConfig) -> None:
    """The players' folder, in one that holds nothing but our lock."""
    if any(one.name != LOCK for one in config.out.iterdir()):
        raise InvalidConfig(f"expected an empty folder, got {config.out}; remove it or choose another --out")
    (config.out / "shards").mkdir()


def _disk(
    config: SoakConfig, stack: contextlib.ExitStack
) -> tuple[SmallDisk | None, Sequence[FaultName], dict[str, str]]:
    """The players' disk, the kinds of fault that can be inflicted, and why others cannot."""
    kinds = list(dict.fromkeys(config.kinds))
    if "disk-full" not in kinds:
        return None, kinds, {}
    try:
        return stack.enter_context(SmallDisk(config.out / "shards")), kinds, {}
    except NoSmallDisk as error:
        kinds.remove("disk-full")
        if not kinds:
            raise InvalidConfig(f"expected a small disk, got: {error}; choose other --kinds") from error
        return None, kinds, {"disk-full": f"no small disk may be mounted here ({error})"}
