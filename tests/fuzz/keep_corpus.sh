#!/bin/bash
# Adds what a run of fuzzers has found to the kept corpus, and keeps of both what is needed to reach as much.
#
#   keep_corpus.sh BUILD_FOLDER FILES_MAX [NAME…]
#
# Inputs written by hand, NAME-seed-…, stay as they are. Of the others enough are kept to reach every edge, and up to
# FILES_MAX of those that reach some edge more often than the rest. Names begin with the fuzzer's, for file names are
# unique in the repository.
set -euo pipefail

build=$(realpath "$1")
files_max=$2
shift 2
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for folder in "$build"/corpus/*/; do
        names+=("$(basename "$folder")")
    done
fi

for name in "${names[@]}"; do
    kept=$here/corpus/$name
    mkdir -p "$kept" "$work/$name-edges" "$work/$name-counts"
    for kind in edges counts; do
        counters=$([ $kind = counts ] && echo 1 || echo 0)
        "$build/fuzz_$name" -set_cover_merge=1 -detect_leaks=0 -use_counters="$counters" -max_len=4096 "$work/$name-$kind" \
            "$kept" "$build/corpus/$name" >"$work/log" 2>&1 || { tail -5 "$work/log"; exit 1; }
    done
    find "$kept" -type f ! -name '*-seed-*' -delete
    { ls "$work/$name-edges" && ls "$work/$name-counts"; } | awk -v max="$files_max" '!seen[$0]++ && kept++ < max' |
        while read -r file; do
        from=$work/$name-edges/$file
        [ -f "$from" ] || from=$work/$name-counts/$file
        cp "$from" "$kept/$name-${file:0:16}"
    done
    printf '%-14s %4d inputs kept, %s bytes, of %d edges, %d counts\n' "$name" "$(find "$kept" -type f | wc -l)" \
        "$(cat "$kept"/* | wc -c)" "$(find "$work/$name-edges" -type f | wc -l)" \
        "$(find "$work/$name-counts" -type f | wc -l)"
done
