"""Parameters and multiply-adds are counted once, and kept with what they depend on."""

import pytest

from ablations import spec
from ablations.reporting import sizes as counting
from tnt.config import TNTConfig, get_config
from tnt.model import TNT


def test_sizes_are_counted_once_and_again_where_the_code_is_another(tmp_path, monkeypatch):
    network, path = get_config("tnt_ti"), tmp_path / "sizes.json"
    found = counting.sizes([network], path).of(network)
    assert found.params == sum(parameter.numel() for parameter in TNT(network).parameters())
    before = path.read_bytes()

    def refuse(config: object) -> int:
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr("tnt.complexity.sizes.params_of", refuse)
        assert counting.sizes([network], path).of(network) == found
        patch.setattr(counting, "MODULES", ("config",))
        with pytest.raises(AssertionError, match="counted again"):
            counting.sizes([network], path)
        path.write_text("{")
        with pytest.raises(AssertionError, match="counted again"):
            counting.sizes([network], path)
    assert counting.sizes([network], path).of(network) == found
    assert path.read_bytes() == before


def test_a_report_whose_sizes_cannot_be_kept_has_them_and_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    network = get_config("tnt_ti")
    found = counting.sizes([network], tmp_path / "file" / "sizes.json")
    assert found.of(network).params
    assert "were counted but cannot be kept" in found.notes[0]


@pytest.mark.slow
def test_the_sizes_that_are_kept_are_what_counting_gives():
    from tnt.complexity.sizes import params_of

    kept = counting.sizes([], counting.KEPT)
    for ablation in spec.load("all").values():
        for cell in ablation.cells:
            network = spec.composed(ablation, cell).model.network
            if not isinstance(network, TNTConfig):
                continue  # of timm's: kept in `tnt/complexity/`
            held = kept.of(network).params
            if ablation.table or held is not None:  # what is not of the paper may be counted when asked for
                assert held == params_of(network), cell.name
