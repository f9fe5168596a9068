"""What a store with a disk has to survive: other processes, kills, full and read-only disks, files that are not ours."""

from __future__ import annotations

import datetime as dt
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployguard.errors import ForeignState, StaleView, UserError, WorldError
from deployguard.model.base import encode
from deployguard.model.document import SCHEMA, Document
from deployguard.model.rollout import Entry
from deployguard.stores import schema
from deployguard.stores.file import FileStore, guards

NOW = dt.datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=dt.UTC)


def entry(n: int) -> Entry:
    return Entry("r1", n, NOW, "shop", "transition", "rolling_back", "errors 4.9 %", {"e": 1.5e17})


RACER = """
import sys
from pathlib import Path
from msgspec.structs import replace
from deployguard.errors import StaleView
from deployguard.stores.file import FileStore
store = FileStore(Path(sys.argv[1]), "shop", lock_seconds=60)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    while True:
        document, revision = store.load()
        try:
            new = store.save(replace(document, fence=document.fence + 1), revision)
        except StaleView:
            continue
        print(document.fence, revision or "none", new, flush=True)
        break
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_of_two_processes_exactly_one_wins_each_revision(tmp_path: Path) -> None:
    """Two processes that race to save never both replace the same revision, and no save is lost."""
    racers = [start(RACER, tmp_path, 40) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outputs = [racer.communicate() for racer in racers]
    assert [(racer.returncode, err) for racer, (_, err) in zip(racers, outputs, strict=True)] == [(0, ""), (0, "")]
    won = sorted((int(fence), old, new) for out, _ in outputs for fence, old, new in (line.split() for line in out.splitlines()))
    assert [fence for fence, _, _ in won] == list(range(80))
    assert [old for _, old, _ in won[1:]] == [new for _, _, new in won[:-1]]
    assert FileStore(tmp_path, "shop").load()[0].fence == 80


WRITER = """
import sys, datetime as dt
from pathlib import Path
from msgspec.structs import replace
from deployguard.model.rollout import Entry
from deployguard.stores.file import FileStore
store = FileStore(Path(sys.argv[1]), "shop", lock_seconds=60)
now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
while True:
    document, revision = store.load()
    n = document.fence + 1
    store.save(replace(document, fence=n, names={str(i): "x" * 100 for i in range(200)}), revision)
    store.append(tuple(Entry("r1", i, now, "shop", "transition", "advancing", "x" * 5000) for i in range(store.ledgered("r1") + 1, n + 1)))
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_document_and_a_ledger_that_goes_on(tmp_path: Path) -> None:
    """Whenever a writer is killed, what it said was saved is there, whole, and the ledger verifies after the next append."""
    moments = random.Random(7)
    store = FileStore(tmp_path, "shop", lock_seconds=60)
    for _ in range(6):
        writer = start(WRITER, tmp_path)
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(moments.randint(1, 12))][-1]
        writer.kill()
        said = max([said, *map(int, writer.communicate()[0].split())])
        document, revision = store.load()
        assert document.fence >= said
        assert said <= store.ledgered("r1") <= document.fence
        store.append(tuple(entry(n) for n in range(store.ledgered("r1") + 1, document.fence + 1)))
        store.save(document, revision)
        found = store.verify()
        assert (found.ok, found.lines) == (True, document.fence), found.text
        assert not list(store.directory.glob(".tmp-*"))


def test_a_reader_never_sees_half_a_save(tmp_path: Path) -> None:
    """While another process saves without pause, every load is a whole document and none is older than the one before."""
    writer = start(WRITER, tmp_path)
    assert writer.stdout is not None
    writer.stdout.readline()
    store = FileStore(tmp_path, "shop")
    seen = [store.load()[0].fence for _ in range(300)]
    writer.kill()
    writer.communicate()
    assert seen == sorted(seen)
    assert seen[0] >= 1


def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    """What a killed writer left is gone after the next save."""
    store = FileStore(tmp_path, "shop")
    revision = store.save(Document(guard="shop"), "")
    left = store.directory / ".tmp-dead"
    left.write_bytes(b"half a docu")
    store.save(Document(guard="shop", fence=1), revision)
    assert not left.exists()


