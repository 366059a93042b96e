# SPDX-License-Identifier: Apache-2.0
"""Count the rows in the requests of self-play: makes `request_sizes.json`, which `blobzero loadtest` draws from.

The model is served without dynamic batching, so an execution is a request, and the server's own statistics hold the
sizes. `python -m benchmarks.request_sizes` writes the file anew; what a run does in its first seconds, while all
its games stand at the same move, is left out.
"""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.measure import Say
from benchmarks.served import served, served_repository
from clients.child import python_command
from clients.load.rows import SIZES
from clients.report import write_json
from mcts_ext.contract import MODEL_NAME

WARMUP_S: Final = 15.0
SECONDS: Final = 45.0
N_QUANTILES: Final = 65


def run(say: Say) -> dict[str, object]:
    """Play, count, and say what was found."""
    with served_repository(say) as repository, tempfile.TemporaryDirectory(prefix="blobzero-sizes-") as name:
        folder = Path(name)
        shutil.copytree(repository, folder / "models")
        config = folder / "models" / MODEL_NAME / "config.pbtxt"
        config.write_text(re.sub(r"dynamic_batching\s*\{[^}]*\}", "", config.read_text()))
        with served(folder / "models", log_file=folder / "log") as (triton, statistics):
            command = ["selfplay", "--url", triton.url, "--out", str(folder / "run"), "--rounds", "1000000", "--json"]
            player = subprocess.Popen(
                python_command("blobzero.cli", *command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                time.sleep(WARMUP_S)
                before = statistics.read()
                time.sleep(SECONDS)
                sizes = statistics.read().minus(before).batch_sizes
            finally:
                player.terminate()
                player.wait()
    rows = np.repeat(list(sizes.keys()), list(sizes.values()))
    quantiles = np.quantile(rows, np.linspace(0, 1, N_QUANTILES))
    return {
        "what": "rows in a request of `blobzero selfplay`, defaults: 4 players, 5 cards, 3 x 30, 256 games a group",
        "requests": len(rows),
        "mean": round(float(rows.mean()), 1),
        "quantiles": [round(float(value), 1) for value in quantiles],
    }


if __name__ == "__main__":
    write_json(SIZES, run(print))
    print(f"written  {SIZES}")
