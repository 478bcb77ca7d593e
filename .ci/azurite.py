"""Starts Azurite, Azure's own emulator of its blob storage, with a container `container`, and runs a command beside it.

    python .ci/azurite.py path/to/azurite-blob folder command ...

The command finds it by AZURE_STORAGE_USE_EMULATOR and AZURITE_BLOB_STORAGE_URL, and the container in
MAINSTEM_TEST_STORES. Account and key are those that Azurite documents for everybody.
"""

import base64
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from email.utils import formatdate

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-08-06"


def make_container(server: subprocess.Popen, url: str, name: str) -> bool:
    """Create Container, with a Shared Key signature as the REST reference of Blob Storage has it.

    False where the emulator has ended before it answered, as with a Node.js that is too old for it.
    """
    date = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{VERSION}\n{resource}"
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
        "Content-Length": "0",
        "x-ms-date": date,
        "x-ms-version": VERSION,
    }
    place = f"{url}/{ACCOUNT}/{name}?restype=container"
    request = urllib.request.Request(place, method="PUT", headers=headers)
    for attempt in range(60):
        try:
            urllib.request.urlopen(request).close()
            return True
        except urllib.error.HTTPError:
            raise
        except OSError:
            if server.poll() is not None:
                return False
            # It has not begun to listen yet.
            if attempt == 59:
                raise
            time.sleep(0.5)
    return False


def main() -> int:
    program, folder, *command = sys.argv[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "--silent", "--inMemoryPersistence", "--disableTelemetry", "--blobPort", str(port)], cwd=folder
    )
    try:
        url = f"http://127.0.0.1:{port}"
        if not make_container(server, url, "container"):
            print("skipped: Azurite does not run here, so no test against Azure", flush=True)
            return subprocess.run(command).returncode
        there = {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": url,
            "MAINSTEM_TEST_STORES": "az://container",
        }
        return subprocess.run(command, env={**os.environ, **there}).returncode
    finally:
        server.terminate()
        server.wait()


sys.exit(main())
