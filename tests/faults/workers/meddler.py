"""Meddles with an instance's public names from another uid until SIGTERM, and then prints how often it managed to.

It can do so only where the directory has no sticky bit, as with Kubernetes' memory volumes.

Usage: meddler.py <uid> <directory> <instance>
"""

import json
import os
import pathlib
import signal
import sys

uid, directory, instance = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
done = {"unlinked": 0, "renamed": 0, "squatted": 0, "linked": 0, "denied": 0}
count = 0


def attempt(what, action, *arguments):
    try:
        action(*arguments)
        done[what] += 1
    except PermissionError:
        done["denied"] += 1
    except OSError:
        # Gone already, or back already: others are at work on the same names.
        pass


def squat(path, own):
    """Puts a file of its own where the name was."""
    own.write_text("not ours")
    own.rename(path)


while not stopping:
    for path in directory.glob(f"tensord.{instance}.*"):
        count += 1
        own = directory / f"meddler-{count}"
        if count % 4 == 0:
            attempt("unlinked", path.unlink)
        elif count % 4 == 1:
            attempt("renamed", path.rename, own)
        elif count % 4 == 2:
            attempt("squatted", squat, path, own)
        else:
            attempt("linked", own.hardlink_to, path)
        own.unlink(missing_ok=True)
print(json.dumps(done))
