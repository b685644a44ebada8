/*
 * acl_store.c - ACL SETUSER, LOAD and SAVE, step by step.
 *
 *   SETUSER   rules on a copy that is thrown away ─ no passwords in them ─► rules for good, reply
 *                                                └ passwords: derive ────► rules for good, reply
 *   LOAD      open ► size ► read ► lines on a copy ─ … as above; then connections of users that are gone end
 *   SAVE      remove what a crash has left ► create ► write durably ► rename ► sync the directory ► reply
 *
 * Failures. A rule or a line that is wrong: the error, and everything stays as it was. A user that was changed between
 * the two passes: an error that says to try again. A file that cannot be read or written: the error names it; the old
 * file is still there. One that could be written and not renamed durably is reported as failed.
 */
#include "node/acl_store.h"

#include "base/assert.h"
#include "base/diag.h"
#include "node/crowd.h"
#include "node/derive.h"
#include "node/node_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define LOAD_FAILED_TAIL "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
#define TEMPORARY_SUFFIX ".tmp"
#define PATH_BYTES       512

struct task {
    struct derive_job job;
    struct ring_op op;
    struct net_slot slot;
    struct list link; /* in shard->acl_tasks */
    struct shard *shard;
    struct net_conn *conn;
    struct acl_secrets secrets;
    struct text text;    /* SETUSER: name and rules; LOAD, SAVE: the file */
    struct slice *rules; /* SETUSER: the name comes first */
    unsigned rule_count;
    struct text reply;
    int fd;
    bool written;
    enum kvs_err error; /* of SAVE: the first one */
    char error_text[128];
    char path[PATH_BYTES], folder[PATH_BYTES];
};

static void task_free(struct task *task)
{
    list_remove(&task->link);
    explicit_bzero(&task->secrets, sizeof(task->secrets));
    if (task->text.data != NULL)
        explicit_bzero(task->text.data, task->text.size);
    text_deinit(&task->text);
    text_deinit(&task->reply);
    free(task->rules);
    free(task);
}

static void on_released(struct net_slot *slot)
{
    task_free(container_of(slot, struct task, slot));
}

void acl_store_abandon(struct shard *shard)
{
    while (!list_empty(&shard->acl_tasks))
        task_free(container_of(shard->acl_tasks.next, struct task, link));
}

static struct task *task_begin(struct call *call)
{
    struct task *task = calloc(1, sizeof(*task));
    if (task == NULL) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return NULL;
    }
    task->shard = call->shard;
    task->conn = call->conn;
    task->fd = -1;
    list_push_back(&call->shard->acl_tasks, &task->link);
    net_reply_defer(call->conn, &task->slot);
    task->slot.released = on_released;
    net_conn_hold(call->conn);
    return task;
}

/* The reply is written. */
static void task_end(struct task *task)
{
    struct net_conn *conn = task->conn;
    static const char no_memory[] = "-OOM kvs-node: no memory for the reply\r\n";
    if (task->reply.failed)
        net_slot_fill(&task->slot, (const uint8_t *)no_memory, strlen(no_memory), 0);
    else
        net_slot_fill(&task->slot, task->reply.data, task->reply.size, 0);
    net_conn_go_on(conn);
}

static void fail(struct task *task, const char *text)
{
    shard_count_error(task->shard, text);
    text_printf(&task->reply, "-%s\r\n", text);
    task_end(task);
}

/* ---- rules and lines ------------------------------------------------------------------------------------------- */

/* Applies rules to a user of the change. NULL: done; else what is wrong, and with which rule. */
static const char *apply_rules(struct acl *acl, struct acl_change *change, struct slice name, const struct slice *rules,
                               unsigned count, struct acl_secrets *secrets, unsigned *at)
{
    struct acl_user *user = acl_change_user(acl, change, name);
    *at = 0;
    if (user == NULL)
        return "There are too many users, or no memory for another one";
    secrets->next = 0;
    const char *wrong = NULL;
    for (unsigned i = 0; i < count && wrong == NULL; i++) {
        *at = i;
        wrong = acl_rule_apply(acl_numbers(acl), user, rules[i], secrets);
    }
    return wrong;
}

