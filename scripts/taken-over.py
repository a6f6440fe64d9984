"""A client of a gateway whose volume is taken over while it holds unsaved data.

    taken-over.py URI COMMAND...    the command takes the volume over
"""
import subprocess
import sys

import nbd

uri, *take_over = sys.argv[1:]
unsaved = bytes(range(256)) * 4096
at = 1 << 20


def refused(what, call):
    try:
        call()
    except nbd.Error as error:
        print(f"{what}: {error.string}")
        return
    sys.exit(f"{what} went well though the volume was taken over")


def connect():
    client = nbd.NBD()
    client.connect_uri(uri)
    return client


client = connect()
saved = client.pread(4096, 0)
client.flush()
client.pwrite(unsaved, at)
subprocess.run(take_over, check=True)
refused("a flush", client.flush)
refused("a later write", lambda: client.pwrite(saved, 0))
refused("a flush of another client", connect().flush)
for reader in client, connect():
    if reader.pread(len(unsaved), at) != unsaved:
        sys.exit("what is unsaved is not read as it was written")
client.shutdown()
