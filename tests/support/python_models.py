# SPDX-License-Identifier: Apache-2.0
"""Models in Python for a server under load: one that takes a known time, and one with inputs unlike ours."""

from pathlib import Path

from mcts_ext import contract

SLEEPER = '''
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    """Takes SECONDS a request, one after the other; every FAILING-th fails.

    A request that comes right after the one before counts from that one's planned end: so what a sleep takes too long
    does not add up along a queue, and the server is as deterministic as theory has it.
    """
    n = 0
    end = 0.0

    def execute(self, requests):
        responses = []
        for request in requests:
            rows = pb.get_input_tensor_by_name(request, "observation").as_numpy()
            now = time.monotonic()
            self.end = (self.end if now - self.end < {seconds} / 5 else now) + {seconds}
            time.sleep(max(0.0, self.end - now))
            self.n += 1
            if {failing} and self.n % {failing} == 0:
                responses.append(pb.InferenceResponse(error=pb.TritonError("not this one")))
                continue
            responses.append(pb.InferenceResponse([
                pb.Tensor("policy", np.zeros((len(rows), 66), np.float32)),
                pb.Tensor("value", np.zeros((len(rows), 8), np.float32)),
            ]))
        return responses
'''
FOREIGN = """
class TritonPythonModel:
    def execute(self, requests):
        raise NotImplementedError
"""
FOREIGN_CONFIG = """
name: "foreign" backend: "python" max_batch_size: 8
input [ { name: "tokens" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
SLEEPER_CONFIG = f"""
name: "{contract.MODEL_NAME}" backend: "python" max_batch_size: 1024
input [ {{ name: "observation" data_type: TYPE_UINT8 dims: [ {contract.OBSERVATION_BYTES} ] }} ]
output [ {{ name: "policy" data_type: TYPE_FP32 dims: [ 66 ] }}, {{ name: "value" data_type: TYPE_FP32 dims: [ 8 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


def write_models(root: Path, *, seconds: float, failing: int = 0) -> Path:
    """Write the sleeper under our model's name, and `foreign`; returns `root`."""
    _write(root / contract.MODEL_NAME, SLEEPER_CONFIG, SLEEPER.format(seconds=seconds, failing=failing))
    _write(root / "foreign", FOREIGN_CONFIG, FOREIGN)
    return root


def _write(folder: Path, config: str, code: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.py").write_text(code)
    (folder / "1" / "model.onnx").touch()  # what the embedded server looks for
