import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imago.data.manifest import list_manifest
from imago.errors import ConfigError, DataRefused
from tests.unit.data.pictures import write_classes


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "root", {"a": 2, "b": 2})


def listing(root, text, name="moths.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return list_manifest(root / name, name)


def test_rows_give_paths_labels_and_splits(root):
    found = listing(root, "path,label,split\na/0.jpg,a,train\na/1.jpg,a,Valid\nb/0.jpg,b,test\n")
    assert [(row.id, row.label, row.split) for row in found.rows] == [
        ("a/0.jpg", "a", "train"),
        ("a/1.jpg", "a", "val"),
        ("b/0.jpg", "b", "test"),
    ]
    assert found.rows[0].read() == (root / "a" / "0.jpg").read_bytes()
    assert "manifest of 3 rows, with a split column" in found.origin


def test_the_names_and_marks_of_published_manifests_are_read(root):
    text = "\ufeffclass id,filepaths,labels,data set\r\n0,a\\0.jpg,NA,train\r\n1,./b/0.jpg,b,valid\r\n"
    assert [(row.id, row.label, row.split) for row in listing(root, text).rows] == [
        ("a/0.jpg", "NA", "train"),
        ("b/0.jpg", "b", "val"),
    ]


def test_manifest_without_splits_leaves_them_open(root):
    assert {row.split for row in listing(root, "path,label\na/0.jpg,a\nb/0.jpg,b\n").rows} == {None}


def test_parquet_manifest_is_read_with_numbers_for_labels(root):
    pq.write_table(pa.table({"filepaths": ["a/0.jpg", "b/0.jpg"], "labels": [7, 8]}), root / "moths.parquet")
    rows = list_manifest(root / "moths.parquet", "moths").rows
    assert [(row.id, row.label, row.split) for row in rows] == [("a/0.jpg", "7", None), ("b/0.jpg", "8", None)]


def test_other_columns_are_carried(root):
    text = (
        "path,Camera ,label,split,iso,\na/0.jpg,Nikon,a,train,100,x\na/1.jpg,Canon,a,val,\nb/0.jpg,Canon,b,test,400,y\n"
    )
    assert [json.loads(row.attributes) for row in listing(root, text).rows] == [
        {"Camera": "Nikon", "iso": 100.0},
        {"Camera": "Canon"},
        {"Camera": "Canon", "iso": 400.0},
    ]
    assert [row.attributes for row in listing(root, "path,label,only\na/0.jpg,a,x\nb/0.jpg,b,x\n").rows] == [None] * 2


def test_no_more_than_sixteen_columns_are_carried_and_the_others_are_named(root):
    names = [f"column {index}" for index in range(20)]
    rows = [f"a/{number},{label},{','.join([str(number)] * 20)}" for number, label in ((0, "a"), (1, "a"), (2, "b"))]
    found = listing(root, f"path,label,{','.join(names)}\n" + "\n".join(rows).replace("a/0", "a/0.jpg"))
    assert list(json.loads(found.rows[0].attributes)) == names[:16]
    assert found.origin.endswith(
        " Ignored the columns column 16, column 17, column 18, column 19: besides path, label and split only the first "
        "16 columns of texts or numbers are read; put those that matter first."
    )


def test_free_texts_are_named(root):
    rows = [f"{name}/{index % 2}.jpg,{name},note {index} of {name}" for name in "ab" for index in range(15)]
    found = listing(root, "path,label,notes\n" + "\n".join(rows))
    assert {row.attributes for row in found.rows} == {None}
    assert found.origin.endswith(
        " Ignored the column notes: texts of which none occurs 5 times make no parts to judge by; write what matters "
        "of them as a few words."
    )
    assert "Ignored" not in listing(root, "path,label,site\na/0.jpg,a,hill\nb/0.jpg,b,lake\na/1.jpg,a,lake\n").origin


def test_of_many_columns_that_are_left_out_the_first_are_named(root):
    header = ",".join(f"c{index}" for index in range(40))
    found = listing(root, f"path,label,{header}\na/0.jpg,a\nb/0.jpg,b\n")
    assert "the columns c16, c17, c18, c19, c20, c21, c22, c23 and 16 more: " in found.origin


def test_other_columns_of_parquet_are_carried_where_they_are_plain(root):
    table = pa.table(
        {
            "path": ["a/0.jpg", "a/1.jpg", "b/0.jpg"],
            "label": ["a", "a", "b"],
            "site.name": pa.array(["hill", "hill", "lake"]).dictionary_encode(),
            "flash": [True, False, True],
            "height": [1.5, float("nan"), None],
            "depth": [1, 2, None],
            "bytes": [b"1", b"2", b"3"],
            "box": [[1], [2], [3]],
        }
    )
    pq.write_table(table, root / "moths.parquet")
    found = list_manifest(root / "moths.parquet", "moths")
    assert " Ignored the columns bytes, box: " in found.origin
    assert [json.loads(row.attributes) for row in found.rows] == [
        {"flash": "true", "depth": 1.0},
        {"flash": "false", "depth": 2.0},
        {"flash": "true"},
    ]


def test_missing_file_is_a_row_without_bytes(root):
    found = listing(root, f"path,label\na/0.jpg,a\nb/gone.jpg,b\n{'x' * 300}.jpg,b\n")
    assert [bool(row.read()) for row in found.rows] == [True, False, False]
    assert "2 of the files that it names do not exist" in found.origin


def test_manifest_of_missing_files_only_is_refused(root):
    with pytest.raises(DataRefused, match=r"None of the 2 files .*\(the first is x/0\.jpg\)"):
        listing(root, "path,label\nx/0.jpg,a\nx/1.jpg,b\n")


def test_link_out_of_the_folder_is_a_row_without_bytes(root):
    (root.parent / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    found = listing(root, "path,label\na/0.jpg,a\nlink.jpg,b\nloop.jpg,b\n")
    assert [row.read() for row in found.rows[1:]] == [b"", b""]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:\\moths\\0.jpg", "is absolute"),
        ("\\\\server\\moths\\0.jpg", "is absolute"),
        ("https://example.org/0.jpg", "is absolute"),
        ("../0.jpg", "leaves the manifest's folder"),
        ("a/../../0.jpg", "leaves the manifest's folder"),
        ("..\\0.jpg", "leaves the manifest's folder"),
        ("a/..", "not a picture"),
        ("  ", "no path"),
    ],
)
def test_path_that_is_not_below_the_manifest_is_refused_with_its_row(root, path, message):
    with pytest.raises(ConfigError, match=message) as refused:
        listing(root, f"path,label\na/0.jpg,a\n{path},b\n")
    assert "row 3 of moths.csv" in str(refused.value)


