/*
 * bench_run.c - what sorted runs cost, on the real ring: sorting, writing, reading, and merging a checkpoint with
 * summaries; nanoseconds per entry and entries per second.
 *
 * Usage: bench_run [ENTRIES] [FOLDER]   (default 10,000,000, here)
 *
 * The checkpoint has ENTRIES entries; 16 summaries have ENTRIES / 32 each, half of them of keys that the checkpoint has
 * too. FOLDER/bench-run is made, and its files removed at the end. O_DIRECT where FOLDER has it.
 */
#include "bench.h"
#include "engine/big_memory.h"
#include "engine/blocking.h"
#include "engine/run_merge.h"
#include "engine/run_sort.h"
#include "engine/run_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SUMMARIES = 16, BATCH = 1024 };

struct bench {
    struct ring *ring;
    int dir_fd;
    bool direct;
    struct run *runs[1 + SUMMARIES];
};

static const uint8_t uuid[16] = "bench_run";

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_run: %s: %s\n", what, why);
    exit(1);
}

static void report(const char *what, uint64_t entries, uint64_t begin, uint64_t begin_cpu)
{
    const double ns = (double)(now_ns() - begin), cpu = (double)(cpu_ns() - begin_cpu), count = (double)entries;
    printf("%-44s %10llu entries %7.1f ns, %5.1f of the thread's CPU  %7.1f M/s %8.0f MB/s\n", what,
           (unsigned long long)entries, ns / count, cpu / count, count * 1000 / ns,
           count * sizeof(struct run_entry) * 1000 / ns);
    fflush(stdout);
}

