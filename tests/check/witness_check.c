/*
 * witness_check.c - judges records: joins the runs, gives open operations their deadlines, and asks the checker of
 * histories about every key.
 *
 * Deadlines. A session lives in one life of the node: in the one that was there when the session was opened. So
 * whatever it asked took effect before the first node-down after that moment, or never; and so did what was answered,
 * even if the answer was read later.
 *
 * Relaxed durability. A kill takes acknowledged writes back, but never brings anything about that had not been there.
 * If any session was relaxed, each life of the node is judged by itself, and begins with any value that the key has
 * had.
 *
 * Failure modes: a record that cannot be read, or contradicts itself, is an error of usage and no verdict.
 */
#include "witness.h"

#include "history.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORK_MAX   4000000u
#define FILE_LINES UINT64_C(1000000000) /* names of operations in the second file begin here */

enum outcome { UNANSWERED, WRITTEN, READ_VALUE, THERE, ABSENT, REFUSED, NOT_DONE };

struct asked {
    uint64_t number, value, asked, answered, line;
    uint32_t session; /* place */
    uint32_t key;
    enum witness_kind kind;
    enum outcome outcome;
};

struct met {
    uint64_t opened;
    uint64_t deadline;
    uint32_t life; /* of the node, counted from 0 */
};

/* Numbers to places: open addressing; grows. */
struct table {
    uint64_t *keys; /* 0: free */
    uint32_t *places;
    size_t size, count;
};

struct record {
    struct asked *asked;
    size_t asked_count, asked_room;
    struct met *sessions;
    size_t session_count, session_room;
    uint64_t *downs;
    size_t down_count, down_room;
    struct table asked_table, session_table;
    uint64_t run;
    bool relaxed;
    uint64_t wrong, refused;
    char first_wrong[512], first_refused[512];
    uint32_t key_count;
};

static void *grow(void *array, size_t *room, size_t count, size_t size)
{
    if (count < *room)
        return array;
    *room = *room > 0 ? 2 * *room : 1024;
    array = realloc(array, *room * size);
    KVS_ASSERT(array != NULL);
    return array;
}

static size_t table_at(const struct table *table, uint64_t key)
{
    size_t at = (key * 0x9e3779b97f4a7c15u >> 20) & (table->size - 1);
    while (table->keys[at] != 0 && table->keys[at] != key)
        at = (at + 1) & (table->size - 1);
    return at;
}

static bool table_find(const struct table *table, uint64_t key, uint32_t *place)
{
    if (table->size == 0)
        return false;
    size_t at = table_at(table, key);
    *place = table->places[at];
    return table->keys[at] == key;
}

