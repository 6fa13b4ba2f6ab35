#!/usr/bin/env bash
# uvicorn 0.54.0 (h11 0.16.0): an application that responds before it has received the whole body, e.g. with
# 413, is not heard by a client that sends `Connection: close`, as `urllib.request` does: uvicorn closes the
# connection after the response, the kernel resets it because of the unread body, and the client, which still
# sends, fails with BrokenPipeError or ConnectionResetError. Without that header, uvicorn receives and drops the
# rest, and the client gets the response.
#
# It matters to every service that refuses uploads. To receive the rest between the last piece of the response
# and its end is enough.
#
# Seen: the response is lost with `Connection: close`, and arrives without it, or if the application drains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/early.py" <<'PYTHON'
import http.client
import socket
import sys
import threading

import uvicorn


def app(drains):
    async def respond(scope, receive, send):
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"too large", "more_body": True})
        while drains and (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.body"})

    return respond


def post(application, headers):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    client = http.client.HTTPConnection(*listener.getsockname(), timeout=60)
    try:
        client.request("POST", "/", bytes(32 << 20), headers)
        return client.getresponse().status
    except (BrokenPipeError, ConnectionResetError) as error:
        return type(error).__name__
    finally:
        client.close()
        server.should_exit = True
        thread.join()


close = {"Connection": "close"}
seen = {
    "Connection: close": post(app(False), close),
    "keep-alive": post(app(False), {}),
    "Connection: close, drained": post(app(True), close),
}
for name, result in seen.items():
    print(f"{name}: {result}")
lost, *arrived = seen.values()
sys.exit(lost == 413 or arrived != [413, 413])
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvicorn==0.54.0 h11==0.16.0
"$folder/venv/bin/python" "$folder/early.py"
