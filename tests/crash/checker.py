"""A client that knows what it was promised.

    Connection   RESP over a socket: requests out, replies in
    Book         per key: what was asked for and what was acknowledged, hence what may be found later
    Writer       a thread that sets, deletes and reads keys of its own through one pipelining connection, and keeps a Book
    Observer     a thread that reads the keys of all writers: what it has been shown must not be taken back by a crash
    audit        reads every key after a restart, compares with the books, and returns complaints
    compacted    how many segments compaction has given back since the start

Every value carries its key and a number that rises with each operation on the connection, so a value found says which
operation it is from. A Book can note positions: of a recorded disk, when an operation was asked for and when it was
acknowledged; then it can say what may be found on a disk that was cut at any position.
"""

import random
import socket
import threading
import time

from patience import PATIENCE_SECONDS, wait_for

READ_CHUNK_KEYS = 200


class Refused(Exception):
    """An error reply; str() is its text."""


class Connection:
    """One connection. reply() returns bytes, int, None, str for a status, list, or a Refused (not raised)."""

    def __init__(self, port, timeout=PATIENCE_SECONDS):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, requests):
        self.socket.sendall(b"".join(map(encode, requests)))

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection has ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            value = self.file.read(size + 2)
            if len(value) < size + 2:
                raise ConnectionError("the connection has ended")
            return value[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise AssertionError(f"not a reply: {line!r}")

    def ask(self, *request):
        self.send([request])
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def encode(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Operation:
    """A SET, or a DEL (value None). acked and gone are positions, or None.

    acked  the disk must hold it from here on: it was acknowledged, or shown to a reader
    gone   it is known from here on not to have happened: refused, or not found after a crash
    """

    __slots__ = ("number", "value", "asked", "acked", "gone")

    def __init__(self, number, value, asked):
        self.number, self.value, self.asked = number, value, asked
        self.acked = self.gone = None


def no_position():
    return 0


class Book:
    """The operations on the keys of one writer, oldest first for each key.

    position()  where the recorded disk is now. Without one, everything happens at 0, and operations that no longer matter
                are forgotten.
    """

    def __init__(self, name, position=None):
        self.name = name
        self.position = position or no_position
        self.forgets = position is None
        self.keys = {}
        self.number = 0

    def ask(self, key, value_of):
        """A new operation; value_of(number) makes its value."""
        self.number += 1
        operation = Operation(self.number, value_of(self.number), self.position())
        self.keys.setdefault(key, []).append(operation)
        return operation

    def acknowledge(self, key, operation):
        if operation.acked is None:
            operation.acked = self.position()
        if self.forgets:
            operations = self.keys[key]
            del operations[: operations.index(operation)]

    def refuse(self, key, operation):
        """It was answered with an error that says that nothing was done."""
        operation.gone = operation.asked
        if self.forgets:
            self.keys[key].remove(operation)

    def possible(self, key, cut=None, below=None):
        """The operations one of which must be found: None (nothing was ever written) counts as one.

        cut    on a disk cut at this position; None: now
        below  by a read that was sent before the operation of this number
        """
        options = [None]
        for operation in self.keys.get(key, []):
            if (cut is not None and operation.asked > cut) or (below is not None and operation.number >= below):
                break
            if operation.acked is not None and (cut is None or operation.acked <= cut):
                options = [operation]
            elif operation.gone is None or (cut is not None and operation.gone > cut):
                options.append(operation)
        return options

    def found(self, key, operation):
        """After a restart this was found: it stays, and what came after it will never happen."""
        operations = self.keys.get(key, [])
        at = operations.index(operation) if operation is not None else -1
        if operation is not None and operation.acked is None:
            operation.acked = self.position()
        for later in operations[at + 1 :]:
            if later.gone is None and later.acked is None:
                later.gone = self.position()
        if self.forgets:
            self.keys[key] = [operation] if operation is not None else []

    def shown(self, key, number):
        """A reader has seen the value of this number."""
        for operation in self.keys.get(key, []):
            if operation.number == number:
                self.acknowledge(key, operation)
                break


def value_of(operation):
    return operation.value if operation is not None else None


def number_in(value):
    return int(value.split(b"|", 2)[1])


def brief(value):
    return "nothing" if value is None else f"{value[:30]!r} ({len(value)} bytes)"


class Writer(threading.Thread):
    """Works until the connection ends or stop() is called. `complaints` are broken promises.

    acknowledged  changes acknowledged so far
    rounds        pipelines that were sent and answered
    errors        texts of error replies, and how often each came
    """

    SIZES = [0, 10, 10, 100, 100, 1000, 3000]

    def __init__(self, book, port, seed, keys=200, depths=(1, 1, 4, 16, 32), sizes=None, reads=0.1, setup=()):
        super().__init__(daemon=True)
        self.book, self.port, self.rng = book, port, random.Random(seed)
        self.names = [b"%s:%d" % (book.name.encode(), i) for i in range(keys)]
        self.depths, self.sizes, self.reads = depths, sizes or self.SIZES, reads
        self.setup = setup
        self.acknowledged = self.rounds = 0
        self.errors = {}
        self.complaints = []
        self.stopping = False

    def stop(self):
        self.stopping = True

    def run(self):
        try:
            with Connection(self.port) as connection:
                for request in self.setup:
                    connection.ask(*request)
                while not self.stopping:
                    self._pipeline(connection)
                    self.rounds += 1
                    if self.errors:
                        time.sleep(0.002)
        except OSError:
            pass
        except Exception as error:  # a thread's exception would go unseen
            self.complaints.append(f"writer {self.book.name}: {error!r}")

    def _pipeline(self, connection):
        asked, requests = [], []
        for key in self.rng.choices(self.names, k=self.rng.choice(self.depths)):
            chance = self.rng.random()
            if chance < self.reads:
                asked.append((key, None, self.book.number + 1))
                requests.append(("GET", key))
            elif chance < self.reads + 0.3:
                asked.append((key, self.book.ask(key, lambda number: None), 0))
                requests.append(("DEL", key))
            else:
                operation = self.book.ask(key, lambda number: self._value(key, number))
                asked.append((key, operation, 0))
                requests.append(("SET", key, operation.value))
        connection.send(requests)
        for key, operation, below in asked:
            reply = connection.reply()
            if operation is None:
                self._check_read(key, below, reply)
            else:
                self._take(key, operation, reply)

    def _value(self, key, number):
        return b"%s|%d|" % (key, number) + self.rng.randbytes(self.rng.choice(self.sizes))

    def _check_read(self, key, below, reply):
        if isinstance(reply, Refused):
            self._count(reply)
            return
        allowed = [value_of(operation) for operation in self.book.possible(key, below=below)]
        if reply not in allowed:
            self.complaints.append(f"GET {key}: {brief(reply)}, expected {list(map(brief, allowed))}")

    def _take(self, key, operation, reply):
        if isinstance(reply, Refused):
            self._count(reply)
            if "no disk space left" in str(reply):
                self.book.refuse(key, operation)
            return
        expected = ["OK"] if operation.value is not None else self._removal(key, operation)
        if reply not in expected:
            self.complaints.append(f"{key}, operation {operation.number}: {reply!r}, expected {expected}")
        self.book.acknowledge(key, operation)
        self.acknowledged += reply != 0  # removing nothing writes nothing

    def _removal(self, key, operation):
        before = self.book.possible(key, below=operation.number)
        return {int(value_of(option) is not None) for option in before}

    def _count(self, refused):
        self.errors[str(refused)] = self.errors.get(str(refused), 0) + 1


class Observer(threading.Thread):
    """Reads random keys of the writers. Numbers seen of one key never fall; note() gives them to the books."""

    def __init__(self, writers, port, seed):
        super().__init__(daemon=True)
        self.writers, self.port, self.rng = writers, port, random.Random(seed)
        self.seen = {}
        self.complaints = []
        self.stopping = False

    def stop(self):
        self.stopping = True

    def run(self):
        try:
            with Connection(self.port) as connection:
                while not self.stopping:
                    asked = []
                    for writer in self.rng.choices(self.writers, k=8):
                        asked.append((writer.book, self.rng.choice(writer.names)))
                    connection.send([("GET", key) for _, key in asked])
                    for book, key in asked:
                        self._take(book, key, connection.reply())
        except OSError:
            pass
        except Exception as error:
            self.complaints.append(f"observer: {error!r}")

    def _take(self, book, key, reply):
        if reply is None or isinstance(reply, Refused):
            return
        number = number_in(reply)
        if number < self.seen.get((book, key), 0):
            self.complaints.append(f"{key}: number {number} was shown after {self.seen[book, key]}")
        self.seen[book, key] = number

    def note(self):
        """Call it when the writers have ended."""
        for (book, key), number in self.seen.items():
            book.shown(key, number)


class Load:
    """Writers, and an observer, on one node: start(), later join(); books stay with the caller."""

    def __init__(self, books, port, seed, **options):
        rng = random.Random(seed)
        self.writers = [Writer(book, port, rng.random(), **options) for book in books]
        self.observer = Observer(self.writers, port, rng.random())

    def start(self, observe=True):
        for writer in self.writers:
            writer.start()
        if observe:
            self.observer.start()
        return self

    def acknowledged(self):
        return sum(writer.acknowledged for writer in self.writers)

    def wait_for(self, count):
        """Until so many operations have been acknowledged."""
        while (before := self.acknowledged()) < count:

            def gets_on():
                assert any(writer.is_alive() for writer in self.writers), self.errors()
                return self.acknowledged() > before

            wait_for(gets_on, lambda: f"{before} of {count} operations; errors: {self.errors()}")

    def wait_for_rounds(self):
        """Until every writer has sent something, and has got all replies to it, since the call."""
        # The pipelines under way may be older.
        rounds = {writer: writer.rounds + 2 for writer in self.writers if writer.is_alive()}
        wait_for(lambda: all(not writer.is_alive() or writer.rounds >= rounds[writer] for writer in rounds), "rounds of writers")

    def errors(self):
        return {text: count for writer in self.writers for text, count in writer.errors.items()}

    def stop(self):
        """Ends the load while the node still serves."""
        for thread in [*self.writers, self.observer]:
            thread.stop()
        return self.join()

    def join(self):
        """Waits until all have ended, which they do with their connections. Returns complaints."""
        complaints = []
        threads = [thread for thread in [*self.writers, self.observer] if thread.ident is not None]
        for thread in threads:
            thread.join(PATIENCE_SECONDS + 10)
            if thread.is_alive():
                complaints.append(f"{thread} still waits for a reply")
            complaints += thread.complaints
        self.observer.note()
        return complaints


def read_all(port, keys):
    with Connection(port) as connection:
        for begin in range(0, len(keys), READ_CHUNK_KEYS):
            chunk = keys[begin : begin + READ_CHUNK_KEYS]
            values = connection.ask("MGET", *chunk)
            if isinstance(values, Refused):
                values = [connection.ask("GET", key) for key in chunk]
            yield from zip(chunk, values)


def compacted(port):
    """Asserts on the way that it has met no damage: what a crash leaves can be copied as well as read."""
    with Connection(port) as connection:
        text = connection.ask("INFO", "compaction").decode()
    figures = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    assert figures["damaged_segments"] == "0", text
    return int(figures["compacted_segments"])


def audit(port, books, cut=None, settle=True):
    """Reads every key of the books; returns complaints. With settle, books then hold what was found."""
    complaints = []
    present = 0
    for book in books:
        for key, value in read_all(port, list(book.keys)):
            present += value is not None
            options = book.possible(key, cut)
            match = [option for option in options if value_of(option) == value]
            if not match:
                expected = " or ".join(brief(value_of(option)) for option in options)
                shown = str(value) if isinstance(value, Refused) else brief(value)
                complaints.append(f"{key.decode()}: found {shown}, expected {expected}")
            elif settle:
                book.found(key, match[-1])
    with Connection(port) as connection:
        counted = connection.ask("DBSIZE")
    if counted != present:
        complaints.append(f"DBSIZE says {counted}, {present} keys were found")
    return complaints
