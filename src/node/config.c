/*
 * config.c - the command line of kvs-node.
 *
 * Happy path: defaults from the machine, then one setter per option, then the checks that need several options at once.
 * Failure: the first bad option ends it, with one line that says which option, which value, and what would be right.
 */
#include "node/config.h"

#include "base/bytes.h"
#include "base/limits.h"

#include <getopt.h>
#include <stdlib.h>
#include <strings.h>

enum { SPACE_PERCENT_MIN = 120, SPACE_PERCENT_MAX = 1000 };
enum { SECONDS_MAX = 100000000, KEEPALIVE_MAX = 32767 /* the kernel's */ };

enum option_id {
    OPTION_ADDR = 256,
    OPTION_UNIX,
    OPTION_DATA_DIR,
    OPTION_BACKUP_DIR,
    OPTION_THREADS,
    OPTION_MEMORY,
    OPTION_SEGMENT_SIZE,
    OPTION_VALUE_MAX,
    OPTION_DISK_LIMIT,
    OPTION_SPACE_PERCENT,
    OPTION_ENGINE,
    OPTION_DURABILITY,
    OPTION_RELAXED_INTERVAL,
    OPTION_MAX_CLIENTS,
    OPTION_TIMEOUT,
    OPTION_TCP_KEEPALIVE,
    OPTION_REQUIREPASS,
    OPTION_ACLFILE,
    OPTION_NO_PROTECTED_MODE,
    OPTION_ENABLE_DEBUG,
    OPTION_LOG_LEVEL,
    OPTION_CHECK,
    OPTION_BOUND, /* and those behind it: enum bound */
};

static const struct option long_options[] = {
    {"addr", required_argument, NULL, OPTION_ADDR},
    {"unix", required_argument, NULL, OPTION_UNIX},
    {"data-dir", required_argument, NULL, OPTION_DATA_DIR},
    {"backup-dir", required_argument, NULL, OPTION_BACKUP_DIR},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"segment-size", required_argument, NULL, OPTION_SEGMENT_SIZE},
    {"value-max", required_argument, NULL, OPTION_VALUE_MAX},
    {"disk-limit", required_argument, NULL, OPTION_DISK_LIMIT},
    {"space-percent", required_argument, NULL, OPTION_SPACE_PERCENT},
    {"engine", required_argument, NULL, OPTION_ENGINE},
    {"durability", required_argument, NULL, OPTION_DURABILITY},
    {"relaxed-interval", required_argument, NULL, OPTION_RELAXED_INTERVAL},
    {"max-clients", required_argument, NULL, OPTION_MAX_CLIENTS},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"tcp-keepalive", required_argument, NULL, OPTION_TCP_KEEPALIVE},
    {"requirepass", required_argument, NULL, OPTION_REQUIREPASS},
    {"aclfile", required_argument, NULL, OPTION_ACLFILE},
    {"no-protected-mode", no_argument, NULL, OPTION_NO_PROTECTED_MODE},
    {"enable-debug-command", required_argument, NULL, OPTION_ENABLE_DEBUG},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"key-max", required_argument, NULL, OPTION_BOUND + BOUND_KEY_BYTES},
    {"bulk-max", required_argument, NULL, OPTION_BOUND + BOUND_BULK_BYTES},
    {"args-max", required_argument, NULL, OPTION_BOUND + BOUND_ARGS},
    {"request-max", required_argument, NULL, OPTION_BOUND + BOUND_REQUEST_BYTES},
    {"output-limit", required_argument, NULL, OPTION_BOUND + BOUND_OUTPUT_BYTES},
    {"send-timeout", required_argument, NULL, OPTION_BOUND + BOUND_SEND_TIMEOUT_S},
    {"clients-memory", required_argument, NULL, OPTION_BOUND + BOUND_CLIENTS_MEMORY_BYTES},
    {"pipeline-max", required_argument, NULL, OPTION_BOUND + BOUND_PIPELINE},
    {"turn-max", required_argument, NULL, OPTION_BOUND + BOUND_TURN},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Where a parse stands: what it fills, and where it may complain. */
struct parse {
    struct config *config;
    char *message;
    bool addr_none;
};

static bool complain(const struct parse *parse, const char *option, const char *value, const char *right)
{
    snprintf(parse->message, CONFIG_MESSAGE_BYTES, "--%s %s: %s", option, value, right);
    return false;
}

