"""MLflow's server behind a name and a password, as `mlflow server --app-name freshrank`.

MLflow finds it by `mlflow_app/`, a package's metadata, on the server's PYTHONPATH. Its own
`basic-auth` keeps users and rights in one more database, and hashes the password at each request.
"""

import base64
import hmac
import os
from typing import Any

CHALLENGE = (b"www-authenticate", b'Basic realm="Freshrank"')


class Login:
    """An ASGI application that only who knows the password reaches; `/health` is open."""

    def __init__(self, application: Any, user: str, password: str) -> None:
        self.application = application
        self.expected = b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "lifespan" or scope["path"] == "/health" or self._allows(scope):
            await self.application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [CHALLENGE]})
            await send({"type": "http.response.body", "body": b"MLflow asks for a login\n"})

    def _allows(self, scope: Any) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self.expected)


def application() -> Login:
    """MLflow, behind the login that its clients read from the same environment.

    Raises:
        KeyError: MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_PASSWORD is not set.
    """
    # It costs seconds, which the server's first process, that only starts this one, need not pay.
    from mlflow.server.fastapi_app import app

    user, password = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    return Login(app, user, password)
