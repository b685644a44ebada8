/*
 * loadgen_options.c - see loadgen_options.h.
 *
 * Everything is checked here, so that the rest of the program may rely on it: sizes within the limits, room for the
 * number of every key in its name, memory for all requests under way within reason.
 */
#include "loadgen_options.h"

#include "base/limits.h"
#include "tool_cli.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    OPTION_ADDR = 256,
    OPTION_UNIX,
    OPTION_PROTOCOL,
    OPTION_READ_SHARE,
    OPTION_DISTRIBUTION,
    OPTION_THETA,
    OPTION_HISTOGRAM,
    OPTION_SECONDS,
    OPTION_WARMUP,
    OPTION_FILL,
    OPTION_VERIFY,
    OPTION_RELAXED,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_NUMBERS, /* the options of `numbers` follow, in its order */
};

static const char help[] =
    "Usage: " LOADGEN " [OPTIONS]\n"
    "\n"
    "Drives a server with reads and writes. In a closed loop each connection keeps --pipeline requests under way and\n"
    "sends the next when a reply has come. In an open loop (--rate) requests are due at fixed times, and latency "
    "counts\n"
    "from there, however long a request then has to wait for a connection: a server that stalls hides nothing.\n"
    "Prints throughput, latency percentiles and the client's own CPU use.\n"
    "\n"
    "Where:\n"
    "  --addr IP:PORT        the server; default " TOOL_ADDR_DEFAULT "\n"
    "  --unix PATH           its Unix socket, instead of --addr\n"
    "  --protocol NAME       resp (default; any Redis-like server) or binary (kvs-node)\n"
    "  --connections N       default 50\n"
    "  --pipeline P          requests under way per connection; default 1\n"
    "  --threads T           client threads, which share the connections; default 1\n"
    "What:\n"
    "  --keys K              number of keys; default 1000000\n"
    "  --distribution NAME   uniform (default): all keys alike\n"
    "                        zipfian: the k-th most wanted key as often as k^-theta says, scattered over all keys\n"
    "                        latest: writes add new keys behind the K; reads prefer the newest, as zipfian says\n"
    "  --theta T             of zipfian and latest, 0 to 10; default 0.99\n"
    "  --key-size BYTES      default 16: \"key:000000000042\"\n"
    "  --value-size BYTES    default 64; contents follow from key and seed\n"
    "  --read-share SHARE    part of the requests that read: 0.9 or 90%; default 0.5\n"
    "  --relaxed             writes need not be on stable storage (binary protocol)\n"
    "  --seed N              of the random choices and the values; default 1\n"
    "  --fill                first write every key once, in order\n"
    "  --verify              check the contents of what is read; after --fill a missing key is a mismatch too\n"
    "How fast, how long:\n"
    "  --rate R              an open loop of R requests a second, all threads together; --fill is a closed one. What\n"
    "                        the server falls behind by is sent later, for as long again as the schedule was; what is\n"
    "                        then still left is counted as unsent\n"
    "  --seconds S           measure for this time; default 10; 0 with --fill: only fill\n"
    "  --requests N          measure this many requests instead\n"
    "  --warmup S            run this long before measuring; default 1, with --requests 0\n"
    "  --timeout S           give up when no reply comes for this time; default 30\n"
    "Output:\n"
    "  --json                results as one JSON object\n"
    "  --histogram FILE      writes the measured latencies as CSV: upper bound in ns, reads, writes\n"
    "  --quiet               no progress line\n"
    "  -h, --help            print this and exit\n"
    "  -V, --version         print the version and exit\n"
    "\n"
    "SIGINT ends the run early and prints what there is. Exit codes: 0 all requests were answered without errors or\n"
    "mismatches (and sent, with --rate), 1 not so, 2 the command line makes no sense.\n";

/* Options that are whole numbers. */
static const struct number {
    const char *name;
    size_t offset;
    uint64_t min, max;
} numbers[] = {
    {"connections", offsetof(struct loadgen_options, connections), 1, 20000},
    {"pipeline", offsetof(struct loadgen_options, pipeline), 1, 65536},
    {"threads", offsetof(struct loadgen_options, threads), 1, 64},
    {"keys", offsetof(struct loadgen_options, keys), 1, UINT64_C(1000000000000)},
    {"key-size", offsetof(struct loadgen_options, key_bytes), 1, KVS_KEY_BYTES_MAX},
    {"value-size", offsetof(struct loadgen_options, value_bytes), 0, KVS_VALUE_BYTES_MAX},
    {"requests", offsetof(struct loadgen_options, requests), 1, UINT64_C(1000000000000)},
    {"rate", offsetof(struct loadgen_options, rate), 10, 1000000000},
    {"timeout", offsetof(struct loadgen_options, timeout_seconds), 1, 86400},
    {"seed", offsetof(struct loadgen_options, seed), 0, UINT64_MAX},
};

