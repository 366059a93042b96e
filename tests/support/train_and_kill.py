# SPDX-License-Identifier: Apache-2.0
"""A program for test_train.py: train in children and kill them at random moments, then train to the end.

    python -m tests.support.train_and_kill RECORDS OUT STEPS N_KILLS

A child is forked before PyTorch has started a thread, so ten of them cost one import. Prints how many died of it.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the optimizer would import it in every child

from training.config import TrainConfig
from training.trainer import train

CONFIG = TrainConfig(
    preset="small", batch=64, warmup_steps=10, log_every=4, checkpoint_every=10, relist_steps=7, window_max=20_000
)


def main(records: Path, out: Path, steps: int, n_kills: int) -> None:
    moments, n_killed = random.Random(5), 0
    for attempt in range(n_kills + 1):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            train(CONFIG, records=[records], out=out, until_step=steps)
            os._exit(0)
        if attempt < n_kills:
            # Some die before they have kept anything, some after one state, perhaps while they write the next.
            before = states(out)
            while moments.random() < 0.98 and states(out) == before:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
        n_killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(n_killed)


def states(out: Path) -> int:
    """Changes whenever a state is written."""
    path = out / "state.safetensors"
    return path.stat().st_mtime_ns if path.exists() else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
