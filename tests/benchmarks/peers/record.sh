#!/bin/sh
# Debian's webhook runs this script for each authentic delivery, and answers after it has ended.
# record.sh DATABASE SQL_FILE    $BODY_FILE: the file that has the body
set -eu
exec sqlite3 -batch -bail "$1" ".timeout 30000" "PRAGMA synchronous = FULL" \
    "PRAGMA temp_store = MEMORY" ".parameter set :file \"'$BODY_FILE'\"" ".read '$2'"
