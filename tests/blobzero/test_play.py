# SPDX-License-Identifier: Apache-2.0
"""`blobzero play` as a person meets it, by the transcript of the real command; and what it is made of."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobzero.play.entry import Unreadable, card_name, parse_card, read_bid, read_card
from blobzero.play.seat import OPPONENTS, percentages
from clients.arena.game import SeatPlayer, SeatSearchPlayer, play_game
from clients.arena.players import PLAYER_SEARCH
from clients.evaluator import HashEvaluator, UniformEvaluator
from mcts_ext.contract import FIRST_CARD_ACTION
from mcts_ext.errors import InvalidDeal
from mcts_ext.game import Game
from mcts_ext.names import SUITS
from mcts_ext.rules import Round

SEARCH = replace(PLAYER_SEARCH, determinizations=2, simulations=4)
FLAGS = ("--evaluator", "uniform", "--determinizations", "2", "--simulations", "4")
CARD = re.compile(r"(?:10|[2-9JQKA])[♠♥♣♦]")
AS_LETTERS = re.compile(r"\b(?:(?:10|[2-9JQKA])[SHCD]|[SHCD](?:10|[2-9JQKA]))\b")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "blobzero.cli", "play", *FLAGS, *arguments]


def blobzero(*arguments: str, lines: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), input="\n".join(lines) + "\n" * bool(lines), capture_output=True, text=True,
        errors="surrogateescape", timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip


class Silent:
    """Watches and says nothing."""

    def dealt(self, table: Round) -> None: ...
    def moved(self, table: Round, seat: int) -> None: ...
    def won(self, table: Round, seat: int) -> None: ...
    def scored(self, table: Round) -> None: ...


class Typist:
    """Plays anything legal, and remembers what a person would type for it: now a name of the card, now its place."""

    def __init__(self) -> None:
        self.typed: list[str] = []
        self._draw = Random(1)

    def choose(self, table: Round) -> int:
        legal = table.legal_actions()
        action = self._draw.choice(legal)
        if len(legal) > 1:
            card = action - FIRST_CARD_ACTION
            hand = sorted(table.hands[0], key=lambda card: (card // 13, -card))
            ways = (card_name(card, SUITS).lower(), card_name(card), str(hand.index(card) + 1)) if card >= 0 else ()
            self.typed.append(self._draw.choice(ways) if ways else str(action))
        return action


def lines_typed(seed: int, n_players: int, start_cards: int) -> list[str]:
    typist, model = Typist(), SeatSearchPlayer(UniformEvaluator(), SEARCH, seed=seed)
    players: list[SeatPlayer] = [typist, *[model] * (n_players - 1)]
    play_game(Game(n_players, start_cards, seed), players, Silent())
    return typist.typed


def moves_in(line: str) -> list[tuple[str, str]]:
    """`Bids      Ada 1  Ben 0` as [("Ada", "1"), ("Ben", "0")]."""
    return [(who, what) for who, what in (move.split() for move in re.split(r"\s{2,}", line.strip())[1:])]


def columns(block: Sequence[str]) -> list[list[str]]:
    return [line.split() for line in block]


@pytest.mark.parametrize(("n_players", "start_cards", "seed"), [(4, 4, 6), (3, 3, 1), (8, 2, 3)])
def test_a_scripted_game_is_played_by_the_rules_and_hides_what_is_hidden(
    n_players: int, start_cards: int, seed: int
) -> None:
    """The transcript's moves are replayed by the rules, and what it prints is compared with them."""
    typed = lines_typed(seed, n_players, start_cards)
    done = blobzero("--players", str(n_players), "--cards", str(start_cards), "--seed", str(seed), lines=typed)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert not AS_LETTERS.search("\n".join(line for line in done.stdout.splitlines() if "Your " not in line))
    names = ["You", *OPPONENTS[: n_players - 1]]
    game = Game(n_players, start_cards, seed)
    lines = done.stdout.splitlines()
    own: set[str] = set()
    for i, line in enumerate(lines):
        if line.startswith("Round "):
            assert line.startswith(f"Round {game.round_number + 1} of {game.n_rounds}: {game.current.n_cards} card")
            own = {card_name(card) for card in game.current.hands[0]}
        elif line.startswith(("  Bids ", "  Trick ")):
            table, moves = game.current, moves_in(line)
            made = table.tricks[-1] if table.tricks and len(table.tricks[-1]) < n_players else []
            if table.is_bidding:
                made = [(seat, bid) for seat, bid in enumerate(table.bids) if bid is not None]
            for who, what in moves[len(made) :]:  # a line may begin with moves that were printed already
                assert table.seat_to_act is not None
                assert who == names[table.seat_to_act]
                table.apply(int(what) if table.is_bidding else FIRST_CARD_ACTION + (parse_card(what) or 0))
        elif line == "  The round is over.":
            assert game.current.is_over
            table, scores, totals = game.current, game.finish_round(), game.totals
            shown = columns(lines[i + 2 : i + 2 + n_players])
            assert [row[0] for row in shown] == names
            assert [int(row[1]) for row in shown] == table.bids
            assert [int(row[2]) for row in shown] == table.tricks_won
            assert [int(row[3]) for row in shown] == scores
            assert [int(row[4]) for row in shown] == totals
        else:
            assert set(CARD.findall(line)) <= own, line
        if "Your hand" in line:
            assert {card_name(card) for card in game.current.hands[0]} == set(CARD.findall(line))
            assert game.current.seat_to_act == 0  # nobody's later move has been printed
    assert game.is_over
    standing = columns(
        lines[lines.index(next(line for line in lines if line.startswith("Standing"))) + 2 :][:n_players]
    )
    assert {row[1]: int(row[2]) for row in standing} == dict(zip(names, game.totals, strict=True))
    assert {row[1] for row in standing if row[0] == "1"} == {names[seat] for seat in game.winners()}
    assert re.search("You win|wins|share the win", lines[-1])
    assert f"{max(game.totals)} points" in lines[-1]


