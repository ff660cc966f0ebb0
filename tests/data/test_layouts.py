"""Each layout names the row and the reason of its first fault and quotes nothing."""

from collections.abc import Callable

import pytest

from robustlab.data.layouts import (
    LabelledRow,
    RawRow,
    read_csv,
    read_json_list,
    read_jsonl,
    read_labelled_csv,
    read_lines,
)
from robustlab.errors import DataError

HEADER = b"Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
LABELLED = b"# version 1\n# made by hand\nobjective,assistant_response,human_score,data_type\n"


def test_lines() -> None:
    rows = [RawRow(id="Bake bread", prompt="Bake bread"), RawRow(id="Mow\u2028it", prompt="Mow\u2028it")]
    data = "Bake bread\nMow\u2028it".encode()
    assert read_lines("f", data) == rows  # only \n ends a line
    assert read_lines("f", data + b"\n") == rows


def test_csv() -> None:
    first = b'"Say ""hi"",\r\nthen go",standard,illegal,,,id-1\n'
    data = HEADER + first + b'Sum it up,contextual,harmful,context,"A, B\n",id-2\n'
    assert read_csv("f", data) == [
        RawRow(id="id-1", prompt='Say "hi",\r\nthen go', context=None, category="illegal"),
        RawRow(id="id-2", prompt="Sum it up", context="A, B\n", category="harmful"),
    ]


def test_csv_columns_in_another_order() -> None:
    header = b"BehaviorID,ContextString,Tags,SemanticCategory,FunctionalCategory,Behavior\r\n"
    data = header + b"id-1,,,illegal,standard,Bake\r\n"
    assert read_csv("f", data) == [RawRow(id="id-1", prompt="Bake", category="illegal")]


def test_json_list() -> None:
    data = b'\xef\xbb\xbf[{"text": "Is tea safe?", "category": "medical", "id": "a", "n": 3}, {"text": "Bake"}]'
    assert read_json_list("f", data) == [
        RawRow(id="a", prompt="Is tea safe?", category="medical"),
        RawRow(id="Bake", prompt="Bake"),
    ]


def test_jsonl() -> None:
    data = (
        b'{"id": "a", "role": "eval", "style": "plain", "prompt": "Bake"}\n'
        b'{"id": "b", "category": "illegal", "prompt": "Mow", "completion": "Sure"}\n'
        b'{"id": "c", "completion": "No."}\n'
    )
    assert read_jsonl("f", data) == [
        RawRow(id="a", prompt="Bake", category="plain", role="eval"),
        RawRow(id="b", prompt="Mow", completion="Sure", category="illegal"),
        RawRow(id="c", prompt=None, completion="No."),
    ]


