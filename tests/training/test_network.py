# SPDX-License-Identifier: Apache-2.0
"""The network: its size, what its decoder reads, and checkpoints."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from export.positions import sample_rows
from mcts_ext.contract import (
    AT_BIDS,
    AT_CARDS,
    AT_DEALER,
    AT_LEADER,
    AT_N_CARDS,
    AT_N_PLAYERS,
    AT_N_TRICKS,
    AT_TRICKS,
    AT_TRUMP,
    CARD_HELD,
    CARD_ON_TABLE,
    CARD_OWN,
    CARD_PLAYED,
    N_ACTIONS,
    N_CARDS_IN_DECK,
    N_SEATS,
    NO_TRUMP,
    OBSERVATION_BYTES,
)
from mcts_ext.errors import InvalidConfig
from mcts_ext.observe import observation
from mcts_ext.rules import Round
from training import checkpoint
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.decoder import Decoder, need_columns, one_hot_columns
from training.network import PRESETS, create_network


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.from_numpy(sample_rows(500, seed=3))


def test_presets_have_the_size_they_promise() -> None:
    assert 0.97 * 4.9e6 <= create_network("reference", seed=0).n_parameters <= 1.03 * 4.9e6
    assert create_network("small", seed=0).n_parameters < 0.6e6


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"expected a network preset of .*'reference'.* got 'huge'"):
        create_network("huge", seed=0)


def test_a_seed_makes_a_network_and_leaves_torch_alone(rows: torch.Tensor) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (create_network("small", seed=seed)(rows)[0] for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@torch.no_grad()
@pytest.mark.parametrize("preset", PRESETS)
def test_an_untrained_network_is_modest(preset: str, rows: torch.Tensor) -> None:
    policy, value = create_network(preset, seed=0)(rows)
    assert policy.shape == (500, N_ACTIONS)
    assert value.shape == (500, N_SEATS)
    assert policy.dtype == value.dtype == torch.float32
    assert policy.abs().max() < 3
    assert 0.1 < policy.std() < 1
    assert 0.1 < value.min() <= value.max() < 0.9


@torch.no_grad()
def test_rows_together_equal_rows_alone(rows: torch.Tensor) -> None:
    network = create_network("small", seed=0)
    together = network(rows[:16])
    for i in range(16):
        alone = network(rows[i : i + 1])
        torch.testing.assert_close(together[0][i : i + 1], alone[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together[1][i : i + 1], alone[1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_any_bytes_are_answered_with_finite_numbers() -> None:
    garbage = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2000, OBSERVATION_BYTES), dtype=np.uint8))
    for answer in create_network("small", seed=0)(garbage):
        assert torch.isfinite(answer).all()


@torch.no_grad()
@torch.no_grad()
def test_every_byte_but_a_constant_one_changes_the_answer(rows: torch.Tensor) -> None:
    """Nothing that a row says is dropped on the way in, but who played which card and when."""
    network = create_network("small", seed=0)
    before = network(rows)[0]
    for byte in range(OBSERVATION_BYTES):
        changed = rows.clone()
        changed[:, byte] = rows[:, byte].roll(1)
        gone = ((rows >= CARD_PLAYED) & (rows < CARD_HELD) & (changed >= CARD_PLAYED) & (changed < CARD_HELD))[:, byte]
        differs = (changed != rows).any(1) & ~(gone & (AT_CARDS <= byte < AT_CARDS + N_CARDS_IN_DECK))
        if differs.any():
            moved = (network(changed)[0] - before).abs().amax(1)
            assert (moved[differs] > 0).float().mean() > 0.9, f"byte {byte}"
            assert (moved[~differs] < 1e-5).all()
    assert (rows.numpy() != rows.numpy()[0]).any(0).sum() > 90  # the sample varies in nearly all bytes


def test_columns_of_the_header_bids_and_tricks() -> None:
    row = np.zeros((1, OBSERVATION_BYTES), np.uint8)
    header = {AT_N_PLAYERS: 4, AT_N_CARDS: 5, AT_DEALER: 3, AT_N_TRICKS: 2, AT_LEADER: 1}
    for byte, value in header.items():
        row[0, byte] = value
    row[0, AT_BIDS : AT_BIDS + 8] = [2, 0, 1, 3, 15, 15, 15, 15]
    row[0, AT_TRICKS : AT_TRICKS + 8] = [0, 2, 0, 0, 0, 0, 0, 0]
    context = Decoder(6)(torch.from_numpy(row))[0][0]
    columns, needs = one_hot_columns(), need_columns()
    read = {pair for pair, on in zip(columns, context, strict=False) if on}
    bids = {(AT_BIDS + seat, bid) for seat, bid in enumerate([2, 0, 1, 3])}
    tricks = {(AT_TRICKS + seat, n) for seat, n in enumerate([0, 2, 0, 0, 0, 0, 0, 0])}
    assert read == {*header.items(), *bids, *tricks}
    in_round = {pair for pair, on in zip(needs, context[len(columns) :], strict=False) if on}
    assert in_round == {(0, 2), (1, -1), (2, 1), (3, 3)}


def test_patterns_tell_top_cards_and_trump_apart() -> None:
    """One table row for each of 3 ** 5 patterns x 3 relations, the same for every suit, and each is met."""
    decoder = Decoder(5)
    places = (0, CARD_OWN, CARD_PLAYED + 1)
    rows = np.zeros((3**5, OBSERVATION_BYTES), np.uint8)
    for i in range(3**5):
        for k in range(5):
            for suit in range(4):
                rows[i, AT_CARDS + 13 * suit + 8 + k] = places[i // 3**k % 3]
    met = set()
    for trump in range(NO_TRUMP + 1):
        rows[:, AT_TRUMP] = trump
        found = decoder(torch.from_numpy(rows))[3].numpy()
        assert [len(set(found[:, suit])) for suit in range(4)] == [3**5] * 4
        met |= set(found.flatten().tolist())
    assert met == set(range(decoder.n_patterns))
    low = rows[:1].copy()
    low[0, AT_CARDS : AT_CARDS + 8] = CARD_OWN  # below the pattern
    assert np.array_equal(decoder(torch.from_numpy(low))[3], decoder(torch.from_numpy(rows[:1]))[3])


def test_cards_in_contest_are_counted_from_the_highest() -> None:
    row = np.zeros((1, OBSERVATION_BYTES), np.uint8)
    hearts = AT_CARDS + 13
    row[0, hearts + 12] = CARD_PLAYED + 2  # the ace is gone
    row[0, hearts + 11] = CARD_HELD + 3
    row[0, hearts + 7] = CARD_OWN
    row[0, hearts + 5] = CARD_ON_TABLE + 1
    row[0, hearts + 0] = CARD_OWN
    decoder = Decoder(1)
    orders = decoder(torch.from_numpy(row))[2][0]
    assert orders[1, [0, 5, 7, 11]].tolist() == [3, 8 * 13 + 2, 1, 3 * 13]
    assert (orders < decoder.n_orders - 1).sum() == 4


def sweeps(seed: int) -> Iterator[bytes]:
    """Positions of rounds in which one seat holds the highest trumps, so that it wins all its tricks."""
    random = Random(seed)
    for _ in range(400):
        n_players = random.choice((3, 4, 4, 5, 6, 7, 8))
        n_cards = 52 // n_players if n_players > 3 else 13
        trump, strong = random.randrange(4), random.randrange(n_players)
        top = [13 * trump + rank for rank in range(13 - n_cards, 13)]
        rest = [card for card in range(52) if card not in top]
        random.shuffle(rest)
        hands = [top if seat == strong else [rest.pop() for _ in range(n_cards)] for seat in range(n_players)]
        table = Round(hands, dealer=random.randrange(n_players), trump=trump)
        while not table.is_over:
            yield observation(table)
            table.apply(random.choice(table.legal_actions()))


def low_leads(seed: int) -> Iterator[bytes]:
    """Positions of rounds with nearly all cards in play in which whoever leads, leads the lowest rank."""
    random = Random(seed)
    for _ in range(400):
        table = Round.deal(8, 6, random.randrange(8), random.randrange(4), random.randrange(2**32))
        while not table.is_over:
            yield observation(table)
            actions = table.legal_actions()
            leads = not table.is_bidding and (not table.tricks or len(table.tricks[-1]) == 8)
            table.apply(min(actions, key=lambda action: (action - 14) % 13) if leads else random.choice(actions))


def test_every_input_column_is_reached_in_play() -> None:
    real: NDArray[np.uint8] = sample_rows(60_000, seed=5)
    rare = np.frombuffer(b"".join([*sweeps(6), *low_leads(7)]), np.uint8).reshape(-1, OBSERVATION_BYTES)
    decoder = Decoder(1)
    reached = [torch.zeros(n) for n in (decoder.n_context, decoder.n_suits)]
    orders = set()
    for chunk in np.array_split(np.concatenate([real, rare]), 80):
        *features, found, _ = decoder(torch.from_numpy(chunk))
        orders |= set(found.flatten().tolist())
        for i, part in enumerate(features):
            reached[i] = torch.maximum(reached[i], part.abs().flatten(0, -2).amax(0))
    assert orders == set(range(decoder.n_orders))
    for part in reached:
        assert part.nonzero().numel() == len(part)
        assert part.max() < 4  # about 0 to 1


def test_every_parameter_tensor_learns(rows: torch.Tensor) -> None:
    network = create_network("small", seed=0)
    policy, value = network(rows)
    (policy.square().sum() + value.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_checkpoint_round_trip(tmp_path: Path, rows: torch.Tensor) -> None:
    network = create_network("small", seed=7)
    written = save_checkpoint(tmp_path / "new" / "a.safetensors", network, step=12, seed=7)
    loaded, info = load_checkpoint(tmp_path / "new" / "a.safetensors")
    assert info == written
    assert (info.step, info.seed, info.preset, info.n_parameters) == (12, 7, "small", network.n_parameters)
    assert torch.equal(network(rows)[0], loaded(rows)[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, create_network("small", seed=1), step=1)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # writing past it fails, as on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"expected room for checkpoint .* free space"):
            save_checkpoint(path, create_network("small", seed=2), step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="writable folder"):
        save_checkpoint(tmp_path / "file" / "a.safetensors", create_network("small", seed=1), step=1)


def test_damaged_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(path, create_network("small", seed=1), step=1)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    weights = load_file(path)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match) as caught:
            load_checkpoint(bad)
        assert "\n" not in str(caught.value)

    refused("a readable checkpoint")  # no file
    for content in (b"", b"garbage" * 100, data[:-5], data[:100]):
        bad.write_bytes(content)
        refused("a readable checkpoint")
    save_file(weights, bad)
    refused("a file of format 'blobzero checkpoint 1' at .*, got None")
    save_file(weights, bad, metadata={**header, "info": '{"step": 1}'})
    refused("a description of the network")
    save_file({"other": torch.zeros(3)}, bad, metadata=header)
    refused("the weights of NetworkConfig")
    save_file({**weights, "value.bias": torch.full((N_SEATS,), torch.nan)}, bad, metadata=header)
    refused("finite weights at .*, got NaN or infinity in value.bias")
    save_file({**weights, "value.bias": torch.ones(N_SEATS)}, bad, metadata=header)
    refused("weights of sha256")
    monkeypatch.setattr(checkpoint, "OBSERVATION_VERSION", 3)
    bad.write_bytes(data)
    refused("expected observation version 3, got 2")