static const struct option long_options[] = {
    {"addr", required_argument, NULL, OPTION_ADDR},
    {"unix", required_argument, NULL, OPTION_UNIX},
    {"protocol", required_argument, NULL, OPTION_PROTOCOL},
    {"read-share", required_argument, NULL, OPTION_READ_SHARE},
    {"distribution", required_argument, NULL, OPTION_DISTRIBUTION},
    {"theta", required_argument, NULL, OPTION_THETA},
    {"histogram", required_argument, NULL, OPTION_HISTOGRAM},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"fill", no_argument, NULL, OPTION_FILL},
    {"verify", no_argument, NULL, OPTION_VERIFY},
    {"relaxed", no_argument, NULL, OPTION_RELAXED},
    {"json", no_argument, NULL, OPTION_JSON},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"connections", required_argument, NULL, OPTION_NUMBERS},
    {"pipeline", required_argument, NULL, OPTION_NUMBERS + 1},
    {"threads", required_argument, NULL, OPTION_NUMBERS + 2},
    {"keys", required_argument, NULL, OPTION_NUMBERS + 3},
    {"key-size", required_argument, NULL, OPTION_NUMBERS + 4},
    {"value-size", required_argument, NULL, OPTION_NUMBERS + 5},
    {"requests", required_argument, NULL, OPTION_NUMBERS + 6},
    {"rate", required_argument, NULL, OPTION_NUMBERS + 7},
    {"timeout", required_argument, NULL, OPTION_NUMBERS + 8},
    {"seed", required_argument, NULL, OPTION_NUMBERS + 9},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

struct command_line {
    const char *addr, *unix_path;
    bool help, version;
};

static bool parse_number(const struct number *number, const char *text, struct loadgen_options *options)
{
    uint64_t *field = (uint64_t *)(void *)((char *)options + number->offset);
    if (tool_parse_u64(text, number->min, number->max, field))
        return true;
    fprintf(stderr, LOADGEN ": --%s takes a whole number from %llu to %llu; this is not: '%s'\n", number->name,
            (unsigned long long)number->min, (unsigned long long)number->max, text);
    return false;
}

static bool parse_time(const char *name, const char *text, double *seconds)
{
    if (tool_parse_double(text, 0, 1e6, seconds))
        return true;
    fprintf(stderr, LOADGEN ": --%s takes seconds from 0 to 1000000; this is not: '%s'\n", name, text);
    return false;
}

static bool parse_share(const char *text, double *share)
{
    char digits[32];
    size_t size = strlen(text);
    bool percent = size > 0 && text[size - 1] == '%';
    if (percent)
        size--;
    if (size > 0 && size < sizeof(digits)) {
        memcpy(digits, text, size);
        digits[size] = 0;
        if (tool_parse_double(digits, 0, percent ? 100 : 1, share)) {
            *share /= percent ? 100 : 1;
            return true;
        }
    }
    fprintf(stderr, LOADGEN ": --read-share takes 0 to 1, or 0%% to 100%%; this is neither: '%s'\n", text);
    return false;
}

static bool parse_protocol(const char *text, enum client_protocol *protocol)
{
    if (strcmp(text, "resp") == 0) {
        *protocol = CLIENT_RESP;
    } else if (strcmp(text, "binary") == 0) {
        *protocol = CLIENT_BINARY;
    } else {
        fprintf(stderr, LOADGEN ": --protocol takes resp or binary, not '%s'\n", text);
        return false;
    }
    return true;
}

static bool parse_distribution(const char *text, enum loadgen_distribution *distribution)
{
    for (enum loadgen_distribution one = LOADGEN_UNIFORM; one <= LOADGEN_LATEST; one++) {
        if (strcmp(text, loadgen_distribution_name(one)) == 0) {
            *distribution = one;
            return true;
        }
    }
    fprintf(stderr, LOADGEN ": --distribution takes uniform, zipfian or latest, not '%s'\n", text);
    return false;
}

static bool parse_theta(const char *text, double *theta)
{
    if (tool_parse_double(text, 0, 10, theta))
        return true;
    fprintf(stderr, LOADGEN ": --theta takes a number from 0 to 10; this is not: '%s'\n", text);
    return false;
}

