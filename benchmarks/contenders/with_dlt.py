"""dlt's `rest_api` source into Parquet files, as its documentation shows it.

python with_dlt.py URL START END FOLDER
"""

import os
import sys

import dlt
from dlt.sources.rest_api import rest_api_source

url, start, end, folder = sys.argv[1:]
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["DATA_WRITER__DISABLE_COMPRESSION"] = "true"
source = rest_api_source(
    {
        "client": {"base_url": f"{url}/"},
        "resources": [
            {
                "name": "samples",
                "endpoint": {
                    "path": "sites/site/timeseries/paginated",
                    "params": {"start_time": start, "end_time": end, "page_size": 100_000, "raw_data": "true"},
                    "data_selector": "point_samples",
                    "paginator": {"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor"},
                },
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "samples",
    pipelines_dir=f"{folder}/work",
    destination=dlt.destinations.filesystem(f"file://{folder}/data"),
    dataset_name="site",
)
pipeline.run(source, loader_file_format="parquet")
