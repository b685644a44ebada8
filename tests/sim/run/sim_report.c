/* sim_report.c - see sim_report.h. */
#include "sim_report.h"

#include "base/bytes.h"
#include "shrink.h"

#include <inttypes.h>
#include <stdio.h>

enum { LINES_SHOWN = 12 };

static const struct counter {
    const char *name;
    const char *text;
    size_t offset;
} counters[] = {
    {"operations", "operations", offsetof(struct tally, operations)},
    {"acknowledged", "  acknowledged", offsetof(struct tally, acknowledged)},
    {"swaps", "  looked and changed", offsetof(struct tally, swaps)},
    {"scans", "  told which keys there are", offsetof(struct tally, scans)},
    {"flushes", "flushes", offsetof(struct tally, flushes)},
    {"flushes_done", "  done", offsetof(struct tally, flushes_done)},
    {"flushes_emptied", "    space given back", offsetof(struct tally, flushes_emptied)},
    {"flushes_judged", "  told apart by a start", offsetof(struct tally, flushes_judged)},
    {"refused", "  refused", offsetof(struct tally, refused)},
    {"full", "    for lack of space", offsetof(struct tally, full)},
    {"full_deletes", "      deletes", offsetof(struct tally, full_deletes)},
    {"puts_waited", "  puts that waited", offsetof(struct tally, puts_waited)},
    {"removes_waited", "  deletes that waited", offsetof(struct tally, removes_waited)},
    {"groups", "groups", offsetof(struct tally, groups)},
    {"groups_shown", "  done", offsetof(struct tally, groups_shown)},
    {"groups_refused", "  refused", offsetof(struct tally, groups_refused)},
    {"groups_unanswered", "  under way at the end", offsetof(struct tally, groups_unanswered)},
    {"groups_judged", "    told apart", offsetof(struct tally, groups_judged)},
    {"limited", "runs under a limit", offsetof(struct tally, limited)},
    {"reliefs", "  deletes to be taken", offsetof(struct tally, reliefs)},
    {"resumptions", "  writing to resume", offsetof(struct tally, resumptions)},
    {"unanswered", "  unanswered", offsetof(struct tally, unanswered)},
    {"boots", "boots", offsetof(struct tally, boots)},
    {"rotten_boots", "  over damage", offsetof(struct tally, rotten_boots)},
    {"refusals", "  refused for damage", offsetof(struct tally, refusals)},
    {"restores", "  on a backup", offsetof(struct tally, restores)},
    {"backups", "backups", offsetof(struct tally, backups)},
    {"crashes", "power losses", offsetof(struct tally, crashes)},
    {"kills", "kills", offsetof(struct tally, kills)},
    {"stops", "orderly stops", offsetof(struct tally, stops)},
    {"checks", "full comparisons", offsetof(struct tally, checks)},
    {"steps", "machine steps", offsetof(struct tally, steps)},
};

static uint64_t count_of(const struct tally *tally, const struct counter *counter)
{
    uint64_t value;
    memcpy(&value, (const char *)tally + counter->offset, sizeof value);
    return value;
}

static double rate(const struct runner_result *result)
{
    return result->seconds > 0 ? (double)result->tally.runs / result->seconds : 0;
}

static double per_core(const struct runner_result *result)
{
    return rate(result) / (result->jobs > 0 ? result->jobs : 1);
}

/* ---- for people ------------------------------------------------------------------------------------------------ */

/* From the line that tells most on; of a sanitizer's finding that is its last, so from its first on. */
static void print_ending(const struct runner_failure *failure)
{
    size_t length;
    const char *line = shrink_message(failure->text, &length);
    const char *finding = strstr(failure->text, "ERROR: ");
    if (strncmp(line, "SUMMARY: ", 9) == 0 && finding != NULL && finding < line)
        line = finding;
    printf("  %s\n", failure->reason);
    for (unsigned i = 0; i < LINES_SHOWN && *line != '\0'; i++) {
        length = strcspn(line, "\n");
        printf("  | %.*s\n", (int)length, line);
        line += length;
        line += *line == '\n';
    }
    if (*line != '\0')
        printf("  | ...\n");
}

