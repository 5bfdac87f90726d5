# For scripts that source it: shows that a command is at work.

# busy SENTENCE COMMAND...: shows the sentence, then a dot every two seconds. Ends the script with the
# command's exit status and output when it fails.
busy() {
    printf '%s' "$1"
    shift
    log=$(mktemp)
    # The subshell ends with this script, however that ends.
    (while sleep 2 && kill -0 $$ 2>/dev/null; do printf .; done) &
    dots=$!
    code=0
    "$@" >"$log" 2>&1 </dev/null || code=$?
    kill $dots 2>/dev/null || :
    wait $dots 2>/dev/null || :
    echo
    [ $code = 0 ] || cat "$log" >&2
    rm -f "$log"
    [ $code = 0 ] || exit $code
}
