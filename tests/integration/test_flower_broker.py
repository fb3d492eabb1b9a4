"""Flower's Broker page asks a Redis as nodes do: with the TLS options of the URL, its login, its database."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from tests.support import Process, answers, clean_environment, eventually, free_port, start_flower


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a Redis that speaks TLS alone, and the file of the authority it is certified by."""
    directory, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    port = free_port()
    argv = [
        "redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no",
        "--tls-cert-file", str(directory / "server.pem"), "--tls-key-file", str(directory / "server.pem"),
        "--tls-ca-cert-file", str(directory / "ca.pem"), "--requirepass", "p/w@d",
        "--save", "", "--dir", str(directory),
    ]  # fmt: skip
    process = Process(argv, directory / "redis.log", clean_environment())
    client = redis.Redis("localhost", port, 2, "p/w@d", ssl=True, ssl_ca_certs=str(directory / "ca.pem"))
    eventually(lambda: answers(client) or process.returncode is not None)
    if process.returncode is not None:
        pytest.skip(f"this redis-server speaks no TLS: {process.output()[-200:]}")
    client.lpush("low", "x", "y")
    client.lpush("low\x06\x169", "z")
    yield port, directory / "ca.pem"
    process.close()


@pytest.mark.parametrize("options", ["ssl_cert_reqs=required&ssl_ca_certs={authority}", "ssl_cert_reqs=none"])
def test_queues_are_shown_over_tls_with_the_options_of_the_url(tls_server, tmp_path, options):
    port, authority = tls_server
    url = f"rediss://:p%2Fw%40d@localhost:{port}/2?{options.format(authority=authority)}"
    flower, address = start_flower(tmp_path, TASKAPP_BROKER_URL=url, FLOWER_UNAUTHENTICATED_API="true")
    try:
        page = urllib.request.urlopen(f"{address}/broker", timeout=20).read().decode()
        lengths = json.loads(urllib.request.urlopen(f"{address}/api/queues/length", timeout=20).read())
    finally:
        flower.close()

    assert {"name": "low", "messages": 3} in lengths["active_queues"]
    assert 'id="low"' in page
    assert "Unable to get queues" not in flower.output()
    assert "p/w@d" not in page + flower.output()
    assert "p%2Fw%40d" not in page + flower.output()


def test_a_certificate_that_is_not_trusted_is_no_page_without_a_reason(tls_server, tmp_path):
    port, _ = tls_server
    flower, address = start_flower(
        tmp_path,
        TASKAPP_BROKER_URL=f"rediss://:p%2Fw%40d@localhost:{port}/2?ssl_cert_reqs=required",
        FLOWER_UNAUTHENTICATED_API="true",
    )
    try:
        page = urllib.request.urlopen(f"{address}/broker", timeout=20)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/api/queues/length", timeout=20)
    finally:
        flower.close()

    assert page.status == 200
    assert refused.value.code == 503
    assert "CERTIFICATE_VERIFY_FAILED" in flower.output()
