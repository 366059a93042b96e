# SPDX-License-Identifier: Apache-2.0
"""Writes dashboards/blobzero.json: run it after a change. Every panel answers the question that stands over it.

Built with Grafana's own types (grafana-foundation-sdk), so a field that Grafana does not know cannot get in. Rates are
taken over `$__rate_interval`, which Grafana chooses by
the zoom; rounds end in waves, so theirs are over a minute and more.
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
    """The legend with an axis of its own."""
    from_zero: bool = True


PLAY: Final = (
    Panel("Rounds a minute", "How fast are records made?", {
        "{{instance}}": f"60 * sum by (instance) (rate(blobzero_rounds_total{R}))",
    }, least_step="1m"),
    Panel("Evaluations a second", "How much does the server answer, and how much of it does self-play ask?", {
        "self-play asks": f"sum(rate(blobzero_evaluations_total{R}))",
        "Triton answers": f"sum(rate(nv_inference_count{R}))",
    }),
    Panel("Execution batch size", "Does the server fill its batches?", {
        "rows in an execution": "blobzero:execution_rows:mean1m",
    }),
    Panel("Queue against compute", "Does a request wait longer than it computes? Then more workers bring nothing.", {
        "waits": "blobzero:queue_seconds:mean1m",
        "computes": "blobzero:compute_seconds:mean1m",
    }, unit="s"),
    Panel("Requests in Triton", "How many requests wait for their turn?", {
        "pending": "sum(nv_inference_pending_request_count)",
    }),
    Panel("Latency at the client", "How long does a worker wait for an answer, network and server together?", {
        "half": f"histogram_quantile(0.5, {LATENCY})",
        "9 of 10": f"histogram_quantile(0.9, {LATENCY})",
        "99 of 100": f"histogram_quantile(0.99, {LATENCY})",
    }, unit="s"),
    Panel("Utilisation of the server", "Is the GPU busy, or, without one, the CPU?", {
        "CPU": "avg(nv_cpu_utilization)",
        "GPU {{gpu_uuid}}": "avg by (gpu_uuid) (nv_gpu_utilization)",
        "GPU memory {{gpu_uuid}}":
            "sum by (gpu_uuid) (nv_gpu_memory_used_bytes) / sum by (gpu_uuid) (nv_gpu_memory_total_bytes)",
    }, unit="percentunit"),
    Panel("Workers", "How many processes play, and how many cores do they keep busy?", {
        "workers": "sum(blobzero_workers)",
        "cores": f"sum(rate(blobzero_client_cpu_seconds_total{R}))",
    }),
    Panel("Errors and retries", "Does anything fail, and is it made good?", {
        "{{kind}}": f"sum by (kind) (rate(blobzero_request_failures_total{R}))",
        "sent again": f"sum(rate(blobzero_request_retries_total{R}))",
        "Triton: {{reason}}": f"sum by (reason) (rate(nv_inference_request_failure{R}))",
        "workers started again": f"sum(rate(blobzero_worker_restarts_total{R}))",
    }),
)  # fmt: skip
LEARN: Final = (
    Panel("Model version", "Which network plays, and since when?", {
        "{{instance}}": "max by (instance) (blobzero_model_version)",
    }, from_zero=False),
    Panel("Answers by version", "Does everybody follow a swap, and how fast?", {
        "version {{version}}": f"sum by (version) (rate(nv_inference_count{R}))",
    }),
    Panel("Losses", "Does it learn?", {
        "policy": 'max(blobzero_train_loss{part="policy"})',
        "value": 'max(blobzero_train_loss{part="value"})',
    }, on_the_right="value", from_zero=False),
    Panel("Matches", "Is the new network better than the one before, and than bots? Points a round, and 95%.", {
        "{{opponent}}, {{bound}}": "max by (opponent, bound) (blobzero_match_difference)",
    }, from_zero=False),
    Panel("Training", "How fast does it learn, and from how many positions?", {
        "positions a second": "max(blobzero_train_rows_per_second)",
        "window": "max(blobzero_window_positions)",
        "recorded": "max(blobzero_positions_available)",
    }, on_the_right="positions a second"),
    Panel("Publishes", "Were new networks taken?", {
        "{{outcome}}": "sum by (outcome) (blobzero_publishes_total)",
    }),
    Panel("Steps and generations", "How far is it?", {
        "step": "max(blobzero_train_step)",
        "generation": "max(blobzero_generation)",
    }, on_the_right="generation"),
)  # fmt: skip
NOW: Final = (
    Panel("Answering", "How many targets of each kind answer Prometheus?", {
        "{{job}}": "sum by (job) (up)",
    }),
    Panel("Alerts", "Does anything need a person? docs/monitoring.md says what to do.", {
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
    """The dashboard as JSON."""
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
