# SPDX-License-Identifier: Apache-2.0
"""Generator of dashboards/blobzero.json: run it after a change. Each panel's description is the question it answers.

It uses Grafana's own types (grafana-foundation-sdk), so fields unknown to Grafana are rejected. Rates are taken over
`$__rate_interval`, which depends on the zoom; for rounds, which end in waves, it is at least a minute.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DynamicConfigValue

FILE: Final = Path(__file__).parent / "dashboards" / "blobzero.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
R: Final = "[$__rate_interval]"
LATENCY: Final = f"sum by (le) (rate(blobzero_request_seconds_bucket{R}))"
FIRING: Final = 'ALERTS{alertstate="firing"}'


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    question: str
    queries: dict[str, str]
    """PromQL by legend."""
    unit: str = "short"
    least_step: str = ""
    on_the_right: str = ""
    """Legend that has its own axis, on the right."""
    from_zero: bool = True


PLAY: Final = (
    Panel("Rounds per minute", "How fast does self-play produce records?", {
        "{{instance}}": f"60 * sum by (instance) (rate(blobzero_rounds_total{R}))",
    }, least_step="1m"),
    Panel("Evaluations per second", "How many rows does the server evaluate, and how many of them for self-play?", {
        "sent by self-play": f"sum(rate(blobzero_evaluations_total{R}))",
        "evaluated by Triton": f"sum(rate(nv_inference_count{R}))",
    }),
    Panel("Execution batch size", "Does the server fill its batches?", {
        "rows per execution": "blobzero:execution_rows:mean1m",
    }),
    Panel("Queue and compute time", "Do requests wait longer than they are computed? Then more workers do not help.", {
        "queue": "blobzero:queue_seconds:mean1m",
        "compute": "blobzero:compute_seconds:mean1m",
    }, unit="s"),
    Panel("Pending requests", "How many requests wait in Triton's queue?", {
        "pending": "sum(nv_inference_pending_request_count)",
    }),
    Panel("Latency at the client", "How long does a worker wait for a response, including the network?", {
        "p50": f"histogram_quantile(0.5, {LATENCY})",
        "p90": f"histogram_quantile(0.9, {LATENCY})",
        "p99": f"histogram_quantile(0.99, {LATENCY})",
    }, unit="s"),
    Panel("Server utilization", "Is the GPU busy, or the CPU if there is no GPU?", {
        "CPU": "avg(nv_cpu_utilization)",
        "GPU {{gpu_uuid}}": "avg by (gpu_uuid) (nv_gpu_utilization)",
        "GPU memory {{gpu_uuid}}":
            "sum by (gpu_uuid) (nv_gpu_memory_used_bytes) / sum by (gpu_uuid) (nv_gpu_memory_total_bytes)",
    }, unit="percentunit"),
    Panel("Workers", "How many self-play processes are there, and how many cores do they use?", {
        "workers": "sum(blobzero_workers)",
        "cores": f"sum(rate(blobzero_client_cpu_seconds_total{R}))",
    }),
    Panel("Errors and retries", "What fails, and is it retried?", {
        "{{kind}}": f"sum by (kind) (rate(blobzero_request_failures_total{R}))",
        "retries": f"sum(rate(blobzero_request_retries_total{R}))",
        "Triton: {{reason}}": f"sum by (reason) (rate(nv_inference_request_failure{R}))",
        "worker restarts": f"sum(rate(blobzero_worker_restarts_total{R}))",
    }),
)  # fmt: skip
LEARN: Final = (
    Panel("Model version", "Which network is used for self-play, and since when?", {
        "{{instance}}": "max by (instance) (blobzero_model_version)",
    }, from_zero=False),
    Panel("Evaluations by version", "How fast do all clients follow a version swap?", {
        "version {{version}}": f"sum by (version) (rate(nv_inference_count{R}))",
    }),
    Panel("Losses", "Does the network learn?", {
        "policy": 'max(blobzero_train_loss{part="policy"})',
        "value": 'max(blobzero_train_loss{part="value"})',
    }, on_the_right="value", from_zero=False),
    Panel("Matches", "Does the new network beat the previous one, and bots? Points per round, 95% intervals.", {
        "{{opponent}}, {{bound}}": "max by (opponent, bound) (blobzero_match_difference)",
    }, from_zero=False),
    Panel("Training", "How fast is training, and from how many positions does it draw?", {
        "positions per second": "max(blobzero_train_rows_per_second)",
        "window": "max(blobzero_window_positions)",
        "recorded": "max(blobzero_positions_available)",
    }, on_the_right="positions per second"),
    Panel("Publishes", "Were new networks published?", {
        "{{outcome}}": "sum by (outcome) (blobzero_publishes_total)",
    }),
    Panel("Steps and generations", "How far has the loop come?", {
        "step": "max(blobzero_train_step)",
        "generation": "max(blobzero_generation)",
    }, on_the_right="generation"),
)  # fmt: skip
NOW: Final = (
    Panel("Targets up", "How many targets of each kind answer Prometheus?", {
        "{{job}}": "sum by (job) (up)",
    }),
    Panel("Alerts", "Does anything need attention? docs/monitoring.md says what to do.", {
        "{{alertname}}": f'sum by (alertname) ({FIRING}) or '
                         f'label_replace(vector(0), "alertname", "none", "", "") unless on () {FIRING}',
    }),
)  # fmt: skip


def _queries(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().ref_id(name).expr(expression).legend_format(legend).datasource(SOURCE)
        for name, (legend, expression) in zip("ABCDEFGH", panel.queries.items(), strict=False)
    ]


def _graph(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().title(panel.title).description(panel.question).datasource(SOURCE).unit(panel.unit)
    built = built.span(8).height(7).fill_opacity(10).show_points(models.VisibilityMode.NEVER)
    built = built.tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
    if panel.least_step:
        built = built.interval(panel.least_step)
    if panel.from_zero:
        built = built.axis_soft_min(0)
    for query in _queries(panel):
        built = built.with_target(query.range())
    if panel.on_the_right:
        right = DynamicConfigValue(id_val="custom.axisPlacement", value="right")
        built = built.override_by_name(panel.on_the_right, [right])
    return built


def _figure(panel: Panel) -> stat.Panel:
    built = stat.Panel().title(panel.title).description(panel.question).datasource(SOURCE).unit(panel.unit)
    built = built.span(12).height(4).text_mode(models.BigValueTextMode.VALUE_AND_NAME)
    built = built.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for query in _queries(panel):
        built = built.with_target(query.instant())
    return built


def build() -> str:
    """Return the dashboard as JSON."""
    board = dashboard.Dashboard("BlobZero").uid("blobzero").refresh("5s").time("now-30m", "now").timezone("browser")
    for number, panel in enumerate(NOW, 1):
        board = board.with_panel(_figure(panel).id(number))
    for number, (title, panels) in enumerate((("Self-play and server", PLAY), ("Learning", LEARN)), 1):
        board = board.with_row(dashboard.Row(title).id(100 * number))
        for place, panel in enumerate(panels, 1):
            board = board.with_panel(_graph(panel).id(100 * number + place))
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(board.build())
    return text + "\n"


if __name__ == "__main__":
    FILE.write_text(build())
