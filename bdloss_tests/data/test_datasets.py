import pytest

from bdloss.data.datasets import read_dataset
from bdloss.data.folder import read_folder
from bdloss.data.inria import read_inria
from bdloss.data.potsdam import read_potsdam
from bdloss_tests import archives
from bdloss_tests.data.town import write_town


@pytest.mark.parametrize("name", ["inria", "potsdam", "aicd", "folder"])
def test_without_the_data_the_error_says_how_to_get_them(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"^no such folder: ") as caught:
        read_dataset(name, tmp_path / "nothing")
    message = str(caught.value)
    assert "\n" not in message
    if name == "folder":
        assert "masks/ or one file of outlines" in message
    else:
        assert "https://" in message  # from whom
        assert "not to be passed on" in message or "with credit" in message  # terms
        assert "unpack it" in message  # layout


def test_without_scenes_to_train_on_there_is_no_split(tmp_path):
    root = archives.write_inria(tmp_path, ["austin"], [1, 2])
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; get the"):
        read_inria(root)
    root = archives.write_potsdam(tmp_path / "potsdam", [(3, 13)])
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; get the"):
        read_potsdam(root)
    root = write_town(tmp_path / "own", "a", "b")
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; put"):
        read_folder(root, ["a"], ["b"])
