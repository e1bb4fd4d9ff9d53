import pytest

from flora_secure.engine.exchange import Traffic


def test_every_message_counts_in_full() -> None:
    traffic = Traffic()
    traffic.sent_down(0, b"x" * 10, payload=8)
    traffic.sent_up(0, b"y" * 5)
    traffic.sent_up(3, b"z" * 7, payload=7)
    assert (traffic.upload, traffic.download, traffic.payload, traffic.masking) == (12, 10, 15, 7)
    assert traffic.clients == {0, 3}


def test_a_payload_larger_than_its_message_is_refused() -> None:
    with pytest.raises(ValueError, match="payload of 3 bytes in messages of 2"):
        Traffic().sent_up(0, b"xy", payload=3)
