/*
 * loadgen_report.c - see loadgen_report.h.
 *
 * The text is for people, one table and a few lines; the JSON is for programs: one object, numbers in the units that
 * their names end with. Both say how much of a core the client itself needed, because a client at its limit measures
 * itself.
 */
#include "loadgen_report.h"

#include <errno.h>
#include <stdio.h>

/* Above this share of a core the figures speak of the client. */
#define CLIENT_LIMIT 0.9
/* An open loop whose last request was later than this was not kept up with. */
#define BEHIND_LIMIT_NS UINT64_C(100000000)
/* An open loop of which a larger part had to wait for a place was none: one in so many. */
#define CROWDED_SHARE 100

void loadgen_result_collect(struct loadgen_result *result, const struct loadgen_worker *workers, uint64_t count)
{
    memset(result, 0, sizeof(*result));
    struct loadgen_counts *sum = &result->counts;
    histogram_init(&sum->reads);
    histogram_init(&sum->writes);
    histogram_init(&sum->delays);
    sum->begin_ns = UINT64_MAX;
    for (uint64_t i = 0; i < count; i++) {
        const struct loadgen_counts *part = &workers[i].counts;
        histogram_merge(&sum->reads, &part->reads);
        histogram_merge(&sum->writes, &part->writes);
        histogram_merge(&sum->delays, &part->delays);
        sum->crowded += part->crowded;
        sum->unsent += part->unsent;
        if (part->behind_ns > sum->behind_ns)
            sum->behind_ns = part->behind_ns;
        sum->hits += part->hits;
        sum->misses += part->misses;
        sum->mismatches += part->mismatches;
        sum->errors += part->errors;
        sum->bytes_out += part->bytes_out;
        sum->bytes_in += part->bytes_in;
        sum->cpu_ns += part->cpu_ns;
        if (part->begin_ns < sum->begin_ns)
            sum->begin_ns = part->begin_ns;
        if (part->end_ns > sum->end_ns)
            sum->end_ns = part->end_ns;
        if (sum->error_text[0] == 0)
            memcpy(sum->error_text, part->error_text, sizeof(sum->error_text));
        double wall_ns = (double)(part->end_ns - part->begin_ns);
        double share = wall_ns > 0 ? (double)part->cpu_ns / wall_ns : 0;
        if (share > result->cpu_share_max)
            result->cpu_share_max = share;
    }
    result->seconds = (double)(sum->end_ns - sum->begin_ns) / 1e9;
    result->present = true;
}

/* ---- small sums ------------------------------------------------------------------------------------------------ */

static uint64_t operations(const struct loadgen_result *result)
{
    return result->counts.reads.count + result->counts.writes.count;
}

static double per_second(const struct loadgen_result *result, uint64_t count)
{
    return result->seconds > 0 ? (double)count / result->seconds : 0;
}

static double cpu_us_per_operation(const struct loadgen_result *result)
{
    uint64_t count = operations(result);
    return count > 0 ? (double)result->counts.cpu_ns / 1e3 / (double)count : 0;
}

static bool kept_up(const struct loadgen_result *result)
{
    return result->counts.unsent == 0 && result->counts.behind_ns <= BEHIND_LIMIT_NS;
}

/* Whether many requests of an open loop had to wait for a place. */
static bool crowded(const struct loadgen_result *result)
{
    return result->counts.crowded > operations(result) / CROWDED_SHARE;
}

static const char *protocol_name(const struct loadgen_options *options)
{
    return options->protocol == CLIENT_RESP ? "resp" : "binary";
}

static const struct {
    const char *name; /* in JSON */
    double percent;
} percentiles[] = {{"p50_us", 50},     {"p90_us", 90},       {"p99_us", 99},
                   {"p99_9_us", 99.9}, {"p99_99_us", 99.99}, {"max_us", 100}};

#define PERCENTILE_COUNT (sizeof(percentiles) / sizeof(percentiles[0]))

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void print_latency(const char *name, const struct histogram *histogram, const struct loadgen_result *result)
{
    if (histogram->count == 0)
        return;
    printf("%-7s %12llu %12.0f", name, (unsigned long long)histogram->count, per_second(result, histogram->count));
    for (size_t i = 0; i < PERCENTILE_COUNT; i++)
        printf(" %10.3f", (double)histogram_percentile(histogram, percentiles[i].percent) / 1e6);
    printf("\n");
}

