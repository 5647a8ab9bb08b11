"""The configuration and the manifest: bad fields are named, and bytes that differ are refused."""

import json
import os

import pytest

from podium_runtime.config import read_config
from podium_runtime.errors import ConfigInvalid, DigestMismatch
from podium_runtime.manifest import read_manifest, verify_files
from runtime.tests.replica import Version


def write(tmp_path, **changes):
    version = Version(tmp_path, {"name": "python"}, {"a.txt": b"one", "deep/b.txt": b"two"})
    path = version.write()
    document = json.loads(path.read_text()) | {"listen": {"fd": 3}} | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def test_defaults_are_those_of_the_contract(tmp_path):
    config = read_config(write(tmp_path))
    assert (config.batch_max_size, config.batch_max_delay_ms, config.queue_max_length) == (64, 0, 1024)
    assert (config.max_body_bytes, config.warmup_requests, config.warmup_example) == (16777216, 1, None)
    assert (config.drain_seconds, config.request_timeout_seconds, config.threads) == (20, 30, 1)
    assert config.listen is not None
    assert config.listen.fd == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"served": ...}, "served"),
        ({"served": {"name": "", "version": "3", "workspace": "w", "revision": "r"}}, "served.name"),
        ({"colour": 1}, "colour: unknown field"),
        ({"batch": {"maxSize": 0}}, "batch.maxSize"),
        ({"batch": {"maxDelayMs": -1}}, "batch.maxDelayMs"),
        ({"batch": {"size": 1}}, "batch.size: unknown field"),
        ({"queue": {"maxLength": True}}, "queue.maxLength"),
        ({"threads": 1.5}, "threads"),
        ({"manifestDigest": "md5:1"}, "manifestDigest"),
        ({"warmup": {"example": []}}, "warmup.example"),
        ({"requestTimeoutSeconds": 0}, "requestTimeoutSeconds"),
        ({"listen": ...}, "listen"),
        ({"listen": {}}, "listen"),
        ({"listen": {"fd": 3, "uds": "/x"}}, "listen"),
        ({"listen": {"fd": "3"}}, "listen.fd"),
    ],
)
def test_a_bad_field_is_named(tmp_path, changes, words):
    with pytest.raises(ConfigInvalid, match=words):
        read_config(write(tmp_path, **changes))


def test_inspect_needs_no_address(tmp_path):
    assert read_config(write(tmp_path, listen=...), needs_listen=False).listen is None


def test_an_unreadable_configuration_is_an_error(tmp_path):
    with pytest.raises(ConfigInvalid, match="cannot read"):
        read_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigInvalid, match="not JSON"):
        read_config(tmp_path / "bad.json")


def verify(tmp_path):
    config = read_config(tmp_path / "config.json")
    verify_files(config.model_path, read_manifest(config.manifest_path, config.manifest_digest))


def test_the_bytes_that_were_pushed_pass(tmp_path):
    write(tmp_path)
    verify(tmp_path)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: _flip(root / "model/deep/b.txt"), "deep/b.txt: the stored bytes"),
        (lambda root: _flip(root / "manifest.json"), "digest"),
        (lambda root: (root / "model/a.txt").unlink(), "a.txt: cannot be read"),
        (lambda root: (root / "model/a.txt").write_bytes(b"onee"), "4 bytes"),
        (
            lambda root: (root / "model/extra.py").write_bytes(b""),
            "extra.py: this file is in the model's folder",
        ),
        (lambda root: os.symlink("/etc", root / "model/link"), "link: this file"),
        (lambda root: (root / "manifest.json").unlink(), "cannot be read"),
    ],
)
def test_other_bytes_are_refused(tmp_path, damage, words):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(DigestMismatch, match=words):
        verify(tmp_path)


def test_links_are_never_followed(tmp_path):
    write(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model/deep/b.txt").rename(tmp_path / "elsewhere/b.txt")
    (tmp_path / "model/deep").rmdir()
    (tmp_path / "model/deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DigestMismatch, match="symbolic link"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["../manifest.json", "/etc/passwd", "deep/../../config.json", "a\\b", ""])
def test_paths_out_of_the_folder_are_refused(tmp_path, name):
    import hashlib

    write(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"][0]["path"] = name
    content = json.dumps(manifest).encode()
    (tmp_path / "manifest.json").write_bytes(content)
    config = json.loads((tmp_path / "config.json").read_text())
    config["manifestDigest"] = "sha256:" + hashlib.sha256(content).hexdigest()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DigestMismatch, match="not a path below"):
        verify(tmp_path)


def test_an_unknown_manifest_format_is_refused(tmp_path):
    import hashlib

    content = b'{"format":"podium.manifest/2"}'
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(DigestMismatch, match=r"podium\.manifest/2"):
        read_manifest(tmp_path / "m.json", "sha256:" + hashlib.sha256(content).hexdigest())
