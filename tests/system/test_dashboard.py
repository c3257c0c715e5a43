"""Dashboard and alert rules use metrics that exist, and a real Prometheus answers their queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from documents import PACKAGE, ROOT, blocks
from load.station import free_port
from prometheus_client.parser import text_string_to_metric_families
from shop_listings import list_skus

if TYPE_CHECKING:
    from conftest import Daemon

MONITORING = PACKAGE / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Prometheus adds these labels to each sample.
ADDED = {"job", "instance"}


def queries(*, instance: str) -> list[tuple[str, str]]:
    """Return title and expression of each query, with what Grafana puts in for its variables."""
    return [
        (panel["title"], _filled(target["expr"], instance))
        for panel in PANELS
        for target in panel["targets"]
    ]


def _filled(expression: str, instance: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$instance", instance)


@pytest.fixture(scope="module")
def lived(shared: Daemon) -> Daemon:
    """Give a daemon with every metric: some metrics begin with the first delivery."""
    variant_id = next(iter(shared.site.catalogue.variants))
    list_skus(shared, [("TEE-BLACK", variant_id, "")])
    shared.deliver(shared.site.change(variant_id, "made to order"))
    return shared


def labels(daemon: Daemon) -> dict[str, dict[str, set[str]]]:
    """Return each series' labels and the values they have, by its name."""
    found: dict[str, dict[str, set[str]]] = {}
    page = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False).text
    for family in text_string_to_metric_families(page):
        # Without a push, the families of pushes have no sample.
        found.setdefault(family.name, defaultdict(set))
        for sample in family.samples:
            known = found.setdefault(sample.name, defaultdict(set))
            for name, value in sample.labels.items():
                known[name].add(value)
    return found


def unknown(expression: str, known: dict[str, dict[str, set[str]]]) -> Iterator[str]:
    """Return the names in an expression that syncd does not expose."""
    requested: set[str] = set(ADDED)
    for name, selector in re.findall(r"\b(syncd_\w+)(?:\{([^}]*)\})?", expression):
        if name not in known:
            yield name
            continue
        requested |= known[name].keys()
        for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if label not in ADDED | known[name].keys():
                yield f"{name}{{{label}}}"
            elif how in ("=", "=~") and label not in ADDED:
                # An alternative that does not exist never matches.
                for one in value.split("|"):
                    if one not in known[name][label]:
                        yield f'{name}{{{label}{how}"{one}"}}'
    for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        yield from (label for label in by.split(", ") if label not in requested)


def test_the_dashboard_uses_only_exposed_metrics(lived: Daemon) -> None:
    """Names, labels and label values, in expressions and legends."""
    known = labels(lived)
    for panel in PANELS:
        for target in panel["targets"]:
            expression = _filled(target["expr"], "x")
            assert "syncd_" in expression
            assert [*unknown(expression, known)] == [], panel["title"]
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= ADDED | {label for one in known.values() for label in one}


def test_alerts_use_only_exposed_metrics(lived: Daemon) -> None:
    """An alert on a metric or state that does not exist never fires."""
    rules = re.findall(r"^\s*expr: (.*)$", ALERTS.read_text(), re.MULTILINE)
    assert len(rules) == ALERTS.read_text().count("alert: ")
    known = labels(lived)
    assert [error for rule in rules for error in unknown(rule, known)] == []


def test_an_unknown_metric_is_detected(lived: Daemon) -> None:
    """The two tests above detect a wrong name, label or value."""
    known = labels(lived)
    for expression, error in (
        ("syncd_helth == 1", "syncd_helth"),
        ('syncd_health{status="ok"}', "syncd_health{status}"),
        ('syncd_health{instance=~"a", state="good"}', 'syncd_health{state="good"}'),
        ('syncd_skus{state=~"unknown|gone"}', 'syncd_skus{state=~"gone"}'),
        ("sum by (result) (syncd_deliveries_total)", "result"),
    ):
        assert [*unknown(expression, known)] == [error]