/* False: it is there already. */
static bool table_add(struct table *table, uint64_t key, uint32_t place)
{
    uint32_t known;
    if (key == 0 || table_find(table, key, &known))
        return false;
    if (2 * table->count >= table->size) {
        struct table old = *table;
        table->size = old.size > 0 ? 4 * old.size : 4096;
        table->keys = calloc(table->size, sizeof(*table->keys));
        table->places = calloc(table->size, sizeof(*table->places));
        KVS_ASSERT(table->keys != NULL && table->places != NULL);
        for (size_t i = 0; i < old.size; i++) {
            if (old.keys[i] == 0)
                continue;
            size_t at = table_at(table, old.keys[i]);
            table->keys[at] = old.keys[i];
            table->places[at] = old.places[i];
        }
        free(old.keys);
        free(old.places);
    }
    size_t at = table_at(table, key);
    table->keys[at] = key;
    table->places[at] = place;
    table->count++;
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

static bool read_open(struct record *record, const char *line)
{
    uint64_t opened;
    uint32_t number;
    char durability[16];
    if (sscanf(line, "open %" SCNu32 " %" SCNu64 " %15s", &number, &opened, durability) != 3)
        return false;
    record->relaxed = record->relaxed || strcmp(durability, "relaxed") == 0;
    record->sessions = grow(record->sessions, &record->session_room, record->session_count, sizeof(*record->sessions));
    record->sessions[record->session_count] = (struct met){.opened = opened};
    return table_add(&record->session_table, record->run << 32 | number, (uint32_t)record->session_count++);
}

static bool read_ask(struct record *record, const char *line, uint64_t name)
{
    struct asked asked = {.line = name};
    uint32_t session;
    char kind;
    if (sscanf(line, "ask %" SCNu64 " %" SCNu32 " %" SCNu32 " %c %" SCNu64 " %" SCNu64, &asked.number, &session,
               &asked.key, &kind, &asked.value, &asked.asked) != 6)
        return false;
    if (strchr("wrde", kind) == NULL || asked.key >= WITNESS_KEYS_MAX ||
        !table_find(&record->session_table, record->run << 32 | session, &asked.session))
        return false;
    asked.kind = (enum witness_kind)kind;
    if (asked.key >= record->key_count)
        record->key_count = asked.key + 1;
    record->asked = grow(record->asked, &record->asked_room, record->asked_count, sizeof(*record->asked));
    record->asked[record->asked_count] = asked;
    return table_add(&record->asked_table, asked.number, (uint32_t)record->asked_count++);
}

static bool read_answer(struct record *record, const char *line)
{
    uint64_t number, moment;
    char word[16];
    int rest = 0;
    uint32_t place;
    if (sscanf(line, "answer %" SCNu64 " %" SCNu64 " %15s %n", &number, &moment, word, &rest) != 3 ||
        !table_find(&record->asked_table, number, &place))
        return false;
    struct asked *asked = &record->asked[place];
    if (asked->outcome != UNANSWERED || moment < asked->asked)
        return false;
    asked->answered = moment;
    if (strcmp(word, "ok") == 0 && asked->kind == WITNESS_WRITE) {
        asked->outcome = WRITTEN;
    } else if (strcmp(word, "value") == 0 && asked->kind == WITNESS_READ) {
        asked->outcome = READ_VALUE;
        return sscanf(line + rest, "%" SCNu64, &asked->value) == 1 && asked->value != 0;
    } else if (strcmp(word, "there") == 0 && (asked->kind == WITNESS_DELETE || asked->kind == WITNESS_EXISTS)) {
        asked->outcome = THERE;
    } else if (strcmp(word, "absent") == 0 && asked->kind != WITNESS_WRITE) {
        asked->outcome = ABSENT;
    } else if (strcmp(word, "loading") == 0) {
        asked->outcome = NOT_DONE;
    } else if (strcmp(word, "error") == 0 || strcmp(word, "wrong") == 0) {
        asked->outcome = REFUSED;
        bool wrong = word[0] == 'w';
        char *first = wrong ? record->first_wrong : record->first_refused;
        uint64_t *count = wrong ? &record->wrong : &record->refused;
        if ((*count)++ == 0)
            snprintf(first, sizeof(record->first_wrong), "#%" PRIu64 ": %s", asked->line, line + rest);
    } else {
        return false;
    }
    return true;
}

static bool read_line(struct record *record, const char *line, uint64_t name)
{
    uint64_t moment;
    if (strncmp(line, "ask ", 4) == 0)
        return read_ask(record, line, name);
    if (strncmp(line, "answer ", 7) == 0)
        return read_answer(record, line);
    if (strncmp(line, "open ", 5) == 0)
        return read_open(record, line);
    if (sscanf(line, "node-down %" SCNu64, &moment) == 1) {
        record->downs = grow(record->downs, &record->down_room, record->down_count, sizeof(*record->downs));
        record->downs[record->down_count++] = moment;
        return true;
    }
    if (sscanf(line, "run %" SCNu64, &record->run) == 1)
        return record->run > 0 && record->run <= UINT16_MAX;
    return strncmp(line, "close ", 6) == 0;
}

static bool read_record(struct record *record, const char *path, uint64_t first_name)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fprintf(stderr, "kvs-witness: cannot open %s\n", path);
        return false;
    }
    char *line = NULL;
    size_t room = 0;
    uint64_t number = 0;
    bool right = true;
    record->run = 0;
    for (ssize_t size; right && (size = getline(&line, &room, file)) > 0;) {
        number++;
        if (line[size - 1] == '\n')
            line[size - 1] = 0;
        right = read_line(record, line, first_name + number);
    }
    if (!right)
        fprintf(stderr, "kvs-witness: %s:%" PRIu64 " is no event, or contradicts those before: %s\n", path, number,
                line);
    free(line);
    fclose(file);
    return right;
}

