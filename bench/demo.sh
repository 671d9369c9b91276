#!/bin/sh
# Three invented days, one after the other, and an archive of card spend, into a database that begins empty.
set -eu
deskroll=$1
DESKROLL_HOME=.deskroll/demo
export DESKROLL_HOME
unset DESKROLL_DATABASE_URL
# As root the data may lie elsewhere than in this folder, so it is the tables that are removed.
if ! said=$(echo 'DROP SCHEMA public CASCADE; CREATE SCHEMA public;' | "$deskroll" db shell 2>&1); then
    echo "$said" >&2
    exit 1
fi
day() {
    echo
    echo "\$ deskroll sync sample_data --day $1 --sync-date $2"
    "$deskroll" sync sample_data --day "$1" --sync-date "$2"
}
day day1 2026-01-05
day day2 2026-01-06
day day3 2026-01-07
day tran 2026-01-04
echo
echo "\$ deskroll status"
"$deskroll" status
echo
echo "\$ deskroll groups"
"$deskroll" groups
echo
echo "\$ deskroll agent nadia.rahal@example.com"
"$deskroll" agent nadia.rahal@example.com
echo
echo "Look around:  DESKROLL_HOME=$DESKROLL_HOME $deskroll db shell     Stop the server:  DESKROLL_HOME=$DESKROLL_HOME $deskroll db stop"
