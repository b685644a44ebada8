/*
 * info.c - the sections of INFO.
 *
 * Memory is what the allocator says plus what is mapped past it, by the engine, for large values and for receiving:
 * exact enough to size a node, and needs no file.
 *
 * While the store is being opened there is nothing to tell of it: its figures are 0, and those of the opening are
 * there.
 */
#include "node/info.h"

#include "node/command.h"
#include "node/figures.h"
#include "node/info_commands.h"
#include "node/machine.h"
#include "node/node_internal.h"

#include <stdio.h>
#include <unistd.h>

static unsigned long long ull(uint64_t value)
{
    return value;
}

static void human(char out[16], uint64_t bytes)
{
    static const char units[] = "BKMGT";
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 2 < sizeof(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 16, unit == 0 ? "%.0f%c" : "%.2f%c", value, units[unit]);
}

static void write_server(const struct node *node, const struct ring *ring, struct text *out)
{
    uint64_t seconds = (ring_now_ns(ring) - node->started_ns) / 1000000000;
    unsigned port = node->listener_count > 0 ? ring_addr_port(&node->addresses[0]) : 0;
    text_printf(out, "# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\nkvs_version:%s\r\n",
                COMMAND_REDIS_VERSION, KVS_VERSION);
    text_printf(out, "engine:%s\r\narch_bits:64\r\nprocess_id:%d\r\nrun_id:%s\r\n", node->config.engine, (int)getpid(),
                node->run_id);
    text_printf(out, "tcp_port:%u\r\nuptime_in_seconds:%llu\r\nuptime_in_days:%llu\r\n", port, ull(seconds),
                ull(seconds / 86400));
    text_printf(out, "threads:%u\r\nring:%s\r\nconfig_file:\r\n", node->shard_count, ring_describe(ring));
}

static void write_clients(const struct node *node, const struct figures *figures, struct text *out)
{
    text_printf(out, "# Clients\r\nconnected_clients:%llu\r\nmaxclients:%u\r\nblocked_clients:0\r\n",
                ull(figures->net.connections), (unsigned)settings_get(&node->settings, SETTING_CLIENTS_MAX));
}

static void write_memory(const struct node *node, const struct figures *figures, const struct engine_stats *engine,
                         struct text *out)
{
    char used_text[16], max_text[16];
    uint64_t heap = machine_heap_bytes();
    uint64_t buffers = (uint64_t)node->shard_count * node->recv_buffers * SHARD_RECV_BUFFER_BYTES;
    uint64_t large = atomic_load_explicit(&node->large.used_bytes, memory_order_relaxed);
    for (unsigned i = 0; i < node->shard_count; i++)
        large += atomic_load_explicit(&node->shards[i].large_reserve.used_bytes, memory_order_relaxed);
    uint64_t used =
        heap + buffers + large + engine->index_bytes + engine->image_bytes + engine->cache_bytes + engine->expiry_bytes;
    human(used_text, used);
    human(max_text, node->config.memory_bytes);
    text_printf(out, "# Memory\r\nused_memory:%llu\r\nused_memory_human:%s\r\nused_memory_peak_rss:%llu\r\n", ull(used),
                used_text, ull(machine_peak_resident_bytes()));
    text_printf(out,
                "used_memory_heap:%llu\r\nused_memory_index:%llu\r\nused_memory_images:%llu\r\n"
                "used_memory_cache:%llu\r\nused_memory_expiry:%llu\r\nused_memory_buffers:%llu\r\n",
                ull(heap), ull(engine->index_bytes), ull(engine->image_bytes), ull(engine->cache_bytes),
                ull(engine->expiry_bytes), ull(buffers));
    text_printf(out,
                "used_memory_connections:%llu\r\nused_memory_connections_peak:%llu\r\n"
                "used_memory_connections_max:%llu\r\n",
                ull(figures->net.memory_bytes), ull(figures->net.memory_peak_bytes),
                ull(node->shard_count * node->net_options.memory_max));
    text_printf(out, "used_memory_requests:%llu\r\nused_memory_large_values:%llu\r\n",
                ull(atomic_load_explicit(&node->budget.used_bytes, memory_order_relaxed)), ull(large));
    text_printf(out, "maxmemory:%llu\r\nmaxmemory_human:%s\r\nmaxmemory_policy:noeviction\r\n",
                ull(node->config.memory_bytes), max_text);
}

