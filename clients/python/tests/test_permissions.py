"""Workers under other uids: the server's group decides, and a refusal says which uid, group and mode it was."""

from __future__ import annotations

import os

import numpy as np
import pytest
from harness import Child

import tensord

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")

NOBODY = 65534
BECOME = """
groups, script = hear()
os.setgroups(groups)
os.setgid({nobody})
os.setuid({nobody})
"""
SCRIPT = BECOME.format(nobody=NOBODY)


def test_another_uid_in_the_servers_group_works_like_any_client(client: tensord.Client) -> None:
    script = """
with tensord.connect() as client:
    region = client.attach("theirs", writable=True)
    region.numpy()[0] = 10
    region.close()
    mine = client.create("mine", np.arange(5), ttl=600)
    mine.numpy()[4] = 44
    mine.seal(checksum=True)
    say(client.verify(mine).ok)
    say([int(tensord.attach("mine", timeout=60).numpy()[4]), mine.numpy().flags.writeable])
    with client.create("sealed-later", [1], ttl=600) as third:
        say(third.descriptor.storage.path)
        hear()
"""
    with client.create("theirs", np.zeros(3), ttl=600) as region, Child(SCRIPT + script) as child:
        child.say([[os.getegid()], ""])
        assert child.hear() is True
        assert child.hear() == [44, False]
        assert region.numpy()[0] == 10
        child.hear()
        with client.attach("mine") as attached:
            assert attached.numpy().tolist() == [0, 1, 2, 3, 44]
        child.say("end")
        child.finish()


def test_another_uid_cannot_write_to_a_sealed_region(client: tensord.Client) -> None:
    script = """
descriptor = tensord.connect().get("sealed")
ref = tensord.TensorReference.from_dict(hear())
for attempt in (
    lambda: tensord.attach("sealed", writable=True),
    lambda: tensord.attach(descriptor, writable=True),
    lambda: tensord.connect().open(ref, writable=True),
    lambda: open(descriptor.storage.path, "r+b"),
):
    try: attempt(); say("written")
    except (tensord.RegionSealed, PermissionError) as error: say(type(error).__name__)
say(tensord.attach("sealed").numpy().tolist())
"""
    with client.create("sealed", [1, 2], ttl=600) as region, Child(SCRIPT + script) as child:
        region.seal()
        child.say([[os.getegid()], ""])
        child.say(region.ref().to_dict())
        assert [child.hear() for _ in range(4)] == ["RegionSealed", "RegionSealed", "RegionSealed", "PermissionError"]
        assert child.hear() == [1, 2]
        child.finish()


def test_a_foreign_uid_is_told_who_it_is_and_what_it_would_take(client: tensord.Client) -> None:
    script = """
ref = tensord.TensorReference.from_dict(hear())
for attempt in (lambda: tensord.attach("theirs"), lambda: tensord.connect().open(ref)):
    try: attempt()
    except tensord.AccessDenied as error: say([str(error), isinstance(error, PermissionError)])
"""
    with client.create("theirs", [1], ttl=600) as region, Child(SCRIPT + script) as child:
        child.say([[], ""])
        child.say(region.ref().to_dict())
        socket_error, file_error = child.hear(), child.hear()
        child.finish()
    assert socket_error[1]
    assert "http.sock" in socket_error[0]
    assert f"uid {NOBODY}" in socket_error[0]
    assert file_error[1]
    for part in (
        region.id,
        f"uid {NOBODY}",
        "in groups 65534",
        f"it is uid {os.geteuid()}, gid {os.getegid()}, mode 0660",
    ):
        assert part in file_error[0]
    assert "fsGroup" in file_error[0]
