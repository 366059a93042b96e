# SPDX-License-Identifier: Apache-2.0
"""Headers of checkpoints and states, registries and other JSON from anywhere: absurd sizes and types are one line."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from clients.files import json_object
from clients.selfplay.folder import RunFolder, RunFolderError
from export.errors import RegistryError
from export.publishing.registry import Registry
from mcts_ext.errors import BlobError
from training.checkpoint import FORMAT, CheckpointError, describe, load_checkpoint, save_checkpoint
from training.metrics import read_metrics
from training.network import PRESETS, create_network
from training.state import FORMAT as STATE_FORMAT
from training.state import StateError, load_state

SMALL = PRESETS["small"]
DEEP = "[" * 50_000 + "]" * 50_000
NO_MEMORY_FOR_IT = 8 << 30

SHAPES: dict[str, Any] = {
    "a width of 10^9": {**asdict(SMALL), "width": 10**9},
    "a width of 60,000": {**asdict(SMALL), "width": 60_000},  # possible, but not what the tensors are
    "10^9 blocks": {**asdict(SMALL), "n_blocks": 10**9},
    "a pattern of 40 ranks": {**asdict(SMALL), "n_pattern_ranks": 40},
    "a pattern of 13 ranks": {**asdict(SMALL), "n_pattern_ranks": 13},
    "text": {**asdict(SMALL), "hidden": "256"},
    "negative": {**asdict(SMALL), "hidden": -256},
    "zero": {**asdict(SMALL), "suit_width": 0},
    "a truth": {**asdict(SMALL), "n_blocks": True},
    "a fraction": {**asdict(SMALL), "n_blocks": 4.0},
    "a list": list(asdict(SMALL).values()),
    "nothing": None,
    "a field more": {**asdict(SMALL), "depth": 3},
    "a field less": {"width": 64},
}
INFO: dict[str, dict[str, Any]] = {
    "a step of text": {"step": "x"},
    "a negative step": {"step": -1},
    "a step that is a truth": {"step": True},
    "a step without end": {"step": float("inf")},
    "a seed of text": {"seed": "x"},
    "a version of text": {"observation_version": "2"},
    "parameters in a list": {"n_parameters": [1]},
}


def small_weights() -> tuple[dict[str, Tensor], dict[str, Any]]:
    network = create_network("small", seed=1)
    return network.state_dict(), asdict(describe(network))


def checkpoint(path: Path, *, info: str) -> None:
    save_file(small_weights()[0], path, metadata={"format": FORMAT, "info": info})


def refused(path: Path) -> str:
    """How a checkpoint is refused: in one short line, and without memory for what it says it is."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (NO_MEMORY_FOR_IT, limits[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkpoint_of_an_absurd_shape_is_refused(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint(path, info=json.dumps({**small_weights()[1], "config": SHAPES[shape]}))
    text = refused(path)
    assert "description of the network" in text or "the weights of" in text


@pytest.mark.parametrize("how", INFO)
def test_a_checkpoint_of_absurd_types_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint(path, info=json.dumps({**small_weights()[1], **INFO[how]}))
    assert "a description of the network in the header" in refused(path)


