from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minilm2(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint's embeddings and first two layers: pretrained, and three times as fast."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("minilm2")
    AutoModel.from_pretrained(minilm, num_hidden_layers=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    return folder