/* Decimal digits only, at most 18 of them: no sign, no blanks, no overflow. */
static bool parse_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    size_t length = strlen(text);
    if (length == 0 || length > 18)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return true;
}

bool config_parse_size(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *suffix;
        unsigned shift;
    } units[] = {
        {"", 0},     {"b", 0},  {"k", 10},  {"kb", 10},  {"kib", 10}, {"m", 20},  {"mb", 20},
        {"mib", 20}, {"g", 30}, {"gb", 30}, {"gib", 30}, {"t", 40},   {"tb", 40}, {"tib", 40},
    };
    size_t digits = strspn(text, "0123456789");
    char number[24];
    if (digits == 0 || digits >= sizeof(number))
        return false;
    memcpy(number, text, digits);
    number[digits] = 0;
    uint64_t value;
    if (!parse_number(number, &value))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (strcasecmp(text + digits, units[i].suffix) == 0)
            return !__builtin_mul_overflow(value, 1ull << units[i].shift, bytes);
    }
    return false;
}

static bool set_addr(struct parse *parse, const char *value)
{
    struct config *config = parse->config;
    if (strcmp(value, "none") == 0) {
        parse->addr_none = true;
        return true;
    }
    if (config->address_count == CONFIG_ADDRESSES_MAX)
        return complain(parse, "addr", value, "at most 3 addresses can be listened on");
    if (ring_addr_parse_tcp(value, &config->addresses[config->address_count]) != KVS_ERR_OK)
        return complain(parse, "addr", value,
                        "expected a numeric IP:PORT such as 127.0.0.1:4000 or [::1]:4000, or none (Unix socket only)");
    config->address_count++;
    return true;
}

static bool set_unix(struct parse *parse, const char *value)
{
    if (*value == 0 || ring_addr_unix(value, &parse->config->unix_addr) != KVS_ERR_OK)
        return complain(parse, "unix", value, "expected the path of a Unix socket of 1 to 107 bytes");
    parse->config->unix_path = value;
    return true;
}

static bool set_backup_dir(struct parse *parse, const char *value)
{
    enum { PATH_BYTES_MAX = 400 };
    if (*value != '/' || strlen(value) > PATH_BYTES_MAX || value[strlen(value) - 1] == '/')
        return complain(parse, "backup-dir", value,
                        "expected the absolute path of a directory, of at most 400 bytes and without a slash at the "
                        "end");
    parse->config->backup_dir = value;
    return true;
}

static bool set_memory(struct parse *parse, const char *value)
{
    if (!config_parse_size(value, &parse->config->memory_bytes))
        return complain(parse, "memory", value, "expected a size such as 512M or 4GiB");
    if (parse->config->memory_bytes < CONFIG_MEMORY_BYTES_MIN)
        return complain(parse, "memory", value, "too small; at least 64M is needed");
    return true;
}

static bool set_segment_size(struct parse *parse, const char *value)
{
    uint64_t bytes;
    if (!config_parse_size(value, &bytes) || !is_power_of_two(bytes) || bytes < CONFIG_SEGMENT_BYTES_MIN ||
        bytes > CONFIG_SEGMENT_BYTES_MAX)
        return complain(parse, "segment-size", value, "expected a power of two from 1M to 1G, such as 64M");
    parse->config->segment_bytes = bytes;
    return true;
}

static bool set_value_max(struct parse *parse, const char *value)
{
    uint64_t bytes;
    if (!config_parse_size(value, &bytes) || bytes < 1 || bytes > KVS_VALUE_BYTES_MAX)
        return complain(parse, "value-max", value, "expected a size from 1 to 512M, such as 64M");
    parse->config->value_bytes_max = bytes;
    return true;
}

static bool set_disk_limit(struct parse *parse, const char *value)
{
    if (!config_parse_size(value, &parse->config->disk_bytes_max))
        return complain(parse, "disk-limit", value, "expected a size such as 100G; 0 for what the file system has");
    return true;
}

static bool set_engine(struct parse *parse, const char *value)
{
    if (strcmp(value, "kvs") != 0 && strcmp(value, "memory") != 0)
        return complain(parse, "engine", value,
                        "expected kvs (durable, the default) or memory (a cache: nothing survives a restart)");
    parse->config->engine = value;
    return true;
}

