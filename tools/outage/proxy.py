"""A proxy in front of an S3 server that misbehaves on demand.

It reads each request whole, passes it on over a connection of its own, and gives back the answer, or
what the fault in force makes of it. The control port takes a line at a time and answers with one:

    fault NAME [key=value ...]    from now on; see FAULTS. Open connections are not touched
    hits                          requests since the last `fault` that it was done to
    quit

Prints `at PORT control PORT` when it serves.
"""

import asyncio
import contextlib
import random
import socket
import struct
import sys

BODY_MAX = 1 << 30
XML = ('<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
       "<RequestId>0</RequestId></Error>")


class Message:
    """A request or an answer: its head, as bytes with the empty line, and its body."""

    def __init__(self, head, body):
        self.head = head
        self.body = body
        # The connection ends after it, although more was announced.
        self.cut = False

    def first_line(self):
        return self.head.split(b"\r\n", 1)[0]

    def method(self):
        return self.first_line().split(b" ", 1)[0]

    def header(self, name):
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name:
                return value.strip()
        return b""

    def status(self):
        return int(self.first_line().split(b" ")[1])


async def read_head(reader):
    """None at the end of a connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return await reader.readuntil(b"\r\n\r\n")
    return None


async def read_request(reader, writer):
    head = await read_head(reader)
    if head is None:
        return None
    request = Message(head, b"")
    assert b"chunked" not in request.header(b"transfer-encoding"), "a body of unknown length"
    if request.header(b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.body = await reader.readexactly(int(request.header(b"content-length") or 0))
    return request


async def forward(server, request):
    """The server's answer; it is told to close the connection after each."""
    reader, writer = await asyncio.open_connection(*server, limit=BODY_MAX)
    try:
        writer.write(request.head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        writer.write(request.body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        answer = Message(head, b"")
        while answer.status() == 100:
            answer.head = await reader.readuntil(b"\r\n\r\n")
        if request.method() != b"HEAD" and answer.status() not in (204, 304):
            size = answer.header(b"content-length")
            answer.body = await (reader.readexactly(int(size)) if size else reader.read())
        return answer
    finally:
        writer.close()


def refusal(request, status, code, message):
    body = b"" if request.method() == b"HEAD" else XML.format(code=code, message=message).encode()
    head = (f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    return Message(head.encode(), body)


def flipped(body, rng):
    """One bit of the middle half is another one."""
    damaged = bytearray(body)
    at = len(body) // 4 + rng.randrange(max(len(body) // 2, 1))
    damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


class Reset(Exception):
    """The connection is torn down, by a reset."""


class Proxy:
    def __init__(self, server):
        self.server = server
        self.rng = random.Random(7)
        self.fault, self.settings, self.hits = "none", {}, 0
        self.listener = None
        self.port = 0
        self.open = set()
        self.conditional = asyncio.Lock()

    async def listen(self):
        if self.listener is None:
            self.listener = await asyncio.start_server(
                self.serve, "127.0.0.1", self.port, limit=BODY_MAX, reuse_address=True)
            self.port = self.listener.sockets[0].getsockname()[1]

    async def set_fault(self, name, settings):
        assert name in FAULTS, f"no fault {name}"
        self.fault, self.settings, self.hits = name, settings, 0
        if name != "refuse":
            return await self.listen()
        # Nobody listens and nothing is answered, as of a machine that was taken away.
        self.listener.close()
        self.listener = None
        for writer in list(self.open):
            reset(writer)

    async def serve(self, reader, writer):
        self.open.add(writer)
        try:
            while request := await read_request(reader, writer):
                answer = await self.answer(request)
                writer.write(answer.head)
                writer.write(answer.body)
                await writer.drain()
                if answer.cut or b"close" in answer.header(b"connection").lower():
                    break
        except Reset:
            reset(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def answer(self, request):
        percent = int(self.settings.get("percent", 100))
        fault = FAULTS[self.fault] if self.rng.randrange(100) < percent else FAULTS["none"]
        return await fault(self, request)

    def hit(self):
        self.hits += 1


def reset(writer):
    """Closes with RST: the other side loses what it has not read yet."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def none(proxy, request):
    if request.header(b"if-none-match") or request.header(b"if-match"):
        # s3s-fs looks at the condition and then writes; it must not be asked twice at a time.
        async with proxy.conditional:
            return await forward(proxy.server, request)
    return await forward(proxy.server, request)


async def delay(proxy, request):
    proxy.hit()
    await asyncio.sleep(float(proxy.settings["seconds"]))
    return await none(proxy, request)


async def fail(proxy, request):
    proxy.hit()
    return refusal(request, "500 Internal Server Error", "InternalError",
                   "We encountered an internal error. Please try again.")


async def slow_down(proxy, request):
    proxy.hit()
    return refusal(request, "503 Slow Down", "SlowDown", "Please reduce your request rate.")


async def connection_reset(proxy, request):
    """Half of them before the request is done, half after: then only the answer is lost."""
    proxy.hit()
    if proxy.rng.random() < 0.5:
        await forward(proxy.server, request)
    raise Reset


async def truncate(proxy, request):
    """Half of the body under a head that announces all of it; without a body, half of the head."""
    answer = await forward(proxy.server, request)
    proxy.hit()
    answer.cut = True
    if answer.body:
        answer.body = answer.body[:len(answer.body) // 2]
    else:
        answer.head = answer.head[:len(answer.head) // 2]
    return answer


async def flip(proxy, request):
    """Both ways: what is sent arrives damaged, and so does what is read."""
    if request.body:
        proxy.hit()
        return await forward(proxy.server, Message(request.head, flipped(request.body, proxy.rng)))
    answer = await forward(proxy.server, request)
    if request.method() == b"GET" and answer.status() < 300 and answer.body:
        proxy.hit()
        answer.body = flipped(answer.body, proxy.rng)
    return answer


async def black_hole(proxy, request):
    proxy.hit()
    await asyncio.Event().wait()


async def refuse(proxy, request):
    proxy.hit()
    raise Reset


async def expire(proxy, request):
    """Until the client comes with the key that is named, if one is."""
    key = proxy.settings.get("renewed")
    if key and f"Credential={key}/".encode() in request.header(b"authorization"):
        return await forward(proxy.server, request)
    proxy.hit()
    return refusal(request, "400 Bad Request", "ExpiredToken", "The provided token has expired.")


async def unknown_key(proxy, request):
    proxy.hit()
    return refusal(request, "403 Forbidden", "InvalidAccessKeyId",
                   "The AWS Access Key Id you provided does not exist in our records.")


async def no_bucket(proxy, request):
    proxy.hit()
    return refusal(request, "404 Not Found", "NoSuchBucket", "The specified bucket does not exist")


FAULTS = {
    "none": none, "delay": delay, "fail": fail, "slow-down": slow_down, "reset": connection_reset,
    "truncate": truncate, "flip": flip, "black-hole": black_hole, "refuse": refuse,
    "expire": expire, "unknown-key": unknown_key, "no-bucket": no_bucket,
}


async def main():
    host, port = sys.argv[1].removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    ended = asyncio.Event()

    async def control(reader, writer):
        while line := (await reader.readline()).decode().split():
            command, *rest = line
            answer = "ok"
            if command == "fault":
                await proxy.set_fault(rest[0], dict(word.split("=") for word in rest[1:]))
            elif command == "hits":
                answer = str(proxy.hits)
            elif command == "quit":
                ended.set()
            else:
                answer = f"no command {command}"
            writer.write(f"{answer}\n".encode())
            await writer.drain()
        writer.close()

    await proxy.listen()
    controls = await asyncio.start_server(control, "127.0.0.1", 0)
    print(f"at {proxy.port} control {controls.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()


asyncio.run(main())