def test_grafana_can_import_the_dashboard() -> None:
    """Unique ids, no overlap, a variable as data source, a description for each panel."""
    ids = Counter(panel["id"] for panel in DASHBOARD["panels"])
    assert set(ids.values()) == {1}
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "syncd"
    assert "id" not in DASHBOARD
    assert DASHBOARD["schemaVersion"] <= 39, "newer than what Grafana 10 writes"
    kinds = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "instance": "query"}
    source = {"type": "prometheus", "uid": "${datasource}"}
    taken: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken.update(
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        )
    assert set(taken.values()) == {1}
    for panel in PANELS:
        assert panel["datasource"] == source
        assert [target["datasource"] for target in panel["targets"]] == [source] * len(
            {target["refId"] for target in panel["targets"]}
        )
        assert len(panel["description"]) > 40, panel["title"]


def test_commands_and_keys_in_descriptions_exist() -> None:
    """As they are spelled."""
    from syncd.cli import COMMANDS  # noqa: PLC0415 - of this test alone

    text = "\n".join(panel["description"] for panel in PANELS)
    typed = re.findall(r"`syncd ([a-z-]+)", text)
    assert {"status", "doctor"} <= set(typed) <= set(COMMANDS)
    example = (ROOT / "config.example.toml").read_text()
    for section, key in re.findall(
        r"\b(admin|availability|catalog|dreamship|reconcile)\.(\w+)", text
    ):
        assert re.search(rf"^{key} = ", example.partition(f"[{section}]")[2], re.MULTILINE)


def promtool(*arguments: str) -> str:
    """Run a check of promtool, which must succeed; return its output."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing (Debian's package prometheus)")
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_expression_parses(tmp_path: Path) -> None:
    """By promtool, as rules."""
    rules = [
        {"record": f"dashboard:query{number}", "expr": expression}
        for number, (_, expression) in enumerate(queries(instance=".*"))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_promtool_accepts_the_documented_configuration(tmp_path: Path) -> None:
    """With the rules that it names."""
    (text,) = blocks("Metrics", "yaml")
    installed = "/opt/syncd/share/syncd/monitoring"
    assert installed in text
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace(installed, str(MONITORING)))
    assert "1 rule files found" in promtool("check", "config", str(file))


@pytest.fixture
def prometheus(lived: Daemon, tmp_path: Path) -> Iterator[httpx.Client]:
    """Give a Prometheus that reads this daemon every second."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian's package of that name)")
    address = f"127.0.0.1:{free_port()}"
    scrape: dict[str, Any] = {
        "job_name": "syncd",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [lived.admin_url.removeprefix("http://")]}],
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    data = f"--storage.tsdb.path={tmp_path / 'data'}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", data, f"--web.listen-address={address}"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def test_a_real_prometheus_answers_every_query(lived: Daemon, prometheus: httpx.Client) -> None:
    """With at least one number, during deliveries and a sweep."""
    site = lived.site
    variant_id = next(iter(site.catalogue.variants))
    waiting = set(queries(instance=".*"))

    def answer(expression: str) -> list[Any]:
        try:
            requested = prometheus.get("/api/v1/query", params={"query": expression})
        except httpx.ConnectError:
            return []  # it is still starting
        if requested.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return []  # so it is
        output = requested.json()
        found: list[Any] = output["data"]["result"] if output["status"] == "success" else []
        return [one for one in found if one["value"][1] != "NaN"]

    def are_all_told() -> bool:
        lived.deliver(site.change(variant_id, "in_stock"))
        waiting.difference_update([one for one in waiting if answer(one[1])])
        return not waiting

    faults = site.api.faults
    item_ids = {variant.item_id for variant in site.catalogue.variants.values()}
    faults.slow_s, faults.always = 4.0, dict.fromkeys(item_ids, "slow")
    sweep = subprocess.Popen(
        site.command("reconcile-now"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        site.until(are_all_told, within_s=60)
    finally:
        sweep.kill()
        sweep.wait()
        faults.always = {}
    assert {title for title, requested in queries(instance="no such") if answer(requested)} == set()