LIMITED = """
import resource, sys, datetime as dt
from pathlib import Path
from msgspec.structs import replace
from deployguard.errors import WorldError
from deployguard.model.rollout import Entry
from deployguard.stores.file import FileStore
store = FileStore(Path(sys.argv[1]), "shop")
document, revision = store.load()
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
big = "x" * 200_000
entries = tuple(Entry("r1", n, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "shop", "claim", "", text) for n, text in ((2, "small"), (3, big)))
for act in (lambda: store.save(replace(document, names={"a": big}), revision), lambda: store.append(entries)):
    try:
        act()
        print("no error")
    except WorldError as error:
        print(error.message, "|", error.hint)
"""


def check_refused_writes(state: Path, out: str, fact: str) -> None:
    """Both writes were refused because of `fact`, and nothing changed or was left over."""
    lines = out.splitlines()
    assert len(lines) == 2, out
    assert lines[0].startswith(f"could not save {state}/guards/shop/document.json: {fact} | "), out
    assert lines[1].startswith(f"could not append to the ledger {state}/guards/shop/ledger.jsonl: {fact} | "), out


def check_unharmed(store: FileStore) -> None:
    assert store.load()[0] == Document(guard="shop", fence=1)
    assert store.ledgered("r1") == 1
    assert store.verify().ok
    assert sorted(p.name for p in store.directory.iterdir()) == ["document.json", "ledger.jsonl", "lock"]


def test_a_write_that_does_not_fit_leaves_the_old_state_whole(tmp_path: Path) -> None:
    """A save and an append that exceed the file size limit fail in the middle, say so, and leave what was there."""
    store = FileStore(tmp_path, "shop")
    store.save(Document(guard="shop", fence=1), "")
    store.append((entry(1),))
    out, err = start(LIMITED, tmp_path, 60_000).communicate()
    assert err == ""
    check_refused_writes(tmp_path, out, "the file would exceed the size limit of this process")
    check_unharmed(store)


MOUNTED = """
set -e
mount -t tmpfs -o size=96k none "$1"
cp -r "$2"/. "$1"
mount -o "remount,$3" "$1"
"$4" -c "$5" "$1" 0
cp -r "$1"/. "$6"
"""


@pytest.mark.parametrize(("options", "fact"), [("rw", "the disk is full"), ("ro", "the file system is read-only")])
def test_a_full_or_read_only_disk_leaves_the_old_state_whole(tmp_path: Path, options: str, fact: str) -> None:
    """On a real disk that is full or read-only both writes fail with that fact and leave what was there."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own (Linux, unshare)")
    before, mount, after = tmp_path / "before", tmp_path / "mount", tmp_path / "after"
    for each in (mount, after):
        each.mkdir()
    store = FileStore(before, "shop")
    store.save(Document(guard="shop", fence=1), "")
    store.append((entry(1),))
    command = [unshare, "-rm", "sh", "-c", MOUNTED, "sh", mount, before, options, sys.executable, LIMITED, after]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if options == "ro":
        assert all(fact in line for line in done.stdout.splitlines()), done.stdout
        assert len(done.stdout.splitlines()) == 2
    else:
        check_refused_writes(mount, done.stdout, fact)
    check_unharmed(FileStore(after, "shop"))


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    """When the state directory cannot be made, the error names the path and the fact."""
    (tmp_path / "guards").write_text("not a directory")
    for act in (
        lambda: FileStore(tmp_path, "shop").save(Document(guard="shop"), ""),
        lambda: FileStore(tmp_path, "shop").append((entry(1),)),
    ):
        with pytest.raises(WorldError, match=r"guards/shop: a part of the path is a file") as caught:
            act()
        assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_directory_of_somebody_else_is_named(tmp_path: Path) -> None:
    """Without permission to write, the error says so and the old document stays."""
    store = FileStore(tmp_path, "shop")
    revision = store.save(Document(guard="shop"), "")
    store.directory.chmod(0o500)
    try:
        with pytest.raises(WorldError, match="permission denied"):
            store.save(Document(guard="shop", fence=1), revision)
        store.directory.chmod(0o000)
        for act in (store.load, lambda: store.ledgered("r1")):
            with pytest.raises(WorldError, match="permission denied"):
                act()
    finally:
        store.directory.chmod(0o700)
    assert store.load() == (Document(guard="shop"), revision)


HOLDER = """
import sys
from pathlib import Path
from deployguard.stores import disk
with disk.locked(Path(sys.argv[1]), "hold"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_that_is_never_freed_is_an_error_that_names_its_holder(tmp_path: Path) -> None:
    """A save behind a hanging process gives up at its deadline, names that process, and works once it has died."""
    store = FileStore(tmp_path, "shop", lock_seconds=0.05)
    revision = store.save(Document(guard="shop"), "")
    holder = start(HOLDER, store.directory / "lock")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(WorldError, match=f"locked by probably process {holder.pid} "):
        store.save(Document(guard="shop", fence=1), revision)
    holder.kill()
    holder.communicate()
    store.save(Document(guard="shop", fence=1), revision)
    assert store.load()[0].fence == 1


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "torn or was edited"),
        (encode(Document(guard="shop", names={"a": "b"}))[:60], "torn or was edited"),
        (b"\xff\xfe" * 10, "torn or was edited"),
        (b"[]", "torn or was edited"),
        (b'{"schema":1,"guard":"shop","surprise":1}', "unknown field"),
        (b'{"schema":%d,"guard":"shop","surprise":1}' % (SCHEMA + 1), "a newer deployguard wrote it"),
        (b'{"schema":0,"guard":"shop"}', "no longer reads"),
        (b'{"schema":1,"guard":"other"}', "belongs to guard 'other'"),
    ],
)
def test_a_document_that_is_not_ours_is_foreign_and_untouched(tmp_path: Path, data: bytes, fact: str) -> None:
    """A torn, edited, newer or foreign document is ForeignState with its file and a hint, and stays as it is."""
    store = FileStore(tmp_path, "shop")
    store.save(Document(guard="shop"), "")
    store.path.write_bytes(data)
    with pytest.raises(ForeignState, match=fact) as caught:
        store.load()
    assert str(store.path) in caught.value.message
    assert caught.value.hint
    with pytest.raises(StaleView):
        store.save(Document(guard="shop"), "")
    assert store.path.read_bytes() == data


