"""ioredis as its users use it."""

from client_session import CLIENTS, host, npm_modules, run_session  # noqa: F401 (a fixture)


def test_a_session_of_ioredis(host):  # noqa: F811
    run_session(["node", CLIENTS / "npm" / "ioredis_session.mjs", npm_modules()], host)
