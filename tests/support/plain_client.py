# SPDX-License-Identifier: Apache-2.0
"""A closed loop by NVIDIA's own client, as short as it can be: what our load test must agree with."""

import threading
import time

import numpy as np
import tritonclient.grpc as triton


def closed_loop(url: str, rows: np.ndarray, *, concurrency: int, seconds: float) -> tuple[float, list[float]]:
    """Requests/s, and the latencies in seconds, of so many threads with a client each."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    def work() -> None:
        client = triton.InferenceServerClient(url)
        source = triton.InferInput("observation", list(rows.shape), "UINT8")
        source.set_data_from_numpy(rows)
        while time.perf_counter() < until:
            began = time.perf_counter()
            client.infer("blobnet", [source])
            latencies.append(time.perf_counter() - began)
        client.close()

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / (time.perf_counter() - began), latencies
