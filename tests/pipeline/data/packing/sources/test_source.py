"""What every source is held to."""

from pipeline.data.packing.sources.source import TABLE_2


def test_the_expected_counts_are_those_of_the_papers_table_2():
    table = {name: (*one.samples.values(), one.classes) for name, one in TABLE_2.items()}
    assert table == {
        "imagenet": (1_281_167, 50_000, 1000),
        "flowers": (2_040, 6_149, 102),
        "pets": (3_680, 3_669, 37),
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
    }
    for name, one in TABLE_2.items():
        for split, total in one.samples.items():
            least, most = one.per_class[split]
            assert least * one.classes <= total <= most * one.classes, (name, split)
