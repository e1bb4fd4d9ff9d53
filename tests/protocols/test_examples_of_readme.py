"""The code of protocols/README.md runs as it is printed, and is as short as promised."""

import asyncio
import datetime
import inspect
import ipaddress
import random
import re
import ssl
import sys
import types
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from cohorts import IDENTITIES, LEAST, hybrid, malicious, plain_sum, semi_honest, vectors_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import flora_protocols
from flora_protocols import Code, PeerError, Trip, codec, conduct, drive, member, set_up

TEXT = (Path(__file__).parents[2] / "protocols/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MEMORY, SERVER, CLIENT, FLOWER = BLOCKS
SOCKETS = SERVER + CLIENT


def run(block):
    space = {}
    exec(compile(block, "README.md", "exec"), space)
    return types.SimpleNamespace(**space)


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_short(block):
    assert len([line for line in block.splitlines() if line.strip()]) < 40


def test_a_session_in_memory():
    example = run(MEMORY)
    left = [index for index in range(100) if index not in (7, 8)]
    first, second = example.results
    assert (first.survivors, first.recovered) == (tuple(left), (7, 8))
    assert (first.sum == example.vectors[left].sum(0, dtype=np.uint32) % (1 << 16)).all()
    assert (second.survivors, second.recovered) == (tuple(range(100)), ())
    assert (second.sum == example.vectors.sum(0, dtype=np.uint32) % (1 << 16)).all()
    assert f"k = {example.k} neighbours, t = {example.t} shares" in MEMORY


def certificate(name, issuer=None):
    """(certificate, key, PEM of both) for `name`, signed by `issuer` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = made.public_bytes(encoding) + key.private_bytes(encoding, form, serialization.NoEncryption())
    return made, key, pem


def contexts(folder, names):
    """A TLS context for each name; every party must show a certificate of the one authority."""
    authority = certificate("authority")
    trusted = authority[0].public_bytes(serialization.Encoding.PEM).decode()
    made = {}
    for name in names:
        path = folder / f"{name}.pem"
        path.write_bytes(certificate(name, authority)[2])
        side = ssl.PROTOCOL_TLS_SERVER if name == "server" else ssl.PROTOCOL_TLS_CLIENT
        made[name] = ssl.SSLContext(side)
        made[name].verify_mode = ssl.CERT_REQUIRED
        made[name].load_verify_locations(cadata=trusted)
        made[name].load_cert_chain(path)
    return made


def free_port():
    async def ask():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        async with server:
            return server.sockets[0].getsockname()[1]

    return asyncio.run(ask())


ROUNDS = [(1, b"1" * 32), (5, b"5" * 32)]


@pytest.mark.parametrize("slots", [2, 3])
def test_asyncio_over_tls(tmp_path, slots):
    """Two rounds among five clients over sockets: client 3 never comes, client 4 leaves before it uploads and sends
    rubbish instead. Where a slot is left, the clients wait for its round until the server closes."""
    example = run(SOCKETS)
    params = malicious(6, threshold=4, slots=slots)
    tls = contexts(tmp_path, ["server", *map(str, range(6))])
    vectors, port = vectors_for(params), free_port()

    async def leaver():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls["4"], server_hostname="localhost")
        position, message = flora_protocols.ClientAdvertise(params, 4, floors=LEAST, identity=IDENTITIES[4]).advertise()
        example.write(writer, message)
        position, message = position.share(await example.read(reader, params))
        example.write(writer, message)
        await example.read(reader, params)
        example.write(writer, b"rubbish")
        writer.close()

    async def everything():
        server = asyncio.create_task(example.serve(params, ROUNDS, tls["server"], port, patience=1.0))
        await asyncio.sleep(0.1)
        clients = [
            example.take_part(
                params, i, b"", LEAST, IDENTITIES[i], lambda start, i=i: turned(vectors[i], start), tls[str(i)], port
            )
            for i in (0, 1, 2, 5)
        ]
        await asyncio.gather(*clients, leaver())
        return await server

    results = asyncio.run(asyncio.wait_for(everything(), 30))
    for (number, _), result in zip(ROUNDS, results, strict=True):
        assert result.survivors == (0, 1, 2, 5)
        assert result.dropped == (4,)
        assert result.recovered == (4,)
        assert (result.sum == turned(plain_sum(params, vectors, result.survivors), number)).all()
    assert {client: error.code for client, error in results[0].refused.items()} == {4: Code.NOT_A_MESSAGE}
    assert results[1].refused == {}


def turned(vector, start):
    """A vector of its own for each round."""
    return np.roll(vector, getattr(start, "round", start))


class Doubling:
    """The example's `write`, over which everything goes that was ever written to the same peer, before and after what
    should go; in TLS that takes a peer who does so."""

    def __init__(self, write, seed):
        self.write, self.rng, self.written = write, random.Random(seed), {}

    def __call__(self, stream, message):
        before = self.written.setdefault(stream, [])
        for old in (old for old in before if self.rng.random() < 0.5):
            self.write(stream, old)
        before.append(message)
        for new in [message] + [old for old in before if self.rng.random() < 0.5]:
            self.write(stream, new)


@pytest.mark.parametrize("seed", range(3))
def test_asyncio_through_a_carrier_that_replays(tmp_path, seed):
    """Both ways, in two sessions of two rounds: every message comes at least once, many twice, old ones again."""
    example = run(SOCKETS)
    space = example.serve.__globals__
    space["write"] = Doubling(example.write, seed)
    tls = contexts(tmp_path, ["server", *map(str, range(4))])
    kept = dict.fromkeys(range(4), b"")

    async def everything(params, rounds, port):
        server = asyncio.create_task(example.serve(params, rounds, tls["server"], port, patience=5.0))
        await asyncio.sleep(0.1)
        vectors = vectors_for(params)
        clients = [
            example.take_part(
                params,
                i,
                kept[i],
                LEAST,
                IDENTITIES[i],
                lambda start, i=i: turned(vectors[i], start),
                tls[str(i)],
                port,
            )
            for i in kept
        ]
        kept.update(enumerate(await asyncio.gather(*clients)))
        return await server

    for session in (1, 2):
        params = malicious(number=session, slots=2)
        rounds = [(10 * session + number, model) for number, model in ROUNDS]
        results = asyncio.run(asyncio.wait_for(everything(params, rounds, free_port()), 30))
        for (number, _), result in zip(rounds, results, strict=True):
            assert (result.survivors, result.refused) == ((0, 1, 2, 3), {})
            assert (result.sum == turned(plain_sum(params, vectors_for(params), range(4)), number)).all()
    for index in kept:
        with pytest.raises(PeerError, match="asks to begin session 2"):
            flora_protocols.answer(
                malicious(number=2, bits=10),
                index,
                b"",
                kept[index],
                floors=LEAST,
                identity=IDENTITIES[index],
                vector=lambda start: 1 // 0,
            )


def test_a_stream_that_announces_too_much_is_not_read():
    """Nothing is buffered for it: the longest message of a session is the most that a peer can make the other keep."""
    example, params = run(SERVER), malicious(slots=2)
    longest = flora_protocols.most_bytes(params)

    async def ask(size, data):
        stream = asyncio.StreamReader()
        stream.feed_data(size.to_bytes(4, "little") + data)
        return await example.read(stream, params)

    assert asyncio.run(ask(longest, bytes(longest))) == bytes(longest)
    for size in (longest + 1, 2**32 - 1):
        with pytest.raises(ConnectionError, match=f"{size} bytes announced"):
            asyncio.run(ask(size, b""))


def by_messages(params, answer, rounds=(1, 2)):
    """The sums of a session whose server reaches its clients only by `answer(index, mail)`; client 2 does not answer in
    MASK of the first round."""

    def carry(exchange):
        for index, mail in exchange.outbox.items():
            if (exchange.trip, index, silent) != (Trip.MASK, 2, True):
                yield index, answer(index, mail)

    silent, results = True, []
    prepared = drive(set_up(params), carry)
    for number in rounds:
        results.append(drive(conduct(prepared, prepared.next_round(number, bytes(32))), carry))
        silent = False
    assert [result.refused for result in results] == [{}] * len(rounds)
    return results


def check(params, results, rounds=(1, 2)):
    """The first sum without client 2, the others with it."""
    for number, result in zip(rounds, results, strict=True):
        survivors = (0, 1, 3) if number == rounds[0] else (0, 1, 2, 3)
        assert result.survivors == survivors
        assert result.recovered == ((2,) if number == rounds[0] else ())
        assert (result.sum == turned(plain_sum(params, vectors_for(params), survivors), number)).all()


def replaying(answer, rng):
    """`answer`, asked again whatever it was asked before; each time it must give the same reply or none."""
    asked = {}

    def again(index):
        for mail, reply in list(asked.get(index, {}).items()):
            for _ in range(rng.randrange(3)):
                with suppress(PeerError):
                    assert answer(index, mail) == reply

    def once(index, mail):
        again(index)
        reply = answer(index, mail)
        asked.setdefault(index, {})[mail] = reply
        again(index)
        return reply

    return once


class Record(dict):
    """As much of Flower's records as the example uses."""

    @property
    def config_records(self):
        return self


class Reply:
    def __init__(self, content, reply_to=None):
        self.content, self.reply_to = content, reply_to


@pytest.fixture
def in_flower(monkeypatch):
    """The handler, whether Flower is installed or not: its classes have stand-ins of the same names. Gives a function
    from `make` of parameters to what answers (index, mail) with a node's state alone."""

    class ClientApp:
        def query(self):
            return lambda handler: handler

    common, clientapp = types.ModuleType("flwr.app"), types.ModuleType("flwr.clientapp")
    common.ConfigRecord, common.RecordDict, common.Message, common.Context = Record, Record, Reply, object
    clientapp.ClientApp = ClientApp
    for name, module in (("flwr", types.ModuleType("flwr")), ("flwr.app", common), ("flwr.clientapp", clientapp)):
        monkeypatch.setitem(sys.modules, name, module)
    nodes = {index: types.SimpleNamespace(state=Record(), index=index) for index in range(4)}

    def of(params):
        vectors = vectors_for(params)

        def answer(index, mail):
            example = run(FLOWER)  # a fresh process: only what is in the node's state lives
            space = example.secagg.__globals__
            space["session"] = lambda message, context: (params, context.index)
            space["floors"] = lambda context: LEAST
            space["train"] = lambda start, context: turned(vectors[context.index], start)
            space["identity"] = lambda context: IDENTITIES[context.index] if params.malicious else None
            message = Reply(Record(secagg=Record(mail=mail)))
            reply = example.secagg(message, nodes[index])
            assert reply.reply_to is message
            assert {type(value) for value in nodes[index].state["secagg"].values()} == {bytes}
            return reply.content["secagg"]["mail"]

        return answer

    return of


@pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
def test_shape_for_flower(in_flower, make):
    params = make(slots=2)
    check(params, by_messages(params, in_flower(params)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
def test_flower_through_a_carrier_that_replays(in_flower, make, seed):
    """The empty message at any point, too: it restarts nothing, in this session or after it."""
    rng = random.Random(seed)
    for number in (1, 2):
        params = make(number=number, slots=2)
        rounds = (2 * number, 2 * number + 1)
        check(params, by_messages(params, replaying(in_flower(params), rng), rounds), rounds)
        for other in (params, make(number=number, bits=10), make(number=0)):
            with pytest.raises(PeerError, match="asks to begin"):
                in_flower(other)(0, b"")


def test_in_flower_itself():
    """The same with Flower's own app, messages and contexts, where it is installed."""
    flwr = pytest.importorskip("flwr.app")
    params = malicious(slots=2)
    vectors = vectors_for(params)
    nodes = {i: flwr.Context(1, i, {}, flwr.RecordDict(), {"index": i}) for i in range(4)}
    example = run(FLOWER)
    space = example.secagg.__globals__
    space["session"] = lambda message, context: (params, context.run_config["index"])
    space["train"] = lambda start, context: turned(vectors[context.run_config["index"]], start)
    space["floors"] = lambda context: LEAST
    space["identity"] = lambda context: IDENTITIES[context.run_config["index"]]

    def answer(index, mail):
        content = flwr.RecordDict({"secagg": flwr.ConfigRecord({"mail": mail})})
        message = flwr.Message(content, metadata=flwr.Metadata(1, "1", 0, index, "", "", 0.0, 1e9, "query"))
        return example.app(message, nodes[index]).content.config_records["secagg"]["mail"]

    check(params, by_messages(params, answer))


def test_every_public_name_is_documented():
    table = TEXT[TEXT.index("## What there is") :]
    missing = [name for name in flora_protocols.__all__ if not re.search(rf"\b{name}\b", table + MEMORY)]
    assert missing == []
    things = [getattr(flora_protocols, name) for name in flora_protocols.__all__]
    assert all(thing.__doc__ for thing in things if inspect.isclass(thing) or inspect.isfunction(thing))


def test_versions_are_as_stated():
    assert f"**Wire format {codec.VERSION}.0.0**" in TEXT
    assert f"version of their own, {member.DUMP_VERSION}." in TEXT
