/*
 * sim_options.c - see sim_options.h.
 *
 * What excludes each other is refused here, so that main finds exactly one thing to do.
 */
#include "sim_options.h"

#include "runner.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTION_SEED = 256,
    OPTION_SEEDS,
    OPTION_MINUTES,
    OPTION_PLAN,
    OPTION_REGRESS,
    OPTION_TRACE,
    OPTION_SHRINK,
    OPTION_PRINT_PLAN,
    OPTION_JOBS,
    OPTION_MAX_FAILURES,
    OPTION_RUN_SECONDS,
    OPTION_SHRINK_SECONDS,
    OPTION_JSON,
};

static const char help[] =
    "Usage: " SIM_PROGRAM " [OPTIONS]\n"
    "\n"
    "Runs a whole node on a simulated machine, with clients, faults and power losses, and judges what the clients "
    "see.\n"
    "A seed decides everything, so what was found once is found again.\n"
    "\n"
    "What to run, one of:\n"
    "  --seed N              this seed, in the foreground\n"
    "  --seeds A..B          these seeds, both included; A.. with --minutes: from A on\n"
    "  --minutes M           seeds for this time, from --seeds, or from one chosen by chance on; 0.5 is half a minute\n"
    "  --plan FILE           a plan from a file, in the foreground; - is standard input\n"
    "  --regress DIR         every file of a folder (but *.md): plans, or \"seed N\"\n"
    "With --seed or --plan:\n"
    "  --trace               tell on standard error, step by step, what happens\n"
    "  --shrink              make a failing plan small, and print it as text for a file\n"
    "  --shrink-seconds S    how long to try; default 60\n"
    "  --print-plan          only print the plan as text\n"
    "With many:\n"
    "  --jobs N              processes at once; default: one for each processor\n"
    "  --max-failures N      end early after as many; default 10\n"
    "  --json                the summary as one JSON object\n"
    "Always:\n"
    "  --run-seconds S       a run that takes longer has failed; default 120, 0: no limit\n"
    "  -h, --help            print this and exit\n"
    "\n"
    "SIGINT ends early and prints what there is. Exit codes: 0 nothing was found, 1 a run failed, 2 the command line "
    "or\n"
    "a file makes no sense.\n";

