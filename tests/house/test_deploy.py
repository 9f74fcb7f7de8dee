"""What `deploy/` offers to start from is itself in order."""

from controller.config import load
from tests.house.source import ROOT

SITE = load(ROOT / "deploy" / "site.toml")


def test_the_example_site_reads_a_meter_that_is_known() -> None:
    maps = {path.stem for path in (ROOT / "drivers" / "modbus" / "maps").glob("*.toml")}
    assert {meter.map for meter in SITE.meter} <= maps


def test_the_example_site_shows_nothing_beyond_the_gateway_but_the_stations_port() -> None:
    assert SITE.http is not None
    assert SITE.http.host == "127.0.0.1"
    assert SITE.ocpp.host == "0.0.0.0"  # noqa: S104 - stations come in over the charging network


def test_the_image_and_the_example_site_agree_on_ports_and_places() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert SITE.http is not None
    assert f"EXPOSE {SITE.ocpp.port} {SITE.http.port}" in dockerfile
    assert f"LAADPLEIN_HEALTH_URL=http://127.0.0.1:{SITE.http.port}/health" in dockerfile
    assert f"VOLUME {SITE.state.directory}" in dockerfile
