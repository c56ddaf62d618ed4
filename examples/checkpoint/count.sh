#!/bin/sh
# Counts to $COUNT_TO and keeps its place in $MUTUAL_CHECKPOINT_DIR, so that the next attempt goes on
# where the last acknowledged checkpoint stood instead of at 0.
set -eu

state="$MUTUAL_CHECKPOINT_DIR/count"
count=0
if [ -f "$state" ]; then
    count=$(cat "$state")
    echo "attempt $MUTUAL_ATTEMPT goes on at $count"
else
    echo "attempt $MUTUAL_ATTEMPT begins"
fi

while [ "$count" -lt "$COUNT_TO" ]; do
    sleep 0.1
    count=$((count + 1))
    echo "$count"
    # Written beside and renamed: what is saved is never half a number.
    echo "$count" > "$state.partial"
    mv "$state.partial" "$state"
done

echo "$count" > "$MUTUAL_OUTPUT/count"
