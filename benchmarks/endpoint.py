"""How close asking an endpoint comes to the bound that its concurrency sets: items * latency / concurrency.

    python benchmarks/endpoint.py [--items 10000] [--latency 0.2] [--concurrency 64]

The server is a process of its own that answers every request after `latency` seconds; memory is this process's, in MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from PIL import Image

from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.inferencers.base import Question

ANSWER = json.dumps({"choices": [{"message": {"content": "red"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})
RESPONSE = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()


def serve(port: Connection, latency: float) -> None:
    """A chat endpoint on a free port, which is sent through `port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(latency)
                writer.write(RESPONSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def questions(count: int) -> Iterator[Question]:
    """Questions with a picture each, made as they are taken."""
    for number in range(count):
        image = Image.new("RGB", (96, 96), (number % 256, 0, 0))
        yield Question(str(number), Sample(str(number), [Message("user", [ImagePart(image), TextPart("Colour?")])]), [image])


def memory() -> float:
    """Most memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print time against the bound, and memory after a tenth and after all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000, help="questions")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds per answer")
    parser.add_argument("--concurrency", type=int, default=64, help="requests under way at once")
    given = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there, given.latency), daemon=True)
    server.start()
    model = EndpointModel(f"openai:mock@http://127.0.0.1:{here.recv()}/v1#concurrency={given.concurrency}")
    start, early, done = time.perf_counter(), 0.0, 0
    for done, (_, found, _) in enumerate(model.each(lambda q: model.generate([q], 4)[0], questions(given.items)), start=1):
        if isinstance(found, Exception):
            raise found
        if done == given.items // 10:
            early = memory()
    seconds, bound = time.perf_counter() - start, given.items * given.latency / given.concurrency
    print(f"{done} answers in {seconds:.1f} s; bound {bound:.1f} s; ratio {seconds / bound:.3f}")
    print(f"memory after a tenth {early:.0f} MB, after all {memory():.0f} MB")
    model.close()
    server.terminate()


if __name__ == "__main__":
    main()
