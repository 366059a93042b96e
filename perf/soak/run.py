# SPDX-License-Identifier: Apache-2.0
"""`blobzero soak`: checks of its settings, the soak test (soak.py) and the report."""

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
from ui.stopping import INTERRUPTED, stop_signals

MAX_MINUTES: Final = 10_000
"""A week: for each minute, the workers keep a megabyte for rounds that could be played."""


def soak(config: SoakConfig) -> int:
    """Play with faults and account for the rounds; return the exit status."""
    _check(config)
    with sole_writer(config.out):
        if any(path.name != LOCK for path in config.out.iterdir()):
            raise InvalidConfig(f"expected an empty folder, got {config.out}; remove it or choose another --out")
        (config.out / "shards").mkdir()
        return _run(config)


def _run(config: SoakConfig) -> int:
    console = plain_console(stderr=config.json, is_wide=True)
    rounds: Rounds | None = None
    try:
        with contextlib.ExitStack() as stack:
            was_stopped = stack.enter_context(stop_signals())
            disk, kinds, left_out = _disk(config, stack)
            for kind, why in left_out.items():
                console.print(f"left out {kind}: {why}", markup=False)
            show = stack.enter_context(progress(console, "seconds of play", total=60 * config.minutes))
            soaking = Soak(config, disk, kinds, show, was_stopped)
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
        return INTERRUPTED
    return 0 if result.is_good else 1


def _check(config: SoakConfig) -> None:
    if not config.kinds:
        raise InvalidConfig("expected at least one of --kinds, got none")
    if not 0 < config.minutes <= MAX_MINUTES or config.faults < 0 or config.workers < 1:
        raise InvalidConfig(
            f"expected --minutes above 0 and at most {MAX_MINUTES}, --faults of 0 or more and --workers of 1 or more, "
            f"got {config.minutes:g}, {config.faults} and {config.workers}"
        )
    allow_open_files(config.workers, flag="--workers")
    if config.preset not in PRESETS:
        raise InvalidConfig(f"expected --preset of {', '.join(PRESETS)}, got {config.preset}")


def _disk(
    config: SoakConfig, stack: contextlib.ExitStack
) -> tuple[SmallDisk | None, Sequence[FaultName], dict[str, str]]:
    """Return the disk for the records, the kinds of fault that are possible, and why others are not."""
    kinds = list(dict.fromkeys(config.kinds))
    if "disk-full" not in kinds:
        return None, kinds, {}
    try:
        return stack.enter_context(SmallDisk(config.out / "shards")), kinds, {}
    except NoSmallDisk as error:
        kinds.remove("disk-full")
        if not kinds:
            raise InvalidConfig(f"expected a small disk, got: {error}; choose other --kinds") from error
        return None, kinds, {"disk-full": f"no small disk can be mounted here ({error})"}