def test_bad_input_is_explained_and_asked_again() -> None:
    """Seed 4: the person deals, hears three bids of 0, and must then follow."""
    typed = ["two", "6", "-1", "", "5", "1", "x", "0", "9", "KS", "1", "q"]
    done = blobzero("--seed", "4", lines=typed)
    assert done.returncode == 0
    for says in (
        "expected a bid from 0 to 5, got 'two'",
        "expected a bid from 0 to 5, got '6'",
        "expected a bid from 0 to 5, got '-1'",
        "you may not bid 5: you are the dealer, and the bids would add up to 5",
        "expected a card of your hand such as AH, or its number from 1 to 4, got 'x'",
        "from 1 to 4, got '0'",
        "from 1 to 4, got '9'",
        "you do not hold K♠",
    ):
        assert says in done.stdout
    assert done.stdout.count("Your bid, 0 to 5; you deal, so not 5: ") == 6
    assert "Traceback" not in done.stdout + done.stderr


def test_a_view_is_printed_in_percents_that_sum_to_100() -> None:
    done = blobzero("--seed", "4", lines=["?", "1", "?", "q"])
    views = re.findall(r"search +network +your points *\n((?:  \S+ +\d+% +\d+% +\S+ *\n)+)", done.stdout)
    assert len(views) == 2
    for view, n_actions in zip(views, (5, 4), strict=True):
        rows = columns(view.splitlines())
        assert len(rows) == n_actions
        for column in (1, 2):
            assert sum(int(row[column].rstrip("%")) for row in rows) == 100
    assert "You 7.5   Ada 7.5   Ben 7.5   Cleo 7.5" in done.stdout
    untold = blobzero("--seed", "4", lines=["1", "q"])
    assert (
        untold.stdout.split("Trick 1")[1].split("Your card")[0]
        == (done.stdout.split("Trick 1")[1].split("Your card")[0])
    )


def test_help_states_the_rules_and_the_keys() -> None:
    done = blobzero("--unit", "round", "--seed", "4", lines=["h"])
    assert "Round 1 of 1: 5 cards each" in done.stdout
    assert "Take exactly as many as you bid: 10 points and the bid." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("lines", [["q"], ["0", "Q"], [], ["?"]])
def test_quitting_and_the_end_of_input_leave_in_order(lines: list[str]) -> None:
    done = blobzero("--seed", "4", "--name", "Tom", lines=lines)
    assert done.returncode == 0
    assert done.stdout.endswith("\n  Tom leaves the table. Points: Tom 0, Ada 0, Ben 0, Cleo 0\n")
    assert done.stderr == ""


