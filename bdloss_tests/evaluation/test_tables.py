from bdloss.evaluation import tables


def test_table_says_what_is_not_known():
    scores = dict.fromkeys(tables.COLUMNS, 3) | {"iou": 0.5, "bf1_3": None}
    table = tables.tabulate_scores(
        {"images": {"a": scores}, "cities": {"austin": scores}, "all": scores}
    )
    assert [row[0] for row in table] == ["", "a", "austin", "all"]
    assert table[1][1:5] == ["0.5000", "3", "none", "3"]
