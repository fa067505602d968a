"""The table of docs/scores.md is what its script gives, and says what it says."""

import pytest

from docs import make_scores

HEAD, *BODY = make_scores.table()
ROWS = {name: dict(zip(HEAD[1:], cells, strict=True)) for name, *cells in BODY}


def test_the_page_has_the_numbers_of_today():
    text = (make_scores.FOLDER / "scores.md").read_text()
    table = make_scores.as_text([HEAD, *BODY])
    assert f"{make_scores.BEGIN}\n\n{table}\n\n{make_scores.END}" in text


def test_each_row_has_its_picture():
    for name in ROWS:
        assert (make_scores.FOLDER / "scores" / make_scores.file_name(name)).is_file()


@pytest.mark.parametrize("name", [name for name in ROWS if "teeth" in name])
def test_teeth_are_seen_by_one_to_one_f_and_not_by_bf1(name):
    assert ROWS[name]["BF1 3 px"] == "1.000"
    assert float(ROWS[name]["one-to-one F 3 px"]) <= 0.85
    assert float(ROWS["shifted by 2 pixels"]["one-to-one F 3 px"]) >= 0.99


def test_only_counts_of_buildings_see_a_merge():
    merged = ROWS["two neighbours merged"]
    assert float(merged["IoU"]) > 0.97
    assert float(merged["one-to-one F 3 px"]) > 0.97
    assert merged["merged"] == "2"
    assert float(merged["building F1"]) < 0.75