static void print_failure(const struct sim_report *report, const struct runner_failure *failure)
{
    char what[64];
    if (report->files != NULL) {
        const char *file = report->files[failure->number];
        printf("\nFAILED: %s\n", file);
        print_ending(failure);
        printf("  again:  %s --plan '%s'\n  shrink: %s --plan '%s' --shrink\n", report->program, file, report->program,
               file);
        return;
    }
    snprintf(what, sizeof what, "--seed %" PRIu64, failure->number);
    printf("\nFAILED: seed %" PRIu64 "\n", failure->number);
    print_ending(failure);
    printf("  again:  %s %s\n  shrink: %s %s --shrink\n", report->program, what, report->program, what);
}

static void print_table(const struct tally *tally)
{
    for (size_t i = 0; i < ARRAY_COUNT(counters); i++)
        printf("%-22s %14" PRIu64 "\n", counters[i].text, count_of(tally, &counters[i]));
    printf("%-22s %14.1f s\n", "simulated time", (double)tally->simulated_ns / 1e9);
    uint64_t faults = 0;
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        faults += tally->faults[i];
    printf("%-22s %14" PRIu64 "\n", "faults", faults);
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        printf("  %-20s %14" PRIu64 "\n", sim_fault_name((enum sim_fault_kind)i), tally->faults[i]);
}

void sim_report_text(const struct sim_report *report)
{
    const struct runner_result *result = report->result;
    if (report->files != NULL)
        printf("%" PRIu64 " files", report->last - report->first + 1);
    else if (report->open_end)
        printf("seeds from %" PRIu64 " on", report->first);
    else
        printf("seeds %" PRIu64 "..%" PRIu64, report->first, report->last);
    printf(": %" PRIu64 " runs in %.1f s, %.1f a second, %.1f on each of %u cores; %" PRIu64 " of them twice\n",
           result->tally.runs, result->seconds, rate(result), per_core(result), result->jobs, result->replayed);
    print_table(&result->tally);
    for (unsigned i = 0; i < result->failure_count; i++)
        print_failure(report, &result->failures[i]);
    printf("\n%s: %u of %" PRIu64 " runs failed\n", result->failure_count > 0 ? "FAILED" : "passed",
           result->failure_count, result->tally.runs);
    if (result->interrupted)
        printf("interrupted by a signal before all was run\n");
    else if (result->cut_short)
        printf("ended before all was run: too many failures (--max-failures)\n");
    if (result->abandoned > 0)
        printf("%" PRIu64 " runs were abandoned on the way\n", result->abandoned);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static void print_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f) /* bytes above are nobody's characters: the node's keys are binary */
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_json_failure(const struct sim_report *report, const struct runner_failure *failure)
{
    char failure_class[SHRINK_CLASS_BYTES];
    shrink_class(failure, failure_class);
    if (report->files != NULL) {
        printf("{\"file\":");
        print_string(report->files[failure->number]);
    } else {
        printf("{\"seed\":%" PRIu64, failure->number);
    }
    printf(",\"reason\":");
    print_string(failure->reason);
    printf(",\"class\":");
    print_string(failure_class);
    printf(",\"text\":");
    print_string(failure->text);
    putchar('}');
}

void sim_report_json(const struct sim_report *report)
{
    const struct runner_result *result = report->result;
    const struct tally *tally = &result->tally;
    printf("{\"first\":%" PRIu64 ",\"runs\":%" PRIu64 ",\"replayed\":%" PRIu64 ",\"abandoned\":%" PRIu64, report->first,
           tally->runs, result->replayed, result->abandoned);
    printf(",\"seconds\":%.3f,\"jobs\":%u,\"runs_per_second\":%.3f,\"runs_per_second_and_core\":%.3f", result->seconds,
           result->jobs, rate(result), per_core(result));
    printf(",\"interrupted\":%s,\"cut_short\":%s", result->interrupted ? "true" : "false",
           result->cut_short ? "true" : "false");
    for (size_t i = 0; i < ARRAY_COUNT(counters); i++)
        printf(",\"%s\":%" PRIu64, counters[i].name, count_of(tally, &counters[i]));
    printf(",\"simulated_ns\":%" PRIu64 ",\"faults\":{", tally->simulated_ns);
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        printf("%s\"%s\":%" PRIu64, i > 0 ? "," : "", sim_fault_name((enum sim_fault_kind)i), tally->faults[i]);
    printf("},\"failures\":[");
    for (unsigned i = 0; i < result->failure_count; i++) {
        if (i > 0)
            putchar(',');
        print_json_failure(report, &result->failures[i]);
    }
    printf("]}\n");
}