def test_path_that_returns_into_the_folder_is_read(root):
    assert [row.id for row in listing(root, "path,label\na/../b/0.jpg,b\n").rows] == ["b/0.jpg"]


def test_file_named_twice_gives_two_rows_that_can_be_told_apart(root):
    rows = listing(root, "path,label\na/0.jpg,a\na/0.jpg,b\n").rows
    assert [(row.id, row.label) for row in rows] == [("a/0.jpg", "a"), ("a/0 (row 3).jpg", "b")]
    assert rows[0].read() == rows[1].read()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,label\na/0.jpg,a\n", ConfigError, r"no column 'path' or 'filepaths': its columns are file, label"),
        ("path,class\na/0.jpg,a\n", ConfigError, r"no column 'label' or 'labels'"),
        ("", ConfigError, "is empty"),
        ("path,label\n", DataRefused, "has no rows"),
        ("path,label\na/0.jpg\n", ConfigError, r"Row 2 of moths\.csv has only 1 columns"),
        ("path,label\na/0.jpg,\n", DataRefused, "empty name"),
        ("path,label,split\na/0.jpg,a,dev\n", ConfigError, r"split 'dev' in row 2 .* none of train"),
        ("path,label,split\na/0.jpg,a,train\nb/0.jpg,b,\n", ConfigError, "Row 3 .* has no split while others do"),
        ('path,label\n"a/0.jpg,a\n', ConfigError, "cannot be read as CSV"),
    ],
)
def test_manifest_that_cannot_be_used_is_refused(root, text, error, message):
    with pytest.raises(error, match=message):
        listing(root, text)


def test_manifest_of_other_bytes_is_refused(root):
    (root / "latin.csv").write_bytes("path,label\na/0.jpg,café\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as CSV in UTF-8"):
        list_manifest(root / "latin.csv", "latin.csv")
    (root / "not.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        list_manifest(root / "not.parquet", "not.parquet")