/* One option; false: said why. */
static bool parse_option(int option, struct loadgen_options *options, struct command_line *line)
{
    switch (option) {
    case OPTION_ADDR:
        line->addr = optarg;
        return true;
    case OPTION_UNIX:
        line->unix_path = optarg;
        return true;
    case OPTION_PROTOCOL:
        return parse_protocol(optarg, &options->protocol);
    case OPTION_READ_SHARE:
        return parse_share(optarg, &options->read_share);
    case OPTION_DISTRIBUTION:
        return parse_distribution(optarg, &options->distribution);
    case OPTION_THETA:
        return parse_theta(optarg, &options->theta);
    case OPTION_HISTOGRAM:
        options->histogram_path = optarg;
        return true;
    case OPTION_SECONDS:
        return parse_time("seconds", optarg, &options->seconds);
    case OPTION_WARMUP:
        return parse_time("warmup", optarg, &options->warmup_seconds);
    case OPTION_FILL:
        options->fill = true;
        return true;
    case OPTION_VERIFY:
        options->verify = true;
        return true;
    case OPTION_RELAXED:
        options->relaxed = true;
        return true;
    case OPTION_JSON:
        options->json = true;
        return true;
    case OPTION_QUIET:
        options->quiet = true;
        return true;
    case 'h':
        line->help = true;
        return true;
    case 'V':
        line->version = true;
        return true;
    default:
        if (option < OPTION_NUMBERS)
            return false; /* getopt_long has said why */
        return parse_number(&numbers[option - OPTION_NUMBERS], optarg, options);
    }
}

static bool resolve_address(const struct command_line *line, struct loadgen_options *options)
{
    if (line->addr != NULL && line->unix_path != NULL) {
        fprintf(stderr, LOADGEN ": --addr and --unix exclude each other: give the one that the server listens on\n");
        return false;
    }
    if (line->unix_path != NULL) {
        if (ring_addr_unix(line->unix_path, &options->addr) != KVS_ERR_OK) {
            fprintf(stderr, LOADGEN ": --unix takes the path of a socket, 1 to 107 bytes; this is not: '%s'\n",
                    line->unix_path);
            return false;
        }
    } else {
        const char *text = line->addr != NULL ? line->addr : TOOL_ADDR_DEFAULT;
        if (ring_addr_parse_tcp(text, &options->addr) != KVS_ERR_OK || ring_addr_port(&options->addr) == 0) {
            fprintf(stderr,
                    LOADGEN ": --addr takes IP:PORT with a numeric IP, such as 127.0.0.1:4000 or [::1]:4000; this is "
                            "not: '%s'\n",
                    text);
            return false;
        }
    }
    ring_addr_format(&options->addr, options->addr_text);
    return true;
}

static bool check_together(const struct loadgen_options *options)
{
    uint64_t digits = 1;
    uint64_t keys = options->keys + (options->distribution == LOADGEN_LATEST ? LOADGEN_NEW_KEYS_MAX : 0);
    for (uint64_t last = keys - 1; last >= 10; last /= 10)
        digits++;
    if (digits > options->key_bytes) {
        fprintf(stderr,
                LOADGEN ": keys of %llu bytes cannot tell %llu keys apart; give --key-size %llu or fewer --keys\n",
                (unsigned long long)options->key_bytes, (unsigned long long)keys, (unsigned long long)digits);
        return false;
    }
    if (options->threads > options->connections) {
        fprintf(stderr, LOADGEN ": %llu threads cannot share %llu connections; give --connections %llu or more\n",
                (unsigned long long)options->threads, (unsigned long long)options->connections,
                (unsigned long long)options->threads);
        return false;
    }
    if (options->connections * options->pipeline > 1u << 24) {
        fprintf(stderr, LOADGEN ": more than %u requests under way; lower --connections or --pipeline\n", 1u << 24);
        return false;
    }
    if (options->relaxed && options->protocol == CLIENT_RESP) {
        fprintf(stderr, LOADGEN ": RESP cannot say --relaxed; add --protocol binary\n");
        return false;
    }
    return true;
}

const char *loadgen_distribution_name(enum loadgen_distribution distribution)
{
    static const char *const names[] = {"uniform", "zipfian", "latest"};
    return names[distribution];
}

enum loadgen_parsed loadgen_options_parse(int argc, char **argv, struct loadgen_options *options)
{
    *options = (struct loadgen_options){
        .protocol = CLIENT_RESP,
        .connections = 50,
        .pipeline = 1,
        .threads = 1,
        .keys = 1000000,
        .key_bytes = 16,
        .value_bytes = 64,
        .theta = 0.99,
        .read_share = 0.5,
        .seconds = 10,
        .warmup_seconds = -1,
        .timeout_seconds = 30,
        .seed = 1,
    };
    struct command_line line = {0};
    bool good = true;
    int option;
    while (good && (option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1)
        good = parse_option(option, options, &line);
    if (good && line.help) {
        fputs(help, stdout);
        return LOADGEN_EXIT_OK;
    }
    if (good && line.version) {
        puts(LOADGEN " " KVS_VERSION);
        return LOADGEN_EXIT_OK;
    }
    if (good && optind < argc) {
        fprintf(stderr, LOADGEN ": unexpected argument '%s'\n", argv[optind]);
        good = false;
    }
    if (!good || !resolve_address(&line, options) || !check_together(options)) {
        fprintf(stderr, "Try '" LOADGEN " --help'.\n");
        return LOADGEN_EXIT_USAGE;
    }
    if (options->warmup_seconds < 0)
        options->warmup_seconds = options->requests > 0 || options->seconds <= 0 ? 0 : 1;
    return LOADGEN_RUN;
}
