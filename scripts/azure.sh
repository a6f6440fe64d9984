#!/usr/bin/env bash
# Azure Blob Storage on Azurite, Microsoft's emulator, from npm: starts it in memory, runs on it those tests of object stores
# that need no server of their own, and stops it. A word runs the tests of that name alone. Needs node and npm.
#
#   CACHALOT_AZURE_PORT   where it listens; 33710 unless set
#   CACHALOT_SEED         the seed of the random operations
set -euo pipefail
cd "$(dirname "$0")/.."
port=${CACHALOT_AZURE_PORT:-33710} version=3.35.0 tools=target/tools/azurite
command -v npm >/dev/null || { echo "Azurite needs node and npm" >&2 && exit 1; }

cargo test --test object_store --no-run
[ -x "$tools/node_modules/.bin/azurite-blob" ] || npm install --silent --no-audit --no-fund --prefix "$tools" "azurite@$version"
place="$(mktemp -d)"
"$tools/node_modules/.bin/azurite-blob" --inMemoryPersistence --skipApiVersionCheck --disableTelemetry --silent \
    --blobHost 127.0.0.1 --blobPort "$port" >"$place/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -rf "$place"' EXIT

# The account that every Azurite has.
export AZURE_STORAGE_ACCOUNT_NAME=devstoreaccount1
export AZURE_STORAGE_ACCOUNT_KEY='Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
# Makes the container, signed as https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key says.
python3 - "$port" "$server" <<'PYTHON'
import base64, email.utils, hashlib, hmac, os, sys, time, urllib.error, urllib.request
port, server = sys.argv[1], int(sys.argv[2])
account, key = os.environ["AZURE_STORAGE_ACCOUNT_NAME"], os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
path = f"/{account}/cache"
for _ in range(300):
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + "\n" * 12 + named + f"/{account}{path}\nrestype:container"
    digest = hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(digest).decode()}"
    url = f"http://127.0.0.1:{port}{path}?restype=container"
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers={**headers, "Content-Length": "0"}, method="PUT"))
        break
    except urllib.error.HTTPError:
        raise
    except OSError:
        os.kill(server, 0)
        time.sleep(0.1)
else:
    sys.exit("Azurite does not answer")
PYTHON

export CACHALOT_S3_URL="az://cache/tests?endpoint=http://127.0.0.1:$port/$AZURE_STORAGE_ACCOUNT_NAME"
cargo test --test object_store -- --test-threads 1 --nocapture "server::${1:-}"
