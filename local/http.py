"""Small requests to services on loopback."""

import json
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 30.0


def get(url: str, token: str | None = None) -> bytes | None:
    """The body of a page, or None when nobody answers or the answer is an error."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback only
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return bytes(answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def send(
    url: str, method: str, body: dict[str, Any], token: str | None = None
) -> tuple[int, bytes]:
    """The status code and the body of the answer to a JSON request; 503 when nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(  # noqa: S310 - loopback only
        url,
        data=json.dumps(body).encode(),
        method=method,
        headers={**headers, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return int(answer.status), bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return 503, b""
