/*
 * info_commands.c - what commands cost, as lines of INFO.
 *
 * As in Redis, only those that have been called, or refused, are there; percentiles are as exact as the buckets of
 * meter.h, which is to a fifth.
 */
#include "node/info_commands.h"

#include "node/figures.h"
#include "node/node_internal.h"

#include <stdio.h>

#define NAME_BYTES 96

void info_each_command(const struct node *node,
                       void (*each)(void *context, const char *name, unsigned number, const struct command *command),
                       void *context)
{
    const struct acl_numbers *numbers = acl_numbers(node->acl);
    char name[NAME_BYTES];
    for (unsigned i = 0; i < command_table_count; i++) {
        const struct command *command = &command_table[i];
        each(context, command->name, acl_number(numbers, command, NULL), command);
        for (const struct subcommand *sub = command->subcommands; sub != NULL && sub->name != NULL; sub++) {
            snprintf(name, sizeof(name), "%s|%s", command->name, sub->name);
            each(context, name, acl_number(numbers, command, sub), command);
        }
    }
}

struct lines {
    const struct node *node;
    struct text *out;
};

static void write_stat(void *context, const char *name, unsigned number, const struct command *command)
{
    const struct lines *lines = context;
    struct meter_command of;
    (void)command;
    figures_command(lines->node, number, &of);
    if (of.calls == 0 && of.rejected == 0)
        return;
    const double us = (double)of.ns / 1000;
    text_printf(
        lines->out, "cmdstat_%s:calls=%llu,usec=%llu,usec_per_call=%.2f,rejected_calls=%llu,failed_calls=%llu\r\n",
        name, (unsigned long long)of.calls, (unsigned long long)(of.ns / 1000),
        of.calls == 0 ? 0 : us / (double)of.calls, (unsigned long long)of.rejected, (unsigned long long)of.failed);
}

void info_write_commandstats(const struct node *node, struct text *out)
{
    struct lines lines = {.node = node, .out = out};
    text_printf(out, "# Commandstats\r\n");
    info_each_command(node, write_stat, &lines);
}

void info_write_errorstats(const struct node *node, struct text *out)
{
    struct meter_error errors[METER_ERRORS_MAX];
    const unsigned count = figures_errors(node, errors);
    text_printf(out, "# Errorstats\r\n");
    for (unsigned i = 0; i < count; i++)
        text_printf(out, "errorstat_%s:count=%llu\r\n", errors[i].code, (unsigned long long)errors[i].count);
}

static void write_latency(void *context, const char *name, unsigned number, const struct command *command)
{
    const struct lines *lines = context;
    struct meter_command of;
    (void)command;
    figures_command(lines->node, number, &of);
    const double p50 = meter_percentile_us(&of, 50);
    if (p50 > 0)
        text_printf(lines->out, "latency_percentiles_usec_%s:p50=%.3f,p99=%.3f,p99.9=%.3f\r\n", name, p50,
                    meter_percentile_us(&of, 99), meter_percentile_us(&of, 99.9));
}

void info_write_latencystats(const struct node *node, struct text *out)
{
    struct lines lines = {.node = node, .out = out};
    text_printf(out, "# Latencystats\r\n");
    info_each_command(node, write_latency, &lines);
}
