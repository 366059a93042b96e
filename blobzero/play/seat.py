# SPDX-License-Identifier: Apache-2.0
"""The human player's seat in the terminal: output and input.

Everything is printed once and scrolls, on a terminal and in a pipe alike; only colours need a terminal. This module
reads no hand but the player's own.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Final

from rich.table import Table
from rich.text import Text

from blobzero.play.entry import (
    SUIT_NAMES,
    SYMBOLS,
    Unreadable,
    card_name,
    forbidden_bid,
    read_bid,
    read_card,
    sorted_hand,
)
from clients.arena.game import Analysis
from mcts_ext.contract import FIRST_CARD_ACTION
from mcts_ext.deals import hand_sizes
from mcts_ext.names import SUITS
from mcts_ext.rules import Round
from ui.console import plain_console

OPPONENTS: Final = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus")
PERSON: Final = 0
"""The human player's seat; the other seats follow clockwise."""

SUIT_STYLES: Final = ("bold", "bold red", "bold green", "bold cyan")
"""Four distinct colours, readable on dark and light backgrounds."""

RULES: Final = """\
Each round: first everyone bids how many tricks they will take, then the cards are played.
Take exactly as many as you bid: 10 points and the bid. Any more or fewer: nothing.
The seat on the dealer's left bids first, the dealer last.
The dealer may not make the bids add up to the number of tricks: someone must miss.
The same seat on the dealer's left leads to the first trick; a trick's winner leads the next.
Follow the suit that was led if you can; if you cannot, play any card.
The highest trump wins the trick, or without one the highest card of the suit led. Aces are high.
Cards that were not dealt stay hidden and out of play.
A game: a card fewer each round, a round of one card for each player, then a card more each round.
The dealer moves one seat to the left after each round. The highest total wins; ties share."""

KEYS: Final = """\
A bid is a number: 2.  A card is its rank and suit: AS, 10h, qd, or its number in your hand.
? what the network thinks   h this help   q leave the table"""


class Left(Exception):
    """The player has left the table: `q`, or end of input."""