static const struct option long_options[] = {
    {"seed", required_argument, NULL, OPTION_SEED},
    {"seeds", required_argument, NULL, OPTION_SEEDS},
    {"minutes", required_argument, NULL, OPTION_MINUTES},
    {"plan", required_argument, NULL, OPTION_PLAN},
    {"regress", required_argument, NULL, OPTION_REGRESS},
    {"trace", no_argument, NULL, OPTION_TRACE},
    {"shrink", no_argument, NULL, OPTION_SHRINK},
    {"print-plan", no_argument, NULL, OPTION_PRINT_PLAN},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"max-failures", required_argument, NULL, OPTION_MAX_FAILURES},
    {"run-seconds", required_argument, NULL, OPTION_RUN_SECONDS},
    {"shrink-seconds", required_argument, NULL, OPTION_SHRINK_SECONDS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct command_line {
    bool help;
    bool seeds_open; /* --seeds A.. */
    bool minutes;
    bool jobs, failures_max, shrink_seconds; /* given */
};

/* Digits only: strtoull takes blanks, signs and more. Leaves *text behind the number. */
static bool take_number(const char **text, uint64_t *out)
{
    char *end = NULL;
    if (**text < '0' || **text > '9')
        return false;
    errno = 0;
    *out = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0;
}

static bool parse_count(const char *name, const char *text, unsigned max, unsigned *out)
{
    const char *end = text;
    uint64_t value;
    if (take_number(&end, &value) && *end == '\0' && value >= 1 && value <= max) {
        *out = (unsigned)value;
        return true;
    }
    fprintf(stderr, SIM_PROGRAM ": --%s takes a whole number from 1 to %u; this is not: '%s'\n", name, max, text);
    return false;
}

static bool parse_amount(const char *name, const char *text, bool zero, double *out)
{
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (text[0] != '\0' && strspn(text, "0123456789.") == strlen(text) && errno == 0 && *end == '\0' &&
        (zero || value > 0) && value <= 1e6) {
        *out = value;
        return true;
    }
    fprintf(stderr, SIM_PROGRAM ": --%s takes a number %s, 1000000 at most; this is not: '%s'\n", name,
            zero ? "from 0 on" : "above 0", text);
    return false;
}

/* One thing to run. */
static bool choose(struct sim_options *options, enum sim_mode mode)
{
    if (options->mode != SIM_MODE_NONE && options->mode != mode) {
        fprintf(stderr, SIM_PROGRAM ": --seed, --seeds or --minutes, --plan and --regress exclude each other\n");
        return false;
    }
    options->mode = mode;
    return true;
}

static bool parse_seed(const char *text, struct sim_options *options)
{
    const char *end = text;
    if (!take_number(&end, &options->first) || *end != '\0') {
        fprintf(stderr, SIM_PROGRAM ": --seed takes a whole number below 2^64; this is not: '%s'\n", text);
        return false;
    }
    options->last = options->first;
    return choose(options, SIM_MODE_SEED);
}

static bool parse_seeds(const char *text, struct sim_options *options, struct command_line *line)
{
    const char *end = text;
    options->random_first = false;
    options->last = UINT64_MAX;
    if (take_number(&end, &options->first) && strncmp(end, "..", 2) == 0) {
        end += 2;
        line->seeds_open = *end == '\0';
        if (line->seeds_open || (take_number(&end, &options->last) && *end == '\0' && options->last >= options->first))
            return choose(options, SIM_MODE_SEEDS);
    }
    fprintf(stderr, SIM_PROGRAM ": --seeds takes A..B with A not above B, or A..; this is neither: '%s'\n", text);
    return false;
}

static bool parse_minutes(const char *text, struct sim_options *options, struct command_line *line)
{
    double minutes;
    if (!choose(options, SIM_MODE_SEEDS) || !parse_amount("minutes", text, false, &minutes))
        return false;
    line->minutes = true;
    options->seconds = minutes * 60;
    return true;
}

static bool parse_path(const char *text, struct sim_options *options, enum sim_mode mode)
{
    options->path = text;
    return choose(options, mode);
}

/* One option; false: said why. */
static bool parse_option(int option, struct sim_options *options, struct command_line *line)
{
    switch (option) {
    case OPTION_SEED:
        return parse_seed(optarg, options);
    case OPTION_SEEDS:
        return parse_seeds(optarg, options, line);
    case OPTION_MINUTES:
        return parse_minutes(optarg, options, line);
    case OPTION_PLAN:
        return parse_path(optarg, options, SIM_MODE_PLAN);
    case OPTION_REGRESS:
        return parse_path(optarg, options, SIM_MODE_REGRESS);
    case OPTION_TRACE:
        return options->trace = true;
    case OPTION_SHRINK:
        return options->shrink = true;
    case OPTION_PRINT_PLAN:
        return options->print_plan = true;
    case OPTION_JOBS:
        line->jobs = true;
        return parse_count("jobs", optarg, RUNNER_JOBS_MAX, &options->jobs);
    case OPTION_MAX_FAILURES:
        line->failures_max = true;
        return parse_count("max-failures", optarg, 1000000, &options->failures_max);
    case OPTION_RUN_SECONDS:
        return parse_amount("run-seconds", optarg, true, &options->run_seconds);
    case OPTION_SHRINK_SECONDS:
        line->shrink_seconds = true;
        return parse_amount("shrink-seconds", optarg, false, &options->shrink_seconds);
    case OPTION_JSON:
        return options->json = true;
    case 'h':
        return line->help = true;
    default:
        return false; /* getopt_long has said why */
    }
}

static bool complain(const char *what)
{
    fprintf(stderr, SIM_PROGRAM ": %s\n", what);
    return false;
}

static bool check_together(const struct sim_options *options, const struct command_line *line)
{
    const bool many = options->mode == SIM_MODE_SEEDS || options->mode == SIM_MODE_REGRESS;
    if (options->mode == SIM_MODE_NONE)
        return complain("nothing to run: give --seed, --seeds, --minutes, --plan or --regress");
    if (line->seeds_open && !line->minutes)
        return complain("--seeds A.. has no end: give B, too, or --minutes");
    if (many && (options->trace || options->shrink || options->print_plan || line->shrink_seconds))
        return complain("--trace, --shrink, --shrink-seconds and --print-plan go with --seed or --plan");
    if (!many && (options->json || line->jobs || line->failures_max))
        return complain("--jobs, --max-failures and --json go with --seeds, --minutes or --regress");
    if (options->trace + options->shrink + options->print_plan > 1)
        return complain("--trace, --shrink and --print-plan exclude each other");
    if (line->shrink_seconds && !options->shrink)
        return complain("--shrink-seconds goes with --shrink");
    return true;
}

enum sim_parsed sim_options_parse(int argc, char **argv, struct sim_options *options)
{
    *options = (struct sim_options){
        .last = UINT64_MAX,
        .random_first = true,
        .run_seconds = RUNNER_SECONDS_MAX,
        .shrink_seconds = 60,
        .jobs = RUNNER_JOBS_EACH,
        .failures_max = 10,
    };
    struct command_line line = {0};
    bool good = true;
    int option;
    while (good && (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
        good = parse_option(option, options, &line);
    if (good && line.help) {
        fputs(help, stdout);
        return SIM_EXIT_OK;
    }
    if (good && optind < argc) {
        fprintf(stderr, SIM_PROGRAM ": unexpected argument '%s'\n", argv[optind]);
        good = false;
    }
    if (good && check_together(options, &line))
        return SIM_RUN;
    fprintf(stderr, "Try '" SIM_PROGRAM " --help'.\n");
    return SIM_EXIT_USAGE;
}
