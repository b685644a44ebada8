"""libhiredis as its users use it: calls, pipelines, callbacks. RESP2, which is what Debian 12's speaks."""

import pytest
from client_session import host, run_session  # noqa: F401 (a fixture)
from patience import BIN


def test_a_session_of_hiredis(host):  # noqa: F811
    program = BIN / "hiredis-session"
    if not program.exists():
        pytest.skip("built without libhiredis: scripts/install-dependencies.sh test, and configure again")
    run_session([program], host)