def test_labelled_csv() -> None:
    records = b'Bake,"Mix,\n# then bake",0,text\nBake,No.,1,text\n\nMow,,1,text\n'
    assert read_labelled_csv("f", LABELLED + records) == [
        LabelledRow("Bake", "Mix,\n# then bake", refused=False),  # a comment stands above the header only
        LabelledRow("Bake", "No.", refused=True),
        LabelledRow("Mow", "", refused=True),
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"a,b,2,text\n", "f row 1: human_score: must be 0 or 1, got '2'; mend the file, or take the pinned one"),
        (b"a,b,0,text\na,b,,text\n", "f row 2: human_score: must be 0 or 1, got ''; mend"),
        (b"a,b,1,image_path\n", "f row 1: data_type: must be text, got 'image_path'; mend"),
        (b" ,b,1,text\n", "f row 1: has an empty objective; mend"),
        (b"a,b,1\n", "f row 1: has 3 columns, the header has 4; mend"),
        (b"\n", "f: has no rows; take a file with rows"),
    ],
)
def test_faults_of_labelled_rows(records: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labelled_csv("f", LABELLED + records)


def test_labels_need_their_columns() -> None:
    message = "f: has no column human_score, data_type; the columns are objective, assistant_response, human_score, d"
    with pytest.raises(DataError, match=message):
        read_labelled_csv("f", b"# x\nobjective,assistant_response\na,b\n")
    with pytest.raises(DataError, match="f: is empty; take a file with a header and rows"):
        read_labelled_csv("f", b"# x\n")


@pytest.mark.parametrize(
    ("read", "data", "message"),
    [
        (read_lines, b"one\n \ntwo\n", "f row 2: has an empty text; mend the file"),
        (read_lines, b"one\n\n", "f row 2: has an empty text"),
        (read_lines, b"", "f row 1: has an empty text"),
        (read_lines, b"one\ntw\0o\n", "f row 2: has a NUL character"),
        (read_lines, b"one\ntwo\none\n", "f row 3: repeats the id of row 1"),
        (read_lines, b"one\ntwo\nthr\xff\n", "f: is not UTF-8 at byte 11, in line 3; save the file as UTF-8"),
        (read_csv, b"", "f: is empty; take a file with a header and rows"),
        (read_csv, HEADER, "f: has no rows; take a file with rows"),
        (
            read_csv,
            b"Behavior,Tags\nx,y\n",
            "f: has no column FunctionalCategory, SemanticCategory, ContextString, Beh",
        ),
        (read_csv, HEADER + b"a,b,c,d,,e\na,b,c\n", "f row 2: has 3 columns, the header has 6"),
        (read_csv, HEADER + b"a,b,c,d,,e\n\n", "f row 2: has 0 columns, the header has 6"),
        (read_csv, HEADER + b"a,b,c,d,,e\nf,b,c,d,,e\n", "f row 2: repeats the id of row 1"),
        (read_csv, HEADER + b" ,b,c,d,,e\n", "f row 1: has an empty text"),
        (read_csv, HEADER + b"a,b,c,d,x\0,e\n", "f row 1: has a NUL character"),
        (read_csv, HEADER + b'a,b,c,d,,e\n"f"g,b,c,d,,h\n', "f row 2: is not CSV: "),
        (read_csv, HEADER + b'a,b,c,d,,e\n"never closed', "f row 2: is not CSV: unexpected end of data"),
        (read_json_list, b"{", "f: is not JSON: .*; mend the file, or take the pinned one"),
        (read_json_list, b"[" * 100_000, "f: is not JSON: "),
        (read_json_list, b"{}", "f: is not a list, got dict; take a JSON list of objects"),
        (read_json_list, b"[]", "f: has no rows"),
        (read_json_list, b'[{"text": "a"}, "b"]', "f row 2: is not an object, got str"),
        (read_json_list, b'[{"category": "a"}]', "f row 1: has no text"),
        (read_json_list, b'[{"text": 3}]', "f row 1: text: must be text, got int"),
        (read_json_list, b'[{"text": "a", "id": null}]', "f row 1: id: must be text, got NoneType"),
        (read_json_list, b'[{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]', "f row 2: repeats the id of row 1"),
        (read_jsonl, b'{"prompt": "a"}\n{"prompt"\n', "f row 2: is not JSON"),
        (read_jsonl, b'{"prompt": "a"}\n\n', "f row 2: is not JSON"),
        (read_jsonl, b'{"id": "a"}\n', "f row 1: has no prompt"),
        (read_jsonl, b'{"prompt": "a", "completion": ""}\n', "f row 1: has an empty text"),
    ],
)
def test_faults(read: Callable[[str, bytes], list[RawRow]], data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("f", data)


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (read_lines, b"canary\xff"),
        (read_lines, b"canary\ncanary\n"),
        (read_csv, HEADER + b"canary,x\n"),
        (read_csv, HEADER + b'"canary"x,b,c,d,,e\n'),
        (read_json_list, b'[{"text": "canary"}, 3]'),
        (read_json_list, b'[{"text": "canary" "x"}]'),
        (read_jsonl, b'{"prompt": "canary\\q"}'),
    ],
)
def test_a_fault_never_quotes_the_row(read: Callable[[str, bytes], list[RawRow]], data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        read("f", data)
    assert "canary" not in str(caught.value)