static bool set_durability(struct parse *parse, const char *value)
{
    bool relaxed = strcmp(value, "relaxed") == 0;
    if (!relaxed && strcmp(value, "durable") != 0)
        return complain(parse, "durability", value,
                        "expected durable (a reply means the write is on disk; the default) or relaxed (on disk within "
                        "--relaxed-interval)");
    parse->config->relaxed = relaxed;
    return true;
}

static bool set_number(struct parse *parse, const char *option, const char *value, uint64_t min, uint64_t max,
                       unsigned *out)
{
    uint64_t number;
    if (!parse_number(value, &number) || number < min || number > max) {
        snprintf(parse->message, CONFIG_MESSAGE_BYTES, "--%s %s: expected a number from %llu to %llu", option, value,
                 (unsigned long long)min, (unsigned long long)max);
        return false;
    }
    *out = (unsigned)number;
    return true;
}

/* The password itself is not repeated: messages are kept. */
static bool set_requirepass(struct parse *parse, char *value)
{
    if (strlen(value) > CONFIG_PASSWORD_BYTES_MAX)
        return complain(parse, "requirepass", "…", "a password has at most 512 bytes");
    parse->config->requirepass = value;
    return true;
}

static bool set_aclfile(struct parse *parse, const char *value)
{
    enum { PATH_BYTES_MAX = 400 };
    if (*value == 0 || strlen(value) > PATH_BYTES_MAX || value[strlen(value) - 1] == '/')
        return complain(parse, "aclfile", value, "expected the path of a file, of at most 400 bytes");
    parse->config->acl_file = value;
    return true;
}

static bool set_bound(struct parse *parse, enum bound bound, const char *value)
{
    char right[80];
    if (bounds_set(&parse->config->bounds, bound, value, right, sizeof(right)))
        return true;
    return complain(parse, bounds_name(bound), value, right);
}

static bool set_enable_debug(struct parse *parse, const char *value)
{
    static const char *const words[] = {
        [CONFIG_DEBUG_NO] = "no", [CONFIG_DEBUG_LOCAL] = "local", [CONFIG_DEBUG_YES] = "yes"};
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        parse->config->enable_debug = (enum config_debug)i;
        if (strcmp(value, words[i]) == 0)
            return true;
    }
    return complain(parse, "enable-debug-command", value,
                    "expected no, local (for connections from this machine) or yes");
}

static bool set_option(struct parse *parse, int option, const char *value)
{
    struct config *config = parse->config;
    if (option >= OPTION_BOUND)
        return set_bound(parse, (enum bound)(option - OPTION_BOUND), value);
    switch (option) {
    case OPTION_ADDR:
        return set_addr(parse, value);
    case OPTION_UNIX:
        return set_unix(parse, value);
    case OPTION_DATA_DIR:
        if (*value == 0)
            return complain(parse, "data-dir", "''", "expected the path of a directory");
        config->data_dir = value;
        return true;
    case OPTION_BACKUP_DIR:
        return set_backup_dir(parse, value);
    case OPTION_THREADS:
        return set_number(parse, "threads", value, 1, KVS_SHARDS_MAX, &config->threads);
    case OPTION_MEMORY:
        return set_memory(parse, value);
    case OPTION_SEGMENT_SIZE:
        return set_segment_size(parse, value);
    case OPTION_VALUE_MAX:
        return set_value_max(parse, value);
    case OPTION_DISK_LIMIT:
        return set_disk_limit(parse, value);
    case OPTION_SPACE_PERCENT:
        return set_number(parse, "space-percent", value, SPACE_PERCENT_MIN, SPACE_PERCENT_MAX, &config->space_percent);
    case OPTION_ENGINE:
        return set_engine(parse, value);
    case OPTION_DURABILITY:
        return set_durability(parse, value);
    case OPTION_RELAXED_INTERVAL:
        return set_number(parse, "relaxed-interval", value, 1, 60000, &config->relaxed_interval_ms);
    case OPTION_MAX_CLIENTS:
        return set_number(parse, "max-clients", value, 1, 1000000, &config->max_clients);
    case OPTION_TIMEOUT:
        return set_number(parse, "timeout", value, 0, SECONDS_MAX, &config->idle_timeout_s);
    case OPTION_TCP_KEEPALIVE:
        return set_number(parse, "tcp-keepalive", value, 0, KEEPALIVE_MAX, &config->keepalive_s);
    case OPTION_REQUIREPASS:
        return set_requirepass(parse, optarg);
    case OPTION_ACLFILE:
        return set_aclfile(parse, value);
    case OPTION_NO_PROTECTED_MODE:
        config->protected_mode = false;
        return true;
    case OPTION_ENABLE_DEBUG:
        return set_enable_debug(parse, value);
    case OPTION_LOG_LEVEL:
        if (!diag_parse_level(value, &config->log_level))
            return complain(parse, "log-level", value, "expected error, warn, info or debug");
        return true;
    case OPTION_CHECK:
        config->mode = CONFIG_CHECK;
        return true;
    case 'V':
        config->mode = CONFIG_VERSION;
        return true;
    default:
        config->mode = CONFIG_HELP;
        return true;
    }
}

