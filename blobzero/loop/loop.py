# SPDX-License-Identifier: Apache-2.0
"""`blobzero loop`: generations of self-play, training, publishing and matches in one folder.

```
<out>/loop.json                settings and seed; the same command resumes the loop
<out>/recorded.jsonl           with --records: the number of rounds in each counted shard
<out>/models/                  model repository of this loop's server
<out>/selfplay/000/            a self-play run per generation
<out>/train/                   the trainer's folder
<out>/matches/000-before.json  000-heuristic.json, with policy_deals 000-policy.json
<out>/generations/000.json     written last: marks a finished generation
<out>/logs/                    of the Triton that is started here
```
The loop can be killed at any time. Self-play plays the rounds that no shard holds, training resumes from its state, a
published checkpoint is not published again, and a match is played unless its file is complete. Examining leaves no file
of its own: it is repeated until the generation is finished. Workers always use the latest version.

With `--records`, other processes play (`blobzero selfplay` on other machines or in other containers): training of a
generation begins once their shards contain its rounds. With `--url`, another server serves `--repository`.
"""

import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from blobzero.loop.config import OPTIONAL, LoopSettings, load_settings
from blobzero.loop.instruments import exploration, play_figures
from blobzero.loop.recorded import RecordedRounds, wait_for_rounds
from blobzero.monitor.metrics import LoopMetrics, serve_metrics
from blobzero.server import named_or_own
from blobzero.verbs.selfplay import SelfPlayConfig, selfplay
from clients.arena.match import seed_of
from clients.arena.players import PLAYER_SEARCH
from clients.files import read_json, reason, write_json
from clients.lock import sole_writer
from clients.processes import python_command
from clients.selfplay.folder import RunFolder
from clients.selfplay.sizing import Auto, choose_size
from clients.triton.evaluator import TritonEvaluator
from mcts_ext.config import check_seed
from mcts_ext.errors import BlobError, InvalidConfig
from ui.console import plain_console
from ui.next_step import flags, propose, quoted
from ui.stopping import INTERRUPTED

if TYPE_CHECKING:
    from training.trainer import TrainReport


class LoopError(BlobError):
    """The folder holds another loop, or a part failed."""


@dataclass(frozen=True)
class LoopConfig:
    """Run the learning loop of self-play, training, publishing and matches. The same command resumes it."""

    preset: str = "demo"
    """`demo` (minutes on two cores), `reference` (5 million rounds), or a TOML file."""
    out: Path = Path("data/loop")
    """Folder for everything: models, records, training, matches."""
    seed: int | Auto = "auto"
    """Seed of weights, deals, training and matches; `auto` draws one and stores it in the folder."""
    records: Path | None = None
    """Folder of runs played by other processes; this loop then does not play itself."""
    repository: Path | None = None
    """Model repository; `<out>/models` by default."""
    url: str | None = None
    """HOST:PORT of a Triton server that serves the repository; by default one is started."""
    key_file: Path | None = None
    """File with the key of that server's control API, if it requires one (serve --key-file)."""
    metrics: str | None = None
    """Serve Prometheus metrics at ADDRESS:PORT, or at PORT on 127.0.0.1."""


def loop(config: LoopConfig) -> int:
    """Run all unfinished generations; return the exit status."""
    settings = load_settings(config.preset)
    with serve_metrics(config.metrics) as registry, sole_writer(config.out):
        return _run(config, settings, LoopMetrics(registry))


def _run(config: LoopConfig, settings: LoopSettings, metrics: LoopMetrics) -> int:
    run = LoopRun(config, settings, metrics)
    run.open()
    run.say(f"seed {run.seed}, all in {config.out}")
    left = [g for g in range(settings.generations) if not run.result(g).is_file()]
    if left:
        with run.server() as url:
            try:
                for generation in left:
                    if run.play(generation, url) == INTERRUPTED:
                        raise KeyboardInterrupt
                    run.finish(generation, url)
            except KeyboardInterrupt:
                run.say("interrupted; the same command resumes" + ("" if config.url else ". Waiting for Triton to end"))
                return INTERRUPTED
    run.say(f"finished {settings.generations} generations in {config.out}")
    table = f"blobzero play --repository {quoted(run.models)}"
    propose(run.console, f"blobzero report {quoted(config.out)}", table)
    return 0


