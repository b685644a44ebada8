/*
 * sim_main.c - kvs-sim: runs the whole node on the simulated machine, one seed or many.
 *
 * Happy path: options, then one of: a foreground run of one plan; a plan made small; seeds or files by many processes
 * and a summary. Nothing runs in this process itself but the parsing of plans: a world may end its process (world.h).
 */
#include "runner.h"
#include "shrink.h"
#include "sim_options.h"
#include "sim_report.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_PASSED = 0, EXIT_FOUND = 1, EXIT_USAGE = 2 };

#define PLAN_FILE_MAX (1u << 20) /* far more than any plan needs */

enum { REPLAY_EVERY = 100 };

/* ---- plans from files ------------------------------------------------------------------------------------------ */

static bool read_plan(const char *path, struct plan *plan)
{
    static char text[PLAN_FILE_MAX];
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, SIM_PROGRAM ": cannot open '%s': %s\n", path, strerror(errno));
        return false;
    }
    const size_t size = fread(text, 1, sizeof text, file);
    const bool unreadable = ferror(file) != 0;
    if (file != stdin)
        fclose(file);
    unsigned line = 1;
    if (unreadable || size == sizeof text || memchr(text, '\0', size) != NULL) {
        fprintf(stderr, SIM_PROGRAM ": '%s' cannot be read, or is no text of a plan\n", path);
        return false;
    }
    text[size] = '\0';
    if (plan_parse(plan, text, &line))
        return true;
    const char *at = text;
    for (unsigned i = 1; i < line; i++)
        at += strcspn(at, "\n") + 1;
    fprintf(stderr, SIM_PROGRAM ": %s:%u: not a line of a plan, or too early, too late or twice: '%.*s'\n", path, line,
            (int)strcspn(at, "\n"), at);
    return false;
}

static bool print_plan(const struct plan *plan)
{
    const size_t size = plan_print(plan, NULL, 0) + 1;
    char *text = malloc(size);
    if (text == NULL) {
        fprintf(stderr, SIM_PROGRAM ": no memory for a plan as text\n");
        return false;
    }
    plan_print(plan, text, size);
    fputs(text, stdout);
    free(text);
    return true;
}

/* ---- one plan -------------------------------------------------------------------------------------------------- */

static void plan_of_seed(const void *context, uint64_t number, struct plan *plan)
{
    (void)context;
    plan_make(plan, number);
}

/* The plan itself is the context. */
static void plan_given(const void *context, uint64_t number, struct plan *plan)
{
    (void)number;
    *plan = *(const struct plan *)context;
}

static int run_one(const struct sim_options *options, const struct plan *plan)
{
    const struct runner_options run = {
        .plan_for = plan_given,
        .context = plan,
        .run_seconds_max = options->run_seconds,
        .jobs = 1,
        .failures_max = 1,
        .replay_every = options->trace ? 0 : 1,
        .foreground = true,
        .world = {.story = options->trace},
    };
    struct runner_result result = runner_run(&run);
    const unsigned failures = result.failure_count;
    printf("%s: ", failures > 0 ? "FAILED" : result.abandoned > 0 ? "interrupted" : "passed");
    if (options->mode == SIM_MODE_PLAN)
        printf("%s: ", options->path);
    printf("seed %" PRIu64, plan->seed);
    if (failures > 0)
        printf(": %s\n", result.failures[0].reason);
    else
        printf(": %" PRIu64 " operations, %" PRIu64 " boots, %.3f s, trace %016" PRIx64 "%s\n", result.tally.operations,
               result.tally.boots, result.seconds, result.trace, result.replayed > 0 ? ", twice the same" : "");
    runner_free(&result);
    return failures > 0 ? EXIT_FOUND : EXIT_PASSED;
}

static int shrink_one(const struct sim_options *options, struct plan *plan)
{
    const struct shrink_options shrink = {
        .seconds = options->shrink_seconds,
        .run_seconds_max = options->run_seconds,
        .progress = isatty(STDERR_FILENO) != 0,
    };
    const uint64_t seed = plan->seed;
    const struct shrink_report report = shrink_plan(plan, &shrink);
    if (!report.failed) {
        fprintf(stderr, SIM_PROGRAM ": seed %" PRIu64 " does not fail: there is nothing to shrink\n", seed);
        return EXIT_PASSED;
    }
    fprintf(stderr, "%u of %u steps are left after %u runs%s\n", plan->step_count, report.steps_before, report.attempts,
            report.finished ? "" : "; more time might make it smaller (--shrink-seconds)");
    printf("# found: %s\n", report.failure_class);
    return print_plan(plan) ? EXIT_FOUND : EXIT_USAGE;
}

