"""Settings: read once, every mistake named."""

import os
from pathlib import Path

import pytest

from podium.app.gateway import gateway_settings
from podium.app.settings import is_loopback, private_folder, read_settings
from podium.gateway.settings import AccessRecord, CertificateFiles
from podium.resources.errors import InvalidInput, Refused


def test_defaults_are_local_and_in_the_home_folder(tmp_path: Path) -> None:
    settings = read_settings({"PODIUM_HOME": str(tmp_path)})
    assert settings.database == f"sqlite:///{tmp_path}/podium.db"
    assert not settings.is_public
    assert settings.gateway_tokens


def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    environ = {"PODIUM_HOME": "/elsewhere", "PODIUM_API_PORT": "1"}
    settings = read_settings(environ, home=str(tmp_path), api_port=2, gateway_port=None)
    assert (settings.home, settings.api_port) == (tmp_path, 2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PODIUM_API_PORT", "many"),
        ("PODIUM_GATEWAY_PORT", "70000"),
        ("PODIUM_ENVIRONMENTS_LIMIT", "lots"),
        ("PODIUM_GATEWAY_TOKENS", "maybe"),
        ("PODIUM_GATEWAY_RECORD", "access.log"),
        ("PODIUM_GATEWAY_RECORD", "/nobody/made/this/access.log"),
        ("PODIUM_GATEWAY_RECORD", "/"),
        ("PODIUM_GATEWAY_RECORD_SIZE", "much"),
        ("PODIUM_GATEWAY_RECORD_SIZE", "1Ki"),
        ("PODIUM_GATEWAY_RECORD_KEPT", "-1"),
        ("PODIUM_GATEWAY_MEMORY", "plenty"),
        ("PODIUM_GATEWAY_MEMORY", "64Mi"),
        ("PODIUM_WORKERS", "-1"),
        ("PODIUM_PROGRAM_FOLDERS", "opt/triton"),
        ("PODIUM_PROGRAM_FOLDERS", "/opt:/"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_settings({variable: value})
    assert caught.value.issues[0].field == variable


def test_the_access_record_is_on_off_or_elsewhere(tmp_path: Path) -> None:
    assert read_settings({}).gateway_record == AccessRecord()
    assert read_settings({"PODIUM_GATEWAY_RECORD": "on"}).gateway_record == AccessRecord()
    assert read_settings({"PODIUM_GATEWAY_RECORD": "OFF"}).gateway_record is None
    given = {
        "PODIUM_GATEWAY_RECORD": str(tmp_path / "requests"),
        "PODIUM_GATEWAY_RECORD_SIZE": "256Mi",
        "PODIUM_GATEWAY_RECORD_KEPT": "0",
    }
    assert read_settings(given).gateway_record == AccessRecord(tmp_path / "requests", 2**28, 0)


def test_the_gateways_memory_is_a_share_of_the_machines() -> None:
    assert read_settings({}).gateway_memory >= 2 * 2**30
    settings = read_settings({"PODIUM_GATEWAY_MEMORY": "512Mi"})
    assert gateway_settings(settings, token=None).memory == 2**29


def test_programs_come_from_folders_apart_from_podiums_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    given = {"PODIUM_HOME": str(home), "PODIUM_PROGRAM_FOLDERS": f"/opt/tritonserver:{tmp_path / 'tools'}"}
    assert read_settings(given).program_folders == (Path("/opt/tritonserver"), tmp_path / "tools")
    (tmp_path / "link").symlink_to(tmp_path)
    for wrong in (home, home / "keys", tmp_path, tmp_path / "link"):
        with pytest.raises(InvalidInput, match=r"PODIUM_PROGRAM_FOLDERS: .* apart from"):
            read_settings(given | {"PODIUM_PROGRAM_FOLDERS": str(wrong)})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_predictions_without_tokens_stay_on_this_machine(host: str) -> None:
    with pytest.raises(Refused):
        read_settings({"PODIUM_GATEWAY_TOKENS": "off", "PODIUM_GATEWAY_HOST": host})
    assert not is_loopback(host)


def test_a_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700


def test_a_link_is_not_taken_for_a_folder_of_ours(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Refused):
        private_folder(tmp_path / "link")


def test_socket_paths_fit(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    sockets = read_settings({"PODIUM_HOME": str(deep)}).sockets
    assert len(os.fsencode(sockets)) + len("/0123456789abcdef0123.sock") < 107


def test_certificates_for_both_parts_or_for_each(tmp_path: Path) -> None:
    home = {"PODIUM_HOME": str(tmp_path)}
    assert read_settings(home).api_certificate is None
    both = {**home, "PODIUM_TLS_CERT": "/c", "PODIUM_TLS_KEY": "/k"}
    found = read_settings(both)
    assert found.api_certificate == found.gateway_certificate == CertificateFiles(Path("/c"), Path("/k"))
    assert (found.api_url, found.gateway_url) == ("https://127.0.0.1:6780", "https://127.0.0.1:6781")
    own = {**both, "PODIUM_GATEWAY_TLS_CERT": "/gc", "PODIUM_GATEWAY_TLS_KEY": "/gk"}
    found = read_settings(own, api_tls_cert="/ac", api_tls_key="/ak")
    assert found.api_certificate == CertificateFiles(Path("/ac"), Path("/ak"))
    assert found.gateway_certificate == CertificateFiles(Path("/gc"), Path("/gk"))
    only = read_settings({**home, "PODIUM_GATEWAY_TLS_CERT": "/gc", "PODIUM_GATEWAY_TLS_KEY": "/gk"})
    assert (only.api_url, only.gateway_url) == ("http://127.0.0.1:6780", "https://127.0.0.1:6781")
    assert read_settings(both, api_host="::").api_url == "https://[::1]:6780"


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"PODIUM_TLS_CERT": "/c"}, "PODIUM_TLS_KEY"),
        ({"PODIUM_TLS_KEY": "/k"}, "PODIUM_TLS_CERT"),
        ({"PODIUM_API_TLS_KEY": "/k"}, "PODIUM_API_TLS_CERT"),
        ({"PODIUM_TLS_CERT": "/c", "PODIUM_TLS_KEY": "/k", "PODIUM_GATEWAY_TLS_CERT": "/c"}, "PODIUM_GATEWAY_TLS_KEY"),
    ],
)  # fmt: skip
def test_a_certificate_and_its_key_go_together(tmp_path: Path, environ: dict[str, str], missing: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_settings({"PODIUM_HOME": str(tmp_path), **environ})
    assert caught.value.issues[0].field == missing
