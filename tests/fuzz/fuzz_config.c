/*
 * fuzz_config.c - the command line of kvs-node, and the small languages in it: sizes, addresses, levels.
 *
 * Input: the arguments, each ended by a line feed.
 *
 * Properties. Any command line is taken or refused; a refusal has a message, and a configuration that was taken is
 * within the limits of every option. The same arguments give the same answer. An address reads the same after it was
 * printed.
 */
#include "fuzz.h"
#include "node/config.h"

#include "base/limits.h"

enum { ARGS_MAX = 24 };

struct arguments {
    int count;
    char *texts[ARGS_MAX + 1]; /* with a NULL behind the last */
    char *order[ARGS_MAX + 1]; /* the same, for getopt to reorder */
};

static void arguments_init(struct arguments *arguments, struct fuzz_input input)
{
    *arguments = (struct arguments){.count = 1};
    arguments->texts[0] = (char *)fuzz_copy("kvs-node", 9);
    while (input.size > 0 && arguments->count < ARGS_MAX) {
        const uint8_t *end = memchr(input.data, '\n', input.size);
        const size_t size = end != NULL ? (size_t)(end - input.data) : input.size;
        const struct slice text = fuzz_take_slice(&input, size);
        (void)fuzz_take(&input, 1);
        arguments->texts[arguments->count++] = fuzz_string(text.data, text.size);
    }
    memcpy(arguments->order, arguments->texts, sizeof arguments->texts);
}

static void arguments_deinit(struct arguments *arguments)
{
    for (int i = 0; i < arguments->count; i++)
        free(arguments->texts[i]);
}

static void check_text(const char *text)
{
    uint64_t bytes;
    FUZZ_CHECK(!config_parse_size(text, &bytes) || (text[0] >= '0' && text[0] <= '9'));
    enum diag_level level = DIAG_INFO;
    (void)diag_parse_level(text, &level);
    struct ring_addr addr, again;
    if (ring_addr_parse_tcp(text, &addr) != KVS_ERR_OK)
        return;
    char printed[RING_ADDR_TEXT_BYTES], reprinted[RING_ADDR_TEXT_BYTES];
    FUZZ_CHECK(ring_addr_parse_tcp(ring_addr_format(&addr, printed), &again) == KVS_ERR_OK);
    FUZZ_CHECK(strcmp(printed, ring_addr_format(&again, reprinted)) == 0);
    FUZZ_CHECK(ring_addr_is_local(&addr) == ring_addr_is_local(&again));
}

static void check_taken(const struct config *config)
{
    if (config->mode == CONFIG_VERSION || config->mode == CONFIG_HELP)
        return;
    FUZZ_CHECK(config->threads >= 1 && config->threads <= KVS_SHARDS_MAX);
    FUZZ_CHECK(config->memory_bytes == 0 || config->memory_bytes >= CONFIG_MEMORY_BYTES_MIN);
    FUZZ_CHECK(config->segment_bytes == 0 ||
               (is_power_of_two(config->segment_bytes) && config->segment_bytes >= CONFIG_SEGMENT_BYTES_MIN &&
                config->segment_bytes <= CONFIG_SEGMENT_BYTES_MAX));
    FUZZ_CHECK(strcmp(config->engine, "kvs") == 0 || strcmp(config->engine, "memory") == 0);
    FUZZ_CHECK(config->max_clients >= 1 && config->max_clients <= 1000000);
    for (unsigned i = 0; i < BOUND_COUNT; i++)
        FUZZ_CHECK(config->bounds.given[i] <= UINT64_C(1) << 40);
    FUZZ_CHECK(config->bounds.given[BOUND_KEY_BYTES] <= KVS_KEY_BYTES_MAX);
    FUZZ_CHECK(config->bounds.given[BOUND_BULK_BYTES] <= KVS_VALUE_BYTES_MAX);
    FUZZ_CHECK(config->bounds.given[BOUND_REQUEST_BYTES] <= UINT32_MAX);
    FUZZ_CHECK(config->relaxed_interval_ms >= 1 && config->relaxed_interval_ms <= 60000);
    FUZZ_CHECK(config->data_dir[0] != '\0');
    FUZZ_CHECK(config->address_count <= CONFIG_ADDRESSES_MAX);
    FUZZ_CHECK(config->address_count > 0 || config->unix_path != NULL);
    /* Of an ACL file the node itself sees whether it asks for passwords. */
    const bool password = config->requirepass != NULL && *config->requirepass != '\0';
    const bool open = !config->protected_mode || password || config->acl_file != NULL;
    for (unsigned i = 0; i < config->address_count; i++)
        FUZZ_CHECK(open || ring_addr_is_local(&config->addresses[i]));
    struct config sized = *config;
    config_set_memory(&sized, 1 << 20);
    FUZZ_CHECK(sized.memory_bytes >= CONFIG_MEMORY_BYTES_MIN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arguments arguments;
    arguments_init(&arguments, (struct fuzz_input){data, size});
    for (int i = 1; i < arguments.count; i++)
        check_text(arguments.texts[i]);

    struct config config, again;
    char message[CONFIG_MESSAGE_BYTES] = "", message_again[CONFIG_MESSAGE_BYTES] = "";
    const bool taken = config_parse(&config, arguments.count, arguments.order, 4, message);
    if (taken)
        check_taken(&config);
    else
        FUZZ_CHECK(message[0] != '\0' && memchr(message, '\0', sizeof message) != NULL);

    memcpy(arguments.order, arguments.texts, sizeof arguments.texts);
    FUZZ_CHECK(config_parse(&again, arguments.count, arguments.order, 4, message_again) == taken);
    FUZZ_CHECK(strcmp(message, message_again) == 0);
    if (taken)
        FUZZ_CHECK(config.mode == again.mode && config.threads == again.threads &&
                   config.memory_bytes == again.memory_bytes && config.address_count == again.address_count &&
                   config.unix_path == again.unix_path && config.data_dir == again.data_dir);
    arguments_deinit(&arguments);
    return 0;
}
