"""Every architecture of transformers' three auto mappings is padding-free, padded, of equal lengths, or refused in one
plain sentence; what trains also loads in a fresh process and answers the same, alone or together."""

from __future__ import annotations

from pathlib import Path

import census
import pytest
import zoo

# a padding-free one, a padded, an encoder-decoder, one of equal lengths, one in one family alone, and two refusals
TENTH = ["bert", "deberta", "bart", "mobilebert", "xlnet", "bros", "mra"]
PAGE = census.PAGE.read_text(encoding="utf-8").splitlines()


def hold(names: list[str], folder: Path) -> None:
    """Takes the census of these architectures and holds the promises and the page to it."""
    results = census.take(names, folder)
    for name, families in results.items():
        for family, cell in families.items():
            where = f"{name}, {family}: {cell}"
            assert cell["state"] in ("padding-free", "padded", "equal lengths", "refused"), where
            if cell["state"] == "refused":
                assert "Error" not in cell["why"] and "\n" not in cell["why"], where
                continue
            assert cell["process"] <= 1e-6, where
            assert max(cell["alone"], cell.get("plain", 0)) <= 1e-5, where
            assert not cell["answers"], where
            assert cell["spread"] > 0.01, f"{where}: answers so alike that no leak would show"
    assert [row for name in results if (row := census.row(name, results[name])) not in PAGE] == []


def test_a_tenth_of_the_census(tmp_path: Path) -> None:
    hold(TENTH, tmp_path)


@pytest.mark.slow
def test_the_whole_census(tmp_path: Path) -> None:
    hold([name for name in zoo.ZOO if name not in TENTH], tmp_path)


def test_every_model_type_is_placed() -> None:
    """A model type that a new version of transformers brings is added to the zoo, or to those left out."""
    everything = set().union(*zoo.MAPS.values())
    assert everything == {name.split("+")[0] for name in zoo.ZOO} | set(zoo.OTHER) | set(zoo.DECODERS)
    shown = {line.split("|")[1].strip() for line in PAGE if line.startswith("| ")}
    assert {name.replace("+", ", ") for name in zoo.ZOO} <= shown
