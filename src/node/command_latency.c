/*
 * command_latency.c - LATENCY: how the times of commands are spread.
 *
 * HISTOGRAM has the node's figures (meter.h). The monitor of single events that Redis has beside it is not offered:
 * LATEST, HISTORY, GRAPH and RESET answer as a Redis whose monitor is off, which is its default, and DOCTOR says so.
 */
#include "node/command.h"
#include "node/figures.h"
#include "node/info_commands.h"
#include "node/node_internal.h"

/* ---- HISTOGRAM ------------------------------------------------------------------------------------------------- */

struct histograms {
    struct call *call;
    struct text entries;
    size_t count;
    const struct command *only; /* this command and its subcommands … */
    const char *only_name;      /* … or this one subcommand; NULL: all of it */
};

static void write_histogram(void *context, const char *name, unsigned number, const struct command *command)
{
    struct histograms *histograms = context;
    const int version = histograms->call->client->resp_version;
    struct meter_command of;
    if ((histograms->only != NULL && histograms->only != command) ||
        (histograms->only_name != NULL && strcmp(histograms->only_name, name) != 0))
        return;
    figures_command(histograms->call->shard->node, number, &of);
    uint64_t calls = 0, before = 0;
    size_t steps = 0;
    for (unsigned i = 0; i < METER_BUCKETS; i++)
        calls += of.times[i];
    if (calls == 0)
        return;
    struct text lines = {0};
    for (unsigned octave = 0; octave < METER_OCTAVES && before < calls; octave++) {
        uint64_t below = octave + 1 == METER_OCTAVES ? calls : meter_octave_calls(&of, octave);
        if (below == before)
            continue;
        text_integer(&lines, (int64_t)meter_octave_us(octave));
        text_integer(&lines, (int64_t)below);
        before = below;
        steps++;
    }
    text_bulk(&histograms->entries, name);
    text_map(&histograms->entries, 2, version);
    text_bulk(&histograms->entries, "calls");
    text_integer(&histograms->entries, (int64_t)calls);
    text_bulk(&histograms->entries, "histogram_usec");
    text_map(&histograms->entries, steps, version);
    text_add(&histograms->entries, slice_make(lines.data, lines.size));
    histograms->entries.failed |= lines.failed;
    text_deinit(&lines);
    histograms->count++;
}

/* "get", or "config|get". */
static void write_named(struct histograms *histograms, struct slice name)
{
    const uint8_t *bar = name.size > 0 ? memchr(name.data, '|', name.size) : NULL;
    const struct slice first = slice_make(name.data, bar != NULL ? (size_t)(bar - name.data) : name.size);
    char full[96];
    histograms->only = command_find(first);
    histograms->only_name = NULL;
    if (histograms->only == NULL)
        return;
    if (bar != NULL) {
        if (name.size >= sizeof(full))
            return;
        for (size_t i = 0; i < name.size; i++)
            full[i] = (char)(name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] + 32 : name.data[i]);
        full[name.size] = 0;
        histograms->only_name = full;
    }
    info_each_command(histograms->call->shard->node, write_histogram, histograms);
}

static void run_histogram(struct call *call)
{
    struct histograms histograms = {.call = call};
    if (call->count == 2)
        info_each_command(call->shard->node, write_histogram, &histograms);
    for (unsigned i = 2; i < call->count; i++)
        write_named(&histograms, call->args[i]);
    struct text text = {0};
    text_map(&text, histograms.count, call->client->resp_version);
    text_add(&text, slice_make(histograms.entries.data, histograms.entries.size));
    text.failed |= histograms.entries.failed;
    text_deinit(&histograms.entries);
    call_text(call, &text);
}

/* ---- the monitor that there is none of ------------------------------------------------------------------------- */

static void reply_empty(struct call *call)
{
    struct text text = {0};
    text_array(&text, 0);
    call_text(call, &text);
}

static void run_latest(struct call *call)
{
    reply_empty(call);
}

static void run_history(struct call *call)
{
    reply_empty(call);
}

static void run_graph(struct call *call)
{
    const struct slice event = call->args[2];
    call_error(call, "ERR No samples available for event '%.*s'", command_printable(event, 128),
               (const char *)event.data);
}

static void run_doctor(struct call *call)
{
    struct text text = {0};
    text_verbatim(&text,
                  slice_text("There is no latency monitor in this node. What commands take is told by LATENCY "
                             "HISTOGRAM and INFO latencystats, the slowest of them by SLOWLOG.\n"),
                  call->client->resp_version);
    call_text(call, &text);
}

static void run_reset(struct call *call)
{
    call_integer(call, 0);
}

#define FLAGS (COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_LOADING | COMMAND_STALE)

const struct subcommand command_latency_subcommands[] = {
    {"doctor", 2, FLAGS, "", "Return a human readable latency analysis report.", run_doctor},
    {"graph", 3, FLAGS, "<event>", "Return an ASCII latency graph for the <event> class.", run_graph},
    {"history", 3, FLAGS, "<event>", "Return time-latency samples for the <event> class.", run_history},
    {"latest", 2, FLAGS, "", "Return the latest latency samples for all events.", run_latest},
    {"reset", -2, FLAGS, "[<event> ...]",
     "Reset latency data of one or more <event> classes.\n(default: reset all data for all event classes)", run_reset},
    {"histogram", -2, FLAGS, "[COMMAND ...]",
     "Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
     run_histogram},
    {NULL, 0, 0, NULL, NULL, NULL},
};
