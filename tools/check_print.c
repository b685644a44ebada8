/*
 * check_print.c - see check_print.h.
 */
#include "check_print.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

bool print_is_sound(const struct check_report *report)
{
    bool sound = !report->refused && report->damages_dropped == 0;
    for (size_t i = 0; i < report->damage_count; i++)
        sound = sound && report->damages[i].severity == CHECK_HARMLESS;
    return sound;
}

/* ---- pieces ---------------------------------------------------------------------------------------------------- */

enum { SIZE_TEXT_BYTES = 32 };

static const char *size_text(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1024 && unit < ARRAY_COUNT(units) - 1) {
        value /= 1024;
        unit++;
    }
    snprintf(text, SIZE_TEXT_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

static const char *time_text(uint64_t ms, char text[SIZE_TEXT_BYTES])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    if (ms == 0 || gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, SIZE_TEXT_BYTES, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        snprintf(text, SIZE_TEXT_BYTES, "at an unknown time");
    return text;
}

static uint64_t count_role(const struct check_report *report, enum check_role role)
{
    uint64_t count = 0;
    for (size_t i = 0; i < report->segment_count; i++)
        count += report->segments[i].role == role;
    return count;
}

static uint64_t count_damages(const struct check_report *report, bool harmless)
{
    uint64_t count = harmless ? 0 : report->damages_dropped;
    for (size_t i = 0; i < report->damage_count; i++)
        count += (report->damages[i].severity == CHECK_HARMLESS) == harmless;
    return count;
}

/* ---- for people ------------------------------------------------------------------------------------------------ */

void print_damage(FILE *to, const struct check_damage *damage)
{
    fprintf(to, "%s: %s", damage->severity == CHECK_HARMLESS ? "note" : "damage", damage->file);
    if (damage->offset != CHECK_UNKNOWN)
        fprintf(to, " at offset %" PRIu64, damage->offset);
    fprintf(to, ": %s", damage->what);
    if (damage->means[0] != '\0')
        fprintf(to, "\n    %s", damage->means);
    if (damage->lsn_last != 0 && damage->lsn_first == damage->lsn_last)
        fprintf(to, "\n    LSN %" PRIu64 " of boot %" PRIu64 ", stream %u", damage->lsn_last, damage->epoch,
                damage->stream);
    else if (damage->lsn_last != 0)
        fprintf(to, "\n    LSN %" PRIu64 " to %" PRIu64 " of boot %" PRIu64 ", stream %u", damage->lsn_first,
                damage->lsn_last, damage->epoch, damage->stream);
    if (damage->records_max == CHECK_UNKNOWN)
        fprintf(to, "\n    how many keys are concerned is not known");
    else if (damage->records_max > 0)
        fprintf(to, "\n    keys that have lost their newest value, or their delete: at most %" PRIu64,
                damage->records_max);
    fputc('\n', to);
}

static void print_store(const char *dir_name, const struct check_report *report)
{
    char size[SIZE_TEXT_BYTES], created[SIZE_TEXT_BYTES];
    printf("%s\n", dir_name);
    if (report->engine[0] == '\0') {
        printf("  store      not known: neither superblock nor any segment tells\n");
        return;
    }
    printf("  store      %s, engine %s%s\n", report->uuid, report->engine,
           report->identity_guessed ? " (from the segments: there is no good superblock)" : "");
    if (!report->identity_guessed)
        printf("  made       %s, %" PRIu64 " starts since\n", time_text(report->created_ms, created), report->epoch);
    printf("  segments   %" PRIu64 " files of %s: %" PRIu64 " sealed, %" PRIu64 " being written, %" PRIu64 " free",
           report->files, size_text(report->segment_bytes, size), count_role(report, CHECK_SEALED),
           count_role(report, CHECK_LOG), count_role(report, CHECK_FREE));
    static const enum check_role others[] = {CHECK_UNFINISHED, CHECK_UNLISTED, CHECK_TEMPORARY, CHECK_MISSING};
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        uint64_t count = count_role(report, others[i]);
        if (count > 0)
            printf(", %" PRIu64 " %s", count, check_role_name(others[i]));
    }
    putchar('\n');
}

static void print_figures(const struct check_report *report)
{
    char a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES], c[SIZE_TEXT_BYTES];
    printf("  records    %" PRIu64 " puts, %" PRIu64 " deletes; %" PRIu64 " copies that compaction has made\n",
           report->puts, report->deletes, report->copies);
    printf("  keys       %" PRIu64 "; %" PRIu64 " more have a delete as their newest record\n", report->keys,
           report->deleted_keys);
    if (report->expiring_keys > 0 || report->expired_keys > 0)
        printf("  expiry     %" PRIu64 " of the keys will expire; %" PRIu64 " more have expired\n",
               report->expiring_keys, report->expired_keys);
    printf("  space      live %s, dead %s, files %s\n", size_text(report->live_bytes, a),
           size_text(report->record_bytes - report->live_bytes, b), size_text(report->disk_bytes, c));
    if (report->torn_bytes > 0)
        printf("  torn       %s behind the ends: writes that were under way, never acknowledged\n",
               size_text(report->torn_bytes, a));
    if (report->rescued > 0)
        printf("  rescued    %" PRIu64 " records behind damage, good by themselves\n", report->rescued);
    printf("  read       %s in %.1f s, table of keys %s\n", size_text(report->bytes_read, a),
           (double)report->elapsed_ns / 1e9, size_text(report->memory_bytes, b));
}

