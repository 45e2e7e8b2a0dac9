-- DuckDB views over a store: samples, and what arrived of each site and day.
--
--   duckdb -cmd "SET VARIABLE store = 'data'" -init examples/views.sql
--
-- For a bucket, before this file (from Python, `backfill_pipeline.read.duckdb_connection()` does the first two):
--
--   INSTALL httpfs; LOAD httpfs;
--   CREATE SECRET (TYPE s3, KEY_ID '...', SECRET '...', ENDPOINT 'ACCOUNT.r2.cloudflarestorage.com', REGION 'auto');
--   SET VARIABLE store = 's3://bucket/prefix';
--
-- A query that names a point and bounds `timestamp` reads little. One that also names folders, as in docs/reading.md,
-- reads less: a view looks at the footers of all days.

CREATE OR REPLACE VIEW samples AS
SELECT epoch_ms("timestamp") AS time, "timestamp", point_name, value, site_name
FROM read_parquet(getvariable('store') || '/timeseries/*/*/*/*.parquet');

-- Samples with local time, a TIMESTAMP without a zone: `SET VARIABLE tz = 'Europe/Berlin'` before the query; UTC without.
-- An hour that occurs twice, when clocks go back, has the samples of both.
CREATE OR REPLACE VIEW local_samples AS
SELECT make_timestamptz("timestamp" * 1000) AT TIME ZONE coalesce(getvariable('tz'), 'UTC') AS local_time, *
FROM samples;

-- One row for each object, from its footer alone. Figures that an older object does not hold are NULL.
CREATE OR REPLACE VIEW site_days AS
WITH facts AS (
    SELECT file_name, map_from_entries(list((decode(key), decode(value)))) AS fact
    FROM parquet_kv_metadata(getvariable('store') || '/timeseries/*/*/*/*.parquet')
    WHERE decode(key) IN ('site', 'day', 'state', 'kept', 'points_seen', 'points_configured', 'longest_gap_min', 'interval_s')
    GROUP BY file_name
)
SELECT
    fact['site'] AS site_name,
    CAST(fact['day'] AS DATE) AS day,
    fact['state'] AS state,
    CAST(fact['kept'] AS BIGINT) AS "rows",
    TRY_CAST(fact['points_seen'] AS BIGINT) AS points_seen,
    TRY_CAST(fact['points_configured'] AS BIGINT) AS points_configured,
    TRY_CAST(fact['longest_gap_min'] AS BIGINT) AS longest_gap_min,
    TRY_CAST(fact['interval_s'] AS DOUBLE) AS interval_s
FROM facts;

-- The mean, the least and the greatest value of each point and UTC hour.
CREATE OR REPLACE VIEW hourly AS
SELECT site_name, point_name, epoch_ms("timestamp" // 3600000 * 3600000) AS hour,
       avg(value) AS mean, min(value) AS least, max(value) AS greatest, count(*) AS samples
FROM samples
GROUP BY ALL;

-- What each point is, and was: a row for each point and span of validity; the first row of a point also counts before it.
-- The views below need the catalogue of points, which the first run of a site writes; they stand last for that reason.
CREATE OR REPLACE VIEW points AS
SELECT url_decode(regexp_extract(filename, '([^/\\]+)[.]parquet$', 1)) AS site_name, * EXCLUDE (filename),
       CASE WHEN row_number() OVER (PARTITION BY filename, name ORDER BY valid_from) = 1
            THEN TIMESTAMPTZ '1970-01-01 00:00:00+00' ELSE valid_from END AS counts_from
FROM read_parquet(getvariable('store') || '/points/*.parquet', filename = true, union_by_name = true);

-- Samples with the unit, description and device that their point had at that instant.
CREATE OR REPLACE VIEW named_samples AS
SELECT samples.*, points.unit, points.description, points.object_name, points.device_name
FROM samples LEFT JOIN points
  ON points.site_name = samples.site_name AND points.name = samples.point_name
 AND make_timestamptz("timestamp" * 1000) >= points.counts_from
 AND (points.valid_to IS NULL OR make_timestamptz("timestamp" * 1000) < points.valid_to);

-- Stored hourly values, with the unit, description and device that their point had then. The view does not show whether
-- a day was stored again since its hourly values were computed: `read.chart` does. It needs a month of hourly values.
CREATE OR REPLACE VIEW named_rollup AS
SELECT epoch_ms(rollup."timestamp") AS time, rollup.*,
       points.unit, points.description, points.object_name, points.device_name
FROM read_parquet(getvariable('store') || '/rollup/hour/*/*/*.parquet') AS rollup LEFT JOIN points
  ON points.site_name = rollup.site_name AND points.name = rollup.point_name
 AND make_timestamptz("timestamp" * 1000) >= points.counts_from
 AND (points.valid_to IS NULL OR make_timestamptz("timestamp" * 1000) < points.valid_to);

-- Samples whose values are texts, such as 'active'. It needs a day that has any; it is the last view for that reason.
CREATE OR REPLACE VIEW texts AS
SELECT epoch_ms("timestamp") AS time, "timestamp", point_name, text, site_name
FROM read_parquet(getvariable('store') || '/timeseries_text/*/*/*/*.parquet');