static int do_one(const struct sim_options *options)
{
    static struct plan plan;
    if (options->mode == SIM_MODE_SEED)
        plan_make(&plan, options->first);
    else if (!read_plan(options->path, &plan))
        return EXIT_USAGE;
    if (options->print_plan)
        return print_plan(&plan) ? EXIT_PASSED : EXIT_USAGE;
    return options->shrink ? shrink_one(options, &plan) : run_one(options, &plan);
}

/* ---- many ------------------------------------------------------------------------------------------------------ */

static int run_many(const struct sim_options *options, struct runner_options *run, struct sim_report report)
{
    run->seconds = options->seconds;
    run->run_seconds_max = options->run_seconds;
    run->jobs = options->jobs;
    run->failures_max = options->failures_max;
    run->progress = isatty(STDERR_FILENO) != 0;
    struct runner_result result = runner_run(run);
    report.result = &result;
    report.first = run->first;
    report.last = run->last;
    if (options->json)
        sim_report_json(&report);
    else
        sim_report_text(&report);
    const unsigned failures = result.failure_count;
    runner_free(&result);
    return failures > 0 ? EXIT_FOUND : EXIT_PASSED;
}

static int run_seeds(const struct sim_options *options, const char *program)
{
    struct runner_options run = {
        .plan_for = plan_of_seed,
        .first = options->first,
        .last = options->last,
        .replay_every = REPLAY_EVERY,
    };
    if (options->random_first) {
        if (getrandom(&run.first, sizeof run.first, 0) != sizeof run.first) {
            fprintf(stderr, SIM_PROGRAM ": no random number to be had: %s; give --seeds A..\n", strerror(errno));
            return EXIT_USAGE;
        }
        run.first >>= 16; /* shorter to type, and exact in JSON */
    }
    const struct sim_report report = {.program = program, .open_end = options->last == UINT64_MAX};
    return run_many(options, &run, report);
}

/* ---- a folder -------------------------------------------------------------------------------------------------- */

struct folder {
    char **files; /* paths, sorted */
    struct plan *plans;
    size_t count;
};

static void plan_of_file(const void *context, uint64_t number, struct plan *plan)
{
    *plan = ((const struct plan *)context)[number];
}

/* Plans and lone seeds; what begins with a dot or ends in .md is something else. */
static int is_plan_file(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && (dot == NULL || strcmp(dot, ".md") != 0);
}

static void free_folder(struct folder *folder)
{
    for (size_t i = 0; i < folder->count; i++)
        free(folder->files[i]);
    free(folder->files);
    free(folder->plans);
}

static bool add_file(struct folder *folder, const char *directory, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0) {
        fprintf(stderr, SIM_PROGRAM ": no memory for the names of the files\n");
        return false;
    }
    folder->files[folder->count++] = path;
    return read_plan(path, &folder->plans[folder->count - 1]);
}

static bool read_folder(struct folder *folder, const char *directory)
{
    struct dirent **entries = NULL;
    const int count = scandir(directory, &entries, is_plan_file, alphasort);
    if (count < 0) {
        fprintf(stderr, SIM_PROGRAM ": cannot read the folder '%s': %s\n", directory, strerror(errno));
        return false;
    }
    folder->files = calloc((size_t)count + 1, sizeof *folder->files);
    folder->plans = calloc((size_t)count + 1, sizeof *folder->plans);
    bool good = folder->files != NULL && folder->plans != NULL;
    if (!good)
        fprintf(stderr, SIM_PROGRAM ": no memory for %d plans\n", count);
    for (int i = 0; i < count; i++) {
        good = good && add_file(folder, directory, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return good;
}

static int run_folder(const struct sim_options *options, const char *program)
{
    struct folder folder = {0};
    int exit_code = EXIT_USAGE;
    const bool good = read_folder(&folder, options->path);
    if (good && folder.count == 0) {
        printf("no plans in '%s'\n", options->path);
        exit_code = EXIT_PASSED;
    } else if (good) {
        struct runner_options run = {
            .plan_for = plan_of_file,
            .context = folder.plans,
            .last = folder.count - 1,
            .replay_every = 1,
        };
        const struct sim_report report = {.program = program, .files = folder.files};
        exit_code = run_many(options, &run, report);
    }
    free_folder(&folder);
    return exit_code;
}

int main(int argc, char **argv)
{
    struct sim_options options;
    const enum sim_parsed parsed = sim_options_parse(argc, argv, &options);
    if (parsed != SIM_RUN)
        return parsed == SIM_EXIT_OK ? EXIT_PASSED : EXIT_USAGE;
    if (options.mode == SIM_MODE_SEEDS)
        return run_seeds(&options, argv[0]);
    if (options.mode == SIM_MODE_REGRESS)
        return run_folder(&options, argv[0]);
    return do_one(&options);
}