/* A pass over the rules. False: `reply` has the error. */
static bool set_pass(struct shard *shard, struct slice name, const struct slice *rules, unsigned count,
                     struct acl_secrets *secrets, bool *applied, struct text *reply)
{
    struct acl *acl = shard->node->acl;
    struct acl_change change;
    unsigned at;
    *applied = false;
    if (acl_change_begin(acl, &change) != KVS_ERR_OK) {
        text_printf(reply, "-OOM kvs-node: no memory for the request\r\n");
        return false;
    }
    const char *wrong = apply_rules(acl, &change, name, rules, count, secrets, &at);
    *applied = wrong == NULL && (secrets->derived || secrets->count == 0);
    acl_change_end(acl, &change, shard->id, *applied);
    if (wrong == NULL)
        return true;
    struct slice rule = count > 0 ? rules[at] : slice_make("", 0);
    bool secret = rule.size > 0 && (rule.data[0] == '>' || rule.data[0] == '<');
    text_printf(reply, "-ERR Error in ACL SETUSER modifier '%.*s': %s\r\n",
                secret ? 1 : (int)(rule.size < 128 ? rule.size : 128), (const char *)rule.data, wrong);
    shard_count_error(shard, "ERR");
    return false;
}

static void on_set_derived(struct derive_job *job)
{
    struct task *task = container_of(job, struct task, job);
    bool applied;
    task->secrets.derived = true;
    struct slice name = task->rules[0];
    if (set_pass(task->shard, name, task->rules + 1, task->rule_count - 1, &task->secrets, &applied, &task->reply))
        text_simple(&task->reply, "OK");
    task_end(task);
}

/* Copies of the name and the rules. */
static bool keep_rules(struct task *task, struct slice name, const struct slice *rules, unsigned count)
{
    task->rules = calloc(count + 1, sizeof(task->rules[0]));
    if (task->rules == NULL)
        return false;
    text_add(&task->text, name);
    for (unsigned i = 0; i < count; i++)
        text_add(&task->text, rules[i]);
    if (task->text.failed)
        return false;
    size_t at = 0;
    for (unsigned i = 0; i <= count; i++) {
        size_t size = i == 0 ? name.size : rules[i - 1].size;
        task->rules[task->rule_count++] = slice_make(task->text.data + at, size);
        at += size;
    }
    return true;
}

static void wait_for_keys(struct task *task, void (*done)(struct derive_job *job))
{
    task->job = (struct derive_job){.secrets = task->secrets.each, .count = task->secrets.count, .done = done};
    if (!derive_add(&task->shard->derivations, &task->job))
        fail(task, "ERR too many passwords are being derived; try again");
}

void acl_store_set(struct call *call, struct slice name, const struct slice *rules, unsigned count)
{
    struct acl_secrets secrets = {0};
    struct text reply = {0};
    bool applied;
    if (!set_pass(call->shard, name, rules, count, &secrets, &applied, &reply)) {
        call_text(call, &reply);
        return;
    }
    if (applied) {
        call_simple(call, "OK");
        return;
    }
    struct task *task = task_begin(call);
    if (task == NULL)
        return;
    task->secrets = secrets;
    explicit_bzero(&secrets, sizeof(secrets));
    if (!keep_rules(task, name, rules, count))
        fail(task, "OOM kvs-node: no memory for the request");
    else
        wait_for_keys(task, on_set_derived);
}

/* A pass over the lines of a file. */
static bool load_pass(struct node *node, unsigned thread, struct slice file, struct acl_secrets *secrets, bool *applied,
                      char message[ACL_FILE_MESSAGE_BYTES])
{
    struct acl_change change;
    *applied = false;
    enum kvs_err err = acl_change_begin(node->acl, &change);
    if (err == KVS_ERR_OK && (err = acl_change_reset(node->acl, &change)) != KVS_ERR_OK)
        acl_change_end(node->acl, &change, thread, false);
    if (err != KVS_ERR_OK) {
        snprintf(message, ACL_FILE_MESSAGE_BYTES, "%s", kvs_err_text(err));
        return false;
    }
    bool good = acl_file_read(node->acl, &change, file, secrets, message);
    *applied = good && (secrets->derived || secrets->count == 0);
    if (*applied)
        acl_change_keep(node->acl, &change);
    acl_change_end(node->acl, &change, thread, *applied);
    return good;
}

