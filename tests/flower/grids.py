"""A Grid in memory, whose nodes answer as a test says and whose clock moves when somebody sleeps."""

from collections.abc import Callable, Iterable

from flwr.app import Error, Message
from flwr.serverapp import Grid

from flora_secure.engine.flower import letters, nodes, transport
from flora_secure.engine.flower.wire import packed

Replies = list[tuple[float, Message]]  # each with the seconds until it is there
SERVER = 1  # the node of Flower's server


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 1e-3)  # a sleep of nothing takes time too: no test may loop for ever


class FakeGrid(Grid):
    """Nodes are functions from a message to replies. Ids are made as Flower makes them, from what is in a message."""

    def __init__(self, clock: Clock, sites: dict[int, Callable[[Message], Replies]]) -> None:
        self.clock, self.sites = clock, sites
        self.pushed: list[Message] = []
        self.pulled: list[str] = []
        self.unreadable: set[int] = set()  # nodes whose replies break Flower's own reader
        self._replies: dict[str, list[tuple[float, Message]]] = {}

    def set_run(self, run) -> None:
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *_, **__):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.sites)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            message_id = message.metadata.message_id
            self.pushed.append(message)
            ready = [
                (self.clock.now + delay, reply) for delay, reply in self.sites[message.metadata.dst_node_id](message)
            ]
            self._replies.setdefault(message_id, []).extend(ready)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = []
        for message_id in message_ids:
            self.pulled.append(message_id)
            due = [entry for entry in self._replies[message_id] if entry[0] <= self.clock.now]
            self._replies[message_id] = [entry for entry in self._replies[message_id] if entry not in due]
            found += [reply for _, reply in due]
            if due and found[0].metadata.src_node_id in self.unreadable:
                raise ValueError("words of a hostile node")
        return found


def echo(prefix: bytes = b"", delay: float = 0.0) -> Callable[[Message], Replies]:
    """A node that gives back what it was sent, behind `prefix`."""

    def answer(message: Message) -> Replies:
        request = message.content["flora-secure"]["message"]
        return [(delay, Message(packed(prefix + request), reply_to=message))]

    return answer


def silent(_: Message) -> Replies:
    return []


def failing(code: int, delay: float = 0.0) -> Callable[[Message], Replies]:
    """What Flower's server says of a node: an error, from its own node."""

    def answer(message: Message) -> Replies:
        reply = Message(Error(code, "words of somebody"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = SERVER
        return [(delay, reply)]

    return answer


def on_clock(monkeypatch) -> Clock:
    """A clock that the engine goes by."""
    clock = Clock()
    for module in (letters, nodes, transport):
        monkeypatch.setattr(module, "time", clock)
    return clock
