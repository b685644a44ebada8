"""node-redis as its users use it, with both versions of the protocol."""

import pytest
from client_session import CLIENTS, host, npm_modules, run_session  # noqa: F401 (a fixture)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_session_of_node_redis(host, protocol):  # noqa: F811
    run_session(["node", CLIENTS / "npm" / "node_redis_session.mjs", npm_modules()], host, protocol)
