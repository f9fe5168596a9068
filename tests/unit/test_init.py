"""`init`: which series of a page are found, and that the guard it writes is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployguard.errors import UserError
from deployguard.files.guard_file import load_bundle, resolve
from deployguard.signals.discover import Counter, Found, counted, discover
from deployguard.targets.kubernetes.references import Reference
from deployguard.wiring.proposal import guard_text
from deployguard.wiring.survey import Metrics, Survey, named

GO = """\
# HELP go_gc_duration_seconds A summary of pauses.
go_gc_duration_seconds_count 12
promhttp_metric_handler_requests_total{code="200"} 40
http_client_requests_total{code="500"} 7
http_requests_total{code="200",path="/"} 90
http_requests_total{code="200",path="/healthz"} 1000
http_requests_total{code="503",path="/buy"} 10
http_request_duration_seconds_bucket{le="0.1"} 3
http_request_duration_seconds_bucket{le="+Inf"} 4
http_response_size_bytes_bucket{le="100"} 4
"""
SPRING = """\
http_server_requests_seconds_count{exception="None",method="GET",outcome="SUCCESS",status="200",uri="/"} 10.0
http_server_requests_seconds_bucket{status="200",uri="/actuator/prometheus",le="0.001",} 1.0
jvm_memory_used_bytes{area="heap"} 1.0E8
"""
GRPC = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Get"} 5\ngrpc_server_handling_seconds_bucket{le="1"} 5\n'
OWN = 'shop_http_replies_total{status="5xx"} 1\nshop_http_replies_total{status="2xx"} 9\nshop_request_time_ms_bucket{le="5"} 1\n'


@pytest.mark.parametrize(
    ("page", "bad", "total", "histogram"),
    [
        (GO, 'http_requests_total{code=~"5..",path!~"/healthz"}', 'http_requests_total{path!~"/healthz"}', "http_request_duration_seconds"),
        (SPRING, 'http_server_requests_seconds_count{status=~"5.."}', "http_server_requests_seconds_count", "http_server_requests_seconds"),
        (GRPC, "Unavailable|DataLoss", "grpc_server_handled_total", "grpc_server_handling_seconds"),
        (OWN, 'shop_http_replies_total{status=~"5.."}', "shop_http_replies_total", "shop_request_time_ms"),
    ],
)
def test_requests_and_latency_are_found(page: str, bad: str, total: str, histogram: str) -> None:
    """Common names first, then what has their shape; never clients, sizes or the pauses of a collector."""
    found = discover(page.encode())
    assert bad in found.counters[0].bad_selector
    assert found.counters[0].total_selector == total
    assert found.histograms == (histogram,)


def test_what_tells_nothing_of_users_is_not_taken() -> None:
    """A page of a runtime alone, and a page that is none."""
    assert discover(b'process_cpu_seconds_total 5\ngo_goroutines 7\nworkqueue_depth{name="x"} 1\n') == Found(names=3)
    assert discover(b"<html>\n<p>Hello 1</p>\n</html>\n") == Found()


def test_only_users_requests_are_counted() -> None:
    """The kubelet's probes are no traffic."""
    assert counted(GO.encode(), discover(GO.encode()).counters[0]) == 100


CONFIG = (
    Reference("ConfigMap", "web-settings", "volume settings"),
    Reference("ConfigMap", "web-flags-5h2g9fk4d7", "envFrom of container web"),
    Reference("Secret", "web-tls", "volume tls"),
    Reference("Secret", "registry", "imagePullSecrets", pinnable=False),
)
SPRING_METRICS = Metrics("web-1", 8081, "/actuator/prometheus", discover(SPRING.encode()), rps=3.0)
SURVEYS = {
    "all there": Survey(
        "Deployment", "shop", "web", 3, 3, CONFIG, ("web", 3, 9), ("web", "web-old"), 8080, (8080, 8081), "/ready", metrics=SPRING_METRICS
    ),
    "nothing to see": Survey("StatefulSet", "shop", "db", 1, 0, notes=("no pod is ready, so its metrics could not be looked at",)),
    "no request metrics": Survey(
        "DaemonSet", "shop", "agent", 4, 4, port=9100, metrics=Metrics("agent-1", 9100, "/metrics", Found(names=40))
    ),
    "latency alone": Survey(
        "Deployment", "shop", "api", 9, 9, port=80, metrics=Metrics("api-1", 80, "/metrics", Found((), ("http_ms", "rpc_ms"), 3), rps=None)
    ),
    "errors alone": Survey(
        "Deployment",
        "shop",
        "api",
        9,
        9,
        port=80,
        metrics=Metrics("api-1", 80, "/metrics", Found((Counter("a_total", 'code="500"'),), (), 3), rps=0.2),
    ),
}


@pytest.mark.parametrize("case", SURVEYS)
def test_what_is_written_is_a_guard(case: str, tmp_path: Path) -> None:
    """Every file that `init` can write is accepted as it stands, has a check, and no line is too long to read."""
    path = tmp_path / "guard.yaml"
    path.write_text(guard_text(SURVEYS[case]))
    resolved = resolve(None, load_bundle([path]))
    assert resolved.policy.checks
    assert resolved.guard.spec.target.kind == SURVEYS[case].kind
    assert max(map(len, path.read_text().splitlines())) <= 150


def test_configuration_port_and_policy_fit_what_was_seen(tmp_path: Path) -> None:
    """ConfigMaps are guarded, generated names and Secrets are left to choose, the port is given where it would not be found."""
    text = guard_text(SURVEYS["all there"])
    (tmp_path / "guard.yaml").write_text(text)
    resolved = resolve(None, load_bundle([tmp_path / "guard.yaml"]))
    spec = resolved.guard.spec
    assert [(c.kind, c.name) for c in spec.config] == [("ConfigMap", "web-settings")]
    assert (spec.target.port, resolved.policy_name) == (8081, "production")
    assert [c.name for c in resolved.policy.checks] == ["errors", "latency"]
    assert resolved.policy.checks[0].path == "/actuator/prometheus"  # type: ignore[union-attr]
    for said in ("between 3 and 9", "web, web-old", "web-flags-5h2g9fk4d7", "--secrets web-tls", "About 9 requests a second"):
        assert said in text
    assert "registry" not in text


def test_a_workload_is_named_as_kubectl_names_it() -> None:
    """Short words are known; anything else is refused with what there is."""
    assert [named(w) for w in ("deploy/web", "StatefulSet/db", "ds/a")] == [
        ("Deployment", "web"),
        ("StatefulSet", "db"),
        ("DaemonSet", "a"),
    ]
    for wrong in ("web", "deployment/", "pod/web", "deploymnt/web"):
        with pytest.raises(UserError) as caught:
            named(wrong)
        assert caught.value.hint