/* ---- judging ------------------------------------------------------------------------------------------------------
 */

static int compare_moments(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void find_lives(struct record *record)
{
    if (record->down_count > 0)
        qsort(record->downs, record->down_count, sizeof(*record->downs), compare_moments);
    for (size_t i = 0; i < record->session_count; i++) {
        struct met *session = &record->sessions[i];
        uint32_t life = 0;
        while (life < record->down_count && record->downs[life] < session->opened)
            life++;
        session->life = life;
        session->deadline = life < record->down_count ? record->downs[life] : HISTORY_NEVER;
    }
}

/* False: the operation says nothing. `start`: the earliest moment of the record. */
static bool make_op(const struct record *record, const struct asked *asked, uint64_t start, struct history_op *op)
{
    const struct met *session = &record->sessions[asked->session];
    bool changes = asked->kind == WITNESS_WRITE || asked->kind == WITNESS_DELETE;
    bool open = asked->outcome == UNANSWERED || asked->outcome == REFUSED;
    /* It must not have been: its value, if anybody read it, has come from nowhere. */
    if (asked->outcome == NOT_DONE)
        return false;
    /* What was asked of a node that was gone was never heard. */
    if (open && (!changes || asked->asked > session->deadline))
        return false;
    uint64_t end = open ? session->deadline : asked->answered;
    if (session->deadline >= asked->asked && session->deadline < end)
        end = session->deadline;
    *op = (struct history_op){.found = -1,
                              .open = open,
                              .session = asked->session + 1,
                              .value = asked->outcome == ABSENT ? 0 : asked->value,
                              .invoked = asked->asked - start,
                              .returned = end == HISTORY_NEVER ? end : end - start,
                              .tag = asked->line};
    if (asked->outcome == THERE || asked->outcome == ABSENT)
        op->found = asked->outcome == THERE;
    op->kind = asked->kind == WITNESS_WRITE    ? HISTORY_WRITE
               : asked->kind == WITNESS_DELETE ? HISTORY_REMOVE
               : asked->kind == WITNESS_READ   ? HISTORY_READ
                                               : HISTORY_EXISTS;
    return true;
}

struct judge {
    const struct record *record;
    struct history *history;
    uint64_t start;
    uint32_t *of_key; /* places of the operations of the key being judged */
    size_t of_key_count;
    uint64_t *had; /* values that the key has had, with relaxed durability */
    size_t had_count;
    size_t longest;
};

static enum history_verdict judge_life(struct judge *judge, uint32_t key, uint32_t life, bool any_life)
{
    const struct record *record = judge->record;
    history_clear(judge->history);
    history_begin(judge->history, judge->had, judge->had_count);
    for (size_t i = 0; i < judge->of_key_count; i++) {
        const struct asked *asked = &record->asked[judge->of_key[i]];
        struct history_op op;
        if ((!any_life && record->sessions[asked->session].life != life) || !make_op(record, asked, judge->start, &op))
            continue;
        history_add(judge->history, &op);
    }
    if (history_count(judge->history) > judge->longest)
        judge->longest = history_count(judge->history);
    char why[8192];
    enum history_verdict verdict = history_check(judge->history, WORK_MAX, NULL, 0, NULL, why, sizeof(why));
    if (verdict == HISTORY_IMPOSSIBLE)
        printf("key %" PRIu32 " is IMPOSSIBLE (#: line of the record; moments: ns since its beginning)\n%s\n", key,
               why);
    if (verdict == HISTORY_UNDECIDED)
        printf("key %" PRIu32 " is UNDECIDED: %s\n", key, why);
    return verdict;
}

/* After a kill a relaxed key may have any value that it had, or was about to have. */
static void remember_values(struct judge *judge, uint32_t life)
{
    const struct record *record = judge->record;
    for (size_t i = 0; i < judge->of_key_count; i++) {
        const struct asked *asked = &record->asked[judge->of_key[i]];
        if (record->sessions[asked->session].life == life && asked->kind == WITNESS_WRITE && asked->outcome != NOT_DONE)
            judge->had[judge->had_count++] = asked->value;
    }
}

static enum history_verdict judge_key(struct judge *judge, uint32_t key)
{
    const struct record *record = judge->record;
    judge->of_key_count = 0;
    for (size_t i = 0; i < record->asked_count; i++) {
        if (record->asked[i].key == key)
            judge->of_key[judge->of_key_count++] = (uint32_t)i;
    }
    judge->had[0] = 0;
    judge->had_count = 1;
    if (!record->relaxed)
        return judge_life(judge, key, 0, true);
    for (uint32_t life = 0; life <= record->down_count; life++) {
        enum history_verdict verdict = judge_life(judge, key, life, false);
        if (verdict != HISTORY_LINEARIZABLE)
            return verdict;
        remember_values(judge, life);
    }
    return HISTORY_LINEARIZABLE;
}

static enum witness_exit judge_all(const struct record *record)
{
    struct judge judge = {.record = record, .history = history_create(), .start = HISTORY_NEVER};
    judge.of_key = calloc(record->asked_count + 1, sizeof(*judge.of_key));
    judge.had = calloc(record->asked_count + 1, sizeof(*judge.had));
    KVS_ASSERT(judge.of_key != NULL && judge.had != NULL);
    uint64_t unanswered = 0;
    for (size_t i = 0; i < record->asked_count; i++) {
        if (record->asked[i].asked < judge.start)
            judge.start = record->asked[i].asked;
        unanswered += record->asked[i].outcome == UNANSWERED;
    }
    enum witness_exit exit_code = WITNESS_RIGHT;
    for (uint32_t key = 0; key < record->key_count; key++) {
        enum history_verdict verdict = judge_key(&judge, key);
        if (verdict == HISTORY_IMPOSSIBLE)
            exit_code = WITNESS_WRONG;
        else if (verdict == HISTORY_UNDECIDED && exit_code == WITNESS_RIGHT)
            exit_code = WITNESS_UNDECIDED;
    }
    if (record->wrong > 0) {
        printf("%" PRIu64 " answers with wrong bytes, first %s\n", record->wrong, record->first_wrong);
        exit_code = WITNESS_WRONG;
    }
    if (record->refused > 0)
        printf("%" PRIu64 " operations refused, first %s\n", record->refused, record->first_refused);
    static const char *const verdicts[] = {
        [WITNESS_RIGHT] = "LINEARIZABLE", [WITNESS_WRONG] = "IMPOSSIBLE", [WITNESS_UNDECIDED] = "UNDECIDED"};
    printf("operations %zu, unanswered %" PRIu64 ", keys %" PRIu32 ", longest history %zu, sessions %zu, node down %zu "
           "times%s: %s\n",
           record->asked_count, unanswered, record->key_count, judge.longest, record->session_count, record->down_count,
           record->relaxed ? ", relaxed" : "", verdicts[exit_code]);
    free(judge.of_key);
    free(judge.had);
    history_free(judge.history);
    return exit_code;
}

enum witness_exit witness_check(char *const *paths, size_t count)
{
    struct record record = {0};
    enum witness_exit exit_code = WITNESS_USAGE;
    bool right = true;
    for (size_t i = 0; i < count && right; i++)
        right = read_record(&record, paths[i], i * FILE_LINES);
    if (right && record.asked_count == 0)
        fprintf(stderr, "kvs-witness: the record has no operations\n");
    else if (right) {
        find_lives(&record);
        exit_code = judge_all(&record);
    }
    free(record.asked);
    free(record.sessions);
    free(record.downs);
    free(record.asked_table.keys);
    free(record.asked_table.places);
    free(record.session_table.keys);
    free(record.session_table.places);
    return exit_code;
}