/* What can only be judged when every option is known. */
static bool check_together(struct parse *parse)
{
    struct config *config = parse->config;
    if (parse->addr_none && config->address_count > 0)
        return complain(parse, "addr", "none", "cannot be combined with another --addr");
    if (parse->addr_none && config->unix_path == NULL)
        return complain(parse, "addr", "none", "leaves nothing to listen on; add --unix PATH");
    if (!parse->addr_none && config->address_count == 0 &&
        ring_addr_parse_tcp("127.0.0.1:4000", &config->addresses[config->address_count++]) != KVS_ERR_OK)
        return complain(parse, "addr", "127.0.0.1:4000", "the default address is not understood");

    if (config->requirepass != NULL && config->acl_file != NULL)
        return complain(parse, "requirepass", "…",
                        "cannot be combined with --aclfile: give the user default a password in that file");

    /* With a file of users the node judges, when it has read it. */
    char text[RING_ADDR_TEXT_BYTES];
    bool password = config->requirepass != NULL && *config->requirepass != 0;
    if (config->protected_mode && !password && config->acl_file == NULL && config_reaches_others(config, text))
        return complain(
            parse, "addr", text,
            "refused in protected mode: this address is reachable from other machines, and kvs-node asks "
            "nobody for a password. Set one with --requirepass or --aclfile, or listen on 127.0.0.1 or a Unix "
            "socket, or add --no-protected-mode if the network is trusted");
    return true;
}

bool config_reaches_others(const struct config *config, char text[RING_ADDR_TEXT_BYTES])
{
    for (unsigned i = 0; i < config->address_count; i++) {
        if (ring_addr_is_local(&config->addresses[i]))
            continue;
        (void)ring_addr_format(&config->addresses[i], text);
        return true;
    }
    return false;
}

void config_forget_password(struct config *config)
{
    if (config->requirepass != NULL)
        explicit_bzero(config->requirepass, strlen(config->requirepass));
}

static void set_defaults(struct config *config, unsigned cpus)
{
    *config = (struct config){
        .mode = CONFIG_RUN,
        .data_dir = "./kvs-data",
        .threads = cpus < 1                ? 1
                   : cpus > KVS_SHARDS_MAX ? KVS_SHARDS_MAX
                                           : cpus,
        .space_percent = 200,
        .engine = "kvs",
        .relaxed_interval_ms = 100,
        .max_clients = 10000,
        .protected_mode = true,
        .keepalive_s = 300,
        .log_level = DIAG_INFO,
    };
}

/*
 * What the process takes besides what it shares out, measured. Once: programs and libraries, what the allocator needs
 * for itself, what compaction and checkpoints work with. For each thread: receive buffers, pages of the index that are
 * taken in advance, its stack.
 */
#define MEMORY_FIXED_BYTES  (20ull << 20)
#define MEMORY_THREAD_BYTES (5ull << 20)

void config_set_memory(struct config *config, uint64_t ram_bytes)
{
    if (config->memory_bytes == 0)
        config->memory_bytes = ram_bytes / 2 < CONFIG_MEMORY_BYTES_MIN ? CONFIG_MEMORY_BYTES_MIN : ram_bytes / 2;
    uint64_t fixed = MEMORY_FIXED_BYTES + config->threads * MEMORY_THREAD_BYTES;
    config->memory_fixed_bytes = fixed < config->memory_bytes / 2 ? fixed : config->memory_bytes / 2;
}