/* Of an open loop: how well its schedule was met. */
static void print_schedule(const struct loadgen_options *options, const struct loadgen_result *result)
{
    const struct loadgen_counts *counts = &result->counts;
    printf("sending: p50 %.3f ms, p99.9 %.3f ms, max %.3f ms after the time; %llu requests had to wait for one of the\n"
           "         %llu places, %llu were never sent. All of this is part of the latency.\n",
           (double)histogram_percentile(&counts->delays, 50) / 1e6,
           (double)histogram_percentile(&counts->delays, 99.9) / 1e6, (double)counts->delays.max / 1e6,
           (unsigned long long)counts->crowded, (unsigned long long)(options->connections * options->pipeline),
           (unsigned long long)counts->unsent);
    if (!kept_up(result))
        printf(
            "WARNING: %llu per second were not kept up with: the last request was %.3f s late. Latencies say how the\n"
            "         backlog grew, not how fast the server is; lower --rate, or give more --connections\n",
            (unsigned long long)options->rate, (double)counts->behind_ns / 1e9);
    else if (crowded(result))
        printf(
            "WARNING: at times the loop was closed, for want of places: latencies are those of a backlog of its own\n"
            "         making; give more --connections, or lower --rate\n");
}

static void print_stage(const char *title, const struct loadgen_options *options, const struct loadgen_result *result)
{
    const struct loadgen_counts *counts = &result->counts;
    printf("\n%s: %llu operations in %.3f s, %.0f per second\n\n", title, (unsigned long long)operations(result),
           result->seconds, per_second(result, operations(result)));
    printf("        %12s %12s %10s %10s %10s %10s %10s %10s\n", "operations", "per second", "p50 ms", "p90 ms",
           "p99 ms", "p99.9 ms", "p99.99 ms", "max ms");
    print_latency("reads", &counts->reads, result);
    print_latency("writes", &counts->writes, result);
    printf("\n");
    if (counts->reads.count > 0)
        printf("reads:   %llu hits, %llu misses\n", (unsigned long long)counts->hits,
               (unsigned long long)counts->misses);
    if (options->verify && counts->reads.count > 0)
        printf("verify:  %llu mismatches\n", (unsigned long long)counts->mismatches);
    printf("errors:  %llu", (unsigned long long)counts->errors);
    if (counts->errors > 0)
        printf(", the first: %s", counts->error_text);
    printf("\npayload: %.2f MB/s sent, %.2f MB/s received\n", per_second(result, counts->bytes_out) / 1e6,
           per_second(result, counts->bytes_in) / 1e6);
    if (counts->delays.count > 0)
        print_schedule(options, result);
    printf("client:  %.3f us of CPU per operation, %.0f %% of a core (busiest thread)\n", cpu_us_per_operation(result),
           result->cpu_share_max * 100);
    if (result->cpu_share_max > CLIENT_LIMIT)
        printf("WARNING: the client is the limit: these figures say how fast it is, not the server; add --threads\n");
}