@pytest.mark.parametrize("info", [DEEP, "[]", "3", "{}", "", '{"step": ' + "9" * 5000 + "}"])
def test_a_checkpoint_without_a_description_is_refused(info: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint(path, info=info)
    assert "a description of the network in the header" in refused(path)


def raw(header: Any, *, length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        raw("{}", length=2**60),
        raw("{}", length=2**64 - 1),
        raw({"__metadata__": [1, 2]}),
        raw({"__metadata__": {"format": FORMAT, "info": {"step": 1}}}),
        raw({"__metadata__": {"format": 3}}),
        raw("[]"),
        raw(DEEP),
        raw({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
        raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path)


def test_a_checkpoint_in_other_numbers_is_refused(tmp_path: Path) -> None:
    weights, info = small_weights()
    halves = {name: tensor.double() for name, tensor in weights.items()}
    save_file(halves, tmp_path / "a.safetensors", metadata={"format": FORMAT, "info": json.dumps(info)})
    assert "got F64" in refused(tmp_path / "a.safetensors")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    code = "import pathlib, sys, training.checkpoint as c; c.load_checkpoint(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert f"expected a readable checkpoint at {tmp_path}/a.safetensors, got a FIFO; choose another" in done.stderr
    assert refused(tmp_path)  # a directory


def test_the_shape_of_every_preset_passes(tmp_path: Path) -> None:
    for name in PRESETS:
        save_checkpoint(tmp_path / f"{name}.safetensors", create_network(name, seed=2), step=3)
        assert load_checkpoint(tmp_path / f"{name}.safetensors")[1].preset == name


def state(path: Path, *, fields: str) -> None:
    weights = small_weights()[0]
    tensors = {f"{group}.{name}": tensor.clone() for group in ("network", "ema") for name, tensor in weights.items()}
    save_file(tensors, path, metadata={"format": STATE_FORMAT, "state": fields})


def fields_of(network: Any = None, **changes: Any) -> str:
    found = {"step": 4, "n_drawn": 9, "seed": 1, "config": {}, "shards": [["a", 3]], "generator": {}}
    return json.dumps({**found, "network": network or asdict(SMALL), **changes})


def test_a_state_of_sound_fields_is_read(tmp_path: Path) -> None:
    state(tmp_path / "a", fields=fields_of())
    found = load_state(tmp_path / "a")
    assert (found.step, found.network, found.shards[0].rows) == (4, asdict(SMALL), 3)


STATES = {
    **{f"shape: {name}": fields_of(shape) for name, shape in SHAPES.items() if shape},
    **{
        f"{name}={value!r:.20}": fields_of(**{name: value})
        for name, value in [
            ("step", "x"), ("step", -1), ("step", True), ("n_drawn", 1.5), ("seed", []), ("config", 3), ("config", "x"),
            ("shards", 3), ("shards", [["a"]]), ("shards", [["a", "x"]]), ("shards", [["a", -3]]), ("generator", 7),
        ]
    },
    "nested deeply": DEEP,
    "a list": "[]",
    "no fields": "{}",
}  # fmt: skip


@pytest.mark.parametrize("how", STATES)
def test_a_state_of_absurd_fields_is_refused(how: str, tmp_path: Path) -> None:
    state(tmp_path / "a", fields=STATES[how])
    with pytest.raises(StateError, match="expected a training state") as caught:
        load_state(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


REGISTRIES = [
    DEEP, "[]", "3", '{"versions": 3}', '{"versions": [3]}', '{"versions": [[1, 2]]}',
    *(
        json.dumps({"versions": [{"version": 1, "state": "published", **change}]})
        for change in (
            {"version": "1"}, {"version": True}, {"version": -1}, {"version": 2**63}, {"version": None},
            {"state": "lost"}, {"state": []}, {"same_as": "x"}, {"files": ["a"]}, {"files": {"a": 3}},
            {"properties": 3}, {"parity": {"a": "x"}}, {"served": 3}, {"at": 5}, {"source": {}}, {"url": 8001},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", REGISTRIES, ids=lambda text: text[:60])
def test_an_absurd_registry_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text(text)
    with pytest.raises(RegistryError, match="move it away") as caught:
        Registry(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [DEEP, "[]", "3", "{", '{"seed": []}'])
def test_an_absurd_run_folder_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    folder = RunFolder(tmp_path)
    with pytest.raises(RunFolderError):
        folder.seed()
    with pytest.raises(RunFolderError):
        folder.open({"seed": 3})


def test_absurd_lines_of_a_curve_end_it(tmp_path: Path) -> None:
    for line in (DEEP, "[]", "3", "{}", '{"step": "x"}', '{"st'):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n' + line + "\n")
        assert read_metrics(tmp_path / "metrics.jsonl", until=1) == [{"step": 1}]
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_json_that_is_no_object() -> None:
    assert json_object(b'{"a": 1}') == {"a": 1}
    for text in (DEEP, "[]", "null", "{", b"\xff"):
        with pytest.raises(ValueError, match=r".+"):
            json_object(text)


def test_a_refusal_says_expected_and_the_path_once(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text("[]")
    (tmp_path / "run.json").write_text("[]")
    checkpoint = tmp_path / "c.safetensors"
    weights, info = small_weights()
    said = []
    for attempt in (
        lambda: Registry(tmp_path),
        lambda: RunFolder(tmp_path).seed(),
        lambda: load_checkpoint(checkpoint),
        lambda: load_state(checkpoint),
    ):
        with pytest.raises(BlobError) as caught:
            attempt()
        said.append(str(caught.value))
    save_file(weights, checkpoint, metadata={"format": FORMAT, "info": json.dumps(info | {"step": -1})})
    said.append(refused(checkpoint))
    for text in said:
        assert text.count("expected ") == text.count(f"{tmp_path}/") == 1, text
    assert "got a list, not a JSON object" in said[0]
    assert "got '-1' as step, not 0.." in said[-1]
