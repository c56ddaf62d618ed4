# A task that leaves evidence of its executions, with nothing but what bash has built in: it starts
# as fast as bash does, and its life costs next to nothing.
now=$EPOCHREALTIME
file=$EVIDENCE/$MUTUAL_JOB
exec 3>>"$file"

# State and birth of a process: its id alone may have been used again.
look_at() {
    read -r line <"/proc/$1/stat" || return 1
    set -- ${line##*) }
    state=$1 birth=${20}
} 2>/dev/null

# Whether an earlier execution of this job still lives.
overlaps() {
    local what pid born
    while read -r what _ pid born _; do
        [[ $what == begin && $pid != "$$" ]] || continue
        look_at "$pid" && [[ $birth == "$born" && $state != [ZX] ]] && return 0
    done <"$file"
    return 1
}

# First say so, then look: of two that begin at once at least one sees the other.
look_at $$
echo "begin $now $$ $birth $MUTUAL_FENCE" >&3
overlaps && echo "overlap $EPOCHREALTIME $$" >&3

# A pipe that nobody writes to, to wait at.
exec 4<> <(:)
stop=$((${now/./} + DURATION_US))
while left=$((stop - ${EPOCHREALTIME/./})) && ((left > 0)); do
    ((left < BEAT_US)) || left=$BEAT_US
    printf -v pause '%d.%06d' $((left / 1000000)) $((left % 1000000))
    read -rt "$pause" -u 4
    echo "alive $EPOCHREALTIME $$" >&3
done
echo "end $EPOCHREALTIME $$" >&3
