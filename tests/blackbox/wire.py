"""RESP over a plain connection: requests as bytes, replies as the bytes that came."""

import io
import socket

from conftest import PATIENCE_SECONDS


def encode(*words):
    """A request as an array of bulk strings."""
    out = b"*%d\r\n" % len(words)
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out += b"$%d\r\n%s\r\n" % (len(word), word)
    return out


class Wire:
    """A plain connection that reads whole replies."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, *words):
        self.socket.sendall(encode(*words))

    def send_all(self, lines):
        """Several requests, pipelined."""
        self.socket.sendall(b"".join(encode(*words) for words in lines))

    def read(self):
        """The next reply's bytes, whole."""
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=" and rest != b"-1":
            line += self.file.read(int(rest) + 2)
        elif kind in b"*~%" and rest != b"-1":
            for _ in range(int(rest) * (2 if kind == b"%" else 1)):
                line += self.read()
        return line

    @classmethod
    def elements(cls, reply):
        """The replies that an array is made of."""
        reader = cls.__new__(cls)
        reader.file = io.BytesIO(reply)
        count = int(reader.file.readline()[1:-2])
        return [reader.read() for _ in range(count)]

    def ask(self, *words):
        self.send(*words)
        return self.read()
