"""Whose certificates are taken where nobody said so."""

import ssl

import pytest

from podium.resources.trust import usual


@pytest.mark.parametrize(
    "addresses", [("http://127.0.0.1:6780", None), ("http://a", "http://b"), ("unix:/s",)]
)
def test_plain_addresses_need_no_authorities_and_whoever_comes_with_tls_is_refused(
    addresses: tuple[str | None, ...],
) -> None:
    found = usual(*addresses)
    assert isinstance(found, ssl.SSLContext)
    assert found.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}
    assert (found.verify_mode, found.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("addresses", [("https://a",), ("http://a", "HTTPS://b"), (None, "https://c")])
def test_one_address_with_tls_takes_the_system_s_authorities(addresses: tuple[str | None, ...]) -> None:
    assert usual(*addresses) is True
