import json

import numpy as np
import pytest

from bdloss.training.checkpoints import State, newest_state, read_state, save_state


def state(epochs):
    random = np.random.default_rng(epochs)
    return State(
        [{"epoch": n + 1, "loss": random.random()} for n in range(epochs)],
        1.5 * epochs,
        [random.random((3, 5), dtype=np.float32), np.zeros((), np.int64)],
        [random.random(12) for _ in range(12)],  # more than nine: order matters
    )


def equal(one, other):
    assert (one.rows, one.seconds) == (other.rows, other.seconds)
    for a, b in zip(
        one.network + one.optimizer, other.network + other.optimizer, strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_two_newest_and_the_best_are_kept(tmp_path):
    for epoch in range(1, 6):
        save_state(state(epoch), tmp_path, keep_epochs=[2])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch-00002.npz", "epoch-00004.npz", "epoch-00005.npz"]
    equal(newest_state(tmp_path), state(5))
    assert newest_state(tmp_path / "none") is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_truncated_checkpoint_is_noticed_and_the_one_before_used(
    tmp_path, share, caplog
):
    save_state(state(3), tmp_path)
    save_state(state(4), tmp_path)
    path = tmp_path / "epoch-00004.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    equal(newest_state(tmp_path), state(3))
    assert caplog.messages == [f"damaged checkpoint: {path}; trying the one before"]


def test_flipped_bit_is_noticed(tmp_path):
    save_state(state(3), tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged checkpoint"):
        read_state(path)


def test_checkpoint_that_was_being_written_is_no_checkpoint(tmp_path, caplog):
    save_state(state(3), tmp_path)
    (tmp_path / ".epoch-00004.bdloss-partial.npz").write_bytes(b"half")
    equal(newest_state(tmp_path), state(3))
    assert not caplog.messages
    save_state(state(4), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_write_leaves_the_one_before(tmp_path, monkeypatch):
    save_state(state(3), tmp_path)

    def fill(path, **arrays):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(OSError, match="No space left"):
        save_state(state(4), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00003.npz"]


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    save_state(state(3), tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    random = np.random.default_rng(5)
    noticed = 0
    for place in random.integers(0, len(data), 400).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            equal(read_state(path), state(3))
        except ValueError as error:
            assert str(error) == f"damaged checkpoint: {path}"
            noticed += 1
    assert noticed > 200


def test_checkpoint_of_an_older_version_has_no_digest(tmp_path):
    save_state(state(2), tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path) as archive:
        arrays = dict(archive)
    facts = json.loads(str(arrays["facts"]))
    del facts["digest"]
    arrays["facts"] = np.array(json.dumps(facts))
    np.savez(path, **arrays)
    equal(read_state(path), state(2))