static void write_backup(const struct node *node, const struct ring *ring, struct text *out)
{
    struct engine_backup_state state;
    engine_backup_state(node->engine, &state);
    bool good = state.good_moment_ms != 0;
    text_printf(out, "rdb_bgsave_in_progress:%d\r\nrdb_last_save_time:%llu\r\nrdb_last_bgsave_status:%s\r\n",
                state.running, ull(command_last_save_s(node, ring, &state)), state.error == KVS_ERR_OK ? "ok" : "err");
    text_printf(out, "rdb_last_bgsave_time_sec:%lld\r\nbackups_ended:%llu\r\n",
                good ? (long long)(state.good_took_ns / 1000000000) : -1ll, ull(state.ended));
    if (state.ended > 0)
        text_printf(out, "last_backup_name:%s\r\n", state.name);
    if (state.error != KVS_ERR_OK)
        text_printf(out, "last_backup_error:%s\r\n", state.text);
    if (good)
        text_printf(out,
                    "last_backup_path:%s\r\nlast_backup_bytes:%llu\r\nlast_backup_copied_bytes:%llu\r\n"
                    "last_backup_seconds:%.3f\r\n",
                    state.good_path, ull(state.good_bytes), ull(state.good_copied_bytes),
                    (double)state.good_took_ns / 1e9);
}

/* Names, units and order are Redis's. */
static void write_loading(const struct node *node, const struct ring *ring, struct text *out)
{
    struct loading loading = node_loading(node, ring);
    text_printf(out, "loading_start_time:%llu\r\nloading_total_bytes:%llu\r\nloading_loaded_bytes:%llu\r\n",
                ull(node->started_wall_ms / 1000), ull(loading.bytes_total), ull(loading.bytes_done));
    text_printf(out, "loading_loaded_perc:%.2f\r\nloading_eta_seconds:%llu\r\n", loading.percent,
                ull(loading.seconds_left));
}

static void write_persistence(const struct node *node, const struct ring *ring, const struct engine_stats *engine,
                              struct text *out)
{
    bool open = node_is_open(node);
    struct engine_recovery recovery = {0};
    if (open)
        engine_recovered(node->engine, &recovery);
    text_printf(out, "# Persistence\r\nloading:%d\r\n", !open);
    if (!open)
        write_loading(node, ring, out);
    text_printf(out, "durability:%s\r\ndurability_method:%s\r\n",
                settings_get(&node->settings, SETTING_RELAXED) != 0 ? "relaxed" : "durable",
                open ? engine_durability_method(node->engine) : "");
    text_printf(out, "relaxed_interval_ms:%u\r\nfailed_shards:%llu\r\ndamaged_reads:%llu\r\n",
                node->config.relaxed_interval_ms, ull(engine->failed_shards), ull(engine->damaged_reads));
    text_printf(out, "background_failed:%llu\r\nsegments:%llu\r\ndisk_limit:%llu\r\ndisk_bytes:%llu\r\n",
                ull(engine->background_failed), ull(engine->segments), ull(node->config.disk_bytes_max),
                ull(engine->disk_bytes));
    text_printf(out, "disk_free_segments:%llu\r\ndisk_sealed_segments:%llu\r\nlive_bytes:%llu\r\n",
                ull(engine->segments_free), ull(engine->segments_sealed), ull(engine->live_bytes));
    text_printf(out, "large_values:%llu\r\nlarge_value_bytes:%llu\r\n", ull(engine->large_values),
                ull(engine->large_value_bytes));
    text_printf(out,
                "recovered_keys:%llu\r\nrecovered_records:%llu\r\nrecovery_cut_bytes:%llu\r\nrecovery_ms:%llu\r\n"
                "recovery_snapshot:%d\r\n",
                ull(recovery.keys), ull(recovery.records), ull(recovery.cut_bytes), ull(recovery.elapsed_ns / 1000000),
                recovery.snapshot);
    if (open)
        write_backup(node, ring, out);
}

/* How many times what it was divided by; 0 as long as that is nothing. */
static double ratio(double bytes, uint64_t of)
{
    return of == 0 ? 0 : bytes / (double)of;
}

