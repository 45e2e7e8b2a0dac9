// In the manner of the worker that is replaced: fetch, JSON.parse, filter, lines of JSON, gzip. Node alone.
//
//     node worker.js URL START END FOLDER
const fs = require("fs");
const zlib = require("zlib");

async function main() {
  const [url, start, end, folder] = process.argv.slice(2);
  const points = await (await fetch(`${url}/sites/site/configured_points?page=1&per_page=10000`)).json();
  const wanted = new Set(points.items.filter((point) => point.collect_enabled).map((point) => point.name));
  const packed = zlib.createGzip();
  const done = new Promise((resolve) => packed.pipe(fs.createWriteStream(`${folder}/day.ndjson.gz`)).on("finish", resolve));
  let cursor = null;
  let more = true;
  while (more) {
    const query = new URLSearchParams({ start_time: start, end_time: end, page_size: "100000", raw_data: "true" });
    if (cursor) query.set("cursor", cursor);
    const answer = await (await fetch(`${url}/sites/site/timeseries/paginated?${query}`)).json();
    let lines = "";
    for (const row of answer.point_samples) {
      const value = parseFloat(row.value);
      if (!wanted.has(row.name) || !Number.isFinite(value)) continue;
      lines += JSON.stringify({ timestamp: Date.parse(`${row.time}Z`), point_name: row.name, value, site_name: "site" }) + "\n";
    }
    if (!packed.write(lines)) await new Promise((resolve) => packed.once("drain", resolve));
    cursor = answer.next_cursor;
    more = answer.has_more;
  }
  packed.end();
  await done;
}

main();
