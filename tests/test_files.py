import errno
import os
import re
from pathlib import Path

import pytest

from imputune.errors import UserError
from imputune.files import host_name, remove_leftovers, replace_text, replacing_folder


def contents(folder: Path) -> dict[str, str]:
    """Return the text of every file under a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    """A folder that was not there is there when the block ends, and not before."""
    target = tmp_path / "results" / "synthetic"
    with replacing_folder(target) as fresh:
        (fresh / "a.txt").write_text("1")
        assert not target.exists()
    assert contents(tmp_path) == {"results/synthetic/a.txt": "1"}


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    """Nothing of the earlier folder stays, and nothing else is left beside it."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with replacing_folder(target) as fresh:
        assert list(fresh.iterdir()) == []
        (fresh / "new.txt").write_text("new")
        assert contents(target) == {"old.txt": "old"}
    assert contents(tmp_path) == {"out/new.txt": "new"}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), UserError("bad")])
def test_failed_block_leaves_the_earlier_folder(tmp_path: Path, error: BaseException) -> None:
    """Whatever ends the block early, Ctrl-C included, goes on as it is and the earlier folder stays."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def write_half() -> None:
        with replacing_folder(target) as fresh:
            (fresh / "new.txt").write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert caught.value is error
    assert contents(tmp_path) == {"out/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failed_block_leaves_no_folder_where_none_was(tmp_path: Path) -> None:
    """A first write that fails leaves nothing."""
    with pytest.raises(ValueError, match="bad"), replacing_folder(tmp_path / "out"):
        raise ValueError("bad")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_inside_the_block_is_a_user_error(tmp_path: Path) -> None:
    """A refused write names the folder, the system's reason and a remedy, in one line."""
    with pytest.raises(UserError) as caught, replacing_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'out'}: No space left on device; free the disk or choose another folder"
    )
    assert list(tmp_path.iterdir()) == []


def test_refused_move_puts_the_earlier_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new folder cannot take its place, the earlier one, already moved aside, does again."""
    target, original = tmp_path / "out", Path.rename
    target.mkdir()
    (target / "old.txt").write_text("old")

    def rename(self: Path, to: Path) -> Path:
        if self.suffix == ".new":
            raise OSError(errno.EIO, "Input/output error")
        return original(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(UserError, match=r"cannot write .*out: Input/output error"), replacing_folder(target):
        pass
    assert contents(tmp_path) == {"out/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_link_to_a_folder_keeps_its_place(tmp_path: Path) -> None:
    """Through a link, the folder it points to is replaced, and the link still points there."""
    real = tmp_path / "disk" / "out"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    with replacing_folder(tmp_path / "link") as fresh:
        (fresh / "a.txt").write_text("1")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "disk") == {"out/a.txt": "1"}


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is one of the working folder's."""
    monkeypatch.chdir(tmp_path)
    with replacing_folder(Path("out")) as fresh:
        (fresh / "a.txt").write_text("1")
    assert contents(tmp_path) == {"out/a.txt": "1"}


def test_folder_under_a_file_is_a_user_error(tmp_path: Path) -> None:
    """Where a file stands in the way, the error says so and the file stays."""
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match=r"cannot write .*out: Not a directory"),
        replacing_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("there is nowhere to write")
    assert contents(tmp_path) == {"file": "mine"}


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The text is UTF-8 with its folder made, a second write replaces it, and nothing else is left."""
    path = tmp_path / "results" / "table.md"
    replace_text(path, "0.83 ± 0.01\n")
    assert path.read_bytes() == "0.83 ± 0.01\n".encode()
    replace_text(path, "new\n")
    assert contents(tmp_path) == {"results/table.md": "new\n"}


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_full_disk_leaves_the_earlier_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """When the disk is full at either step, the earlier text stays and no temporary file does."""
    path = tmp_path / "table.md"
    path.write_text("old")

    def fail(self: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(UserError, match=r"cannot write .*table.md: No space left on device; free the disk"):
        replace_text(path, "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"table.md": "old"}


def test_text_under_a_file_is_a_user_error(tmp_path: Path) -> None:
    """Where a file stands in the folder's place, the error is one line and the file stays."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*table.md"):
        replace_text(tmp_path / "file" / "table.md", "new")
    assert contents(tmp_path) == {"file": "mine"}


KILLED = 2**22 + 1  # above every process id


def temporary(name: str, process: int, host: str | None = None, end: str = "new") -> str:
    """Return the name of a temporary file for a name, of a process of this machine or of another."""
    return f".{name}.{host or host_name()}.{process}.{'0' * 32}.{end}"


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """The next one to write the same file or folder removes them; those of a process that runs, or of others, stay."""
    kept = [
        temporary("out", os.getpid()),
        temporary("other", KILLED),
        temporary("out.4999999", KILLED),
        temporary("out", KILLED, host="another-machine"),
        temporary("out", KILLED, end="txt"),
        f".out.{host_name()}.{KILLED}.1.new",
    ]
    for name in (temporary("out", KILLED), temporary("out", KILLED, end="old"), *kept):
        (tmp_path / name).mkdir()
    (tmp_path / temporary("text.txt", KILLED)).touch()
    with replacing_folder(tmp_path / "out"):
        pass
    replace_text(tmp_path / "text.txt", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "text.txt", *kept}


def test_a_process_of_another_user_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses to signal it, so its temporary file stays."""

    def refuse(process: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / temporary("text.txt", KILLED)).touch()
    replace_text(tmp_path / "text.txt", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", temporary("text.txt", KILLED)}


def test_names_of_temporary_files_say_whose_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's name is written without dots; a killed process's file is found by it, and as a leftover."""
    monkeypatch.setattr("socket.gethostname", lambda: "node_1.example.org")
    with replacing_folder(tmp_path / "a.b") as fresh:
        assert re.fullmatch(rf"\.a\.b\.node-1-example-org\.{os.getpid()}\.[0-9a-f]{{32}}\.new", fresh.name)
        (tmp_path / temporary("a.b", KILLED)).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a.b"]
    (tmp_path / temporary("a.b", KILLED)).touch()
    (tmp_path / temporary("a.b", KILLED, end="old")).mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.b"]
