"""The list of mounts that the kernel gives."""

from __future__ import annotations

from syncd.store.places import Mount, mounts


def test_the_list_of_mounts_is_parsed() -> None:
    """Escaped blanks included; unknown lines are skipped."""
    text = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "40 22 0:35 / /mnt/a\\040b rw - virtiofs share rw\n"
        "odd\n"
    )
    assert mounts(text) == [Mount("/", "ext4"), Mount("/mnt/a b", "virtiofs")]