class LoopRun:
    """A loop and its folder."""

    def __init__(self, config: LoopConfig, settings: LoopSettings, metrics: LoopMetrics | None = None) -> None:
        self.config = config
        self.out = config.out
        self.seed = 0 if config.seed == "auto" else config.seed
        self.models = config.repository or config.out / "models"
        self.metrics = metrics or LoopMetrics(CollectorRegistry())
        self.settings = settings
        self._recorded: RecordedRounds | None = None
        self.console = plain_console(stderr=True)
        self.say = self.console.print

    def result(self, generation: int) -> Path:
        """Return the file that marks a generation as finished."""
        return self.out / "generations" / f"{generation:03}.json"

    def selfplay_folder(self, generation: int) -> Path:
        """Return the self-play folder of a generation; with --records it contains only a summary."""
        return self.out / "selfplay" / f"{generation:03}"

    def open(self) -> None:
        """Create the folder and the first version, or resume the same loop with its seed.

        Raises:
            LoopError: if the folder holds another loop, or cannot be written.
        """
        from export.publishing.publish import ensure_model  # PyTorch is slow to import, and optional
        from training.network import check_preset

        check_preset(self.settings.network)
        path = self.out / "loop.json"
        try:
            found = read_json(path) if path.exists() else None
            if self.config.seed == "auto":
                seed = secrets.randbits(31) if found is None else found["seed"]
                self.seed = check_seed(seed, what=f"the seed in {path}")
            wanted = json.loads(json.dumps({"settings": asdict(self.settings), "seed": self.seed}))
            if found is not None:
                found["settings"] = {**OPTIONAL, **found["settings"]}
            for folder in ("selfplay", "matches", "generations", "logs"):
                (self.out / folder).mkdir(parents=True, exist_ok=True)
            write_json(path, wanted if found is None else found)  # also tells whether the folder can be written
        except InvalidConfig as error:
            raise LoopError(f"{error}; choose another --out") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise LoopError(f"expected to write or resume {path}, got {reason(error)}; choose another --out") from error
        if found is not None and found != wanted:
            different = next(key for key in wanted if wanted[key] != found.get(key))
            raise LoopError(f"expected the same {different} as in {path}, got another; choose another --out")
        ensure_model(self.models, preset=self.settings.network, seed=self.seed)
        if self.config.records is not None:
            self._recorded = RecordedRounds(self.config.records, self.out / "recorded.jsonl")

    @contextlib.contextmanager
    def server(self) -> Iterator[str]:
        """Yield the address of the configured server, or of a watched Triton started here."""
        log_file = self.out / "logs" / "triton.log"
        with named_or_own(self.config.url, self.models, say=self.say, log_file=log_file) as (url, _):
            yield url

    def play(self, generation: int, url: str) -> int:
        """Play one generation, or wait for its records; return the exit status."""
        self.metrics.generation(generation)
        out = self.selfplay_folder(generation)
        if self._recorded is not None:
            self._await_records(self._recorded, generation, url, out)
            return 0
        search = self.settings.search_of(generation)
        size = choose_size("auto", "auto", "auto", network_is_here=True)
        config = SelfPlayConfig(
            rounds=self.settings.rounds_of(generation),
            players=self.settings.players,
            cards=self.settings.cards,
            unit=self.settings.unit,
            search=search,
            workers=size.workers,
            games=size.games,
            groups=size.groups,
            seed=self.seed_for("self-play", generation),
            out=out,
            url=url,
        )
        folder = RunFolder(out)
        # Playing again would overwrite the summary with an empty one.
        if folder.summary.is_file() and len(folder.finished_rounds()) >= config.rounds_in_all():
            self.say(f"generation {generation}: self-play is complete")
            return 0
        self.say(f"generation {generation}: self-play, {search.determinizations} x {search.simulations}")
        return selfplay(config, metrics=self.metrics.fleet)

    def seed_for(self, *what: int | str) -> int:
        """Derive a seed below 2^63, so that loops with adjacent seeds share no rounds or deals."""
        return seed_of(self.seed, *what) >> 1

    def _await_records(self, recorded: RecordedRounds, generation: int, url: str, out: Path) -> None:
        """Wait until the rounds of all generations up to this one are recorded."""
        before = sum(self.settings.rounds_of(earlier) for earlier in range(generation))
        wanted = before + self.settings.rounds_of(generation)
        self.say(f"generation {generation}: waiting for {wanted:,} rounds under {self.config.records}")
        if not (out / "summary.json").is_file():
            summary = wait_for_rounds(recorded, wanted, before=before, url=url, say=self.say)
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "summary.json", summary)

    def finish(self, generation: int, url: str) -> None:
        """Examine, train, publish and play the matches of one generation."""
        began = time.monotonic()
        figures = self._examine(generation, url)
        examined = time.monotonic()
        self.say(f"generation {generation}: training")
        report = self._train(generation)
        trained = time.monotonic()
        before, version = self._publish(report.checkpoint, url)
        published = time.monotonic()
        self.say(f"generation {generation}: version {version}; matches")
        player = f"version:{version}"
        matches = {"before": self._match(generation, "before", player, f"version:{before}", self.settings.deals, url)}
        if deals := self.settings.policy_deals:
            matches["policy"] = self._match(generation, "policy", f"{player}@policy", self.settings.bots[0], deals, url)
        if self.settings.meets_bots(generation):
            deals = self.settings.deals_against_bots(generation)
            for bot in self.settings.bots:
                matches[bot] = self._match(generation, bot, player, bot, deals, url)
        is_better = matches["before"]["difference"]["mean"] > 0
        if self.settings.gate == "better" and not is_better:
            self._roll_back(before, version, url)
            self.say(f"generation {generation}: version {version} is not better than {before}; rolled back")
        summary = _result(self.selfplay_folder(generation) / "summary.json", "seconds")
        result = {
            "generation": generation,
            "version": version,
            "before": before,
            "promoted": self.settings.gate == "none" or is_better,
            "selfplay": summary,
            **figures,
            "train": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(report).items()},
            "matches": matches,
            "seconds": {
                "selfplay": summary["seconds"],
                "examine": examined - began,
                "train": trained - examined,
                "publish": published - trained,
                "match": time.monotonic() - published,
            },
        }
        write_json(self.result(generation), result)

    def _examine(self, generation: int, url: str) -> dict[str, Any]:
        """Measure the generation's self-play with the network that played it, unless that is done already."""
        path = self.selfplay_folder(generation) / "examined.json"
        if self._recorded is not None:
            return {"play": None, "exploration": []}  # played elsewhere, with settings of their own
        if path.is_file():  # by now another version may be served
            return _result(path, "exploration")
        shards = RunFolder(self.selfplay_folder(generation)).shards
        play = play_figures(shards)
        with TritonEvaluator(url, on_event=self.say) as evaluator:
            seed = self.seed_for("examine", generation)
            found = exploration(shards, evaluator, self.settings.search_of(generation), seed=seed)
        for figures in (play, *found):
            if figures is not None:
                self.say(f"generation {generation}: {figures}")
        for line in (line for one in found for line in one.warnings()):
            self.say(f"warning: {line}")
        examined = {"play": play and asdict(play), "exploration": [asdict(one) for one in found]}
        write_json(path, examined)
        return examined

    def _train(self, generation: int) -> "TrainReport":
        from training.trainer import train

        return train(
            self.settings.training(seed=self.seed),
            records=[self.config.records or self.out / "selfplay"],
            out=self.out / "train",
            until_step=self.settings.steps * (generation + 1),
            on_progress=lambda progress: self.metrics.trained(progress.step, progress.metrics),
            on_event=self.say,
        )

    def _publish(self, checkpoint: Path, url: str) -> tuple[int, int]:
        """Publish a checkpoint unless it is published already; return the version before, and the checkpoint's."""
        from export.publishing.publish import publish
        from export.publishing.registry import Registry

        published = [entry for entry in Registry(self.models) if entry.state == "published"]
        known = [entry for entry in published if entry.source == str(checkpoint) and entry.same_as is None]
        if known:
            return max(e.version for e in published if e.version < known[0].version), known[0].version
        try:
            report = publish(checkpoint, repository=self.models, url=url, key_file=self.config.key_file)
        except BlobError:
            self.metrics.published("refused")
            raise
        self.metrics.published("ok")
        return published[-1].version, report.version

    def _roll_back(self, before: int, version: int, url: str) -> None:
        """Publish the version before again, unless that was done already."""
        from export.publishing.publish import rollback
        from export.publishing.registry import Registry

        published = {entry.version: entry.origin for entry in Registry(self.models) if entry.state == "published"}
        if not any(number > version and origin == published[before] for number, origin in published.items()):
            rollback(self.models, before, url=url, key_file=self.config.key_file)
            self.metrics.published("rolled_back")

    def _match(self, generation: int, name: str, player: str, opponent: str, deals: int, url: str) -> dict[str, Any]:
        """Play one match unless its file exists; return its result."""
        path = self.out / "matches" / f"{generation:03}-{name}.json"
        command = python_command(
            "clients.starter", "blobzero.cli", "match", player, opponent,
            "--url", url, "--repository", str(self.models), "--deals", str(deals),
            "--players", *map(str, self.settings.players), "--cards", *map(str, self.settings.cards),
            *flags(self.settings.search_of_matches(), PLAYER_SEARCH),
            "--seed", str(self.seed_for("match", name, generation)), "--out", str(path),
        )  # fmt: skip
        if not path.exists() or _result(path, "interrupted")["interrupted"]:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as playing:
                try:
                    status = playing.wait()
                finally:
                    playing.kill()  # interrupted, or hanging
            if status in (130, 143):
                raise KeyboardInterrupt
            if status:
                raise LoopError(f"expected the match against {opponent} to succeed, got status {status}")
        result = _result(path, "difference")
        self.metrics.matched(name, result["difference"])
        return result


def _result(path: Path, name: str) -> dict[str, Any]:
    """Return the result file of a part, which must contain the key `name`."""
    try:
        result = read_json(path)
        if name not in result:
            raise ValueError(f"no {name} in it")
    except (OSError, ValueError) as error:
        raise LoopError(
            f"expected a result at {path}, got {reason(error)}; remove it, and repeat the command"
        ) from error
    return result