bool config_parse(struct config *out, int argc, char **argv, unsigned cpus, char message[CONFIG_MESSAGE_BYTES])
{
    struct parse parse = {.config = out, .message = message};
    set_defaults(out, cpus);

    opterr = 0;
    optind = 0; /* glibc: begin anew, also when called a second time */
    for (;;) {
        int at = optind == 0 ? 1 : optind;
        int option = getopt_long(argc, argv, ":Vh", long_options, NULL);
        if (option == -1)
            break;
        if (option == ':') {
            snprintf(message, CONFIG_MESSAGE_BYTES, "%s: a value is missing after it; see --help", argv[at]);
            return false;
        }
        if (option == '?') {
            snprintf(message, CONFIG_MESSAGE_BYTES, "%s: unknown option, or one that takes no value; see --help",
                     argv[at]);
            return false;
        }
        if (!set_option(&parse, option, optarg))
            return false;
        if (out->mode == CONFIG_VERSION || out->mode == CONFIG_HELP)
            return true;
    }
    if (optind < argc) {
        snprintf(message, CONFIG_MESSAGE_BYTES, "%s: not an option; every option begins with --, see --help",
                 argv[optind]);
        return false;
    }
    return check_together(&parse);
}

void config_print_help(FILE *out)
{
    fputs("Usage: kvs-node [OPTION]...\n"
          "A durable key-value store for clients that speak the Redis protocol or kvs frames.\n"
          "\n"
          "  --addr IP:PORT         listen here; up to 3 times; 'none' for no TCP   (127.0.0.1:4000)\n"
          "  --unix PATH            listen on a Unix socket as well\n"
          "  --data-dir DIR         where the data lives; made when missing         (./kvs-data)\n"
          "  --backup-dir DIR       where backups go, an absolute path, of this node alone\n"
          "                                                                (DATA-DIR/backups)\n"
          "  --threads N            threads, one shard each, 1 to 64                (CPUs it may use)\n"
          "  --memory SIZE          RAM for index, data and buffers, at least 64M   (half of the RAM)\n"
          "  --segment-size SIZE    log file size of a new store, 1M to 1G          (chosen from --memory)\n"
          "  --value-max SIZE       longest value, up to 512M and an eighth of --memory (64M)\n"
          "  --disk-limit SIZE      disk space for log and value files; 0: no limit (0)\n"
          "  --space-percent N      disk space used for every 100 bytes of live data\n"
          "                         before old records are cleared away, 120 to 1000 (200)\n"
          "  --engine NAME          kvs: durable; memory: nothing survives a restart (kvs)\n"
          "  --durability CLASS     durable: a reply means the write is on disk;\n"
          "                         relaxed: on disk within --relaxed-interval      (durable)\n"
          "  --relaxed-interval MS  1 to 60000                                      (100)\n"
          "  --max-clients N        connections at a time                           (10000)\n"
          "  --timeout SECONDS      close connections idle for so long; 0: never     (0)\n"
          "  --tcp-keepalive SECONDS  probe silent peers; 0: never                   (300)\n"
          "  --key-max SIZE         longest key, 1 to 65535                         (65535)\n"
          "  --bulk-max SIZE        longest argument, 1M to 512M; what is longer than\n"
          "                         --value-max is refused, beyond this the client   (512M)\n"
          "  --args-max N           arguments of a request, 16 to 1048576            (1048576)\n"
          "  --request-max SIZE     longest request, 1M to 1G             (--value-max and 2 to 17M)\n"
          "  --output-limit SIZE    unsent replies of a connection, 16K to 1G; beyond it the\n"
          "                         connection is not read from            (chosen from --memory)\n"
          "  --send-timeout SECONDS  end connections that take no reply for so long  (30)\n"
          "  --clients-memory SIZE  memory of all connections together, up to an eighth of\n"
          "                         --memory                               (chosen from --memory)\n"
          "  --pipeline-max N       requests of a connection under way, 1 to 65536  (1024)\n"
          "  --turn-max N           requests of a connection handled before others have\n"
          "                         their turn, 1 to 1000000                        (2048)\n"
          "  --requirepass PASSWORD ask clients for this password\n"
          "  --aclfile FILE         users and what they may do; written by ACL SAVE\n"
          "  --no-protected-mode    without a password, too, allow --addr on other than\n"
          "                         loopback addresses\n"
          "  --enable-debug-command WHO  who may use DEBUG: no, local or yes         (no)\n"
          "  --log-level LEVEL      error, warn, info or debug                      (info)\n"
          "  --check                say what this machine offers, and exit\n"
          "  -V, --version          print the version, and exit\n"
          "  -h, --help             print this, and exit\n"
          "\n"
          "SIZE takes K, M, G, T or KiB, MiB, GiB, TiB. SIGTERM and SIGINT stop it in order.\n",
          out);
}