/* ---- LOAD ------------------------------------------------------------------------------------------------------ */

static void load_failed(struct task *task, const char *message)
{
    shard_count_error(task->shard, "ERR");
    text_printf(&task->reply, "-ERR %s: %s. %s\r\n", task->shard->node->config.acl_file, message, LOAD_FAILED_TAIL);
    task_end(task);
}

static void load_lines(struct task *task);

static void on_load_derived(struct derive_job *job)
{
    struct task *task = container_of(job, struct task, job);
    task->secrets.derived = true;
    load_lines(task);
}

static void load_lines(struct task *task)
{
    char message[ACL_FILE_MESSAGE_BYTES];
    bool applied;
    struct slice file = slice_make(task->text.data, task->text.size);
    if (!load_pass(task->shard->node, task->shard->id, file, &task->secrets, &applied, message)) {
        load_failed(task, message);
        return;
    }
    if (!applied) {
        wait_for_keys(task, on_load_derived);
        return;
    }
    diag_info("users loaded from %s", task->shard->node->config.acl_file);
    crowd_end_lost(task->shard);
    text_simple(&task->reply, "OK");
    task_end(task);
}

static void on_load_read(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    ring_close_fd(task->shard->ring, task->fd);
    if (op->error != KVS_ERR_OK) {
        load_failed(task, ring_op_text(op));
        return;
    }
    text_advance(&task->text, op->bytes);
    load_lines(task);
}

static void on_load_open(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    struct ring *ring = task->shard->ring;
    struct ring_file_info info;
    if (op->error != KVS_ERR_OK) {
        load_failed(task, ring_op_text(op));
        return;
    }
    task->fd = op->fd;
    enum kvs_err err = ring_file_info(ring, task->fd, &info);
    uint8_t *room = NULL;
    if (err == KVS_ERR_OK && info.size > ACL_FILE_BYTES_MAX)
        err = KVS_ERR_TOO_LARGE;
    if (err == KVS_ERR_OK && (room = text_room(&task->text, (size_t)info.size + 1)) == NULL)
        err = KVS_ERR_NO_MEMORY;
    if (err != KVS_ERR_OK) {
        ring_close_fd(ring, task->fd);
        load_failed(task, kvs_err_text(err));
        return;
    }
    ring_op_init(&task->op, on_load_read);
    ring_file_read(ring, &task->op, task->fd, room, (size_t)info.size, 0);
}

void acl_store_load(struct call *call)
{
    struct task *task = task_begin(call);
    if (task == NULL)
        return;
    ring_op_init(&task->op, on_load_open);
    ring_file_open(task->shard->ring, &task->op, AT_FDCWD, task->shard->node->config.acl_file, RING_OPEN_READ);
}

/* ---- SAVE ------------------------------------------------------------------------------------------------------ */

static void save_end(struct task *task)
{
    struct node *node = task->shard->node;
    atomic_store(&node->acl_saving, false);
    if (task->error == KVS_ERR_OK) {
        text_simple(&task->reply, "OK");
    } else {
        diag_warn("the users could not be saved in %s: %s", node->config.acl_file, task->error_text);
        shard_count_error(task->shard, "ERR");
        text_printf(&task->reply, "-ERR There was an error trying to save the ACLs. %s: %s\r\n", node->config.acl_file,
                    task->error_text);
    }
    task_end(task);
}

/* True when the step before has gone well; else all ends. */
static bool save_step(struct task *task)
{
    if (task->op.error == KVS_ERR_OK)
        return true;
    task->error = task->op.error;
    snprintf(task->error_text, sizeof(task->error_text), "%s", ring_op_text(&task->op));
    if (task->fd >= 0)
        ring_close_fd(task->shard->ring, task->fd);
    task->fd = -1;
    save_end(task);
    return false;
}

static void on_save_folder_synced(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    if (!save_step(task))
        return;
    ring_close_fd(task->shard->ring, task->fd);
    save_end(task);
}

static void on_save_folder_open(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    if (!save_step(task))
        return;
    task->fd = op->fd;
    ring_op_init(&task->op, on_save_folder_synced);
    ring_file_sync(task->shard->ring, &task->op, task->fd);
}

