/*
 * witness.c - the program kvs-witness: options, threads, summary.
 *
 * Happy path: open the record, start a thread for each connection, wait for all of them, say what they saw. SIGTERM
 * ends them before their time, in order.
 *
 * Failure modes: a node that goes away is nothing special, the connections try again; wrong bytes in an answer make the
 * exit status WITNESS_WRONG, and are in the record. Everything else is for --check to judge.
 */
#include "witness.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: kvs-witness --addr IP:PORT --history FILE [options]   asks, and appends what it is told to FILE\n"
    "       kvs-witness --check FILE...                           judges what was recorded\n"
    "  --seconds S      for so long (2), or until SIGTERM\n"
    "  --connections N  at a time, 1 to 64 (4)\n"
    "  --keys K         to contend for, 1 to 4096 (8)\n"
    "  --pipeline P     operations of a connection under way at most, 1 to 256 (8)\n"
    "  --durability D   durable (default) or relaxed\n"
    "  --protocol P     resp, binary, or both: half of the connections each (default)\n"
    "  --seed N         for the choice of operations\n"
    "  --survey         reads every key once, and ends\n"
    "Exit status: 0 right, 1 wrong answers, 2 cannot be done as asked, 3 undecided.\n";

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    *out = number;
    return errno == 0 && end != text && *end == 0 && text[0] != '-' && number >= min && number <= max;
}

static bool parse_seconds(const char *text, double *out)
{
    char *end = NULL;
    *out = strtod(text, &end);
    return end != text && *end == 0 && *out > 0 && *out < 1e6;
}

static bool parse_protocol(const char *text, int *out)
{
    *out = strcmp(text, "resp") == 0 ? (int)WITNESS_RESP : strcmp(text, "binary") == 0 ? (int)WITNESS_BINARY : -1;
    return *out >= 0 || strcmp(text, "both") == 0;
}

enum { ADDR, SECONDS, CONNECTIONS, KEYS, PIPELINE, DURABILITY, HISTORY, SEED, PROTOCOL, SURVEY, CHECK };

static const struct option long_options[] = {
    {"addr", required_argument, NULL, ADDR},
    {"seconds", required_argument, NULL, SECONDS},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"keys", required_argument, NULL, KEYS},
    {"pipeline", required_argument, NULL, PIPELINE},
    {"durability", required_argument, NULL, DURABILITY},
    {"history", required_argument, NULL, HISTORY},
    {"seed", required_argument, NULL, SEED},
    {"protocol", required_argument, NULL, PROTOCOL},
    {"survey", no_argument, NULL, SURVEY},
    {"check", no_argument, NULL, CHECK},
    {NULL, 0, NULL, 0},
};

struct command {
    struct witness_options options;
    const char *history;
    bool has_addr, check;
};

static bool parse_option(struct command *command, int option, const char *text)
{
    struct witness_options *options = &command->options;
    uint64_t number = 0;
    switch (option) {
    case ADDR:
        command->has_addr = true;
        return ring_addr_parse_tcp(text, &options->addr) == KVS_ERR_OK;
    case SECONDS:
        return parse_seconds(text, &options->seconds);
    case CONNECTIONS:
        return parse_number(text, 1, WITNESS_CONNECTIONS_MAX, &number) && (options->connections = (uint32_t)number);
    case KEYS:
        return parse_number(text, 1, WITNESS_KEYS_MAX, &number) && (options->keys = (uint32_t)number);
    case PIPELINE:
        return parse_number(text, 1, WITNESS_PIPELINE_MAX, &number) && (options->pipeline = (uint32_t)number);
    case DURABILITY:
        options->relaxed = strcmp(text, "relaxed") == 0;
        return options->relaxed || strcmp(text, "durable") == 0;
    case HISTORY:
        command->history = text;
        return true;
    case SEED:
        return parse_number(text, 0, UINT64_MAX, &options->seed);
    case PROTOCOL:
        return parse_protocol(text, &options->protocol);
    case SURVEY:
        options->survey = true;
        return true;
    case CHECK:
        command->check = true;
        return true;
    default:
        return false;
    }
}

static bool parse(struct command *command, int argc, char **argv)
{
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (!parse_option(command, option, optarg)) {
            if (option != '?')
                fprintf(stderr, "kvs-witness: cannot use \"%s\"\n", optarg);
            return false;
        }
    }
    if (command->check)
        return optind < argc;
    return command->has_addr && command->history != NULL && optind == argc;
}

/* Runs have numbers of their own, so that their values differ. */
static uint64_t choose_run(void)
{
    uint64_t mixed = (witness_now() ^ ((uint64_t)getpid() << 32)) * 0x9e3779b97f4a7c15u;
    return 1 + (mixed >> 32) % UINT16_MAX;
}

static _Atomic uint64_t until;

static void on_term(int number)
{
    (void)number;
    atomic_store_explicit(&until, witness_now(), memory_order_relaxed);
}

static enum witness_exit run(struct witness_options *options)
{
    char line[64];
    int size = snprintf(line, sizeof(line), "run %" PRIu64 "\n", options->run);
    KVS_ASSERT(write(options->record, line, (size_t)size) == size);
    uint32_t count = options->survey ? 1 : options->connections;
    struct witness_client *clients = calloc(count, sizeof(*clients));
    pthread_t *threads = calloc(count, sizeof(*threads));
    KVS_ASSERT(clients != NULL && threads != NULL);
    atomic_store_explicit(&until, witness_now() + (uint64_t)(options->seconds * 1e9), memory_order_relaxed);
    const struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    KVS_ASSERT(sigaction(SIGTERM, &action, NULL) == 0);
    for (uint32_t i = 0; i < count; i++) {
        clients[i] = (struct witness_client){.options = options, .number = i, .until = &until};
        KVS_ASSERT(pthread_create(&threads[i], NULL, witness_client_run, &clients[i]) == 0);
    }
    uint64_t asked = 0, answered = 0, refused = 0, wrong = 0, sessions = 0;
    const char *text = "";
    for (uint32_t i = 0; i < count; i++) {
        KVS_ASSERT(pthread_join(threads[i], NULL) == 0);
        asked += clients[i].asked;
        answered += clients[i].answered;
        refused += clients[i].refused;
        wrong += clients[i].wrong;
        sessions += clients[i].sessions;
        if (clients[i].text[0] != 0)
            text = clients[i].text;
    }
    printf("asked %" PRIu64 ", answered %" PRIu64 ", refused %" PRIu64 ", wrong %" PRIu64 ", sessions %" PRIu64
           "%s%s\n",
           asked, answered, refused, wrong, sessions, text[0] != 0 ? "; latest trouble: " : "", text);
    free(clients);
    free(threads);
    if (wrong > 0)
        return WITNESS_WRONG;
    return options->survey && answered < options->keys ? WITNESS_USAGE : WITNESS_RIGHT;
}

int main(int argc, char **argv)
{
    struct command command = {
        .options = {.seconds = 2, .connections = 4, .keys = 8, .pipeline = 8, .protocol = -1, .run = choose_run()}};
    if (!parse(&command, argc, argv)) {
        fputs(usage, stderr);
        return WITNESS_USAGE;
    }
    if (command.check)
        return (int)witness_check(argv + optind, (size_t)(argc - optind));
    command.options.record = open(command.history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (command.options.record < 0) {
        fprintf(stderr, "kvs-witness: cannot open %s: %s\n", command.history, strerror(errno));
        return WITNESS_USAGE;
    }
    enum witness_exit exit_code = run(&command.options);
    close(command.options.record);
    return (int)exit_code;
}
