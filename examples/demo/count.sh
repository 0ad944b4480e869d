#!/bin/sh
# Counts the words of a file, one line each, the most frequent first.
tr -s ' ' '\n' < "$1" | sort | uniq -c | sort -rn
