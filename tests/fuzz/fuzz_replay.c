/*
 * fuzz_replay.c - runs a fuzzer over kept inputs: the main of every fuzzer that is not built with libFuzzer.
 *
 *   fuzz_frame FOLDER_OR_FILE…
 *
 * Happy path: every regular file of every folder is one input, in any order; the count is printed. The empty input is
 * always run. Failure modes: a broken property aborts, after the name of its input was printed; a folder that is
 * missing or empty is an error, for a corpus that is not there proves nothing.
 */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static char current[PATH_MAX];

/* Says which input it was; the abort goes on. */
static void aborted(int number)
{
    (void)number;
    const char text[] = "the input was: ";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, current, strlen(current));
    (void)!write(STDERR_FILENO, "\n", 1);
}

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    if (file == NULL || fstat(fileno(file), &status) != 0) {
        perror(path);
        if (file != NULL)
            fclose(file);
        return false;
    }
    const size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    FUZZ_CHECK(data != NULL);
    const bool whole = fread(data, 1, size, file) == size;
    fclose(file);
    if (whole) {
        snprintf(current, sizeof current, "%s", path);
        (void)LLVMFuzzerTestOneInput(data, size);
    } else {
        perror(path);
    }
    free(data);
    return whole;
}

/* The number of inputs run; -1 after a complaint. */
static long replay_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        perror(path);
        return -1;
    }
    long count = 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL && count >= 0; entry = readdir(dir)) {
        char name[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        count = replay_file(name) ? count + 1 : -1;
    }
    closedir(dir);
    if (count == 0)
        fprintf(stderr, "%s: no inputs\n", path);
    return count > 0 ? count : -1;
}

int main(int argc, char **argv)
{
    signal(SIGABRT, aborted);
    (void)LLVMFuzzerInitialize(&argc, &argv);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    long total = 0;
    for (int i = 1; i < argc; i++) {
        struct stat status;
        const bool folder = stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode);
        const long count = folder ? replay_folder(argv[i]) : replay_file(argv[i]) ? 1 : -1;
        if (count < 0)
            return 1;
        total += count;
    }
    printf("%ld inputs\n", total);
    return total > 0 ? 0 : 1;
}
