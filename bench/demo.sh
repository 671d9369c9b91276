#!/bin/sh
# Three invented days, one after the other, and an archive of card spend, into a database that begins empty.
set -eu
rollcall=$1
ROLLCALL_HOME=.rollcall/demo
export ROLLCALL_HOME
unset ROLLCALL_DATABASE_URL
"$rollcall" db stop >/dev/null 2>&1 || true
rm -rf "$ROLLCALL_HOME"
day() {
    echo
    echo "\$ rollcall sync sample_data --day $1 --sync-date $2"
    "$rollcall" sync sample_data --day "$1" --sync-date "$2"
}
day day1 2026-01-05
day day2 2026-01-06
day day3 2026-01-07
day tran 2026-01-04
echo
echo "\$ rollcall status"
"$rollcall" status
echo
echo "\$ rollcall groups"
"$rollcall" groups
echo
echo "\$ rollcall agent nadia.rahal@example.com"
"$rollcall" agent nadia.rahal@example.com
echo
echo "Look around:  ROLLCALL_HOME=$ROLLCALL_HOME $rollcall db shell     Stop the server:  ROLLCALL_HOME=$ROLLCALL_HOME $rollcall db stop"
