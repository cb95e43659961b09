from __future__ import annotations

import pytest

from bundle.errors import InputError
from bundle.files.name_lists import read_names


@pytest.mark.parametrize(
    "text",
    [
        "ERBB2,CD24",
        "ERBB2\nCD24\n",
        "ERBB2\r\nCD24\r\n",
        "ERBB2\tCD24",
        "ERBB2; CD24;",
        "ERBB2 CD24",
        "\ufeffgene\nERBB2\nCD24",
        "Gene,\nERBB2,\nCD24,",
        '"ERBB2","CD24"\n',
        "'ERBB2'\n'CD24'",
        "ERBB2\n\nCD24\nERBB2\n",
        "gene,pcc\nERBB2,0.5\nCD24,0.25",
        "rank;gene_symbol\n1;ERBB2\n2;CD24\n3;\n",
        'rank\tgene\n1\t"ERBB2"\n2\tCD24',
    ],
    ids=repr,
)
def test_all_forms_of_a_list_are_read(tmp_path, text: str):
    path = tmp_path / "genes.csv"
    path.write_bytes(text.encode())
    assert read_names(path) == ["ERBB2", "CD24"]


def test_names_keep_what_is_theirs(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text('HLA-DRB1\nH3.3A\n$X\n"A, B"\n5\'-X\n')
    assert read_names(path) == ["HLA-DRB1", "H3.3A", "$X", "A, B", "5'-X"]


@pytest.mark.parametrize(
    "content", ["Gène".encode("latin-1"), "ERBB2".encode("utf-16"), b"", b"\n , ;", b"gene\n", b"A\0B"]
)
def test_what_is_no_list_is_reported(tmp_path, content: bytes):
    path = tmp_path / "genes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"genes\.txt"):
        read_names(path)
