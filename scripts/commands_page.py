#!/usr/bin/env python3
"""Writes docs/COMMANDS.md: every command of the node, and those of Redis 7.2 that it does not offer.

What the node offers is read from the tables in src/node, so the page needs no build: command_table.c has a row for each
command, and the arrays of struct subcommand one for each subcommand. tests/house/test_commands_page.py holds the page to
what this makes of them. After a change of the tables: scripts/commands_page.py --write
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "COMMANDS.md"

# By Redis's groups: what they are called here, and the commands of Redis 7.2.
REDIS = {
    "string": (
        "Strings",
        "append decr decrby get getdel getex getrange getset incr incrby incrbyfloat lcs mget mset msetnx "
        "psetex set setex setnx setrange strlen substr",
    ),
    "bitmap": (
        "Bits of strings",
        "bitcount bitfield bitfield_ro bitop bitpos getbit setbit",
    ),
    "generic": (
        "Keys",
        "copy del dump exists expire expireat expiretime keys migrate move object persist pexpire pexpireat "
        "pexpiretime pttl randomkey rename renamenx restore scan sort sort_ro touch ttl type unlink wait "
        "waitaof",
    ),
    "transactions": (
        "Transactions",
        "discard exec multi unwatch watch",
    ),
    "connection": (
        "Connections",
        "auth client echo hello ping quit reset select",
    ),
    "server": (
        "Server",
        "acl bgrewriteaof bgsave command config dbsize debug failover flushall flushdb info lastsave latency "
        "lolwut memory module monitor psync replconf replicaof restore-asking role save shutdown slaveof "
        "slowlog swapdb sync time",
    ),
    "list": (
        "Lists",
        "blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange "
        "lrem lset ltrim rpop rpoplpush rpush rpushx",
    ),
    "hash": (
        "Hashes",
        "hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx "
        "hstrlen hvals",
    ),
    "set": (
        "Sets",
        "sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop "
        "srandmember srem sscan sunion sunionstore",
    ),
    "sorted-set": (
        "Sorted sets",
        "bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore "
        "zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore "
        "zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore "
        "zrevrank zscan zscore zunion zunionstore",
    ),
    "hyperloglog": (
        "HyperLogLog",
        "pfadd pfcount pfmerge",
    ),
    "geo": (
        "Places",
        "geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro "
        "geosearch geosearchstore",
    ),
    "stream": (
        "Streams",
        "xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread xreadgroup xrevrange xsetid "
        "xtrim",
    ),
    "pubsub": (
        "Publish and subscribe",
        "psubscribe publish pubsub punsubscribe spublish ssubscribe subscribe sunsubscribe unsubscribe",
    ),
    "scripting": (
        "Scripts and functions",
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro function script",
    ),
    "cluster": (
        "Cluster",
        "asking cluster readonly readwrite",
    ),
}

WHY = {
    "list": "values are strings",
    "hash": "values are strings",
    "set": "values are strings",
    "sorted-set": "values are strings",
    "hyperloglog": "values are strings",
    "geo": "values are strings",
    "stream": "values are strings",
    "pubsub": "the node keeps values, and passes no messages on",
    "scripting": "no code is carried out in the node",
    "cluster": "a node stands alone",
}

STRING = r'"(?:[^"\\]|\\.)*"'
ROW = re.compile(
    rf'^    \{{"(?P<name>[a-z_.]+)",\s*(?P<arity>-?\d+),\s*(?P<flags>[A-Z_| \n0]+?),\s*(?P<keys>\d+),\s*-?\d+,\s*\d+,\s*'
    rf'"(?P<group>[a-z-]+)",\s*{STRING},\s*(?P<summary>{STRING}(?:\s*{STRING})*),\s*"(?P<since>[\d.]+)",\s*\w+,\s*'
    r"(?P<subs>\w+)\}",
    re.MULTILINE,
)
SUBCOMMANDS = re.compile(r"^const struct subcommand (\w+)\[\] = \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)


def joined(text):
    """The C strings side by side in it, as one."""
    return "".join(part[1:-1] for part in re.findall(STRING, text)).replace('\\"', '"')


def read_tables(sources):
    """The node's commands: name, group, flags, summary, since, names of subcommands."""
    subs = {}
    for source in sorted(sources.glob("*.c")):
        for array, rows in SUBCOMMANDS.findall(source.read_text()):
            subs[array] = re.findall(r'^    \{"([a-z-]+)",', rows, re.MULTILINE)
    table = (sources / "command_table.c").read_text()
    rows = table[table.index("command_table[] = {") : table.index("};\n\nconst unsigned")]
    commands = []
    for row in ROW.finditer(rows):
        words = row.groupdict()
        words["summary"] = joined(words["summary"])
        words["subs"] = subs.get(words["subs"], [])
        commands.append(words)
    if len(commands) != len(re.findall(r'^    \{"', rows, re.MULTILINE)):
        raise ValueError("command_table.c: a row is not understood")
    return commands


def what_it_is(flags):
    if "COMMAND_WRITE" in flags:
        return "write"
    if "COMMAND_READONLY" in flags:
        return "read"
    return "admin" if "COMMAND_ADMIN" in flags else ""


def make_page(commands):
    lines = [
        "# Commands",
        "",
        "What the node offers of the commands of Redis 7.2, and what it has of its own. Made by `scripts/commands_page.py` of",
        "the tables in `src/node`. What each of them replies is in [PROTOCOL.md](PROTOCOL.md); `COMMAND DOCS` tells arguments.",
    ]
    offered = {command["name"] for command in commands}
    known = set()
    for group, (title, names) in REDIS.items():
        known.update(names.split())
        rows = [command for command in commands if command["group"] == group]
        missing = [name for name in names.split() if name not in offered]
        lines += ["", f"## {title}", ""]
        if rows:
            lines += ["| command | | since | |", "|---|---|---|---|"]
        for row in rows:
            subs = ": " + ", ".join(f"`{name.upper()}`" for name in row["subs"]) if row["subs"] else ""
            name = row["name"].upper()
            lines.append(f"| `{name}` | {what_it_is(row['flags'])} | {row['since']} | {row['summary']}{subs} |")
        if rows and missing:
            lines.append("")
        if missing:
            why = f" ({WHY[group]})" if group in WHY else ""
            lines.append(f"Not offered{why}: " + ", ".join(f"`{name.upper()}`" for name in missing) + ".")
    own = sorted(offered - known)
    lines += ["", "## What Redis 7.2 does not have", "", "`since` of these is a version of kvs-node, or of Valkey:"]
    lines[-1] += " " + ", ".join(f"`{name.upper()}`" for name in own) + "."
    return "\n".join(lines) + "\n"


def main():
    page = make_page(read_tables(ROOT / "src" / "node"))
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page)
    else:
        sys.stdout.write(page)


if __name__ == "__main__":
    main()
