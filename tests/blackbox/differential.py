"""Random command lines for two servers at once, and what their replies may differ in.

A Generator makes lines, family by family, on a few keys, so that they meet what others have left. Its arguments are odd on
purpose: wrong numbers of them, options twice and in any order, numbers that are none or too large, offsets from both ends.
What depends on the clock is either far away or so different from line to line that some milliseconds do not matter.

Differential sends the lines to both servers and compares the replies byte for byte. A difference that is known has a reason
in KNOWN; any other raises Difference, which tells the lines that have touched the same key since DEL has last removed it:
those to replay.

Lines only depend on the seed and on how many there are.
"""

import random
import struct

from wire import Wire

# Of the lines that led to a difference.
LINES_SHOWN = 200

# In both directions, in seconds: what an expiry may differ by when both servers have read their own clocks.
CLOCK_SLACK_SECONDS = 60


class Difference(AssertionError):
    """Two replies that should be the same."""


# ---- payloads of RESTORE ----


def _crc64_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
        table.append(crc)
    return table


CRC64_TABLE = _crc64_table()


def crc64(data):
    """The checksum of a payload, as its definition says."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ CRC64_TABLE[(crc ^ byte) & 0xFF]
    return crc


def payload(body, version):
    """What DUMP replies for a value in this form."""
    data = body + struct.pack("<H", version)
    return data + struct.pack("<Q", crc64(data))


def plain_body(value):
    """A value of less than 16 KiB as RDB has it, as it is."""
    length = struct.pack("B", len(value)) if len(value) < 64 else struct.pack(">H", len(value) | 1 << 14)
    return b"\0" + length + value


# ---- lines ----

INTEGERS = (
    [b"0", b"1", b"-1", b"2", b"5", b"7", b"8", b"9", b"15", b"31", b"64", b"100", b"-2", b"-3", b"-7", b"-100", b"1000"]
    + [b"2147483647", b"-2147483648", b"4294967296", b"9223372036854775807", b"-9223372036854775808"]
)
NO_INTEGERS = (
    [b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"--1", b"1.0", b"1e3", b"0x10", b"abc", b"-", b"9223372036854775808", b"inf"]
    + [b"-9223372036854775809", b"99999999999999999999999999"]
)
FLOATS = (
    [b"0", b"-0", b"0.1", b"-1.5", b"3.0e3", b"1e-5", b"1e20", b"-1e300", b"0x1p4", b".5", b"5.", b"+1", b"1e400", b"1e4000"]
    + [b"1e5000", b"-1e5000", b"inf", b"-inf", b"nan", b"", b" 1", b"1 ", b"1,5", b"abc", b"1e", b"00012", b"1e-4940", b"1e-6000"]
    + [b"12345678901234567890.123456789", b"0.30000000000000004", b"3.14159265358979323846", b"9223372036854775807"]
)
FAR_SECONDS = [b"33177117420", b"33177117421", b"33177117420000"]
FAR_MS = [b"33177117420499", b"33177117420500", b"33177117420501"]
PAST = [b"0", b"-1", b"-9223372036854775808"]


class Generator:
    """Makes lines: lists of bytes. value_max is the longest value that the servers take."""

    def __init__(self, seed, value_max, keys=10):
        self.rng = random.Random(seed)
        self.value_max = value_max
        self.keys = [b"key:%d" % i for i in range(keys)]
        self.families = [
            (20, self.strings),
            (20, self.set_options),
            (14, self.ranges),
            (16, self.numbers),
            (18, self.bits),
            (16, self.bitfield),
            (20, self.expiry),
            (8, self.objects),
            (8, self.payloads),
            (14, self.several),
            (6, self.scans),
            (6, self.common),
            (6, self.server),
            (1, self.flushes),
        ]
        self.steady = [
            (20, self.strings),
            (20, self.set_options),
            (14, self.ranges),
            (16, self.numbers),
            (18, self.bits),
            (16, self.bitfield),
            (30, self.several),
            (12, self.scans),
            (6, self.common),
            (3, self.waits),
        ]

    # -- arguments --

    def one(self, *choices):
        return self.rng.choice(choices)

    def key(self):
        return self.rng.choice(self.keys)

    def seldom(self, chance=0.08):
        return self.rng.random() < chance

    def value(self):
        kind = self.rng.randrange(8)
        if kind == 0:
            return self.rng.choice(INTEGERS)
        if kind == 1:
            return self.rng.choice(FLOATS)
        if kind == 2:
            return self.rng.choice(NO_INTEGERS)
        if kind == 3:
            return self.rng.randbytes(self.rng.choice([1, 2, 7, 8, 9, 15, 16, 17, 43, 44, 45, 63, 64, 65, 200, 3000]))
        if kind == 4:
            return self.rng.choice([b"\0", b"\xff"]) * self.rng.choice([1, 2, 8, 9, 16, 31, 100])
        if kind == 5:
            most = self.one(40000, 1 << 63)
            return b"%d" % self.rng.randrange(-most, most)
        return self.one(b"", b"foo", b"bar", b"Hello World", b"a\r\nb")

    def integer(self):
        if self.seldom():
            return self.rng.choice(NO_INTEGERS)
        if self.seldom(0.5):
            return self.rng.choice(INTEGERS)
        return b"%d" % self.rng.randrange(-70, 70)

    def offset(self, unit=1, width=1):
        """From the beginning of a value, in bytes or (8) bits; at its limit now and then, with room for `width` or none."""
        if self.seldom(0.01):
            return b"%d" % (self.value_max * unit + self.one(0, 1, -width, -width - 1, -width - self.rng.randrange(9)))
        if self.seldom():
            return self.integer()
        return b"%d" % self.rng.choice([0, 1, 3, 7, 8, 12, 15, 63, 64, self.rng.randrange(300), self.rng.randrange(300)])

    def time(self, seconds, relative):
        """Far in the future, or in the past, or none. Relative ones never come twice, and are never near."""
        if self.seldom(0.1):
            return self.rng.choice(NO_INTEGERS)
        if self.seldom(0.1):
            return self.rng.choice(PAST if relative else PAST + [b"1", b"1000"])
        if self.seldom(0.05):
            return self.one(b"9223372036854775", b"9223372036854776", b"9223372036854775807")  # in seconds, too far
        if relative:
            return b"%d" % self.rng.randrange(10**4 if seconds else 10**7, 10**8 if seconds else 10**11)
        return self.rng.choice(FAR_SECONDS if seconds else FAR_MS)

    def expiry_option(self):
        name = self.one("EX", "PX", "EXAT", "PXAT")
        words = [name.encode(), self.time("P" not in name, "AT" not in name)]
        return words if not self.seldom(0.03) else words[:1]

    def case(self, word):
        """The same word in another case."""
        return self.one(word, word, word.lower(), word.capitalize())

    # -- families --

    def strings(self):
        key, value = self.key(), self.value()
        return self.rng.choice(
            [
                [b"SET", key, value],
                [b"SET", key, value],
                [b"GET", key],
                [b"SETNX", key, value],
                [b"GETSET", key, value],
                [b"GETDEL", key],
                [b"APPEND", key, value],
                [b"STRLEN", key],
                [b"TYPE", key],
                [b"DEL", key],
                [b"TOUCH", key],
                [b"EXISTS", key],
            ]
        )

    def set_options(self):
        if self.seldom(0.35):
            words = [b"GETEX", self.key()]
            choices = [self.expiry_option, self.expiry_option, lambda: [b"PERSIST"]]
        else:
            words = [b"SET", self.key(), self.value()]
            choices = [self.expiry_option, lambda: [self.one(b"NX", b"XX", b"GET", b"KEEPTTL", b"GET", b"XX")]]
        for _ in range(self.rng.choice([0, 1, 1, 1, 2, 2, 3])):
            words += self.rng.choice(choices)()
        if self.seldom(0.03):
            words.append(self.one(b"FOO", b"", b"PERSIST", b"NX"))
        return words

    def ranges(self):
        key = self.key()
        if self.seldom(0.4):
            return [b"SETRANGE", key, self.offset(), self.value()]
        return [self.one(b"GETRANGE", b"SUBSTR"), key, self.integer(), self.integer()]

    def numbers(self):
        key = self.key()
        return self.rng.choice(
            [
                [self.one(b"INCR", b"DECR"), key],
                [self.one(b"INCRBY", b"DECRBY"), key, self.integer()],
                [b"INCRBYFLOAT", key, self.rng.choice(FLOATS)],
                [b"SET", key, self.rng.choice(INTEGERS + FLOATS)],
            ]
        )

    def bits(self):
        key = self.key()
        unit = [self.one(b"BIT", b"BYTE", b"FOO")] if self.seldom(0.2) else [self.one(b"BIT", b"BYTE")]
        bounds = [self.integer() for _ in range(self.rng.choice([0, 1, 2, 2]))]
        if len(bounds) == 2 and self.seldom(0.6):
            bounds += unit
        bit = self.one(b"0", b"1") if not self.seldom(0.1) else self.integer()
        return self.rng.choice(
            [
                [b"SETBIT", key, self.offset(8), bit],
                [b"SETBIT", key, self.offset(8), bit],
                [b"GETBIT", key, self.offset(8)],
                [b"BITCOUNT", key] + bounds,
                [b"BITPOS", key, bit] + bounds,
            ]
        )

    def field(self):
        if self.seldom(0.04):
            return self.one(b"u64", b"i65", b"u0", b"i0", b"x8", b"", b"8", b"u", b"i", b"u-1", b"i08", b"U8")
        return b"%c%d" % self.rng.choice([(b"u", self.rng.randrange(1, 64)), (b"i", self.rng.randrange(1, 65))])

    def bitfield(self):
        words = [self.one(b"BITFIELD", b"BITFIELD", b"BITFIELD_RO"), self.key()]
        for _ in range(self.rng.randrange(5)):
            # A field that begins below the limit and ends above it is written by Redis, which the node refuses.
            offset = self.offset(8, 64) if self.seldom(0.7) else b"#%d" % self.rng.randrange(-1, 12)
            # Numbers that are far below a field's bounds saturate at its upper one in Redis.
            number = self.integer() if self.seldom(0.6) else b"%d" % self.rng.randrange(-(1 << 62), 1 << 63)
            number = b"-4611686018427387904" if number == b"-9223372036854775808" else number
            step = self.rng.choice(
                [
                    [b"GET", self.field(), offset],
                    [b"GET", self.field(), offset],
                    [b"SET", self.field(), offset, number],
                    [b"INCRBY", self.field(), offset, number],
                    [b"OVERFLOW", self.one(b"WRAP", b"SAT", b"FAIL")],
                ]
            )
            words += step
        if self.seldom(0.04):
            words += self.one([b"OVERFLOW"], [b"OVERFLOW", b"FOO"], [b"FOO"], [b"SET", b"u8", b"0"], [b"GET", b"u8"])
        return words

    def expiry(self):
        key = self.key()
        name = self.one("EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT")
        options = [self.one(b"NX", b"XX", b"GT", b"LT") for _ in range(self.rng.choice([0, 0, 1, 1, 1, 2]))]
        if self.seldom(0.03):
            options.append(self.one(b"FOO", b"", b"EX", b"a\r\nb"))
        time = self.time(not name.startswith("P"), not name.endswith("AT"))
        return self.rng.choice(
            [
                [name.encode(), key, time] + options,
                [name.encode(), key, time] + options,
                [name.encode(), key, time] + options,
                [self.one(b"SETEX", b"PSETEX"), key, self.time(False, True), self.value()],
                [b"PERSIST", key],
                [self.one(b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"), key],
            ]
        )

    def objects(self):
        key = self.key()
        samples = [b"SAMPLES", self.integer()] if self.seldom(0.5) else []
        return self.rng.choice(
            [
                [b"OBJECT", self.one(b"ENCODING", b"REFCOUNT", b"IDLETIME", b"FREQ", b"FOO"), key],
                [b"OBJECT", b"ENCODING", key],
                [b"MEMORY", b"USAGE", key] + samples + ([b"SAMPLES"] if self.seldom(0.05) else []),
            ]
        )

    def damaged(self, data):
        at = self.rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]

    def body(self):
        """A value as RDB has it: in all its forms, whole or not."""
        return self.rng.choice(
            [
                plain_body(self.value()),
                plain_body(self.value()),
                b"\0\xc0" + self.rng.randbytes(1),
                b"\0\xc1" + self.rng.randbytes(2),
                b"\0\xc2" + self.rng.randbytes(4),
                b"\0\x80\0\0\0\x03foo",
                b"\0\x81\0\0\0\0\0\0\0\x03foobehind",
                b"\0\xc3\x09\x40\x64\x02abc\xe0\x58\x02\0\0\0",  # LZF, in parts not right
                b"\0\xc3\x05\x0a\0a\xe0\0\0",
                b"\0\xc3\x05\x0b\0a\xe0\x01\0",
                b"\0\xc3\x06\x18\x01ab\xe0\x0d\x01",
                b"\0\xc3\x03\x04\0a\x20",
                b"\0\xc3\0\0",
                b"\0\xc4\0",
                b"\0\x82\0\0\0\0",
                # Shorter than they say, even with the footer, which Redis would read on into.
                b"\0\x20foo",
                b"\0\xc3\x20\x04\0a",
                b"\1\0",
                b"\x0b\x20",
            ]
        )

    def payloads(self):
        key = self.key()
        if self.seldom(0.3):
            return [b"DUMP", key]
        data = payload(self.body(), self.one(1, 9, 10, 10, 10, 12, 65535))
        if self.seldom(0.1):
            data = self.damaged(data) if self.seldom(0.7) else data[: self.rng.randrange(len(data))]
        absolute = self.seldom(0.4)
        time = b"0" if self.seldom(0.4) else self.time(False, not absolute)
        if time == b"9223372036854775807" and not absolute:
            time = b"0"  # in Redis the sum with the time now becomes negative, and the key is gone at once
        words = [b"RESTORE", key, time, data]
        if self.seldom(0.6):
            words.append(b"REPLACE")
        if absolute:
            words.append(b"ABSTTL")
        if self.seldom(0.2):
            words += [self.one(b"IDLETIME", b"FREQ"), self.integer()]
        if self.seldom(0.05):
            words += self.one([b"FOO"], [b"FREQ"], [b"IDLETIME", b"1", b"FREQ", b"1"], [b"REPLACE"])
        return words

    def several(self):
        """Commands on several keys at once."""
        name = self.one(b"MSET", b"MSETNX", b"RENAME", b"RENAMENX", b"COPY", b"COPY", b"MGET", b"EXISTS", b"BITOP", b"BITOP")
        if name == b"BITOP":
            operation = self.one(b"AND", b"OR", b"XOR", b"NOT") if not self.seldom() else self.one(b"FOO", b"", b"ANDOR", b"ONE")
            sources = self.rng.choice([1, 1, 2, 3, 5]) if operation != b"NOT" or self.seldom() else 1
            return [name, operation, self.key()] + [self.key() for _ in range(sources)]
        if name in (b"MGET", b"EXISTS"):
            return [name] + [self.key() for _ in range(self.rng.randrange(1, 5))]
        if name in (b"RENAME", b"RENAMENX"):
            return [name, self.key(), self.key()]
        if name == b"COPY":
            words = [name, self.key(), self.key()]
            for _ in range(self.rng.choice([0, 0, 1, 1, 2, 3])):
                # The node has one database, Redis 16.
                index = self.one(b"0", b"0", b"-1", b"16", b"2147483648", b"4294967296") if not self.seldom(0.2) else self.no_index()
                words += self.one([b"REPLACE"], [b"REPLACE"], [b"DB", index])
            if self.seldom(0.05):
                words.append(self.one(b"FOO", b"DB", b""))
            return words
        words = [name]
        for _ in range(self.rng.choice([1, 1, 2, 2, 3, 5, 8])):
            words += [self.key(), self.value()]
        if self.seldom(0.03):
            words.append(self.key())
        return words

    def no_index(self):
        return self.rng.choice(NO_INTEGERS)

    def pattern(self):
        return self.one(b"*", b"key:?", b"key:[0-4]", b"key:[^3]", b"*:1*", self.key(), b"", b"k*y:*", b"[", b"\\*", b"??")

    def scans(self):
        """All keys in one reply: what a cursor is differs, and how many keys come with it."""
        if self.seldom(0.3):
            return [b"KEYS", self.pattern()]
        if self.seldom(0.2):
            return [b"RANDOMKEY"]
        # Twice the same option: the latter counts.
        cursor = b"0" if not self.seldom(0.1) else self.one(b"", b"+0", b"-0", b" 0", b"0x", b"x", b"18446744073709551616", b"1.0")
        words = [b"SCAN", cursor, b"COUNT", b"1000"]
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            words += self.one(
                [b"MATCH", self.pattern()], [b"TYPE", self.one(b"string", b"STRING", b"hash", b"foo", b"")], [b"COUNT", b"2000"]
            )
        if self.seldom(0.1):
            words += self.one([b"COUNT"], [b"FOO", b"1"], [b"COUNT", b"0"], [b"COUNT", self.rng.choice(NO_INTEGERS)], [b"MATCH"])
        return words

    def waits(self):
        """Not for long, should it come to be carried out outside of an EXEC."""
        return [b"WAIT", self.one(b"0", b"1", b"-1", b"x"), self.one(b"1", b"1", b"2", b"-1", b"x", b"")]

    def common(self):
        """LCS of what there is; its time is the product of two lengths."""
        words = [b"LCS", self.key(), self.key()]
        for option in ([b"LEN"], [b"IDX"], [b"WITHMATCHLEN"], [b"MINMATCHLEN", b"%d" % self.rng.randrange(-1, 5)]):
            if self.seldom(0.4):
                words += option
        if self.seldom(0.05):
            words += self.one([b"MINMATCHLEN"], [b"FOO"], [b"MINMATCHLEN", b"x"])
        return words

    def server(self):
        """Commands about the server and about commands, with what both say in the same words."""
        key, value = self.key(), self.value()[:100]
        asked = self.one(
            [b"GET", key],
            [b"SET", key, value, self.one(b"GET", b"NX")],
            [b"MGET", key, value, key],
            [b"DEL", key, value],
            [b"BITFIELD", key, self.one(b"GET", b"SET"), b"u8", b"0", b"1"],
            [b"OBJECT", self.one(b"ENCODING", b"HELP", b"FOO"), key],
            [b"LCS", key, key],
            [b"PING"],
            [b"EXPIRE", key],
            [b"FOO", key],
        )
        number = self.one(self.integer(), b"0", b"1")
        return self.rng.choice(
            [
                [b"COMMAND", self.one(b"GETKEYS", b"GETKEYSANDFLAGS")] + asked,
                [b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", self.one(b"mget", b"lcs*", b"nonesuch")],
                [b"CONFIG", b"SET", b"timeout", self.one(b"0", b"x", b""), self.one(b"tcp-keepalive", b"timeout", b"foo", b"databases"), b"300"],
                [b"CONFIG", b"SET", b"latency-tracking", self.one(b"yes", b"no", b"maybe")],
                [b"CONFIG", b"GET", self.one(b"latency-tracking", b"time?ut", b"TIMEOUT", b"foo")],
                [b"SLOWLOG", self.one(b"RESET", b"FOO"), b"x"],
                [b"LATENCY", self.one(b"HISTORY", b"GRAPH"), b"foo"],
                [b"WAIT", self.one(b"0", b"-1", b"x"), number],
                [b"SWAPDB", number, self.one(number, b"0")],
                [b"MOVE", key, number],
                [b"SELECT", self.one(b"0", b"1", b"-1", b"x", b"99999999999")],
                [b"SHUTDOWN", b"ABORT", self.one(b"NOW", b"FOO")],  # nothing is left out of this that would make it happen
            ]
        )

    def flushes(self):
        return [self.one(b"FLUSHALL", b"FLUSHDB")] + self.one([], [], [b"ASYNC"], [b"SYNC"], [b"NOW"], [b"ASYNC", b"SYNC"])

    def block(self):
        """MULTI, commands whose replies do not hang on the clock, and an end. Before it, keys may be watched."""
        before, self.families = self.families, self.steady
        lines = [self.line() for _ in range(self.rng.choice([0, 1, 2, 3, 5, 9]))]
        self.families = before
        key = self.key()
        # Of what is left as it was WATCH takes no notice in the node.
        touched = self.one(
            [[b"SET", key, self.value()]],
            [[b"SET", key, self.value()], [b"DEL", key]],
            [[b"MSET", key, b"1"], [b"RENAME", key, self.key()]],
            [[b"DEL", key]],
            [[b"INCR", key]],
            [[b"GET", key]],
            [[b"MSET", key, b"1"]],
        )
        lines = [[self.one(b"MULTI", b"multi")]] + lines + [[self.one(b"EXEC", b"EXEC", b"EXEC", b"exec", b"DISCARD")]]
        if self.seldom(0.4):
            watch = [[b"WATCH"] + [self.key() for _ in range(self.rng.choice([1, 1, 2, 3]))]]
            lines = watch + (touched if self.seldom(0.5) else []) + ([[b"UNWATCH"]] if self.seldom() else []) + lines
        if self.seldom(0.03):
            lines.insert(self.rng.randrange(len(lines)), [self.one(b"EXEC", b"DISCARD", b"MULTI", b"FOO", b"GET", b"UNWATCH")])
        return lines + [[b"DISCARD"]]

    # -- all of them --

    def line(self):
        family = self.rng.choices([one for _, one in self.families], [weight for weight, _ in self.families])[0]
        words = family()
        words[0] = self.case(words[0])
        for i in range(2, len(words)):
            if words[i].isalpha() and self.seldom(0.2):
                words[i] = words[i].swapcase()
        if self.seldom(0.02) and len(words) > 1 and words[-1].upper() != b"ABSTTL":  # without which a time is near
            words.pop()
        elif self.seldom(0.02) and words[-1].upper() != b"DB":  # there might be such a one in Redis
            words.append(self.value()[:100])  # for it may be repeated in an error
        return words


# ---- what may differ ----


def integer_of(reply):
    return int(reply[1:-2]) if reply.startswith(b":") else None


def is_line(words, *names):
    """Whether a line begins with one of these words, and a key."""
    name = words[0].upper()
    return name in names or (len(words) > 1 and name + b" " + words[1].upper() in names)


def clocks(words, ours, theirs):
    if not is_line(words, b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"):
        return False
    mine, yours = integer_of(ours), integer_of(theirs)
    slack = CLOCK_SLACK_SECONDS * (1000 if words[0].upper().startswith(b"P") else 1)
    return mine is not None and yours is not None and mine > 0 and yours > 0 and abs(mine - yours) <= slack


def encodings(words, ours, theirs):
    better = {b"$3\r\nint\r\n": 0, b"$6\r\nembstr\r\n": 1, b"$3\r\nraw\r\n": 2}
    return is_line(words, b"OBJECT ENCODING") and ours in better and theirs in better and better[ours] < better[theirs]


def references(words, ours, theirs):
    return is_line(words, b"OBJECT REFCOUNT") and ours == b":1\r\n" and integer_of(theirs) is not None


def idle_times(words, ours, theirs):
    return is_line(words, b"OBJECT IDLETIME") and ours == b":0\r\n" and integer_of(theirs) is not None


def sizes(words, ours, theirs):
    return is_line(words, b"MEMORY USAGE") and (integer_of(ours) or 0) > 0 and (integer_of(theirs) or 0) > 0


def sizes_of_nothing(words, ours, theirs):
    return is_line(words, b"MEMORY USAGE") and ours in (b"$-1\r\n", b"_\r\n") and (integer_of(theirs) or 0) > 0


def dump_versions(words, ours, theirs):
    footer = 12  # version, checksum, CR LF
    return is_line(words, b"DUMP") and ours.startswith(b"$") and len(ours) > footer and ours[:-footer] == theirs[:-footer]


def bulks(reply):
    """The strings of an array of them; None: it is none."""
    if not reply.startswith(b"*"):
        return None
    rest = reply[reply.index(b"\n") + 1 :]
    out = []
    while rest.startswith(b"$"):
        header, rest = rest.split(b"\r\n", 1)
        size = int(header[1:])
        out.append(rest[:size])
        rest = rest[size + 2 :]
    return out if not rest else None


def orders(words, ours, theirs):
    if is_line(words, b"SCAN"):
        head = b"*2\r\n$1\r\n0\r\n"
        if not ours.startswith(head) or not theirs.startswith(head):
            return False
        ours, theirs = ours[len(head) :], theirs[len(head) :]
    elif not is_line(words, b"KEYS"):
        return False
    mine, yours = bulks(ours), bulks(theirs)
    return mine is not None and yours is not None and sorted(mine) == sorted(yours)


def chances(words, ours, theirs):
    return is_line(words, b"RANDOMKEY") and ours.startswith(b"$") and theirs.startswith(b"$") and b"$-1\r\n" not in (ours, theirs)


# (what it is, whether a difference is one of these). Replies that are equal are never asked about.
KNOWN = [
    ("each server reads its own clock, some milliseconds apart", clocks),
    ("Redis keeps in mind that a value was changed in place; the node tells its form by the value alone", encodings),
    ("Redis shares small integers; in the node a value belongs to one key", references),
    ("the node does not track when a key was used", idle_times),
    ("what a key takes is not the same in a log as in a heap", sizes),
    ("to MEMORY USAGE Redis shows a key that has expired, until it has removed it", sizes_of_nothing),
    ("keys come in another order", orders),
    ("which key RANDOMKEY gives is chance", chances),
    ("Redis 7.0 writes version 10 of RDB, the node that of Redis 7.2", dump_versions),
]


# ---- side by side ----


def shown_word(word, bytes_max=60):
    text = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in word[:bytes_max])
    return f'"{text}"' if len(word) <= bytes_max else f'"{text}"...({len(word)} bytes)'


def shown(words):
    """A line as one can type it into redis-cli, if its words are not too long for that."""
    return " ".join(map(shown_word, words))


class Differential:
    """Two servers that are to answer the same: `ours` and `theirs` are Wires, both fresh and empty."""

    BATCH = 64

    def __init__(self, ours, theirs, known=KNOWN):
        self.ours = ours
        self.theirs = theirs
        self.known = known
        self.lines_of = {}  # key: the lines on it since it was last surely gone, by their numbers
        self.seen = {reason: 0 for reason, _ in known}  # how often each known difference was met
        self.block = []  # the lines since the latest MULTI or WATCH
        self.queued = []  # … and what was queued since the latest MULTI
        self.compared = 0

    def _keys(self, words):
        name = words[0].upper()
        if name in (b"MSET", b"MSETNX"):
            return words[1::2]
        if name in (b"MGET", b"EXISTS"):
            return words[1:]
        if name in (b"COPY", b"RENAME", b"RENAMENX"):
            return words[1:3]
        if name == b"BITOP":
            return words[2:]
        first = 2 if name in (b"OBJECT", b"MEMORY") else 1
        return words[first : first + 1]

    def _note(self, words, gone):
        """Takes the line down with each of its keys."""
        keys = self._keys(words)
        if words[0].upper() in (b"COPY", b"RENAME", b"RENAMENX", b"BITOP"):
            # What one key holds may have been the other's.
            both = self._lines(keys)[-LINES_SHOWN:]
            for key in keys:
                self.lines_of[key] = dict(both)
        for key in keys:
            lines = self.lines_of.setdefault(key, {})
            if gone:
                lines.clear()
            lines[self.compared] = words

    def _lines(self, keys):
        """What may matter for these keys, in order: (number, line)."""
        lines = {}
        for key in keys:
            lines.update(self.lines_of.get(key, {}))
        return sorted(lines.items())

    def _known(self, words, ours, theirs):
        """The same, or known to differ."""
        if ours == theirs:
            return True
        for reason, applies in self.known:
            if applies(words, ours, theirs):
                self.seen[reason] += 1
                return True
        return False

    def _known_in_exec(self, words, ours, theirs):
        if words[0].upper() != b"EXEC" or ours == theirs or not (ours[:1] == theirs[:1] == b"*") or b"*-1\r\n" in (ours, theirs):
            return False
        mine, yours = Wire.elements(ours), Wire.elements(theirs)
        return len(mine) == len(yours) == len(self.queued) and all(map(self._known, self.queued, mine, yours))

    def _compare(self, words, ours, theirs):
        if words[0].upper() in (b"FLUSHALL", b"FLUSHDB") and ours == theirs == b"+OK\r\n":
            self.lines_of.clear()
        self._note(words, gone=words[0].upper() == b"DEL" and ours == theirs == b":1\r\n")
        self.block = [words] if words[0].upper() in (b"MULTI", b"WATCH") else self.block + [words]
        self.compared += 1
        if words[0].upper() == b"MULTI" and ours == b"+OK\r\n":
            self.queued = []
        elif ours == b"+QUEUED\r\n":
            self.queued.append(words)
        if self._known(words, ours, theirs) or self._known_in_exec(words, ours, theirs):
            return
        history = [line for _, line in self._lines(self._keys(words))[-LINES_SHOWN:]]
        lines = "\n".join("  " + shown(line) for line in (self.block if words[0].upper() == b"EXEC" else history))
        raise Difference(f"{lines}\nreplies\n  ours:   {ours[:300]!r}\n  theirs: {theirs[:300]!r}")

    def send(self, lines):
        """Sends these lines to both, a batch at a time, and compares the replies."""
        for at in range(0, len(lines), self.BATCH):
            batch = lines[at : at + self.BATCH]
            for server in (self.ours, self.theirs):
                server.send_all(batch)
            replies = [[server.read() for _ in batch] for server in (self.ours, self.theirs)]
            for words, mine, yours in zip(batch, *replies):
                self._compare(words, mine, yours)

    def run(self, generator, count, look_every=500):
        """`count` lines of the generator; and now and then at all keys, so that no difference hides for long."""
        looks = [[word, key] for key in generator.keys for word in (b"GET", b"PEXPIRETIME")]
        while count > 0:
            some = min(count, look_every)
            lines = []
            while len(lines) < some:
                lines += generator.block() if generator.seldom(0.05) else [generator.line()]
            self.send(lines + looks)
            count -= len(lines)
