"""What most people would write: requests and pandas, a page after the other, the columns as Parquet.

python plain.py URL START END FOLDER
"""

import sys

import pandas as pd
import requests

url, start, end, folder = sys.argv[1:]
session = requests.Session()
points = session.get(f"{url}/sites/site/configured_points", params={"page": 1, "per_page": 10_000}).json()["items"]
wanted = {point["name"] for point in points if point["collect_enabled"]}
query = {"start_time": start, "end_time": end, "page_size": 100_000, "raw_data": "true"}
frames, more = [], True
while more:
    answer = session.get(f"{url}/sites/site/timeseries/paginated", params=query).json()
    frame = pd.DataFrame(answer["point_samples"])
    frame = frame[frame["name"].isin(wanted)]
    frames.append(
        pd.DataFrame(
            {
                "timestamp": pd.to_datetime(frame["time"], utc=True, format="ISO8601"),
                "point_name": frame["name"],
                "value": pd.to_numeric(frame["value"], errors="coerce"),
                "site_name": "site",
            }
        ).dropna()
    )
    more, query["cursor"] = answer["has_more"], answer["next_cursor"]
day = pd.concat(frames).sort_values(["point_name", "timestamp"])
day.to_parquet(f"{folder}/site.parquet", compression="snappy", index=False)