static void on_save_renamed(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    if (!save_step(task))
        return;
    ring_op_init(&task->op, on_save_folder_open);
    ring_file_open(task->shard->ring, &task->op, AT_FDCWD, task->folder, RING_OPEN_READ | RING_OPEN_DIRECTORY);
}

static void on_save_written(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    struct ring *ring = task->shard->ring;
    if (!save_step(task))
        return;
    if (!task->written) { /* with RWF_DSYNC or without, its size is durable after this */
        task->written = true;
        ring_op_init(&task->op, on_save_written);
        ring_file_sync(ring, &task->op, task->fd);
        return;
    }
    ring_close_fd(ring, task->fd);
    task->fd = -1;
    ring_op_init(&task->op, on_save_renamed);
    ring_file_rename(ring, &task->op, AT_FDCWD, task->path, task->shard->node->config.acl_file);
}

static void on_save_open(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    if (!save_step(task))
        return;
    task->fd = op->fd;
    ring_op_init(&task->op, on_save_written);
    ring_file_write(task->shard->ring, &task->op, task->fd, task->text.data, task->text.size, 0, 0);
}

static void on_save_removed(struct ring_op *op)
{
    struct task *task = container_of(op, struct task, op);
    if (op->error == KVS_ERR_NOT_FOUND)
        op->error = KVS_ERR_OK;
    if (!save_step(task))
        return;
    ring_op_init(&task->op, on_save_open);
    ring_file_open(task->shard->ring, &task->op, AT_FDCWD, task->path,
                   RING_OPEN_WRITE | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE | RING_OPEN_PRIVATE);
}

void acl_store_save(struct call *call)
{
    struct shard *shard = call->shard;
    struct node *node = shard->node;
    const char *file = node->config.acl_file;
    if (atomic_exchange(&node->acl_saving, true)) {
        call_error(call, "ERR another ACL SAVE is under way; try again");
        return;
    }
    struct task *task = task_begin(call);
    if (task == NULL) {
        atomic_store(&node->acl_saving, false);
        return;
    }
    acl_file_write(acl_read_begin(node->acl, shard->id), &task->text);
    acl_read_end(node->acl, shard->id);
    const char *slash = strrchr(file, '/');
    snprintf(task->folder, sizeof(task->folder), "%.*s",
             slash == NULL   ? 1
             : slash == file ? 1
                             : (int)(slash - file),
             slash == NULL ? "." : file);
    snprintf(task->path, sizeof(task->path), "%s" TEMPORARY_SUFFIX, file);
    if (task->text.failed || task->text.size > ACL_FILE_BYTES_MAX) {
        task->error = task->text.failed ? KVS_ERR_NO_MEMORY : KVS_ERR_TOO_LARGE;
        snprintf(task->error_text, sizeof(task->error_text), "%s", kvs_err_text(task->error));
        save_end(task);
        return;
    }
    ring_op_init(&task->op, on_save_removed);
    ring_file_unlink(shard->ring, &task->op, AT_FDCWD, task->path);
}

/* ---- the start ------------------------------------------------------------------------------------------------- */

static void on_awaited(struct ring_op *op)
{
    (void)op;
}

/* Blocking. */
static bool read_file(struct ring *ring, const char *path, struct text *file, char why[ACL_FILE_MESSAGE_BYTES])
{
    struct ring_op op;
    struct ring_file_info info;
    ring_op_init(&op, on_awaited);
    ring_file_open(ring, &op, AT_FDCWD, path, RING_OPEN_READ);
    ring_await(ring, &op);
    if (op.error == KVS_ERR_OK) {
        int fd = op.fd;
        enum kvs_err err = ring_file_info(ring, fd, &info);
        uint8_t *room = NULL;
        if (err == KVS_ERR_OK && info.size > ACL_FILE_BYTES_MAX)
            err = KVS_ERR_TOO_LARGE;
        if (err == KVS_ERR_OK && (room = text_room(file, (size_t)info.size + 1)) == NULL)
            err = KVS_ERR_NO_MEMORY;
        if (err == KVS_ERR_OK) {
            ring_op_init(&op, on_awaited);
            ring_file_read(ring, &op, fd, room, (size_t)info.size, 0);
            ring_await(ring, &op);
            if (op.error == KVS_ERR_OK)
                text_advance(file, op.bytes);
        }
        ring_close_fd(ring, fd);
        if (err != KVS_ERR_OK) {
            snprintf(why, ACL_FILE_MESSAGE_BYTES, "%s; it has %u bytes at most", kvs_err_text(err), ACL_FILE_BYTES_MAX);
            return false;
        }
    }
    if (op.error == KVS_ERR_OK)
        return true;
    snprintf(why, ACL_FILE_MESSAGE_BYTES, "%s%s", ring_op_text(&op),
             op.error == KVS_ERR_NOT_FOUND ? "; make an empty one for a node without users" : "");
    return false;
}

