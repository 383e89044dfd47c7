import pytest

from imputune.errors import UserError
from imputune.pipeline.project import exclusive


def test_a_folder_that_refuses_a_lock_is_named(tmp_path):
    """No folder can be made below a file; a folder without write permission gives the same line."""
    (tmp_path / "artifacts").write_text("")
    refused = pytest.raises(UserError, match=rf"^cannot write in {tmp_path}/artifacts/unfinished: ")
    with refused, exclusive(tmp_path / "artifacts/unfinished/lock", "training"):
        pass
