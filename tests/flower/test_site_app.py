"""The site's half: what is answered, and that nothing that is raised leaves."""

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flora_secure.engine.flower import wire
from flora_secure.engine.flower.site_app import register

WORDS = "a secret of this site"


def context():
    return Context(run_id=1, node_id=70, node_config={"number": 4}, state=RecordDict(), run_config={})


def asked(action, content, answering=None, numbered=None, log=None):
    """What a site gives back, and what it tells its own log."""
    app, told = ClientApp(), []
    register(
        app,
        answering or (lambda site: lambda request: b"%d:%b" % (site.node_config["number"], request)),
        numbered or (lambda site: site.node_config["number"]),
        log or told.append,
    )
    message = Message(content, 70, f"query.{action}", ttl=60)
    message.metadata.__dict__["_message_id"] = message.object_id
    site = context()
    reply = app(message, site)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert not reply.has_error()
    assert len(site.state) == 0
    return wire.unpacked(reply), told


def raising(*_):
    raise RuntimeError(f"{WORDS} \x1b[2J\nin two lines")


def test_the_client_of_the_site_answers() -> None:
    assert asked("secure", wire.packed(b"request")) == (b"4:request", [])


def test_the_site_says_its_number() -> None:
    reply, told = asked("hello", wire.packed(b""))
    assert (wire.number_unpacked(reply, 5), told) == (4, [])


@pytest.mark.parametrize(
    ("action", "changed"),
    [
        ("secure", {"answering": raising}),
        ("secure", {"answering": lambda site: raising}),
        ("hello", {"numbered": raising}),
    ],
)
def test_what_is_raised_stays_at_the_site(action, changed) -> None:
    reply, told = asked(action, wire.packed(b"request"), **changed)
    assert reply == wire.FAILED
    assert len(told) == 1
    assert "RuntimeError" in told[0]
    assert WORDS in told[0]
    assert f"{__file__}:" in told[0]
    assert told[0].isprintable()


@pytest.mark.parametrize("answer", [None, "text", 1, bytearray(b"x"), [b"x"]])
def test_a_client_that_answers_no_bytes_has_failed(answer) -> None:
    reply, told = asked("secure", wire.packed(b"request"), answering=lambda site: lambda request: answer)
    assert reply == wire.FAILED
    assert len(told) == 1


@pytest.mark.parametrize("number", [-1, 2**32, "four", None])
def test_a_number_that_is_none_has_failed(number) -> None:
    reply, told = asked("hello", wire.packed(b""), numbered=lambda site: number)
    assert reply == wire.FAILED
    assert len(told) == 1


def test_a_request_that_is_none_of_ours_reaches_no_client() -> None:
    met = []
    hostile = RecordDict({"flora-secure": ConfigRecord({"message": "text"})})
    reply, told = asked("secure", hostile, answering=lambda site: met.append)
    assert (reply, met) == (wire.FAILED, [])
    assert "not bytes" in told[0]


def test_a_log_that_cannot_be_written_does_not_tell_the_server() -> None:
    assert asked("secure", wire.packed(b"request"), answering=raising, log=raising) == (wire.FAILED, [])


def test_what_ends_the_process_ends_it() -> None:
    def ended(site):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        asked("secure", wire.packed(b"request"), answering=ended)