static void print_segments(const struct check_report *report)
{
    if (report->segment_count == 0)
        return;
    printf("\n  segment  role        batches     puts  deletes  rescued   live MiB   dead MiB       end\n");
    for (size_t i = 0; i < report->segment_count; i++) {
        const struct check_segment *segment = &report->segments[i];
        printf("  %06u%c  %-10s", segment->number, segment->relocated ? 'c' : ' ', check_role_name(segment->role));
        if (segment->read)
            printf("%9" PRIu64 "%9" PRIu64 "%9" PRIu64 "%9" PRIu64 "%11.2f%11.2f%10" PRIu64, segment->batches,
                   segment->puts, segment->deletes, segment->rescued, (double)segment->live_bytes / 1048576.0,
                   (double)(segment->record_bytes - segment->live_bytes) / 1048576.0, segment->end);
        printf("%s\n", segment->damaged ? "  DAMAGED" : "");
    }
    printf("  (c: written by compaction)\n");
}

static void print_verdict(const struct check_report *report)
{
    uint64_t damages = count_damages(report, false);
    for (size_t i = 0; i < report->damage_count; i++) {
        if (i == 0)
            putchar('\n');
        print_damage(stdout, &report->damages[i]);
    }
    if (report->damages_dropped > 0)
        printf("… and %" PRIu64 " more\n", report->damages_dropped);
    putchar('\n');
    if (damages == 0) {
        printf("sound: every record that counts is whole\n");
        return;
    }
    printf("DAMAGED: %" PRIu64 " place%s. %s\n", damages, damages == 1 ? "" : "s",
           report->refused ? "kvs-node refuses to start on this directory."
                           : "kvs-node would start on this directory, and acknowledged records may be missing.");
    printf("Restore a backup, or save what is good into a new directory with --salvage.\n");
}

void print_text(const char *dir_name, const struct check_report *report, const struct print_salvage *salvage)
{
    print_store(dir_name, report);
    if (report->engine[0] != '\0') {
        print_figures(report);
        print_segments(report);
    }
    print_verdict(report);
    if (salvage->out_dir == NULL)
        return;
    char size[SIZE_TEXT_BYTES];
    printf("\nsalvaged into %s: %" PRIu64 " keys, %s\n", salvage->out_dir, salvage->done.keys,
           size_text(salvage->done.bytes, size));
    if (salvage->done.lost > 0)
        printf("%" PRIu64 " keys could not be read a second time and are missing\n", salvage->done.lost);
    printf("the new store was checked: %s, %" PRIu64 " keys\n", print_is_sound(salvage->verified) ? "sound" : "DAMAGED",
           salvage->verified->keys);
    if (report->records_lost_max == CHECK_UNKNOWN)
        printf(
            "records are lost, nothing tells how many: keys may be missing, old, or back though they were deleted\n");
    else if (report->records_lost_max > 0)
        printf("keys that are missing, old, or back though they were deleted: at most %" PRIu64 "\n",
               report->records_lost_max);
}

/* ---- for programs ---------------------------------------------------------------------------------------------- */

/* A string in quotes. Bytes that are not UTF-8 would make it no JSON: what is not ASCII is taken for Latin-1. */
static void json_text(const char *text)
{
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at != 0; at++) {
        if (*at == '"' || *at == '\\')
            printf("\\%c", *at);
        else if (*at < 0x20 || *at >= 0x7f)
            printf("\\u%04x", *at);
        else
            putchar(*at);
    }
    putchar('"');
}

/* Null when it is not known. */
static void json_number(const char *name, uint64_t number, const char *before)
{
    printf("%s\"%s\":", before, name);
    if (number == CHECK_UNKNOWN)
        printf("null");
    else
        printf("%" PRIu64, number);
}

static void json_string(const char *name, const char *text, const char *before)
{
    printf("%s\"%s\":", before, name);
    json_text(text);
}

static void json_bool(const char *name, bool value)
{
    printf(",\"%s\":%s", name, value ? "true" : "false");
}

