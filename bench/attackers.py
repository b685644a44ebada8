#!/usr/bin/env python3
"""Connections that do a node no good, as a process of their own: one of

  idle     say PING once, and then nothing
  slow     ask for far more than they read, 100 bytes a second
  dribble  send SET commands one byte a second
  flood    connect, say nothing and go after a tenth of a second, by a reset; COUNT of them a second

Says "ready" on standard output when all are there and goes on until standard input ends; then prints a JSON object: how many
there were, how many the node has ended (alive: the others, which are all still served), for a flood how many connections in
all, and seconds.

    bench/attackers.py KIND HOST PORT COUNT
"""

import collections
import errno
import json
import resource
import selectors
import socket
import struct
import sys
import time

STEP_SECONDS = 0.02
TURN_SECONDS = 1.0  # between two bytes, or two reads, of one connection
READ_BYTES = 100
ASKED_BYTES = 1 << 18  # of replies, by each slow reader
VALUE_BYTES = 4096
FLOOD_STAY_SECONDS = 0.1
FLOOD_STEP_SECONDS = 0.001
COMMAND = b"*3\r\n$3\r\nSET\r\n$9\r\ndribbling\r\n$5\r\nvalue\r\n"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    def __init__(self, host, port, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60)
        self.socket.connect((host, port))
        self.alive = True
        self.sent = 0
        self.received = 0

    def send(self, data):
        """What the node takes of it."""
        try:
            self.sent += self.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.alive = False

    def receive(self, size):
        try:
            data = self.socket.recv(size)
            self.alive = self.alive and data != b""
            self.received += len(data)
        except BlockingIOError:
            pass
        except OSError:
            self.alive = False

    def answers(self, request, reply):
        """Whether the node still serves it, when all replies so far have been read."""
        try:
            self.socket.settimeout(60)
            self.socket.sendall(request)
            got = b""
            while len(got) < len(reply):
                part = self.socket.recv(len(reply) - len(got))
                if part == b"":
                    return False
                got += part
            return got == reply
        except OSError:
            return False


class Ended:
    """Whether standard input has ended, looked at while waiting."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ)

    def after(self, seconds):
        return bool(self.selector.select(seconds)) and sys.stdin.buffer.read1(1) == b""


def in_turns(crowd, act, ended):
    """act(connection) for each, once in TURN_SECONDS, spread over them."""
    begin, done = time.monotonic(), 0
    while not ended.after(STEP_SECONDS):
        due = int((time.monotonic() - begin) / TURN_SECONDS * len(crowd))
        while done < due:
            one = crowd[done % len(crowd)]
            if one.alive:
                act(one)
            done += 1


def report(crowd, **more):
    alive = sum(one.alive for one in crowd)
    print(json.dumps({"connections": len(crowd), "alive": alive, "ended": len(crowd) - alive, **more}), flush=True)


def ready():
    print("ready", flush=True)


def idle(host, port, count):
    crowd = []
    for _ in range(count):
        crowd.append(Connection(host, port))
        crowd[-1].alive = crowd[-1].answers(b"PING\r\n", b"+PONG\r\n")
    ready()
    ended = Ended()
    while not ended.after(1):
        pass
    for one in crowd:
        one.alive = one.alive and one.answers(b"PING\r\n", b"+PONG\r\n")
    report(crowd)


def slow(host, port, count):
    setter = Connection(host, port)
    value = b"v" * VALUE_BYTES
    if not setter.answers(b"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$%d\r\n%s\r\n" % (VALUE_BYTES, value), b"+OK\r\n"):
        sys.exit("SET was refused")
    requests = b"*2\r\n$3\r\nGET\r\n$4\r\nslow\r\n" * (ASKED_BYTES // VALUE_BYTES)
    crowd = [Connection(host, port, receive_bytes=4096) for _ in range(count)]
    for one in crowd:
        one.socket.setblocking(False)
        one.send(requests)
    ready()

    def act(one):
        one.receive(READ_BYTES)
        if one.received * ASKED_BYTES > one.sent * VALUE_BYTES * 20:  # nearly out of replies
            one.send(requests)

    in_turns(crowd, act, Ended())
    report(crowd)


def dribble(host, port, count):
    crowd = [Connection(host, port) for _ in range(count)]
    for one in crowd:
        one.socket.setblocking(False)
    ready()

    def act(one):
        at = one.sent % len(COMMAND)
        one.send(COMMAND[at : at + 1])
        one.receive(100)

    in_turns(crowd, act, Ended())
    for one in crowd:  # the rest of what each has begun, and one more
        whole, begun = divmod(one.sent, len(COMMAND))
        rest = COMMAND[begun:] if begun else b""
        replies = whole + (begun > 0) - one.received // len(b"+OK\r\n")
        one.alive = one.alive and one.answers(rest + b"PING\r\n", b"+OK\r\n" * replies + b"+PONG\r\n")
    report(crowd)


def flood(host, port, per_second):
    ready()
    ended, under_way, total, failed = Ended(), collections.deque(), 0, 0
    begin = now = time.monotonic()
    while not ended.after(FLOOD_STEP_SECONDS):
        now = time.monotonic()
        while total < (now - begin) * per_second and not ended.after(0):
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            failed += one.connect_ex((host, port)) not in (0, errno.EINPROGRESS)
            total += 1
            under_way.append((now, one))
        while under_way and under_way[0][0] < now - FLOOD_STAY_SECONDS:
            under_way.popleft()[1].close()
    for _, one in under_way:
        one.close()
    report([], total=total, failed=failed, seconds=now - begin)


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in ("idle", "slow", "dribble", "flood"):
        sys.exit(__doc__)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    {"idle": idle, "slow": slow, "dribble": dribble, "flood": flood}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