static void write_compaction(const struct node *node, const struct engine_stats *engine, struct text *out)
{
    struct compact_stats compact = {0};
    const char *trouble = "";
    if (node_is_open(node) && node->background.compactor != NULL) {
        compact_stats(node->background.compactor, &compact);
        trouble = compact_trouble(node->background.compactor);
    }
    text_printf(out, "# Compaction\r\ncompaction_running:%d\r\ncompaction_urgency:%u\r\ncompaction_failed:%d\r\n",
                compact.running, compact.urgency, compact.failed);
    if (*trouble != 0)
        text_printf(out, "compaction_trouble:%s\r\n", trouble);
    text_printf(out, "compacted_segments:%llu\r\ndamaged_segments:%llu\r\n", ull(compact.victims),
                ull(compact.damaged_segments));
    text_printf(out, "compaction_read_bytes:%llu\r\ncompaction_written_bytes:%llu\r\n", ull(compact.bytes_read),
                ull(compact.bytes_written));
    text_printf(out, "records_moved:%llu\r\ndeletes_kept:%llu\r\ndeletes_dropped:%llu\r\nexpired_kept:%llu\r\n",
                ull(compact.records_moved), ull(compact.deletes_kept), ull(compact.deletes_dropped),
                ull(compact.expired_kept));
    uint64_t segment_bytes = engine->segments == 0 ? 0 : engine->disk_bytes / engine->segments;
    uint64_t used = engine->segments > engine->segments_free ? engine->segments - engine->segments_free : 0;
    text_printf(out, "write_amplification:%.2f\r\nspace_amplification:%.2f\r\n",
                ratio((double)engine->bytes_written + (double)compact.bytes_written, engine->bytes_written),
                ratio((double)used * (double)segment_bytes, engine->live_bytes));
}

static void write_checkpoint(const struct engine_stats *engine, struct text *out)
{
    text_printf(out, "# Checkpoint\r\ncheckpoint_runs:%llu\r\ncheckpoint_run_bytes:%llu\r\n",
                ull(engine->checkpoint_runs), ull(engine->checkpoint_run_bytes));
    text_printf(out, "checkpoint_made:%llu\r\ncheckpoint_bytes_written:%llu\r\ncheckpoint_failed:%llu\r\n",
                ull(engine->checkpoint_made), ull(engine->checkpoint_bytes_written), ull(engine->checkpoint_failed));
}

static void write_stats(const struct figures *figures, const struct engine_stats *engine, struct text *out)
{
    uint64_t batches = engine->batches > 0 ? engine->batches : 1;
    uint64_t refused = figures->net.connections_refused + figures->clients_refused;
    text_printf(
        out,
        "# Stats\r\ntotal_connections_received:%llu\r\nrejected_connections:%llu\r\ndropped_connections:%llu\r\n"
        "waited_connections:%llu\r\n",
        ull(figures->net.connections_accepted), ull(refused), ull(figures->net.connections_dropped),
        ull(figures->net.connections_waited));
    text_printf(out, "total_commands_processed:%llu\r\ntotal_error_replies:%llu\r\n", ull(figures->net.requests),
                ull(figures->shards.errors));
    text_printf(out, "total_net_input_bytes:%llu\r\ntotal_net_output_bytes:%llu\r\n", ull(figures->net.bytes_received),
                ull(figures->net.bytes_sent));
    text_printf(out, "keyspace_hits:%llu\r\nkeyspace_misses:%llu\r\nexpired_keys:%llu\r\nevicted_keys:0\r\n",
                ull(figures->shards.hits), ull(figures->shards.misses), ull(figures->expired_keys));
    text_printf(out, "expiry_lag_ms:%llu\r\nexpiry_unqueued:%llu\r\n", ull(engine->expiry_lag_ms),
                ull(engine->expiry_unqueued));
    text_printf(out, "shard_messages:%llu\r\nrecords_appended:%llu\r\nbytes_appended:%llu\r\nbytes_written:%llu\r\n",
                ull(figures->shards.sent), ull(engine->records_appended), ull(engine->bytes_appended),
                ull(engine->bytes_written));
    text_printf(out, "commits:%llu\r\nbytes_per_commit:%llu\r\nmean_commit_us:%.1f\r\n", ull(engine->batches),
                ull(engine->bytes_written / batches), (double)engine->commit_ns / (double)batches / 1000.0);
    text_printf(out,
                "disk_reads:%llu\r\ndisk_read_bytes:%llu\r\nindex_splits:%llu\r\nblind_overwrites:%llu\r\n"
                "settling:%llu\r\nsettles_skipped:%llu\r\n"
                "cache_records:%llu\r\ncache_hits:%llu\r\ncache_misses:%llu\r\nreads_joined:%llu\r\n",
                ull(engine->disk_reads), ull(engine->disk_read_bytes), ull(engine->index_splits),
                ull(engine->blind_overwrites), ull(engine->settling), ull(engine->settles_skipped),
                ull(engine->cache_records), ull(engine->cache_hits), ull(engine->cache_misses),
                ull(engine->reads_joined));
}

