"""The admin listener: what it tells, to whom, and that Prometheus understands it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from conftest import Daemon, Site

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "syncd" / "monitoring" / "alerts.yml"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (Debian's package prometheus)"
)


def page(daemon: Daemon) -> str:
    answer = httpx.get(f"{daemon.admin_url}/metrics", trust_env=False)
    assert answer.status_code == 200
    return answer.text


def sample(daemon: Daemon, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(page(daemon)):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    raise AssertionError(f"no {name}{labels}")


def test_metrics_tell_what_happened(shared: Daemon) -> None:
    """Counters rise with what is answered, gauges are the status document's."""
    site = shared.site
    variant_id = next(iter(site.catalogue.variants))
    applied = sample(shared, "syncd_deliveries_total", outcome="applied")
    refused = sample(shared, "syncd_requests_refused_total", reason="signature")
    body = site.body(site.change(variant_id, "made to order"))
    assert shared.post(body).json() == {"outcome": "applied"}
    assert shared.post(body, key="wrong").status_code == 401
    assert sample(shared, "syncd_deliveries_total", outcome="applied") == applied + 1
    assert sample(shared, "syncd_requests_refused_total", reason="signature") == refused + 1
    status = shared.status()
    assert sample(shared, "syncd_items") == status["mirror"]["items"] == 12
    states = ("sellable", "not_sellable", "removed")
    assert sum(sample(shared, "syncd_variants", state=one) for one in states) == 48
    assert sample(shared, "syncd_health", state=status["health"]) == 1
    assert sample(shared, "syncd_last_sweep_complete") == 1
    assert sample(shared, "syncd_database_bytes") > 0


def test_every_metric_is_documented_and_no_other(shared: Daemon) -> None:
    """The README's table is the page; every name begins with syncd_."""
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(page(shared))
    }
    assert all(name.startswith("syncd_") for name in found)
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("\n### Metrics\n")[2].partition("\n### ")[0]
    told = set(re.findall(r"^\| `(syncd_\w+)", table, re.MULTILINE))
    assert told == {name for name in found if not name.startswith("syncd_process_")}


@needs_promtool
def test_prometheus_finds_nothing_wrong_with_the_metrics(shared: Daemon) -> None:
    """Names, units and types by its conventions."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page(shared),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_promtool
def test_the_alert_rules_are_sound_and_fire_when_they_should() -> None:
    """Checked, and run over made-up hours."""
    tests = ROOT / "tests" / "alerts_test.yml"
    for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(tests)]):
        done = subprocess.run(
            ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8788", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8788", 200),
        ("127.9.9.9", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("192.168.0.1", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused(shared: Daemon, host: str, code: int) -> None:
    """Somebody's web page whose name resolves to loopback must not read it."""
    for path in ("/status.json", "/metrics"):
        answer = httpx.get(shared.admin_url + path, headers={"Host": host}, trust_env=False)
        assert answer.status_code == code


@pytest.mark.parametrize("path", ["/status.json", "/metrics"])
def test_it_only_reads(shared: Daemon, path: str) -> None:
    """Whatever acts goes through the control socket."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, shared.admin_url + path, trust_env=False).status_code == 405


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.168.0.1:8788"])
def test_it_refuses_to_be_reached_from_elsewhere(idle: Site, listen: str) -> None:
    """Unless it is told so in so many words."""
    idle.configure(admin={"listen": listen})
    done = idle.syncd("check-config")
    assert done.returncode == 2
    assert "admin.listen: is not on loopback" in done.stderr
    assert idle.syncd("check-config", environ={"SYNCD_ADMIN_ALLOW_REMOTE": "1"}).returncode == 0


def test_turned_off_it_does_not_listen(site: Site) -> None:
    """With an empty address."""
    site.configure(admin={"listen": ""})
    daemon = site.serve(filled=False)
    told: list[Any] = [line["listener"] for line in daemon.told("listening")]
    assert told == ["webhook", "control"]