/* Passwords in the open are for files that people write; the next ACL SAVE has them derived. */
static bool holds_passwords(struct slice file)
{
    for (size_t i = 1; i < file.size; i++) {
        if (file.data[i] == '>' && (file.data[i - 1] == ' ' || file.data[i - 1] == '\t'))
            return true;
    }
    return false;
}

static bool start_file(struct node *node, char message[ACL_STORE_MESSAGE_BYTES])
{
    char why[ACL_FILE_MESSAGE_BYTES];
    struct text file = {0};
    struct acl_secrets *secrets = calloc(1, sizeof(*secrets));
    bool good = false, applied = false;
    if (secrets == NULL) {
        snprintf(why, sizeof(why), "%s", kvs_err_text(KVS_ERR_NO_MEMORY));
    } else if (read_file(node->ring, node->config.acl_file, &file, why)) {
        struct slice bytes = slice_make(file.data, file.size);
        good = load_pass(node, 0, bytes, secrets, &applied, why);
        if (good && !applied) {
            derive_now(secrets);
            good = load_pass(node, 0, bytes, secrets, &applied, why);
        }
        if (good && holds_passwords(bytes))
            diag_warn("%s holds passwords that everybody who reads it can read: ACL SAVE replaces them",
                      node->config.acl_file);
        if (!good && strncmp(why, "line ", 5) == 0)
            (void)strncat(why, "; mend that line", sizeof(why) - strlen(why) - 1);
    }
    if (!good)
        snprintf(message, ACL_STORE_MESSAGE_BYTES, "cannot read the users from --aclfile %s: %s", node->config.acl_file,
                 why);
    if (secrets != NULL)
        explicit_bzero(secrets, sizeof(*secrets));
    if (file.data != NULL)
        explicit_bzero(file.data, file.size);
    free(secrets);
    text_deinit(&file);
    return good;
}

static bool start_password(struct node *node, char message[ACL_STORE_MESSAGE_BYTES])
{
    struct acl_secrets secrets = {0};
    struct acl_change change;
    const char *wrong = NULL;
    bool applied = false;
    char rule[CONFIG_PASSWORD_BYTES_MAX + 2];
    snprintf(rule, sizeof(rule), ">%s", node->config.requirepass);
    struct slice one = slice_text(rule);
    for (unsigned pass = 0; pass < 2 && wrong == NULL; pass++) {
        unsigned at;
        if (acl_change_begin(node->acl, &change) != KVS_ERR_OK) {
            wrong = kvs_err_text(KVS_ERR_NO_MEMORY);
            break;
        }
        wrong = apply_rules(node->acl, &change, slice_text("default"), &one, 1, &secrets, &at);
        applied = wrong == NULL && secrets.derived;
        acl_change_end(node->acl, &change, 0, applied);
        if (wrong == NULL && !secrets.derived)
            derive_now(&secrets);
    }
    explicit_bzero(rule, sizeof(rule));
    explicit_bzero(&secrets, sizeof(secrets));
    if (!applied)
        snprintf(message, ACL_STORE_MESSAGE_BYTES, "--requirepass: %s", wrong != NULL ? wrong : "not applied");
    return applied;
}

bool acl_store_start(struct node *node, char message[ACL_STORE_MESSAGE_BYTES])
{
    if (node->config.acl_file != NULL)
        return start_file(node, message);
    if (node->config.requirepass != NULL && *node->config.requirepass != 0)
        return start_password(node, message);
    return true;
}
