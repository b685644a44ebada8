/*
 * verdict.c - the story of a run, and its bad end.
 *
 * The first line of a bad end begins with "broken: " and names the promise: the shrinker tells failures apart by it.
 */
#include "verdict.h"

#include "sim_core.h"
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

bool story_on;

static void say(const char *format, va_list list)
{
    fprintf(stderr, "%14.6f  ", (double)(sim != NULL ? sim->now_ns : 0) / 1e9);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
}

void story(const char *format, ...)
{
    va_list list;
    if (!story_on)
        return;
    va_start(list, format);
    say(format, list);
    va_end(list);
}

void broken(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("broken: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    if (sim != NULL)
        sim_describe();
    fflush(stderr);
    _exit(WORLD_EXIT_BROKEN);
}
