"""Files that are no JSON, or JSON of another shape: one line that names the file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from amodal.data.reader import load
from amodal.data.results import load_results
from amodal.data.store import AnnotationSet
from amodal.errors import DataError

IMAGE = b'{"id": 1, "file_name": "a.png", "height": 2, "width": 2}'
MASK = b'"segmentation": {"size": [2, 2], "counts": "04"}'
ANNOTATION = b'{"id": 1, "image_id": 1, "category_id": 1, ' + MASK + b"}"
WHOLE = b'{"images": [' + IMAGE + b'], "categories": [{"id": 1, "name": "cup"}], "annotations": [' + ANNOTATION + b"]}"


def with_annotation(text: bytes) -> bytes:
    return WHOLE.replace(ANNOTATION, text)


BROKEN = {
    "empty": b"",
    "spaces": b"  \n",
    "gzip": gzip.compress(WHOLE),
    "zip": b"PK\x03\x04" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "not UTF-8": WHOLE.replace(b"cup", b"c\xffp"),
    "NaN": with_annotation(b'{"id": NaN}'),
    "Infinity": with_annotation(b'{"id": -Infinity}'),
    "1e999": WHOLE.replace(b'"counts": "04"', b'"counts": [1e999]'),
    "integer of 5000 digits": with_annotation(b'{"id": ' + b"1" * 5000 + b"}"),
    "nested": with_annotation(b"[" * 200_000 + b"]" * 200_000),
    "nested at the top": b"[" * 200_000,
    "lone surrogate": WHOLE.replace(b"cup", b"\\ud800"),
    "list": b"[]",
    "number": b"3",
    "no images": b'{"annotations": []}',
    "annotations as object": with_annotation(b"3").replace(b"[3]", b"{}"),
    "annotation that is a number": with_annotation(b"3"),
    "annotation that is a list": with_annotation(b"[]"),
    "image that is a number": WHOLE.replace(IMAGE, b"3"),
    "category without name": WHOLE.replace(b', "name": "cup"', b""),
    "category with two names": WHOLE.replace(b'"categories": [', b'"categories": [{"id": 1, "name": "dog"}, '),
    "trailing garbage": WHOLE + b"x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(BROKEN[name])
    with pytest.raises(DataError) as caught:
        load(path, cache=False)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    for end in range(len(WHOLE)):
        path.write_bytes(WHOLE[:end])
        with pytest.raises(DataError):
            load(path, cache=False)


@pytest.mark.parametrize("content", [WHOLE, b"\xef\xbb\xbf" + WHOLE, WHOLE.replace(b'": ', b'" : ')])
def test_byte_order_mark_and_spaced_keys_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(content)
    assert load(path, cache=False).amodal_area.tolist() == [4]


DOUBLED = {
    "top": (b'"categories": [', b'"images": [], "categories": [', "'images'"),
    "image": (b'"height": 2', b'"height": 2, "height": 2', "images, number 0: the key 'height'"),
    "category": (b'"name": "cup"', b'"name": "cup", "name": "dog"', "categories, number 0: the key 'name'"),
    "annotation": (
        b'"category_id": 1',
        b'"category_id": 1, "category_id": 2',
        "image 1: annotation 1: the key 'category",
    ),
    "mask": (b'"size": [2, 2]', b'"size": [2, 2], "size": [2, 2]', "image 1: annotation 1: the key 'size'"),
    "deep": (b'"category_id": 1', b'"category_id": 1, "x": [{"a": {"b": 1, "b": ":"}}]', "annotation 1: the key 'b'"),
    "other part": (b'{"images"', b'{"info": {"year": 1, "year": 2}, "images"', "the key 'year'"),
    "with NaN": (b'"category_id": 1', b'"category_id": 1, "x": NaN, "x": 2', "the key 'x'"),
}


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("name", DOUBLED)
def test_a_key_twice_in_one_object_is_named(name: str, spaced: bool, tmp_path: Path) -> None:
    old, new, words = DOUBLED[name]
    content = WHOLE.replace(old, new, 1)
    path = tmp_path / "ann.json"
    path.write_bytes(content.replace(b'": ', b'"\t: ') if spaced else content)
    with pytest.raises(DataError, match="occurs twice in one object") as caught:
        load(path, cache=False)
    assert words in str(caught.value)


def test_text_that_looks_like_a_key_is_no_second_key(tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(
        WHOLE.replace(b'"category_id": 1', b'"category_id": 1, "x": [":", "\\"id\\": 1", {"id": {"id": 2}}]')
    )
    assert load(path, cache=False).annotation_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"annotations"', b'"annotation"', "has no 'annotations'; nearest is 'annotation'"),
        (b'"images"', b'"image"', "has no 'images'; nearest is 'image'"),
        (b'"categories"', b'"category"', "has no 'categories'; nearest is 'category'"),
        (WHOLE, b'{"images": []}', "has no 'annotations'; known: images"),
        (WHOLE, b"[]", "is a list, as results files are"),
        (MASK, b'"caption": "a cup"', "holds image captions"),
        (MASK, b'"segments_info": []', "holds panoptic segments"),
        (MASK, b'"bbox": [0, 0, 2, 2]', "holds boxes without masks"),
        (b", " + MASK, b"", "holds labels without masks"),
    ],
)
def test_files_of_another_kind_are_called_what_they_are(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(WHOLE.replace(old, new))
    with pytest.raises(DataError, match=r"ann\.json") as caught:
        load(path, cache=False)
    assert words in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, "nul\0.json"):
        with pytest.raises(DataError, match="cannot be read"):
            load(path)


def test_a_key_twice_in_a_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b'[{"image_id": 1, "category_id": 1, "score": 0.9, "score": 0.1, ' + MASK + b"}]")
    with pytest.raises(DataError, match=r"image 1: annotation 0: the key 'score' occurs twice in one object"):
        load_results(path, AnnotationSet.from_masks([(2, 2)], [], ["cup"]))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"annotations": []}', b"[3]", b"[[]]", b"[{]", b"[NaN]"])
def test_broken_results_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json"):
        load_results(path, AnnotationSet.from_masks([(2, 2)], [], ["cup"]))


NUMBERS = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
    "400 digits": b"1" * 400,
    "5000 digits": b"1" * 5000,
}


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_beyond_json_are_read_where_nobody_needs_them(number: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(
        WHOLE.replace(b'"category_id"', b'"score": ' + NUMBERS[number] + b', "x": "\\ud800", "category_id"')
    )
    assert load(path, cache=False).annotation_ids.tolist() == [1]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"image_id": 1', b'"image_id": @', "annotation 1: image_id"),
        (b'"category_id": 1', b'"category_id": @', "annotation 1: category_id"),
        (b'"category_id": 1', b'"category_id": 1, "iscrowd": @', "annotation 1: iscrowd"),
        (b'"category_id": 1', b'"category_id": 1, "bbox": [0, @, 2, 2]', "annotation 1: bbox"),
        (b'"counts": "04"', b'"counts": [@]', "annotation 1: segmentation: counts"),
        (b'"size": [2, 2]', b'"size": [2, @]', "annotation 1: segmentation: size"),
        (MASK, b'"segmentation": [[0, 0, 2, 0, @, 2]]', "annotation 1: segmentation: a polygon"),
        (b'"height": 2', b'"height": @', "image 1: "),
        (b'{"id": 1, "image_id"', b'{"id": @, "image_id"', "annotation number 0: id"),
        (b'{"id": 1, "name"', b'{"id": @, "name"', "category"),
    ],
)
def test_numbers_beyond_json_are_named_where_they_matter(
    old: bytes, new: bytes, words: str, number: str, tmp_path: Path
) -> None:
    path = tmp_path / "ann.json"
    content = WHOLE.replace(b'"category_id"', b'"occlude_rate": 0, "category_id"')
    path.write_bytes(content.replace(old, new.replace(b"@", NUMBERS[number])))
    with pytest.raises(DataError) as caught:
        load(path, cache=False)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (b'"cup"', "of category 1 holds a lone surrogate"),
        (b'"a.png"', "image 1: file_name '\\ud800' holds a lone surrogate"),
        (b'"04"', "annotation 1: segmentation: "),
    ],
)
def test_a_lone_surrogate_is_named_where_it_matters(old: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_bytes(WHOLE.replace(old, b'"\\ud800"'))
    with pytest.raises(DataError) as caught:
        load(path, cache=False)
    assert words in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "bbox"])
def test_numbers_beyond_json_in_results(key: str, number: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    values = {"image_id": b"1", "category_id": b"1", "score": b"0.5", "bbox": b"[0, 0, 2, 2]", "x": NUMBERS[number]}
    truth = AnnotationSet.from_masks([(2, 2)], [], ["cup"])

    def write() -> None:
        pairs = [b'"' + name.encode() + b'": ' + value for name, value in values.items()]
        path.write_bytes(b"[{" + b", ".join([*pairs, MASK]) + b"}]")

    write()
    assert load_results(path, truth).scores.tolist() == [0.5]
    values[key] = b"[0, 0, 2, " + NUMBERS[number] + b"]" if key == "bbox" else NUMBERS[number]
    write()
    with pytest.raises(DataError, match=f"annotation 0: {key} is"):
        load_results(path, truth)