class Seat:
    """The human player, as a `SeatPlayer` and a `Watcher` (clients/arena/game.py)."""

    def __init__(self, *, name: str, n_players: int, analyze: Callable[[Round], Analysis]) -> None:
        self._console = plain_console(is_colored=sys.stdin.isatty())
        self._echo = not sys.stdin.isatty()
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # a stray byte is an input error, not a traceback
        self._symbols = SYMBOLS if self._console.encoding.startswith("utf") else SUITS
        self._names = [name, *OPPONENTS[: n_players - 1]]
        self._width = max(map(len, self._names))
        self._analyze = analyze
        self._totals = [0] * n_players
        self._is_line_open = False

    # Output

    def welcome(self, setting: str) -> None:
        """Print the first lines."""
        self._print(Text("\n  Blob", "bold"), f"   {setting}")
        self._print("  Bid how many tricks you will take, then take exactly that many.")
        self._print(Text("  h rules and keys   ? what the network thinks   q leave", "dim"))

    def dealt(self, table: Round) -> None:
        """Print the heading of a round and the points."""
        self._totals = table.totals
        n_rounds = len(hand_sizes(table.n_players, table.start_cards)) if table.start_cards else 1
        cards = "1 card" if table.n_cards == 1 else f"{table.n_cards} cards"
        title = Text.assemble(f"Round {table.game_round + 1} of {n_rounds}: {cards} each, trump ", self._trump(table))
        self._print()
        self._console.rule(title, align="left", style="dim")
        self._standing(table)

    def moved(self, table: Round, seat: int) -> None:
        """Print the bids or the trick so far in one line that grows."""
        moves = self._moves(table)
        label = "Bids" if not table.tricks else f"Trick {len(table.tricks)}"
        if self._is_line_open:
            moves = moves[-1:]
        else:
            self._console.print(Text(f"\n  {label:<8}", "dim"), end="")
        for mover, move in moves:
            self._console.print(Text(f"  {self._names[mover]} ", "dim"), move, sep="", end="")
        self._is_line_open = True
        if not table.is_bidding and not table.tricks:
            self._end_line()
            self._standing(table)

    def won(self, table: Round, seat: int) -> None:
        """Print the winner of the trick, and the standing unless the round is over."""
        self._end_line()
        self._print(f"{'':12}{self._verb(seat, 'take')} the trick.")
        if not table.is_over:
            self._standing(table)

    def scored(self, table: Round) -> None:
        """Print the result of the round."""
        scores = table.scores()
        self._totals = [total + score for total, score in zip(table.totals, scores, strict=True)]
        grid = self._grid("", "bid", "tricks", "score", "points")
        for seat, (bid, tricks) in enumerate(zip(table.bids, table.tricks_won, strict=True)):
            score = Text(f"+{scores[seat]}", "bold green") if bid == tricks else Text("0", "red")
            grid.add_row(self._name(seat), str(bid), str(tricks), score, str(self._totals[seat]))
        self._print("\n  The round is over.", "")
        self._console.print(grid)

    def finish(self) -> None:
        """Print the final standing and the winners."""
        best = max(self._totals)
        winners = [seat for seat, total in enumerate(self._totals) if total == best]
        self._console.rule("Standing", align="left", style="dim")
        self._print()
        for seat in sorted(range(len(self._totals)), key=lambda seat: -self._totals[seat]):
            place = 1 + sum(total > self._totals[seat] for total in self._totals)
            line = f"  {place}  {self._names[seat]:<{self._width}}  {self._totals[seat]:>4}"
            self._print(Text(line, "bold" if seat in winners else ""))
        if len(winners) == 1:
            text = f"{self._verb(winners[0], 'win')} with {best} points."
        else:
            text = f"{' and '.join(self._names[seat] for seat in winners)} share the win with {best} points."
        self._print(f"\n  {text}")

    def farewell(self) -> None:
        """Print the points so far when the player leaves."""
        self._end_line()
        points = ", ".join(f"{name} {total}" for name, total in zip(self._names, self._totals, strict=True))
        self._print(f"\n  {self._verb(PERSON, 'leave')} the table. Points: {points}")

    # Input

    def choose(self, table: Round) -> int:
        """Ask until the input is a legal action; a forced move is played without asking."""
        self._end_line()
        self._hand(table)
        legal = table.legal_actions()
        if len(legal) == 1:
            kind = "bid" if table.is_bidding else "card"
            self._print("  ", self._action(legal[0]), f" is the only {kind} that the rules allow: done for you.")
            return legal[0]
        while True:
            answer = self._ask(self._question(table))
            if answer in ("q", "quit"):
                raise Left
            if answer in ("h", "help"):
                self._help()
            elif answer == "?":
                self._show_analysis(table)
            elif answer:
                try:
                    return read_bid(answer, table) if table.is_bidding else read_card(answer, table, self._symbols)
                except Unreadable as error:
                    self._print(Text(f"  {error}", "yellow"))

    def _question(self, table: Round) -> str:
        if table.is_bidding:
            forbidden = forbidden_bid(table)
            exception = "" if forbidden is None else f"; you deal, so not {forbidden}"
            return f"Your bid, 0 to {table.n_cards}{exception}: "
        if len(table.legal_actions()) < len(table.hands[PERSON]):
            return f"Your card, following {SUIT_NAMES[table.tricks[-1][0][1] // 13]}: "
        return "Your card: " if self._is_led(table) else "You lead; your card: "

    def _ask(self, question: str) -> str:
        self._console.print(Text(f"  {question}", "bold"), end="")
        try:
            answer = input().strip().lower()
        except EOFError:
            raise Left from None
        if self._echo:  # input is not a terminal
            self._print(answer)
        return answer

    def _help(self) -> None:
        for text in (RULES, KEYS):
            self._print()
            for line in text.splitlines():
                self._print(f"  {line}")
        self._print()

    def _show_analysis(self, table: Round) -> None:
        """Print the analysis of this decision by network and search."""
        analysis = self._analyze(table)
        policy, prior = percentages(analysis.policy), percentages(analysis.prior)
        grid = self._grid("", "search", "network", "your points")
        for action in sorted(analysis.policy, key=lambda action: (-analysis.policy[action], -analysis.prior[action])):
            points = f"{analysis.points[action]:.1f}" if action in analysis.points else "-"
            grid.add_row(self._action(action), f"{policy[action]}%", f"{prior[action]}%", points)
        self._print()
        self._console.print(grid)
        seats = "   ".join(f"{name} {points:.1f}" for name, points in zip(self._names, analysis.seats, strict=True))
        version = f" (version {analysis.model_version})" if analysis.model_version else ""
        self._print(f"\n  Points the network{version} expects of this round:   {seats}\n")

    # Formatting

    def _standing(self, table: Round) -> None:
        """Print all bids, tricks and points, the dealer and the first seat."""
        grid = self._grid("", "bid", "tricks", "points")
        grid.add_column(style="dim")
        for seat, bid in enumerate(table.bids):
            notes = ["deals"] * (seat == table.dealer)
            if seat == table.seat_to_act:
                notes.append("bids first" if table.is_bidding else "leads")
            tricks = "-" if table.is_bidding else str(table.tricks_won[seat])
            points = str(table.totals[seat])
            grid.add_row(self._name(seat), "-" if bid is None else str(bid), tricks, points, ", ".join(notes))
        self._print()
        self._console.print(grid)

    def _hand(self, table: Round) -> None:
        """Print the player's cards above their numbers; cards that are not legal are dimmed."""
        hand = sorted_hand(table.hands[PERSON])
        legal = {action - FIRST_CARD_ACTION for action in table.legal_actions()}
        trump = "no trump" if table.trump is None else f"trump {self._symbols[table.trump]}"
        cards, places = Text("\n  Your hand   "), Text(f"  {trump:<12}", "dim")
        for place, card in enumerate(hand, start=1):
            is_playable = table.is_bidding or card in legal
            cards.append(card_name(card, self._symbols).ljust(5), SUIT_STYLES[card // 13] if is_playable else "dim")
            places.append(f"{place:<5}")
        self._print(cards)
        self._print(places)

    def _moves(self, table: Round) -> list[tuple[int, Text]]:
        """Return seat and move, in order, of the last trick or of the bidding."""
        if table.tricks:
            return [(seat, self._card(card)) for seat, card in table.tricks[-1]]
        order = [(table.dealer + 1 + i) % table.n_players for i in range(table.n_players)]
        return [(seat, Text(str(table.bids[seat]), "bold")) for seat in order if table.bids[seat] is not None]

    def _is_led(self, table: Round) -> bool:
        """Return whether the trick has begun."""
        return bool(table.tricks) and len(table.tricks[-1]) < table.n_players

    def _action(self, action: int) -> Text:
        return self._card(action - FIRST_CARD_ACTION) if action >= FIRST_CARD_ACTION else Text(str(action), "bold")

    def _card(self, card: int) -> Text:
        return Text(card_name(card, self._symbols), SUIT_STYLES[card // 13])

    def _trump(self, table: Round) -> Text:
        if table.trump is None:
            return Text("none")
        return Text(f"{self._symbols[table.trump]} {SUIT_NAMES[table.trump]}", SUIT_STYLES[table.trump])

    def _name(self, seat: int) -> Text:
        return Text(self._names[seat], "bold" if seat == PERSON else "")

    def _verb(self, seat: int, verb: str) -> str:
        name = self._names[seat]
        return f"{name} {verb}" if name == "You" else f"{name} {verb}s"

    def _grid(self, *headings: str) -> Table:
        grid = Table(box=None, header_style="dim", padding=(0, 2), pad_edge=True)
        for i, heading in enumerate(headings):
            grid.add_column(heading, justify="right" if i else "left", min_width=self._width if i == 0 else None)
        return grid

    def _print(self, *parts: str | Text) -> None:
        self._console.print(*parts, sep="")

    def _end_line(self) -> None:
        if self._is_line_open:
            self._print()
            self._is_line_open = False


def percentages(shares: Mapping[int, float]) -> dict[int, int]:
    """Round to whole percents that sum to 100, by the largest remainder method."""
    percents = {key: int(100 * share) for key, share in shares.items()}
    by_remainder = sorted(shares, key=lambda key: percents[key] - 100 * shares[key])
    for key in by_remainder[: 100 - sum(percents.values())]:
        percents[key] += 1
    return percents