void loadgen_report_text(const struct loadgen_options *options, const struct loadgen_result *fill,
                         const struct loadgen_result *run)
{
    char distribution[64] = "uniform";
    if (options->distribution != LOADGEN_UNIFORM)
        snprintf(distribution, sizeof(distribution), "%s (theta %g)", loadgen_distribution_name(options->distribution),
                 options->theta);
    printf("%s over %s, %llu connections x %llu requests, %llu thread%s, ", options->addr_text, protocol_name(options),
           (unsigned long long)options->connections, (unsigned long long)options->pipeline,
           (unsigned long long)options->threads, options->threads > 1 ? "s" : "");
    if (options->rate > 0)
        printf("open loop of %llu per second\n", (unsigned long long)options->rate);
    else
        printf("closed loop\n");
    printf("%llu keys of %llu bytes, values of %llu bytes, %.4g %% reads, %s%s, seed %llu\n",
           (unsigned long long)options->keys, (unsigned long long)options->key_bytes,
           (unsigned long long)options->value_bytes, options->read_share * 100, distribution,
           options->relaxed ? ", relaxed writes" : "", (unsigned long long)options->seed);
    if (fill->present)
        print_stage("fill", options, fill);
    if (run->present)
        print_stage("measured", options, run);
    printf("\nA percentile is at most 0.8 %% above the true value; max is exact.\n");
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static void json_text(const char *text)
{
    putchar('"');
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f) /* a server's message is not to be trusted to be UTF-8 */
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void json_latency(const char *name, const struct histogram *histogram, const struct loadgen_result *result)
{
    printf("\"%s\": {\"operations\": %llu, \"per_second\": %.1f, \"mean_us\": %.3f", name,
           (unsigned long long)histogram->count, per_second(result, histogram->count), histogram_mean(histogram) / 1e3);
    for (size_t i = 0; i < PERCENTILE_COUNT; i++)
        printf(", \"%s\": %.3f", percentiles[i].name,
               (double)histogram_percentile(histogram, percentiles[i].percent) / 1e3);
    printf("}");
}

static void json_stage(const char *name, const struct loadgen_result *result)
{
    const struct loadgen_counts *counts = &result->counts;
    printf(",\n \"%s\": {\"seconds\": %.6f, \"operations\": %llu, \"per_second\": %.1f,\n  ", name, result->seconds,
           (unsigned long long)operations(result), per_second(result, operations(result)));
    json_latency("reads", &counts->reads, result);
    printf(",\n  ");
    json_latency("writes", &counts->writes, result);
    if (counts->delays.count > 0) {
        printf(",\n  ");
        json_latency("send_delays", &counts->delays, result);
        printf(",\n  \"crowded\": %llu, \"unsent\": %llu, \"behind_us\": %.3f, \"kept_up\": %s",
               (unsigned long long)counts->crowded, (unsigned long long)counts->unsent, (double)counts->behind_ns / 1e3,
               kept_up(result) ? "true" : "false");
    }
    printf(",\n  \"hits\": %llu, \"misses\": %llu, \"mismatches\": %llu, \"errors\": %llu, \"first_error\": ",
           (unsigned long long)counts->hits, (unsigned long long)counts->misses, (unsigned long long)counts->mismatches,
           (unsigned long long)counts->errors);
    json_text(counts->error_text);
    printf(",\n  \"sent_bytes_per_second\": %.1f, \"received_bytes_per_second\": %.1f", //
           per_second(result, counts->bytes_out), per_second(result, counts->bytes_in));
    printf(",\n  \"client_cpu_us_per_operation\": %.4f, \"client_cpu_share_max\": %.4f, \"client_is_limit\": %s}",
           cpu_us_per_operation(result), result->cpu_share_max,
           result->cpu_share_max > CLIENT_LIMIT ? "true" : "false");
}

void loadgen_report_json(const struct loadgen_options *options, const struct loadgen_result *fill,
                         const struct loadgen_result *run)
{
    printf("{\"version\": \"" KVS_VERSION "\", \"address\": ");
    json_text(options->addr_text);
    printf(", \"protocol\": \"%s\", \"loop\": \"%s\", \"rate\": %llu,\n", protocol_name(options),
           options->rate > 0 ? "open" : "closed", (unsigned long long)options->rate);
    printf(" \"connections\": %llu, \"pipeline\": %llu, \"threads\": %llu, \"keys\": %llu, \"key_bytes\": %llu,\n",
           (unsigned long long)options->connections, (unsigned long long)options->pipeline,
           (unsigned long long)options->threads, (unsigned long long)options->keys,
           (unsigned long long)options->key_bytes);
    printf(" \"value_bytes\": %llu, \"read_share\": %.6g, \"relaxed\": %s, \"seed\": %llu,\n",
           (unsigned long long)options->value_bytes, options->read_share, options->relaxed ? "true" : "false",
           (unsigned long long)options->seed);
    printf(" \"distribution\": \"%s\", \"theta\": %g,\n", loadgen_distribution_name(options->distribution),
           options->theta);
    printf(" \"percentile_error_max\": 0.0079");
    if (fill->present)
        json_stage("fill", fill);
    if (run->present)
        json_stage("run", run);
    printf("}\n");
}

/* ---- CSV ------------------------------------------------------------------------------------------------------- */

bool loadgen_report_histogram(const char *path, const struct loadgen_result *result)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fprintf(stderr, LOADGEN ": cannot write the histogram to %s: %s\n", path, strerror(errno));
        return false;
    }
    fprintf(file, "# Latencies. Each is at most its upper bound, which is less than 0.79 %% above it.\n"
                  "upper_bound_ns,reads,writes\n");
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t reads = result->counts.reads.buckets[i];
        uint64_t writes = result->counts.writes.buckets[i];
        if (reads + writes > 0)
            fprintf(file, "%llu,%llu,%llu\n", (unsigned long long)histogram_bucket_top(i), (unsigned long long)reads,
                    (unsigned long long)writes);
    }
    bool failed = ferror(file) != 0;
    failed |= fclose(file) != 0;
    if (failed)
        fprintf(stderr, LOADGEN ": the histogram in %s is not whole: is the disk full?\n", path);
    return !failed;
}