def test_ctrl_c_leaves_with_130_and_no_traceback() -> None:
    with subprocess.Popen(
        command("--seed", "4"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        seen = b""
        while b"Your bid" not in seen:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, seen
            seen += piece
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"You leave the table." in out
    assert err == b""


def test_a_terminal_gets_colours_and_no_echo_of_ours() -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    process = subprocess.Popen(command("--seed", "4"), stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    while b"leave the table" not in seen:
        seen += os.read(ours, 4096)
        if seen.endswith(b"not 5: \x1b[0m"):
            os.write(ours, b"q\n")
    assert process.wait(timeout=20) == 0
    os.close(ours)
    text = seen.decode()
    assert "\x1b[1;31mA♥" in text
    assert re.search(r"not 5: \x1b\[0mq\r\n\r\n  You leave", text)


def test_letters_stand_for_suits_where_the_encoding_has_no_symbols() -> None:
    done = blobzero("--seed", "4", lines=["\udcff", "q"], PYTHONIOENCODING="ascii:surrogateescape")
    assert done.returncode == 0, done.stderr
    assert "6S   AH" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--players", "2"], "expected 3..8 players"),
        (["--players", "8", "--cards", "7"], "at most 52 cards"),
        (["--unit", "round", "--players", "9"], "expected 3 to 8 players"),
        (["--simulations", "-1"], "expected simulations in 0.."),
        (["--url", "localhost:1"], "expected --url only with --evaluator triton"),
        (["--name", "Ada"], "expected --name of 1..12 printable characters"),
        (["--name", ""], "expected --name of 1..12 printable characters"),
        (["--seed", "-1"], "expected --seed in 0.."),
        (["--evaluator", "local", "--repository", "nowhere"], "expected nowhere/blobnet/<version>/model.onnx"),
        (["--evaluator", "triton", "--repository", "nowhere"], "expected nowhere/blobnet"),
    ],
)
def test_a_mistake_costs_one_line(arguments: list[str], says: str) -> None:
    done = blobzero(*arguments)
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_every_card_reads_back_in_every_spelling() -> None:
    for card in range(52):
        shown, letters = card_name(card), card_name(card, SUITS)
        for text in (shown, letters, letters.lower(), f" {letters} ", letters[-1] + letters[:-1]):
            assert parse_card(text) == card
    assert parse_card("th") == parse_card("10h") == parse_card("h10") == parse_card("10 ♥")
    for text in ("", "A", "S", "1S", "11S", "AX", "ASS", "AS KS", "♠", "10", "٣S"):
        assert parse_card(text) is None


def test_the_rules_decide_what_is_read() -> None:
    """Whatever is typed, the answer is legal or refused; every legal action can be typed."""
    for seed in range(30):
        table = Round.deal(4, 4, seed % 4, seed % 5 if seed % 5 < 4 else None, seed)
        draw = Random(seed)
        while not table.is_over:
            legal, found = table.legal_actions(), set()
            texts = [str(i) for i in range(-1, 16)] + [card_name(card) for card in range(52)]
            for text in texts:
                with contextlib.suppress(Unreadable):
                    found.add(read_bid(text, table) if table.is_bidding else read_card(text, table))
            assert sorted(found) == legal
            table.apply(draw.choice(legal))


def test_must_follow_is_explained_with_what_may_be_played() -> None:
    table = Round([[12, 13, 14], [11, 10, 9], [0, 1, 2]], dealer=0, trump=None)
    for bid in (0, 0, 0):
        table.apply(bid)
    table.apply(FIRST_CARD_ACTION + 11)
    table.apply(FIRST_CARD_ACTION + 2)
    with pytest.raises(Unreadable, match="spades were led and you hold spades; play A♠"):
        read_card("2h", table)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=14).filter(lambda shares: sum(shares) > 0.01))
def test_percentages_sum_to_100(shares: list[float]) -> None:
    total = sum(shares)
    found = percentages({key: share / total for key, share in enumerate(shares)})
    assert sum(found.values()) == 100
    assert all(abs(found[key] - 100 * share / total) < 1 + 1e-6 for key, share in enumerate(shares))


def test_a_search_player_looks_at_no_hidden_card() -> None:
    """The same information set with other hidden hands: the same choice, the same view."""
    own, others = [0, 5, 13, 30], [card for card in range(52) if card not in (0, 5, 13, 30)]
    seen = []
    for seed in range(5):
        deck = Random(seed).sample(others, 12)
        table = Round([own, deck[:4], deck[4:8], deck[8:]], dealer=3, trump=1)
        player = SeatSearchPlayer(HashEvaluator(), SEARCH, seed=7)
        seen.append((player.choose(table), player.analyze(table)))
    assert all(one == seen[0] for one in seen)
    action, view = seen[0]
    assert action == max(view.policy, key=view.policy.__getitem__)
    assert sum(view.policy.values()) == pytest.approx(1)
    assert sum(view.prior.values()) == pytest.approx(1)
    assert set(view.policy) == set(view.prior) == set(table.legal_actions())
    assert all(0 <= points <= 14 for points in [*view.points.values(), *view.seats])
    others_view = SeatSearchPlayer(HashEvaluator(), SEARCH, seed=8).analyze(table)
    assert others_view.prior == view.prior
    assert others_view.policy != view.policy


def test_a_game_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidDeal):
        Game(2, 5, 0)


def test_the_readme_can_name_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "blobzero.cli", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.search(r"\bplay\b", done.stdout)
