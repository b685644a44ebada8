/*
 * glob.c - a pattern against a text, without recursion.
 *
 * Only the latest star need be remembered: when what follows it does not fit, the star takes one byte more and what
 * follows is tried again. An earlier star never has to give way, because the latest can take whatever it would.
 */
#include "node/glob.h"

/* One element of the pattern, not a star, against one byte. *next is behind the element. */
static bool element_matches(struct slice pattern, size_t at, uint8_t byte, size_t *next)
{
    const uint8_t *p = pattern.data;
    if (p[at] == '?') {
        *next = at + 1;
        return true;
    }
    if (p[at] == '\\' && at + 1 < pattern.size)
        at++;
    else if (p[at] == '[') {
        bool negated = ++at < pattern.size && p[at] == '^';
        bool found = false;
        at += negated;
        /* A list that is not closed ends with the pattern. */
        for (; at < pattern.size && p[at] != ']'; at++) {
            if (p[at] == '\\' && at + 1 < pattern.size) {
                at++;
                found |= p[at] == byte;
            } else if (at + 2 < pattern.size && p[at + 1] == '-') {
                uint8_t low = p[at], high = p[at + 2];
                found |= low <= high ? byte >= low && byte <= high : byte >= high && byte <= low;
                at += 2;
            } else {
                found |= p[at] == byte;
            }
        }
        *next = at < pattern.size ? at + 1 : at;
        return found != negated;
    }
    *next = at + 1;
    return p[at] == byte;
}

bool glob_matches(struct slice pattern, struct slice text)
{
    size_t at = 0, in = 0, next = 0;
    size_t star = SIZE_MAX, star_in = 0; /* behind the latest star, and the text that it leaves */
    while (in < text.size) {
        if (at < pattern.size && pattern.data[at] == '*') {
            star = ++at;
            star_in = in;
        } else if (at < pattern.size && element_matches(pattern, at, text.data[in], &next)) {
            at = next;
            in++;
        } else if (star != SIZE_MAX) {
            at = star;
            in = ++star_in;
        } else {
            return false;
        }
    }
    while (at < pattern.size && pattern.data[at] == '*')
        at++;
    return at == pattern.size;
}

bool glob_matches_name(struct slice pattern, const char *name)
{
    uint8_t small[GLOB_NAME_BYTES];
    if (pattern.size > sizeof(small))
        return false;
    for (size_t i = 0; i < pattern.size; i++) {
        const uint8_t byte = pattern.data[i];
        small[i] = byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
    }
    return glob_matches(slice_make(small, pattern.size), slice_text(name));
}