/* Keys first, first + 1 … with LSNs from `lsn`. */
static void make_entries(struct run_entry *entries, uint64_t count, uint64_t first, uint64_t lsn)
{
    for (uint64_t i = 0; i < count; i++)
        entries[i] = (struct run_entry){
            .order = mix(first + i), .check = mix(~(first + i)), .lsn = lsn + i, .place = run_place(lsn + i, 128, 0)};
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static struct run_writer *writer_begin(const struct bench *bench, uint64_t sequence)
{
    const struct run_writer_options options = {.ring = bench->ring,
                                               .dir_fd = bench->dir_fd,
                                               .dir_name = "bench-run",
                                               .store_uuid = uuid,
                                               .sequence = sequence,
                                               .direct = bench->direct};
    struct run_writer *writer;
    if (run_writer_open(&writer, &options) != KVS_ERR_OK)
        die("writer", "out of memory");
    return writer;
}

static void writer_put(const struct bench *bench, struct run_writer *writer, const struct run_entry *entries,
                       size_t count)
{
    for (size_t done = 0; done < count;) {
        const size_t some = run_writer_put(writer, entries + done, count - done);
        done += some;
        if (run_writer_state(writer) != KVS_ERR_AGAIN)
            die("write", run_writer_failure_text(writer));
        ring_turn(bench->ring, done < count ? -1 : 0);
    }
}

static void writer_end(const struct bench *bench, struct run_writer *writer)
{
    const struct run_segment segment = {.uid = 1, .number = 1};
    run_writer_finish(writer, &segment, 1);
    while (run_writer_state(writer) == KVS_ERR_AGAIN)
        ring_turn(bench->ring, -1);
    if (run_writer_state(writer) != KVS_ERR_OK)
        die("write", run_writer_failure_text(writer));
    run_writer_close(writer, bench->ring);
}

static struct run *open_run(const struct bench *bench, uint64_t sequence)
{
    char message[ENGINE_MESSAGE_BYTES];
    const struct run_open_options options = {.ring = bench->ring,
                                             .dir_fd = bench->dir_fd,
                                             .dir_name = "bench-run",
                                             .store_uuid = uuid,
                                             .sequence = sequence,
                                             .direct = bench->direct};
    struct run *run;
    if (run_open(&run, &options, message) != KVS_ERR_OK)
        die("open", message);
    return run;
}

/* ---- reading and merging --------------------------------------------------------------------------------------- */

static struct run_reader *reader_begin(const struct bench *bench, const struct run *run, unsigned read_blocks)
{
    const struct run_reader_options options = {
        .run = run, .ring = bench->ring, .range = RUN_RANGE_ALL, .read_blocks = read_blocks};
    struct run_reader *reader;
    if (run_reader_open(&reader, &options) != KVS_ERR_OK)
        die("reader", "out of memory");
    return reader;
}

static void bench_read(const struct bench *bench)
{
    const uint64_t begin = now_ns(), begin_cpu = cpu_ns();
    struct run_reader *reader = reader_begin(bench, bench->runs[0], 0);
    uint64_t entries = 0;
    for (;;) {
        struct run_span span;
        const enum kvs_err err = run_reader_next(reader, &span);
        ring_turn(bench->ring, err == KVS_ERR_AGAIN ? -1 : 0);
        if (err == KVS_ERR_AGAIN)
            continue;
        if (err != KVS_ERR_OK)
            die("read", run_reader_failure_text(reader));
        if (span.at == span.end)
            break;
        entries += (uint64_t)(span.end - span.at);
    }
    run_reader_close(reader);
    report("read, checked", entries, begin, begin_cpu);
}

static bool every_segment_is_there(void *context, unsigned source, const struct run_entry *entry)
{
    (void)source;
    return run_entry_address(entry) <= *(const uint64_t *)context;
}

/* Merges the first `count` runs; with a writer into another run. */
static void bench_merge(const struct bench *bench, unsigned count, struct run_writer *writer, const char *what)
{
    uint64_t last = UINT64_MAX;
    struct run_source sources[1 + SUMMARIES] = {0};
    struct run_merge_options options = {
        .sources = sources, .source_count = count, .context = &last, .counts = every_segment_is_there};
    static struct run_entry batch[BATCH];
    const uint64_t begin = now_ns(), begin_cpu = cpu_ns();
    uint64_t entries = 0, consumed = 0;
    for (unsigned i = 0; i < count; i++) {
        sources[i].reader = reader_begin(bench, bench->runs[i], i == 0 ? 4 : 1);
        consumed += bench->runs[i]->entry_count;
    }
    struct run_merge *merge;
    if (run_merge_open(&merge, &options) != KVS_ERR_OK)
        die("merge", "out of memory");
    for (;;) {
        size_t some;
        const enum kvs_err err = run_merge_next(merge, batch, BATCH, &some);
        ring_turn(bench->ring, err == KVS_ERR_AGAIN ? -1 : 0);
        if (err == KVS_ERR_AGAIN)
            continue;
        if (err != KVS_ERR_OK)
            die("merge", run_reader_failure_text(sources[run_merge_failed_source(merge)].reader));
        if (some == 0)
            break;
        entries += some;
        if (writer != NULL)
            writer_put(bench, writer, batch, some);
    }
    run_merge_close(merge);
    for (unsigned i = 0; i < count; i++)
        run_reader_close(sources[i].reader);
    if (writer != NULL)
        writer_end(bench, writer);
    report(what, consumed, begin, begin_cpu);
    printf("%-44s %10llu entries\n", "", (unsigned long long)entries);
}

/* The arrays that would come from scans, without any reading: what merging itself costs. */
static void bench_merge_arrays(struct run_entry *entries, uint64_t count, unsigned parts)
{
    struct run_source sources[SUMMARIES] = {0};
    const uint64_t part = count / parts;
    make_entries(entries, count, 0, 1);
    for (unsigned i = 0; i < parts; i++) {
        run_sort(entries + i * part, part);
        sources[i] = (struct run_source){.entries = entries + i * part, .count = part};
    }
    const struct run_merge_options options = {.sources = sources, .source_count = parts};
    static struct run_entry batch[BATCH];
    struct run_merge *merge;
    if (run_merge_open(&merge, &options) != KVS_ERR_OK)
        die("merge", "out of memory");
    const uint64_t begin = now_ns(), begin_cpu = cpu_ns();
    size_t some;
    while (run_merge_next(merge, batch, BATCH, &some) == KVS_ERR_OK && some > 0)
        ;
    char what[64];
    snprintf(what, sizeof what, "merge of %u arrays in memory", parts);
    report(what, part * parts, begin, begin_cpu);
    run_merge_close(merge);
}

static void bench_sort(struct run_entry *entries, uint64_t count)
{
    make_entries(entries, count, 0, 1);
    const uint64_t begin = now_ns(), begin_cpu = cpu_ns();
    run_sort(entries, count);
    report("sort", count, begin, begin_cpu);
    for (uint64_t i = 1; i < count; i++) {
        if (entries[i - 1].order > entries[i].order)
            die("sort", "not sorted");
    }
}

static void remove_run(const struct bench *bench, uint64_t sequence)
{
    char name[RUN_NAME_BYTES];
    struct ring_op op;
    run_name(name, sequence, "");
    blocking_init(&op);
    ring_file_unlink(bench->ring, &op, bench->dir_fd, name);
    ring_await(bench->ring, &op);
}

int main(int argc, char **argv)
{
    const uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    char path[4096], message[RING_MESSAGE_BYTES];
    snprintf(path, sizeof path, "%s/bench-run", argc > 2 ? argv[2] : ".");
    struct bench bench = {.direct = true};
    const struct ring_options ring_options = {.entries = 256};
    if (ring_open(&bench.ring, &ring_options, message) != KVS_ERR_OK)
        die("ring", message);
    if (ring_dir_open(bench.ring, path, &bench.dir_fd) != KVS_ERR_OK)
        die(path, "cannot be opened");
    struct run_entry *entries = big_memory_alloc(count * sizeof *entries);
    if (entries == NULL || count < 32ull * SUMMARIES)
        die("entries", "too many or too few");

    bench_sort(entries, count / 100);
    bench_sort(entries, count / 10);
    bench_sort(entries, count);
    uint64_t begin = now_ns(), begin_cpu = cpu_ns();
    struct run_writer *writer = writer_begin(&bench, 1);
    writer_put(&bench, writer, entries, count);
    writer_end(&bench, writer);
    report("write, synced", count, begin, begin_cpu);
    for (unsigned i = 0; i < SUMMARIES; i++) {
        const uint64_t part = count / 32;
        make_entries(entries, part, count - part / 2 - i * part, count + i * part);
        run_sort(entries, part);
        writer = writer_begin(&bench, 2 + i);
        writer_put(&bench, writer, entries, part);
        writer_end(&bench, writer);
    }
    for (unsigned i = 0; i < 1 + SUMMARIES; i++)
        bench.runs[i] = open_run(&bench, 1 + i);

    bench_read(&bench);
    bench_merge(&bench, 1, NULL, "merge of a checkpoint alone");
    bench_merge(&bench, 1 + SUMMARIES, NULL, "merge of a checkpoint and 16 summaries");
    bench_merge(&bench, 1 + SUMMARIES, writer_begin(&bench, 100), "the same, written as a new checkpoint");
    bench_merge_arrays(entries, count, 1);
    bench_merge_arrays(entries, count, 2);
    bench_merge_arrays(entries, count, SUMMARIES);

    for (unsigned i = 0; i < 1 + SUMMARIES; i++) {
        run_close(bench.runs[i], bench.ring);
        remove_run(&bench, 1 + i);
    }
    remove_run(&bench, 100);
    ring_close_fd(bench.ring, bench.dir_fd);
    ring_close(bench.ring);
    big_memory_free(entries, count * sizeof *entries);
    return 0;
}
