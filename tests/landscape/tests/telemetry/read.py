"""What Apache Arrow's own reader finds in the files of a node: FOLDER. Prints JSON."""
import glob, json, sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def table(signal):
    files = sorted(glob.glob(f"{sys.argv[1]}/{signal}-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")


lines, spans = table("logs"), table("spans")
lines = lines.filter(pc.equal(lines["service"], "pump")).sort_by("sequence")
spans = spans.filter(pc.equal(spans["service"], "pump"))
print(
    json.dumps(
        {
            "lines": lines.num_rows,
            "twice": lines.num_rows - len(pc.unique(lines["body"])),
            "services": sorted(set(lines["service"].to_pylist())),
            "first": lines["body"][0].as_py(),
            "spans": spans.num_rows,
            "traces": len(pc.unique(spans["trace_id"])),
        }
    )
)
