"""Which addresses an import may follow: a stranger's, and those that an MLflow server answers."""

from dataclasses import dataclass

import pytest

from podium.registry.mlflow_policy import (
    ImportPolicy,
    ModelUri,
    check_location,
    choose_source,
    parse_uri,
    redact,
    walk_listing,
)
from podium.resources.errors import InvalidInput, TooLarge

SERVER = "http://mlflow.example:5000"
LOCAL = "sqlite:////var/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/churn/3", ModelUri("version", "churn", "3")),
        ("models:/my model.v1/12", ModelUri("version", "my model.v1", "12")),
        ("models:/churn@champion", ModelUri("alias", "churn", "champion")),
        ("models:/m-0123abc", ModelUri("loggedModel", "m-0123abc")),
        ("runs:/0123abc/model", ModelUri("run", "0123abc", path="model")),
        ("runs:/0123abc/a/b c", ModelUri("run", "0123abc", path="a/b c")),
    ],
)
def test_known_forms(uri: str, expected: ModelUri) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "http://evil.example/model", "file:///etc/passwd", "/etc/passwd", "s3://bucket/x", "models://host/churn/3",
        "models:/churn", "models:/churn/latest", "models:/churn/Production", "models:/churn/0", "models:/churn/3/x",
        "models:/../3", "models:/churn@../x", "models:/churn@a/b", "models:/churn/3?x", "models:/churn/3#x",
        "models:/a%2fb/3",
        "models:/@champion", "models:/churn@", "runs:/abc", "runs:/abc/", "runs:/abc/../x", "runs:/abc/a/../../x",
        "runs:/../x",
        "runs:/abc//etc/passwd", "runs:/abc/a\\b", "runs:/abc/%2e%2e/x", "runs://host/abc/x", "runs:/a b/x",
        "mlflow-artifacts:/x", "",
    ],
)  # fmt: skip
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match="expected one of models:/") as error:
        parse_uri(uri)
    assert error.value.issues[0].field == "uri"


def test_only_configured_sources_are_used() -> None:
    policy = ImportPolicy((SERVER, LOCAL))
    assert choose_source(None, "trackingUri", policy) == SERVER
    assert choose_source(LOCAL, "trackingUri", policy) == LOCAL
    for given in (
        "http://169.254.169.254/",
        "sqlite:////home/podium/podium.db",
        SERVER + "/",
        "http://mlflow.example",
    ):
        with pytest.raises(InvalidInput, match="does not import from") as error:
            choose_source(given, "registryUri", policy)
        assert error.value.issues[0].field == "registryUri"
    with pytest.raises(InvalidInput, match="no MLflow server is configured"):
        choose_source(None, "trackingUri", ImportPolicy())


def test_passwords_of_configured_sources_show_nowhere() -> None:
    policy = ImportPolicy(("https://me:hush@mlflow.example",))
    with pytest.raises(InvalidInput) as error:
        choose_source("http://you:hush2@other.example", "trackingUri", policy)
    assert "hush" not in str(error.value)
    assert "https://***@mlflow.example" in str(error.value)
    assert redact("a //u:p@h b") == "a //***@h b"


@pytest.mark.parametrize(
    "uri",
    ["ftp://x", "databricks", "file://host/x", "sqlite://", "sqlite:///relative.db", "sqlite:////x.db?mode=rw",
     "postgresql://u:p@h/db", "http://", "http://h/?q", "uc:http://h"],
)  # fmt: skip
def test_kinds_of_sources_are_a_closed_list(uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected http\(s\)://host, sqlite:"):
        choose_source(uri, "trackingUri", ImportPolicy(allow_any=True))


@pytest.mark.parametrize(
    ("location", "tracking", "expected"),
    [
        ("/var/mlruns/1/m", LOCAL, "local"),
        ("file:///var/mlruns/1/m", "file:///var/mlruns", "local"),
        ("mlflow-artifacts:/1/abc/artifacts", SERVER, "remote"),
        ("mlflow-artifacts://mlflow.example:5000/1/abc", SERVER, "remote"),
        (SERVER + "/api/2.0/mlflow-artifacts/artifacts/1", SERVER, "remote"),
        ("s3://bucket/x", SERVER, "remote"),
    ],
)
def test_where_a_models_files_may_lie(location: str, tracking: str, expected: str) -> None:
    assert check_location(location, tracking, ImportPolicy(artifact_schemes=("s3",))) == expected


@pytest.mark.parametrize(
    ("location", "tracking"),
    [
        ("/etc", SERVER), ("file:///etc", SERVER), ("file://host/etc", LOCAL), ("relative", LOCAL),
        ("gs://bucket/x", SERVER),
        ("mlflow-artifacts://evil.example/1", SERVER), ("mlflow-artifacts://mlflow.example:81/1", SERVER),
        ("mlflow-artifacts:/1", LOCAL), ("http://evil.example/x", SERVER), ("https://mlflow.example:5000/x", SERVER),
        ("ftp://mlflow.example/x", SERVER), ("dbfs:/x", SERVER), ("sftp://h/x", LOCAL), ("http://h/x", LOCAL),
    ],
)  # fmt: skip
def test_where_they_may_not(location: str, tracking: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_location(location, tracking, ImportPolicy(artifact_schemes=("s3",)))
    assert error.value.next_step


@dataclass(frozen=True)
class Entry:
    """As mlflow.entities.FileInfo."""

    path: str
    is_dir: bool = False
    file_size: int | None = 1


def test_a_listing_is_walked() -> None:
    tree = {
        None: [Entry("MLmodel", file_size=7), Entry("code", True)],
        "code": [Entry("code/m.py", file_size=None)],
    }
    assert walk_listing(lambda folder: tree[folder], 10) == {"MLmodel": 7, "code/m.py": 0}


@pytest.mark.parametrize("is_dir", [False, True])
@pytest.mark.parametrize(
    "path",
    ["../evil", "..", "/etc/cron.d/evil", "..\\evil", "a/../../evil", "%2e%2e/evil", "%252e%252e/evil", "a\x00b",
     "x" * 5000,
     "C:/evil", "CON", "\u202eevil", ".. /evil", "", ".", "a//b", "a\nb"],
)  # fmt: skip
def test_unsafe_names_in_a_listing_are_refused(path: str, is_dir: bool) -> None:
    with pytest.raises(InvalidInput, match="unsafe name"):
        walk_listing(lambda folder: [Entry("MLmodel"), Entry(path, is_dir)], 10)


@pytest.mark.parametrize(
    "listing",
    [[Entry("again", True)], [Entry(f"f{n}") for n in range(11)], [Entry(f"d{n}", True) for n in range(11)]],
)
def test_a_listing_without_an_end_ends(listing: list[Entry]) -> None:
    asked: list[str | None] = []

    def list_folder(folder: str | None) -> list[Entry]:
        asked.append(folder)
        return listing

    with pytest.raises(TooLarge, match="more than the 10 files"):
        walk_listing(list_folder, 10)
    assert len(asked) <= 10
