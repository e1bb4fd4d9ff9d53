"""An app whose sites give back what they are asked, with their number; one raises and one stays away when told to."""

import json
import time
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from flora_secure.engine.flower.nodes import Nodes
from flora_secure.engine.flower.site_app import register
from flora_secure.engine.flower.transport import GridTransport

client = ClientApp()
server = ServerApp()


def _number(context) -> int:
    return int(context.node_config["partition-id"])


def _answering(context):
    number = _number(context)

    def answer(request: bytes) -> bytes:
        if request == b"raise" and number == 1:
            raise RuntimeError("words that stay at the site")
        if request == b"wait" and number == 2:
            print("site 2 waits", flush=True)
            time.sleep(600)
        if request == b"late" and number == 0:
            time.sleep(20)  # longer than the patience with it
        return b"%d:%b" % (number, request)

    return answer


register(client, _answering, _number, log=print)


@server.main()
def main(grid, context) -> None:
    results = Path(context.run_config["results"])

    def told(**what) -> None:
        with results.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def log(line: str) -> None:
        told(log=line)
        print("SERVER", line)

    nodes = Nodes(grid, range(3), log)
    nodes.find(least=3, patience=90, grace=0)
    told(clients=[client for client in range(3) if client not in nodes.missing])
    transport = GridTransport(grid, nodes, log)
    for word, patience in json.loads(context.run_config["script"].replace("'", '"')):
        if word == "rest":
            time.sleep(patience)
            continue
        began = time.monotonic()
        outbox = {client: word.encode() for client in range(3)}
        replies = {client: reply.decode() for client, reply in transport.exchange(outbox, patience)}
        told(word=word, replies=[replies[client] for client in sorted(replies)], seconds=time.monotonic() - began)
    transport.close()
