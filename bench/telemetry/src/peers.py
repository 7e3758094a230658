"""The same lines in SQLite with FTS5, or in ClickHouse by chdb: PEER FILE FOLDER TRACE WORD SERVICE TIMES. Prints JSON."""
import json, os, sys, time

peer, file, folder, trace, word, service, times = sys.argv[1:]
times = int(times)
os.makedirs(folder)


def rows():
    with open(file) as lines:
        for line in lines:
            row = json.loads(line)
            yield tuple(row[name] for name in ("time", "service", "instance", "level", "body", "trace", "attributes"))


def median(ask):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        ask()
        took.append((time.perf_counter() - begun) * 1e3)
    return sorted(took)[times // 2]


def disk():
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def sqlite():
    import sqlite3

    db = sqlite3.connect(os.path.join(folder, "lines.sqlite"))
    db.executescript(
        "pragma journal_mode=wal; pragma synchronous=full;"
        "create table lines(time integer, service text, instance text, level text, body text, trace text, attributes text);"
        "create index of_trace on lines(trace); create index of_level on lines(service, level, time);"
        "create virtual table words using fts5(body, content='lines', content_rowid='rowid');"
    )
    given, count = list(rows()), 0
    begun = time.process_time()
    for at in range(0, len(given), 1000):
        with db:
            db.executemany("insert into lines values (?,?,?,?,?,?,?)", given[at : at + 1000])
            db.execute("insert into words(rowid, body) select rowid, body from lines where rowid > ?", (count,))
        count += len(given[at : at + 1000])
    used = time.process_time() - begun
    db.execute("pragma wal_checkpoint(truncate)")
    ask = lambda *query: db.execute(*query).fetchall()
    assert len(ask("select * from lines where rowid in (select rowid from words where words match ?)", (word,))) == 1
    return {
        "lines_per_cpu_second": count / used,
        "line_bytes": disk() / count,
        "trace_ms": median(lambda: ask("select * from lines where trace = ?", (trace,))),
        "rare_ms": median(lambda: ask("select * from lines where rowid in (select rowid from words where words match ?)", (word,))),
        "last_ms": median(lambda: ask("select * from lines where service = ? and level = 'error' order by time desc limit 100", (service,))),
        "count_ms": median(lambda: ask("select service, time / 60000000000, count(*) from lines group by 1, 2")),
    }


def clickhouse():
    from chdb import session

    db = session.Session(folder)
    db.query("create database if not exists bench engine = Atomic")
    index = "index words body type text(tokenizer = 'splitByNonAlpha')"
    table = """create table bench.lines(time DateTime64(9), service LowCardinality(String), instance LowCardinality(String),
        level LowCardinality(String), body String codec(ZSTD(1)), trace String codec(ZSTD(1)), attributes String codec(ZSTD(1)),
        index of_trace trace type bloom_filter(0.01) granularity 1, {}) engine = MergeTree order by (service, time)"""
    try:
        db.query("set allow_experimental_full_text_index = 1")
        db.query(table.format(index))
    except Exception:
        db.query(table.format("index words body type tokenbf_v1(32768, 3, 0) granularity 1"))
    begun = time.process_time()
    columns = "time UInt64, service String, instance String, level String, body String, trace String, attributes String"
    db.query(
        f"insert into bench.lines select fromUnixTimestamp64Nano(toInt64(time)), service, instance, level, body, trace, attributes from file('{file}', JSONEachRow, '{columns}')"
    )
    used = time.process_time() - begun
    db.query("optimize table bench.lines final")
    count = int(str(db.query("select count() from bench.lines", "CSV")).strip())
    size = int(str(db.query("select sum(bytes_on_disk) from system.parts where active and table = 'lines'", "CSV")).strip())
    ask = lambda query: str(db.query(query, "JSONEachRow"))
    found = ask(f"select * from bench.lines where hasToken(body, '{word}')")
    assert found.count("\n") == 1, found
    return {
        "lines_per_cpu_second": count / used,
        "line_bytes": size / count,
        "trace_ms": median(lambda: ask(f"select * from bench.lines where trace = '{trace}'")),
        "rare_ms": median(lambda: ask(f"select * from bench.lines where hasToken(body, '{word}')")),
        "last_ms": median(lambda: ask(f"select * from bench.lines where service = '{service}' and level = 'error' order by time desc limit 100")),
        "count_ms": median(lambda: ask("select service, toStartOfMinute(time) as minute, count() from bench.lines group by 1, 2")),
    }


print(json.dumps({"sqlite": sqlite, "chdb": clickhouse}[peer]()))
