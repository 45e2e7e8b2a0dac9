"""The floor: receive, decode, sort, encode, store and verify, without anything else.

It uses this project's scanner, encoder and store. It has no Dagster, budget, spool, retries or limits while receiving.
Answers of the same size share one receive buffer.

python floor.py URL START END FOLDER
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from backfill_pipeline.ace.decode import decode_page
from backfill_pipeline.core.clean import kept, merged
from backfill_pipeline.core.day import day_window, iso
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore

url, start, end, folder = sys.argv[1:]
session = requests.Session()
items = session.get(f"{url}/sites/site/configured_points", params={"page": 1, "per_page": 10_000}).json()["items"]
names = sorted(item["name"] for item in items)
index = {name: code for code, name in enumerate(names)}
store = LocalStore(Path(folder) / "data")
day, last = (datetime.fromisoformat(text).astimezone(UTC).date() for text in (start, end))
buffer = bytearray()
while day < last:
    window = day_window(day)
    query = {
        "start_time": iso(window.start), "end_time": iso(window.end), "page_size": "100000", "raw_data": "true",
    }  # fmt: skip
    chunks, counts, more = [], Counts(), True
    while more:
        with session.get(f"{url}/sites/site/timeseries/paginated", params=query, stream=True) as answer:
            size, received = int(answer.headers["Content-Length"]), 0
            if len(buffer) != size:  # the decoder takes the buffer's length for the end of the answer
                buffer = bytearray(size)
            view = memoryview(buffer)
            while received < size and (count := answer.raw.readinto(view[received:])):
                received += count
        if received != size:
            raise SystemExit(f"{day}: {received:,} of {size:,} bytes arrived")
        page = decode_page(buffer)
        chunk, of_page = kept(page, window, day, index)
        chunks.append(chunk)
        counts += of_page
        more, query["cursor"] = page.has_more, page.next_cursor or ""
    whole, merging = merged(chunks)
    put_day(store, DayRows("site", day, names, [whole], counts + merging))
    day += timedelta(days=1)
