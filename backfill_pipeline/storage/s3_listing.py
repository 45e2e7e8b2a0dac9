"""The objects of a bucket's listing, parsed without botocore's general parser.

botocore's parser needs 130 ms of CPU for the 1,000 objects of an answer, most of it for times that nothing here reads;
with this module it is about 12 ms (`python -m benchmarks.index --parsing`).

Put here: the parser of one answer. Keep out: requests (`s3.py`).
"""

from typing import Any
from xml.etree import ElementTree as ET


def parse_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Take key, size and ETag of each object out of an answer, and leave the rest to botocore.

    A handler of botocore's event `before-parse.s3.ListObjectsV2`. An answer that is an error, or not XML, is unchanged,
    so that botocore reports it.

    Args:
        response_dict: the answer; its body is replaced by the same document without objects.
        customized_response_dict: what botocore adds to its own result.
    """
    if response_dict["status_code"] != 200:  # noqa: PLR2004 - HTTP's "OK"
        return
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - the parser that botocore uses; entities are refused
        place = root.tag[: root.tag.rfind("}") + 1]
        contents, key, size, etag = (f"{place}{name}" for name in ("Contents", "Key", "Size", "ETag"))
        items, rest = [], []
        for child in root:
            if child.tag != contents:
                rest.append(child)
                continue
            item: dict[str, Any] = {"Key": child.findtext(key), "Size": int(child.findtext(size, ""))}
            if item["Key"] is None:
                return
            if found := child.findtext(etag):
                item["ETag"] = found
            items.append(item)
    except (ET.ParseError, ValueError):
        return
    if items:
        root[:] = rest
        response_dict["body"] = ET.tostring(root)
        customized_response_dict["Contents"] = items