static void json_segment(const struct check_segment *segment)
{
    json_number("number", segment->number, "{");
    json_string("role", check_role_name(segment->role), ",");
    json_bool("relocated", segment->relocated);
    json_bool("damaged", segment->damaged);
    json_bool("read", segment->read);
    json_number("uid", segment->uid, ",");
    json_number("end", segment->end, ",");
    json_number("batches", segment->batches, ",");
    json_number("puts", segment->puts, ",");
    json_number("deletes", segment->deletes, ",");
    json_number("record_bytes", segment->record_bytes, ",");
    json_number("live_puts", segment->live_puts, ",");
    json_number("live_bytes", segment->live_bytes, ",");
    json_number("rescued", segment->rescued, ",");
    json_number("torn_bytes", segment->torn_bytes, ",");
    putchar('}');
}

static void json_damage(const struct check_damage *damage)
{
    bool lsns = damage->lsn_last != 0;
    json_string("severity", check_severity_name(damage->severity), "{");
    json_string("file", damage->file, ",");
    json_number("offset", damage->offset, ",");
    json_string("what", damage->what, ",");
    json_string("means", damage->means, ",");
    json_number("epoch", lsns ? damage->epoch : CHECK_UNKNOWN, ",");
    json_number("stream", lsns ? damage->stream : CHECK_UNKNOWN, ",");
    json_number("lsn_first", lsns ? damage->lsn_first : CHECK_UNKNOWN, ",");
    json_number("lsn_last", lsns ? damage->lsn_last : CHECK_UNKNOWN, ",");
    json_number("records_lost_max", damage->records_max, ",");
    putchar('}');
}

static void json_totals(const struct check_report *report)
{
    json_string("uuid", report->uuid, ",");
    json_string("engine", report->engine, ",");
    json_bool("identity_guessed", report->identity_guessed);
    json_number("segment_bytes", report->segment_bytes, ",");
    json_number("epoch", report->epoch, ",");
    json_number("created_ms", report->created_ms, ",");
    json_number("manifest_sequence", report->manifest_sequence == 0 ? CHECK_UNKNOWN : report->manifest_sequence, ",");
    json_number("files", report->files, ",");
    json_number("disk_bytes", report->disk_bytes, ",");
    json_number("bytes_read", report->bytes_read, ",");
    json_number("puts", report->puts, ",");
    json_number("deletes", report->deletes, ",");
    json_number("copies", report->copies, ",");
    json_number("keys", report->keys, ",");
    json_number("deleted_keys", report->deleted_keys, ",");
    json_number("expiring_keys", report->expiring_keys, ",");
    json_number("expired_keys", report->expired_keys, ",");
    json_number("record_bytes", report->record_bytes, ",");
    json_number("live_bytes", report->live_bytes, ",");
    json_number("dead_bytes", report->record_bytes - report->live_bytes, ",");
    json_number("torn_bytes", report->torn_bytes, ",");
    json_number("rescued", report->rescued, ",");
    json_number("records_lost_max", report->records_lost_max, ",");
    json_number("memory_bytes", report->memory_bytes, ",");
    json_number("elapsed_ms", report->elapsed_ns / 1000000, ",");
}

void print_json(const char *dir_name, const struct check_report *report, const struct print_salvage *salvage)
{
    json_string("directory", dir_name, "{");
    json_bool("sound", print_is_sound(report));
    json_bool("refused", report->refused);
    json_totals(report);
    printf(",\"segments\":[");
    for (size_t i = 0; i < report->segment_count; i++) {
        fputs(i > 0 ? "," : "", stdout);
        json_segment(&report->segments[i]);
    }
    printf("],\"damages\":[");
    for (size_t i = 0; i < report->damage_count; i++) {
        fputs(i > 0 ? "," : "", stdout);
        json_damage(&report->damages[i]);
    }
    putchar(']');
    json_number("damages_dropped", report->damages_dropped, ",");
    if (salvage->out_dir != NULL) {
        printf(",\"salvage\":");
        json_string("directory", salvage->out_dir, "{");
        json_number("keys", salvage->done.keys, ",");
        json_number("bytes", salvage->done.bytes, ",");
        json_number("lost", salvage->done.lost, ",");
        json_bool("sound", print_is_sound(salvage->verified));
        json_number("verified_keys", salvage->verified->keys, ",");
        putchar('}');
    }
    printf("}\n");
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void print_escaped(struct slice bytes)
{
    putchar('"');
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 0x20 || byte >= 0x7f)
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

void print_record(const struct check_record *record, bool key_only)
{
    if (!key_only)
        printf("%06u %u %" PRIu64 " %s %zu %" PRIu64 " ", record->segment, record->offset, record->lsn,
               record->large ? "large"
               : record->put ? "put"
                             : "delete",
               record->key.size, record->value_bytes);
    print_escaped(record->key);
    if (!key_only && record->expires_ms != 0)
        printf(" expires %" PRIu64, record->expires_ms);
    puts(!key_only && record->rescued ? " rescued" : "");
}