def test_an_older_document_is_brought_up_step_by_step() -> None:
    """A document of an older schema passes through each upgrade in turn and is then read like any other."""
    old = b'{"schema":%d,"guard":"shop","fences":7}' % (SCHEMA - 1)

    def rename(raw: dict[str, object]) -> dict[str, object]:
        raw["fence"] = raw.pop("fences")
        return raw

    assert schema.read(old, "shop", "here", {SCHEMA - 1: rename}) == Document(guard="shop", fence=7)


def test_an_edit_by_hand_is_a_new_revision(tmp_path: Path) -> None:
    """A person who edits the document wins against a driver that loaded it before."""
    store = FileStore(tmp_path, "shop")
    revision = store.save(Document(guard="shop", fence=1), "")
    store.path.write_bytes(encode(Document(guard="shop", fence=5)))
    with pytest.raises(StaleView):
        store.save(Document(guard="shop", fence=2), revision)
    assert store.load()[0].fence == 5


def test_the_state_is_private_and_reading_creates_nothing(tmp_path: Path) -> None:
    """A load leaves no trace; a save makes directories and files that only their user can read."""
    state = tmp_path / "state"
    store = FileStore(state, "shop")
    store.load()
    store.ledgered("r1")
    assert not state.exists()
    assert guards(state) == []
    store.save(Document(guard="shop"), "")
    store.append((entry(1),))
    modes = {path.relative_to(state).as_posix(): path.stat().st_mode & 0o777 for path in [state, *state.rglob("*")]}
    assert modes == {
        ".": 0o700,
        "guards": 0o700,
        "guards/shop": 0o700,
        "guards/shop/document.json": 0o600,
        "guards/shop/ledger.jsonl": 0o600,
        "guards/shop/lock": 0o600,
    }


def test_guards_are_listed_by_name(tmp_path: Path) -> None:
    """Every guard with saved state is listed; a name never leaves the directory of guards."""
    for name in ("shop", "api.v2", "team/pay"):
        FileStore(tmp_path, name).save(Document(guard=name), "")
    assert guards(tmp_path) == ["api.v2", "shop", "team/pay"]
    for name in ("", "..", ".hidden"):
        with pytest.raises(UserError):
            FileStore(tmp_path, name)
