"""A bare loop: receive, decode, encode, with this project's own libraries and nothing around them.

python bare.py URL START END FOLDER
"""

import sys
from datetime import datetime
from pathlib import Path

import requests

from backfill_pipeline.ace.decode import decode_page
from backfill_pipeline.core.clean import kept, merged
from backfill_pipeline.core.day import Window
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.storage.parquet import encode

url, start, end, folder = sys.argv[1:]
session = requests.Session()
items = session.get(f"{url}/sites/site/configured_points", params={"page": 1, "per_page": 10_000}).json()["items"]
names = sorted(item["name"] for item in items)
index = {name: code for code, name in enumerate(names)}
first, last = (datetime.fromisoformat(text) for text in (start, end))
window = Window(int(first.timestamp()), int(last.timestamp()))
query = {"start_time": start, "end_time": end, "page_size": "100000", "raw_data": "true"}
chunks, counts, more = [], Counts(), True
while more:
    body = session.get(f"{url}/sites/site/timeseries/paginated", params=query).content
    page = decode_page(body)
    chunk, told = kept(page, window, first.date(), index)
    chunks.append(chunk)
    counts += told
    more, query["cursor"] = page.has_more, page.next_cursor or ""
whole, _ = merged(chunks)
day = DayRows("site", first.date(), names, [whole], counts)
(Path(folder) / "site.parquet").write_bytes(encode(day).data)