static void write_cpu(struct text *out)
{
    struct machine_cpu_time time = machine_cpu_time();
    text_printf(out, "# CPU\r\nused_cpu_sys:%.6f\r\nused_cpu_user:%.6f\r\n", time.system_seconds, time.user_seconds);
}

static void write_shards(const struct node *node, struct text *out)
{
    bool open = node_is_open(node);
    text_printf(out, "# Shards\r\n");
    for (unsigned i = 0; i < node->shard_count; i++) {
        const struct shard *shard = &node->shards[i];
        if (!figures_has_shard(shard))
            continue;
        struct net_stats net;
        net_stats(shard->net, &net);
        text_printf(out,
                    "shard%u:connections=%llu,requests=%llu,sent=%llu,received=%llu,durable_lsn=%llu,failed=%d\r\n", i,
                    ull(net.connections), ull(net.requests), ull(shard_counter(&shard->counters.sent)),
                    ull(shard_counter(&shard->counters.received)), ull(open ? engine_durable(shard->engine) : 0),
                    open && engine_failed(shard->engine));
    }
}

static void write_keyspace(const struct engine_stats *engine, struct text *out)
{
    text_printf(out, "# Keyspace\r\n");
    if (engine->keys > 0)
        text_printf(out, "db0:keys=%llu,expires=%llu,avg_ttl=0\r\n", ull(engine->keys), ull(engine->expires));
}

unsigned info_section(struct slice name)
{
    static const struct {
        const char *name;
        unsigned section;
    } sections[] = {
        {"server", INFO_SERVER},
        {"clients", INFO_CLIENTS},
        {"memory", INFO_MEMORY},
        {"persistence", INFO_PERSISTENCE},
        {"compaction", INFO_COMPACTION},
        {"checkpoint", INFO_CHECKPOINT},
        {"stats", INFO_STATS},
        {"replication", INFO_REPLICATION},
        {"cpu", INFO_CPU},
        {"shards", INFO_SHARDS},
        {"keyspace", INFO_KEYSPACE},
        {"errorstats", INFO_ERRORSTATS},
        {"commandstats", INFO_COMMANDSTATS},
        {"latencystats", INFO_LATENCYSTATS},
        {"default", INFO_DEFAULT},
        {"all", INFO_ALL},
        {"everything", INFO_ALL},
    };
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        if (command_word_is(name, sections[i].name))
            return sections[i].section;
    }
    return 0;
}

/* One section, and an empty line before it when it is not the first. */
static void write_section(const struct node *node, const struct ring *ring, unsigned section,
                          const struct figures *figures, const struct engine_stats *engine, struct text *out)
{
    if (out->size > 0)
        text_printf(out, "\r\n");
    switch ((enum info_sections)section) {
    case INFO_SERVER:
        write_server(node, ring, out);
        break;
    case INFO_CLIENTS:
        write_clients(node, figures, out);
        break;
    case INFO_MEMORY:
        write_memory(node, figures, engine, out);
        break;
    case INFO_PERSISTENCE:
        write_persistence(node, ring, engine, out);
        break;
    case INFO_COMPACTION:
        write_compaction(node, engine, out);
        break;
    case INFO_CHECKPOINT:
        write_checkpoint(engine, out);
        break;
    case INFO_STATS:
        write_stats(figures, engine, out);
        break;
    case INFO_REPLICATION:
        text_printf(out, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n");
        break;
    case INFO_CPU:
        write_cpu(out);
        break;
    case INFO_SHARDS:
        write_shards(node, out);
        break;
    case INFO_KEYSPACE:
        write_keyspace(engine, out);
        break;
    case INFO_ERRORSTATS:
        info_write_errorstats(node, out);
        break;
    case INFO_COMMANDSTATS:
        info_write_commandstats(node, out);
        break;
    case INFO_LATENCYSTATS:
        info_write_latencystats(node, out);
        break;
    case INFO_DEFAULT:
    case INFO_ALL:
        break;
    }
}

void info_write(struct node *node, const struct ring *ring, unsigned sections, struct text *out)
{
    struct figures figures;
    struct engine_stats engine = {0};

    if (node_is_open(node))
        engine_stats(node->engine, &engine);
    figures_sum(node, &engine, &figures);
    for (unsigned section = 1; section < INFO_ALL; section <<= 1) {
        if ((sections & section) != 0)
            write_section(node, ring, section, &figures, &engine, out);
    }
}
